"""The shard server process: hosts replicas, replays their logs into LMDB and usearch, answers searches."""
