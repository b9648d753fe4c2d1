"""Reads query vectors from a file, for those who know what their collection is asked."""

from pathlib import Path

import numpy as np

from kintsugi.errors import InvalidArgument
from kintsugi.metrics import Metric
from kintsugi.tuning.truth import F32Matrix

_ARRAYS = ("queries", "vectors")


def read_queries(path: Path, dimension: int, metric: Metric, most: int, seed: int) -> F32Matrix:
    """At most so many rows of a .npy (n x d), or of `queries` or `vectors` in a .npz, drawn at random."""
    try:
        loaded = np.load(path)
        if not isinstance(loaded, np.ndarray):
            with loaded:
                name = next((name for name in _ARRAYS if name in loaded.files), None)
                if name is None:
                    raise InvalidArgument("queries-file", f"{path} has {', '.join(loaded.files)}", "must have queries")
                loaded = loaded[name]
    except (OSError, ValueError) as error:
        raise InvalidArgument("queries-file", f"{path} cannot be read: {error}", "must be .npy or .npz") from error
    if loaded.ndim != 2 or loaded.shape[1] != dimension or not len(loaded):
        raise InvalidArgument("queries-file", f"{path} has shape {loaded.shape}", f"must be n x {dimension}")
    chosen = np.random.default_rng(seed).permutation(len(loaded))[:most]
    queries = np.asarray(loaded[np.sort(chosen)], dtype=np.float32)
    usable = np.isfinite(queries).all(axis=1)
    if metric is Metric.COSINE:
        usable &= queries.any(axis=1)
    if not usable.all():
        raise InvalidArgument("queries-file", f"{path} has {np.count_nonzero(~usable)} vectors that cannot be searched "
                              "for", "must be finite, and not zero under cosine")  # fmt: skip
    return queries
