"""The model test: an oracle that decides every rule again, and workers that compare a cluster with it."""
