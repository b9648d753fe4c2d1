"""Import a .npy file of any size, so that it may be interrupted, and search it.

The file is mapped, not loaded. Row numbers become the ids, or those of NAME.ids.npy beside NAME.npy. A state file beside
it says how far the import is: when this program is stopped half-way, the same command goes on from there.

    python examples/import_npy.py [--file vectors.npy] [ADDRESS...]
"""

import argparse
import tempfile
from pathlib import Path

import numpy as np

from kintsugi import Client, Model

COLLECTION = "import-npy"


def main(file: Path, addresses: list[str]) -> None:
    rows = np.load(file, mmap_mode="r")
    count, dimension = rows.shape

    with Client(addresses) as client:
        client.create_collection(COLLECTION, Model("my-model", dimension=dimension))

        # On a terminal this draws a progress bar.
        imported = client.bulk_import(COLLECTION, file)
        print(f"imported {imported.applied} of {count} rows, {imported.refused} refused")

        middle = count // 2
        found = client.search(COLLECTION, rows[middle], k=3, at_least=imported.token)
        print(f"nearest to row {middle}: {[hit.id for hit in found]}")

        client.delete_collection(COLLECTION)


def make_file(folder: str) -> Path:
    """Something to import for those who have no file at hand."""
    path = Path(folder) / "vectors.npy"
    np.save(path, np.random.default_rng(3).normal(size=(5000, 48)).astype(np.float32))
    return path


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--file", type=Path)
    parser.add_argument("addresses", nargs="*", default=["127.0.0.1:7700"])
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        main(given.file or make_file(folder), given.addresses)
