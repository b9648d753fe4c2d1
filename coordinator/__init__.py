"""The coordinator process: admits, plans, fans out and merges searches; validates and logs writes. Stateless."""
