"""Generates the Python stubs from protos/ into kintsugi/, or with --check verifies that the committed ones are current."""

import argparse
import filecmp
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PROTOS = ROOT / "protos"
STUB_FOLDERS = ("kintsugi/v1", "kintsugi/internal/v1")


def generate(target: Path) -> None:
    bin_folder = Path(sys.executable).parent
    sources = sorted(str(path.relative_to(PROTOS)) for path in PROTOS.rglob("*.proto"))
    command = [
        sys.executable, "-m", "grpc_tools.protoc", "-I.",
        f"--plugin=protoc-gen-mypy={bin_folder / 'protoc-gen-mypy'}",
        f"--plugin=protoc-gen-mypy_grpc={bin_folder / 'protoc-gen-mypy_grpc'}",
        f"--python_out={target}", f"--grpc_python_out={target}", f"--mypy_out=quiet:{target}", f"--mypy_grpc_out=quiet:{target}",
        *sources,
    ]  # fmt: skip
    subprocess.run(command, cwd=PROTOS, check=True)


def stubs(root: Path) -> dict[str, Path]:
    return {
        str(path.relative_to(root)): path
        for folder in STUB_FOLDERS
        for path in sorted((root / folder).glob("*_pb2*.py*"))
        if path.suffix in {".py", ".pyi"}
    }


def stale_stubs(generated: Path) -> list[str]:
    """Names of stubs that are missing, left over or different from what the protos generate."""
    fresh, committed = stubs(generated), stubs(ROOT)
    return sorted(
        name
        for name in fresh.keys() | committed.keys()
        if name not in fresh or name not in committed or not filecmp.cmp(fresh[name], committed[name], shallow=False)
    )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--check", action="store_true", help="change nothing; exit 1 when a committed stub is not current"
    )
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        generated = Path(folder)
        generate(generated)
        stale = stale_stubs(generated)
        if arguments.check:
            for name in stale:
                print(f"not current: {name} (run `make protos`)", file=sys.stderr)
            return 1 if stale else 0
        for name in stale:
            target = ROOT / name
            if (generated / name).exists():
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(generated / name, target)
            else:
                target.unlink()
            print(f"updated {name}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
