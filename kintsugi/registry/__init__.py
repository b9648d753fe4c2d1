"""The cluster's small shared state: what it holds (records), where it lives (store), who watches it (watch)."""
