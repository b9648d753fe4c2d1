"""Writes docs/api: the gRPC reference from the protos, the Python reference from the SDK, the CLI's from its help.

With --check changes nothing and exits 1 when a page is not current. The pages say nothing that the code does not say.
"""

import argparse
import sys
from pathlib import Path

# Run as a script from anywhere: the packages stand beside this folder.
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from reference_cli import cli_page
from reference_grpc import grpc_page
from reference_python import python_page

ROOT = Path(__file__).resolve().parent.parent
PAGES = {"docs/api/grpc.md": grpc_page, "docs/api/python.md": python_page, "docs/api/cli.md": cli_page}
NOTICE = "<!-- Made by scripts/api_reference.py from {source}; change it there. -->\n"
SOURCES = {
    "docs/api/grpc.md": "protos/kintsugi/v1",
    "docs/api/python.md": "the docstrings in kintsugi/sdk",
    "docs/api/cli.md": "kintsugi/cli",
}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="change nothing; exit 1 when a page is not current")
    check = parser.parse_args().check
    stale = []
    for name, page in PAGES.items():
        path, content = ROOT / name, NOTICE.format(source=SOURCES[name]) + page()
        if path.exists() and path.read_text("utf-8") == content:
            continue
        stale.append(name)
        if not check:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(content, "utf-8")
    for name in stale:
        print(f"not current: {name} (run `make docs`)" if check else f"updated {name}", file=sys.stderr)
    return 1 if check and stale else 0


if __name__ == "__main__":
    sys.exit(main())
