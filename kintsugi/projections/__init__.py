"""Learned maps between the spaces of two embedding models: fitted on documents embedded with both, measured on held-out
ones, applied to queries or to stored vectors. Pure numpy: knows neither collections nor processes."""
