"""The sets on which encodings are compared: real embeddings from a file, the generated set, and that set stretched to
uneven lengths for inner products. Each is written to files, which child processes map."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from bench.datasets import generate
from bench.workloads import DatasetSpec
from kintsugi.metrics import Metric
from kintsugi.tuning.ground import Ground
from kintsugi.tuning.truth import F32Matrix, Truth, exact_top_k

# Of the logarithms of lengths: the longest of 200,000 vectors is some ten times as long as the usual one.
_STRETCH = 0.5


@dataclass(frozen=True, slots=True)
class Embeddings:
    """A prepared set. `notes` is what a reader of a table must know of it."""

    name: str
    metric: Metric
    vectors: int
    dimension: int
    queries: int
    notes: str
    folder: Path

    def ground(self) -> Ground:
        """For any process: the vectors are mapped."""
        vectors: F32Matrix = np.load(self.folder / "vectors.npy", mmap_mode="r")
        truth = Truth(np.load(self.folder / "rows.npy"), np.load(self.folder / "scores.npy"))
        parts = (np.arange(len(vectors)),)
        return Ground(self.metric, vectors, np.load(self.folder / "queries.npy"), truth, parts, len(vectors))


@dataclass(frozen=True, slots=True)
class Pair:
    """Two arrays of a .npz."""

    path: Path
    documents: str
    queries: str


def from_file(pair: Pair, folder: Path, k: int, queries: int) -> Embeddings:
    """Under cosine; vectors without a direction are left out, as a collection refuses them."""
    with np.load(pair.path) as arrays:
        missing = [name for name in (pair.documents, pair.queries) if name not in arrays.files]
        if missing:
            raise ValueError(f"{pair.path.name} has {', '.join(arrays.files)}, must have {', '.join(missing)}")
        vectors = np.asarray(arrays[pair.documents], dtype=np.float32)
        asked = np.asarray(arrays[pair.queries], dtype=np.float32)
    kept, usable = vectors[vectors.any(axis=1)], asked[asked.any(axis=1)]
    left_out = len(vectors) - len(kept), len(asked) - len(usable)
    notes = f"{left_out[0]} vectors and {left_out[1]} queries of zeros left out" if any(left_out) else ""
    name = f"{pair.path.stem} {pair.documents}"
    return _written(name, Metric.COSINE, (kept, usable[:queries]), notes, folder, k)


def generated(spec: DatasetSpec, folder: Path, k: int, seed: int) -> Embeddings:
    folder.mkdir(parents=True)
    made = generate(spec, folder / "vectors.npy", seed)
    return _written(spec.name, Metric.COSINE, made, "", folder, k)


def stretched(spec: DatasetSpec, folder: Path, k: int, seed: int) -> Embeddings:
    """The generated set with lognormal lengths, of documents and queries."""
    folder.mkdir(parents=True)
    vectors, queries = generate(spec, folder / "unit.npy", seed)
    random = np.random.default_rng(seed + 1)

    def stretch(matrix: F32Matrix) -> F32Matrix:
        lengths = np.exp(_STRETCH * random.standard_normal((len(matrix), 1)))
        return np.asarray(matrix * lengths, dtype=np.float32)

    made = stretch(vectors), stretch(queries)
    (folder / "unit.npy").unlink()
    notes = f"lengths are lognormal, sigma {_STRETCH:g}"
    return _written(f"{spec.name} stretched", Metric.DOT, made, notes, folder, k)


def _written(
    name: str, metric: Metric, made: tuple[F32Matrix, F32Matrix], notes: str, folder: Path, k: int
) -> Embeddings:
    vectors, queries = made
    folder.mkdir(parents=True, exist_ok=True)
    truth = exact_top_k(metric, vectors, queries, k)
    np.save(folder / "queries.npy", queries)
    np.save(folder / "rows.npy", truth.rows)
    np.save(folder / "scores.npy", truth.scores)
    if not (folder / "vectors.npy").exists():
        np.save(folder / "vectors.npy", vectors)
    count, dimension = vectors.shape
    return Embeddings(name, metric, count, dimension, len(queries), notes, folder)


def all_of(
    pairs: list[Pair], specs: list[DatasetSpec], folder: Path, k: int, queries: int, seed: int
) -> Iterator[Embeddings]:
    """Prepared one by one, as they are asked for."""
    for number, pair in enumerate(pairs):
        yield from_file(pair, folder / f"file-{number}", k, queries)
    for spec in specs:
        yield generated(spec, folder / spec.name, k, seed)
        yield stretched(spec, folder / f"{spec.name}-stretched", k, seed)
