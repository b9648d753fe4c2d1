"""Kintsugi: a sharded vector search cluster that changes embedding models while it serves."""
