"""What the cluster tests share: an oracle of acknowledged writes, writers, searchers, and damage to processes and Redis."""
