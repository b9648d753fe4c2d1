"""The frame of a command that prints a table: its command line, and how what it found is published."""

import argparse
from pathlib import Path
from typing import Any

from bench.origin import save
from bench.results import RESULTS


def parser(name: str, story: str | None, example: str = "", *, smoke: bool = True) -> argparse.ArgumentParser:
    """Of `python -m bench NAME`. `story` is its module's docstring, whose first paragraph describes it; `smoke`: it has a tiny
    form, which tells whether it works."""
    made = argparse.ArgumentParser(
        prog=f"python -m bench {name}",
        description=(story or "").split("\n\n")[0],
        epilog=f"example:\n  python -m bench {name} {example}" if example else None,
        formatter_class=argparse.RawDescriptionHelpFormatter if example else argparse.HelpFormatter,
    )
    if smoke:
        made.add_argument("--smoke", action="store_true", help="tiny sets: tells whether the bench works, no more")
    made.add_argument("--output", type=Path, default=RESULTS, metavar="DIR", help="default: bench/results/local")
    return made


def publish(folder: Path, name: str, report: Any, text: str) -> Path:
    """Prints the text of a report, a dataclass with its `origin`, saves both and says where. Returns the path of the JSON."""
    print(text)
    path = save(folder, name, report.origin, report, text)
    print(f"\nwritten to {path}")
    return path
