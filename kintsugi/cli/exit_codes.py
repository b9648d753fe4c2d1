"""What the exit code of a command says to a script. docs/cli.md tells it to people."""

EXIT_DONE = 0
EXIT_FAILED = 1
EXIT_USAGE = 2
# Only of `kintsugi status`: it could ask, and what it heard is not well.
EXIT_DEGRADED = 3
EXIT_FAILING = 4
EXIT_INTERRUPTED = 130
