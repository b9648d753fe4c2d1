"""The gRPC servicers: they parse, call and build, and decide nothing."""
