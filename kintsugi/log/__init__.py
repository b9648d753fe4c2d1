"""The log of a shard: one Redis stream, its chain of digests, appending, reading, rebuilding."""
