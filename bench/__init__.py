"""Measures a cluster of real processes beside the raw engine. `python -m bench --help`, and README.md, say how."""
