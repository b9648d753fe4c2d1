"""Generated stubs: see protos/ and `make protos`."""
