"""Generated parts of documents: what stands between `<!-- generated: NAME -->` and `<!-- end: NAME -->` is a program's.

Knows nothing of what the parts say; state_diagrams.py and settings_tables.py do.
"""

import argparse
import sys
from collections.abc import Mapping
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def replaced(text: str, name: str, content: str) -> str:
    """The document with the part `name` made new. ValueError when the document does not have exactly one such part."""
    begin, end = f"<!-- generated: {name} -->\n", f"<!-- end: {name} -->"
    if text.count(begin) != 1 or text.count(end) != 1:
        raise ValueError(f"document must hold {begin.strip()} and {end} once each")
    before, _, rest = text.partition(begin)
    _, _, after = rest.partition(end)
    return f"{before}{begin}{content.strip()}\n{end}{after}"


def run(description: str, document: str, parts: Mapping[str, str]) -> int:
    """The command line of a generator: rewrites the document, or with --check says whether it is current."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--check", action="store_true", help="change nothing; exit 1 when the document is not current")
    check = parser.parse_args().check
    path = ROOT / document
    before = path.read_text("utf-8")
    after = before
    for name, content in parts.items():
        after = replaced(after, name, content)
    if after == before:
        return 0
    if check:
        print(f"not current: {document} (run `{Path(sys.argv[0]).name}`)", file=sys.stderr)
        return 1
    path.write_text(after, "utf-8")
    print(f"updated {document}")
    return 0
