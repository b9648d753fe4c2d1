"""Finds what is wrong with a cluster and its surroundings, and says what to do."""
