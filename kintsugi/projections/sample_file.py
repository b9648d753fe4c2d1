"""Reads a sample of two models from files: a .npz of vectors, and a .json of which documents answer which query.

Whatever is in the files, the result is a sample that fits its collection, or InvalidArgument names the array at fault.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeAlias
from zipfile import BadZipFile

import msgspec
import numpy as np

from kintsugi.errors import InvalidArgument
from kintsugi.metrics import FloatArray, Metric
from kintsugi.projections.sample import PairedSample

Relevant: TypeAlias = list[list[int]]


class _Judged(msgspec.Struct):
    relevant: Relevant


_RELEVANT = msgspec.json.Decoder(Relevant | _Judged)


def read_sample(
    vectors: Path, relevance: Path | None, metric: Metric, old_dimension: int, new_dimension: int
) -> PairedSample:
    """`vectors` has old_documents and new_documents, and optionally old_queries and new_queries. `relevance` is a list per query
    of places of documents, or an object whose `relevant` is one."""
    try:
        with np.load(vectors, allow_pickle=False) as arrays:
            old, new = (_matrix(arrays, name, size) for name, size in (
                ("old_documents", old_dimension), ("new_documents", new_dimension)
            ))  # fmt: skip
            queries = [_matrix(arrays, name, size) if name in arrays else None for name, size in (
                ("old_queries", old_dimension), ("new_queries", new_dimension)
            )]  # fmt: skip
    except (ValueError, OSError, BadZipFile) as error:
        raise InvalidArgument("sample", f"{vectors} cannot be read as .npz: {error}") from error
    try:
        return PairedSample(metric, old, new, queries[0], queries[1], relevant=_relevant(relevance))
    except ValueError as error:
        raise InvalidArgument("sample", f"{vectors}: {error}") from error


def _matrix(arrays: Mapping[str, Any], name: str, dimension: int) -> FloatArray:
    field = f"sample.{name}"
    if name not in arrays:
        raise InvalidArgument(field, "is not in the file", "must be an n x d array")
    found: FloatArray = arrays[name]
    if found.dtype.kind != "f" or found.ndim != 2 or found.shape[1] != dimension:
        shape = " x ".join(map(str, found.shape))
        raise InvalidArgument(field, f"is {shape} of {found.dtype}", f"must be n x {dimension} floats")
    if not np.isfinite(found).all():
        raise InvalidArgument(field, "has an element that is not finite")
    return found


def _relevant(path: Path | None) -> list[frozenset[int]]:
    if path is None:
        return []
    try:
        read = _RELEVANT.decode(path.read_bytes())
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise InvalidArgument("relevance", f"{path} cannot be read: {error}") from error
    relevant = read.relevant if isinstance(read, _Judged) else read
    if any(place < 0 for places in relevant for place in places):
        raise InvalidArgument("relevance", "names a document below 0", "must name places in the sample")
    return [frozenset(places) for places in relevant]
