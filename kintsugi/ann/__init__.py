"""Approximate nearest neighbours in memory: how vectors are encoded, and the graph over their codes. Knows rows and vectors,
neither documents nor journals nor processes, so that shard servers and the tuner measure and run the same code."""
