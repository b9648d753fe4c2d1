"""Which reader a file gets."""

from collections.abc import Callable
from pathlib import Path

from kintsugi.errors import InvalidArgument
from kintsugi.sdk.files.arrays import open_arrays
from kintsugi.sdk.files.lines import open_lines
from kintsugi.sdk.files.parquet import open_parquet
from kintsugi.sdk.files.source import ImportSource

_READERS: dict[str, Callable[[Path], ImportSource]] = {
    ".npy": open_arrays,
    ".npz": open_arrays,
    ".jsonl": open_lines,
    ".parquet": open_parquet,
}
SUFFIXES = tuple(_READERS)


def open_source(path: Path) -> ImportSource:
    """Opens a file of documents by its suffix. Raises InvalidArgument when it is none."""
    reader = _READERS.get(path.suffix)
    if reader is None:
        raise InvalidArgument("file", f"is {path.name}", f"must end with {', '.join(SUFFIXES)}")
    if not path.is_file():
        raise InvalidArgument("file", f"{path} does not exist or is no file")
    return reader(path)
