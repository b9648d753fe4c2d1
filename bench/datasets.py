"""The vectors and queries of a run, and the exact answers to them.

Everything is written to .npy files in a folder, which the processes of the run map: nobody holds a copy in vain. A
generated set is the same for the same seed on every machine.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from bench.statistics import IdMatrix
from bench.workloads import DatasetSpec
from kintsugi.metrics import Metric
from kintsugi.tuning.truth import exact_top_k

F32Matrix = npt.NDArray[np.float32]

_BLOCK = 50_000
_NOISE = 0.05


@dataclass(frozen=True, slots=True)
class Dataset:
    """A prepared set. Document i has the id i. `truth` holds the ids of the true k nearest of each query."""

    name: str
    metric: Metric
    vectors_path: Path
    queries_path: Path
    truth: IdMatrix

    @property
    def vectors(self) -> F32Matrix:
        mapped: F32Matrix = np.load(self.vectors_path, mmap_mode="r")
        return mapped

    @property
    def queries(self) -> F32Matrix:
        loaded: F32Matrix = np.load(self.queries_path)
        return loaded


def prepare(source: DatasetSpec | Path, folder: Path, *, metric: Metric, k: int, seed: int, queries: int) -> Dataset:
    """Generates or reads the vectors, and searches them exactly. `queries` bounds how many of them are used."""
    vectors_path, queries_path = folder / "vectors.npy", folder / "queries.npy"
    if isinstance(source, DatasetSpec):
        name = source.name
        vectors, asked = generate(source, vectors_path, seed)
    else:
        name = source.name
        vectors, asked = read(source, queries)
        np.save(vectors_path, vectors)
    asked = asked[:queries]
    np.save(queries_path, asked)
    return Dataset(name, metric, vectors_path, queries_path, exact_top_k(metric, vectors, asked, k).rows)


def generate(spec: DatasetSpec, path: Path, seed: int) -> tuple[F32Matrix, F32Matrix]:
    """Unit vectors around a random subspace, whose directions matter less and less, with a little noise everywhere.
    The queries come from the same distribution and are not among the vectors."""
    random = np.random.default_rng(seed)
    weights = 1 / np.sqrt(np.arange(1, spec.intrinsic + 1))
    directions = random.standard_normal((spec.intrinsic, spec.dimension)) * weights[:, np.newaxis]

    def points(count: int) -> F32Matrix:
        inside = random.standard_normal((count, spec.intrinsic)) @ directions
        made = inside + _NOISE * random.standard_normal(inside.shape) * np.sqrt(np.sum(weights**2))
        return np.asarray(made / np.linalg.norm(made, axis=1, keepdims=True), dtype=np.float32)

    queries = points(spec.queries)
    vectors = np.lib.format.open_memmap(path, "w+", np.float32, (spec.vectors, spec.dimension))
    for start in range(0, spec.vectors, _BLOCK):
        vectors[start : start + _BLOCK] = points(min(_BLOCK, spec.vectors - start))
    vectors.flush()
    return vectors, queries


def read(path: Path, queries: int) -> tuple[F32Matrix, F32Matrix]:
    """Vectors and queries of a .npy (one matrix; its last rows become queries) or an .npz with `vectors` or `train`,
    and if it has them `queries` or `test`."""
    loaded = np.load(path)
    if isinstance(loaded, np.ndarray):
        arrays = {"vectors": loaded}
    else:
        with loaded:
            arrays = {name: loaded[name] for name in loaded.files}
    vectors = _matrix(arrays, ("vectors", "train"), path)
    if vectors is None:
        raise ValueError(f"{path} has {', '.join(arrays)}, must have vectors or train")
    asked = _matrix(arrays, ("queries", "test"), path)
    if asked is None:
        held_out = min(queries, len(vectors) // 10)
        vectors, asked = vectors[: len(vectors) - held_out], vectors[len(vectors) - held_out :]
    if not len(asked) or asked.shape[1] != vectors.shape[1]:
        raise ValueError(f"{path} has queries {asked.shape} for vectors {vectors.shape}")
    return vectors, asked


def _matrix(arrays: dict[str, npt.NDArray[np.floating]], names: tuple[str, ...], path: Path) -> F32Matrix | None:
    for name in names:
        if name in arrays:
            if arrays[name].ndim != 2:
                raise ValueError(f"{name} of {path} has {arrays[name].ndim} axes, must have 2")
            return np.ascontiguousarray(arrays[name], dtype=np.float32)
    return None
