"""gRPC between all processes: errors, channels, the life of a server."""
