"""Where the query vector of a search comes from: typed numbers, a file, a stored document, or a text and a command.

The command for texts is the user's own: it reads the text on stdin and prints the vector as JSON.
"""

import json
import shlex
import subprocess
from pathlib import Path

import numpy as np
import numpy.typing as npt

from kintsugi.cli.connection import parse_id
from kintsugi.errors import FailedPrecondition, InvalidArgument, NotFound
from kintsugi.sdk.blocking import Client
from kintsugi.sdk.files.opening import open_source
from kintsugi.sdk.files.source import Cursor
from kintsugi.sdk.importing import dimension_of
from kintsugi.sdk.types import Collection, FloatArray

_EMBED_TIMEOUT_S = 120.0
_SHOWN_CHARACTERS = 300


def parse_vector(text: str) -> npt.NDArray[np.float32]:
    """A vector as people type it: numbers between commas or blanks, in brackets or not."""
    try:
        return np.array([float(part) for part in text.strip("[] \n").replace(",", " ").split()], dtype=np.float32)
    except ValueError as error:
        raise InvalidArgument("vector", f"is {text[:60]!r}", "must be numbers separated by commas") from error


def parse_named(text: str) -> tuple[str, npt.NDArray[np.float32]]:
    """A model's name and a vector, as people type them: "old=0.1, 0.2"."""
    name, sign, numbers = text.partition("=")
    if not name.strip() or not sign:
        raise InvalidArgument("also", f"is {text[:60]!r}", "must be MODEL=NUMBERS")
    return name.strip(), parse_vector(numbers)


def of_file(path: Path, row: int, collection: Collection, model: str) -> FloatArray:
    """One row of a file of vectors; a .npy may also hold the one vector alone."""
    if path.suffix == ".npy":
        try:
            alone = np.load(path, mmap_mode="r", allow_pickle=False)
        except (ValueError, EOFError, OSError) as error:
            raise InvalidArgument("file", f"{path} cannot be read: {error}") from error
        if alone.ndim == 1 and alone.dtype.kind in "fiu":
            return np.asarray(alone, dtype=np.float32)
    first = 0
    for batch in open_source(path).read(Cursor(), 1000, dimension_of(collection, model or collection.serving_model)):
        if row in batch.places:
            return np.asarray(batch.vectors[list(batch.places).index(row)])
        for rejected in batch.rejected:
            if rejected.place == row:
                raise InvalidArgument("file", f"{path} {rejected.where}: {rejected.message}")
        first = batch.next.place
    raise InvalidArgument("row", f"is {row}", f"must be 0 to {first - 1}")


def of_document(client: Client, collection: Collection, document: str, model: str) -> FloatArray:
    """The vector of a stored document."""
    wanted = model or collection.serving_model
    for found in client.get(collection.name, [parse_id(document)], vectors=True):
        if found.vectors and wanted in found.vectors:
            return found.vectors[wanted]
        raise NotFound(f"document {document} has no vector of model {wanted}")
    raise NotFound(f"document {document} does not exist in collection {collection.name}")


def of_text(command: str, text: str, collection: Collection, model: str) -> FloatArray:
    """Runs the command on the text, behind the prefix that the model wants before queries."""
    wanted = model or collection.serving_model
    prefix = next((known.query_prefix for known in collection.models if known.name == wanted), "")
    try:
        done = subprocess.run(  # noqa: S603 -- the user's own command
            shlex.split(command),
            input=(prefix + text).encode(),
            capture_output=True,
            timeout=_EMBED_TIMEOUT_S,
            check=False,
        )
    except (OSError, ValueError, IndexError) as error:
        raise InvalidArgument("embed", f"is {command!r}, which does not run: {error}") from error
    except subprocess.TimeoutExpired as error:
        raise FailedPrecondition(f"the embed command did not end within {_EMBED_TIMEOUT_S:g} s: {command}") from error
    if done.returncode:
        said = done.stderr.decode(errors="replace").strip()[-_SHOWN_CHARACTERS:]
        raise FailedPrecondition(f"the embed command exited with status {done.returncode}: {said or command}")
    return _parse_json(done.stdout)


def _parse_json(printed: bytes) -> FloatArray:
    """A list of numbers, or a list that holds one such list, as batching embedders print."""
    try:
        vector = np.array(json.loads(printed), dtype=np.float32)
    except (ValueError, TypeError) as error:
        shown = printed.decode(errors="replace").strip()[:_SHOWN_CHARACTERS]
        raise FailedPrecondition(
            f"the embed command must print a JSON list of numbers, it printed {shown!r}"
        ) from error
    if vector.ndim == 2 and len(vector) == 1:
        vector = vector[0]
    if vector.ndim != 1 or not len(vector):
        raise FailedPrecondition(f"the embed command must print one vector, it printed an array of {vector.shape}")
    return vector
