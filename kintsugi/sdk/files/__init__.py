"""Files of documents: what is imported and exported."""
