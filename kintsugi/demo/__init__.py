"""The product shown on real input: the documentation of the standard library."""
