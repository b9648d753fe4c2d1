"""`python -m kintsugi.cli` is `kintsugi`."""

from kintsugi.cli.main import main

main()
