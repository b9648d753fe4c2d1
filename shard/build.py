"""Builds a new index from storage, in short steps, beside one that goes on serving.

Outline: 1. sample the stored vectors, calibrate; 2. add all vectors, block by block, meanwhile finding the true best
10 of some sampled queries; 3. measure the recall of the new index on them.
Invariant: changes that the journal reports from the moment the build begins must also be given to `apply`. A row read
before its change is then corrected by it; one read after it is merely written twice. Hence the built index holds
everything up to the position of whoever feeds it. Rows that came after the sample was drawn are left to `apply` altogether: a
scan that ran after them would never end while documents arrive, and would add each of them twice.
Runs on one thread, which may do other work between steps.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from kintsugi.ann.calibration import calibrate
from kintsugi.ann.encoding import F32, I8, Encoding, prepare
from kintsugi.ann.vector_index import GraphParameters, Rows, VectorIndex
from kintsugi.metrics import FloatArray, scores
from shard.checkpoint import IndexedModel, IndexVersion
from shard.exact import ExactScan
from shard.source import DocumentSource

_SAMPLE_VECTORS = 10_000
_SAMPLE_ELEMENTS = 4_000_000
_CHECKED_QUERIES = 32
_CHECKED_K = 10
# Rows given to the index between two looks at the journal.
_STEP_ROWS = 512


@dataclass(frozen=True, slots=True)
class BuildPlan:
    """What to build, and why. `calibrated`: int8, else full precision."""

    number: int
    calibrated: bool
    reason: str

    @property
    def encoding(self) -> str:
        return "i8" if self.calibrated else "f32"


class Build:
    """One index in the making. `step` until it returns True; then `version` is complete."""

    def __init__(
        self, source: DocumentSource, model: IndexedModel, plan: BuildPlan, parameters: GraphParameters
    ) -> None:
        self.plan = plan
        self._source = source
        self._model = model
        self._parameters = parameters
        self._index: VectorIndex | None = None
        self._queries: FloatArray = np.empty((0, model.dimension), dtype=np.float32)
        self._truth: ExactScan | None = None
        self._last_scanned = np.uint64(0)
        self._steps = self._run()

    def step(self) -> bool:
        """Does a little work, and tells whether the build is done."""
        return next(self._steps, None) is None

    def apply(self, present: Rows, vectors: FloatArray, gone: Rows) -> None:
        """Takes a change that happened since the build began."""
        if self._index is None:
            # Nothing has been scanned yet: the scan will see the change.
            self._scan_up_to(present)
            return
        self._index.remove(gone)
        self._index.add(present, vectors)

    @property
    def version(self) -> IndexVersion:
        assert self._index is not None
        return IndexVersion(self.plan.number, self._index)

    def recall(self, version: IndexVersion) -> float:
        """The part of the sampled queries' true best that an index has among its candidates. Counts scores, not rows,
        so that equal vectors may stand in for each other."""
        if self._truth is None or not len(self._queries):
            return 1.0
        index = version.index
        candidates = index.search(self._queries, int(_CHECKED_K * index.encoding.oversampling))
        found = wanted = 0
        for query, rows, truth in zip(self._queries, candidates, self._truth.best(), strict=True):
            present, vectors = self._source.vectors(self._model.number, rows)
            values = scores(self._model.metric, query, vectors[present])
            wanted_here = min(_CHECKED_K, len(truth.scores))
            found += min(wanted_here, int(np.sum(values >= truth.scores.min(initial=np.inf))))
            wanted += wanted_here
        return found / wanted if wanted else 1.0

    def _run(self) -> Iterator[int]:
        total = self._source.documents_with_vector(self._model.number)
        sample: list[FloatArray] = []
        yield from self._sample(total, sample)
        sampled = np.concatenate([*sample, self._queries]).astype(np.float32)
        self._queries = sampled[:: max(1, len(sampled) // _CHECKED_QUERIES)][:_CHECKED_QUERIES]
        self._truth = ExactScan(self._model.metric, self._queries, _CHECKED_K)
        self._index = VectorIndex(self._encoding(sampled, total), self._model.dimension, self._parameters)
        del sample, sampled
        for rows, vectors in self._source.all_vectors(self._model.number):
            old = int(np.searchsorted(rows, self._last_scanned, side="right"))
            self._truth.feed(rows[:old], vectors[:old])
            for start in range(0, old, _STEP_ROWS):
                self._add_scanned(rows[start : min(start + _STEP_ROWS, old)])
                yield len(self._index)
            if old < len(rows):
                return

    def _add_scanned(self, rows: Rows) -> None:
        """Adds a piece of a scanned block. Reads it again: since the block was read, `apply` may have taken newer
        vectors, which must not be undone."""
        assert self._index is not None
        present, vectors = self._source.vectors(self._model.number, rows)
        self._index.add(rows[present], vectors[present])

    def _sample(self, total: int, sample: list[FloatArray]) -> Iterator[int]:
        wanted = min(_SAMPLE_VECTORS, max(1000, _SAMPLE_ELEMENTS // self._model.dimension))
        chosen_part = min(1.0, wanted / max(1, total))
        # Seeded by the version: the same build of the same data gives the same index.
        random = np.random.default_rng(self.plan.number)
        for rows, vectors in self._source.all_vectors(self._model.number):
            chosen: npt.NDArray[np.bool_] = random.random(len(rows)) < chosen_part
            sample.append(vectors[chosen])
            self._scan_up_to(rows)
            yield 0

    def _scan_up_to(self, rows: Rows) -> None:
        self._last_scanned = rows.max(initial=self._last_scanned)

    def _encoding(self, sampled: FloatArray, total: int) -> Encoding:
        metric = self._model.metric
        if not self.plan.calibrated:
            return F32(metric)
        return I8(metric, calibrate(prepare(metric, sampled), max(total, len(sampled))))
