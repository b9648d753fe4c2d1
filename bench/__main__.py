"""`python -m bench`. Children are spawned and import this module again, hence the guard."""

import sys

from bench.cli import main

if __name__ == "__main__":
    sys.exit(main())
