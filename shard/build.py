"""Builds a new index from storage, in short steps, beside one that goes on serving.

Outline: 1. sample the stored vectors, fit the encoding; 2. add all vectors, block by block, meanwhile finding the true
best 10 of some sampled queries; 3. drop the scan codes if they cannot tell the vectors apart; 4. measure the recall of the
new index.
Invariant: changes that the journal reports from the moment the build begins must also be given to `apply`. A row read
before its change is then corrected by it; one read after it is merely written twice. Hence the built index holds
everything up to the position of whoever feeds it. Rows that came after the sample was drawn are left to `apply` altogether: a
scan that ran after them would never end while documents arrive, and would add each of them twice.
Runs on one thread, which may do other work between steps; fitting, which takes up to many seconds, has one of its own.
"""

from collections.abc import Generator, Iterator
from dataclasses import dataclass
from functools import partial

import numpy as np
import numpy.typing as npt

from kintsugi.ann.encoded_index import EncodedIndex
from kintsugi.ann.encoding import Encoding, f32
from kintsugi.ann.fitting import fit
from kintsugi.ann.spec import EncodingSpec
from kintsugi.ann.vector_index import GraphParameters, Rows
from kintsugi.metrics import FloatArray, scores
from shard.aside import Aside
from shard.checkpoint import IndexedModel, IndexVersion
from shard.code_files import CodeFiles
from shard.exact import ExactScan
from shard.rescore import Scored
from shard.source import DocumentSource

_SAMPLE_VECTORS = 10_000
_SAMPLE_ELEMENTS = 4_000_000
_CHECKED_QUERIES = 32
_CHECKED_K = 10
# Scan codes are checked on so many rows, and kept when their best 3 k hold so much of the true best k.
_CHECKED_ROWS = 10_000
_CHECKED_SCAN = 3 * _CHECKED_K
_SCAN_RECALL_ENOUGH = 0.95
# Relative: scores that differ by less are the same. A projected vector comes out a little different in another block.
_SLACK = 1e-5
# Rows given to the index between two looks at the journal.
_STEP_ROWS = 512


@dataclass(frozen=True, slots=True)
class BuildPlan:
    """What to build, and why. `fitted`: whether there are vectors enough to learn from; f32 without scan codes needs
    none."""

    number: int
    spec: EncodingSpec
    reason: str
    fitted: bool = True

    @property
    def encoding(self) -> str:
        return self.spec.name


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a build is: vectors added, of those there were when it began."""

    added: int
    wanted: int


class Build:
    """One index in the making. `step` until it returns True; then `version` is complete."""

    def __init__(
        self,
        source: DocumentSource,
        model: IndexedModel,
        plan: BuildPlan,
        parameters: GraphParameters,
        code_files: CodeFiles,
    ) -> None:
        self.plan = plan
        self._source = source
        self._model = model
        self._parameters = parameters
        self._code_files = code_files
        self._total = 0
        self._index: EncodedIndex | None = None
        self._queries: FloatArray = np.empty((0, model.dimension), dtype=np.float32)
        self._truth: ExactScan | None = None
        self._last_scanned = np.uint64(0)
        self._fitting: Aside[Encoding] | None = None
        # How long the fitting took, beside the steps.
        self.fitting_s = 0.0
        self._steps = self._run()

    def is_ready(self, timeout_s: float = 0.0) -> bool:
        """Whether a step has anything to do, at the latest after this time."""
        return self._fitting is None or self._fitting.wait(timeout_s)

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
    def progress(self) -> Progress:
        return Progress(0 if self._index is None else len(self._index), self._total)

    @property
    def version(self) -> IndexVersion:
        assert self._index is not None
        return IndexVersion(self.plan.number, self._index)

    def recall(self, version: IndexVersion) -> float:
        """The part of the sampled queries' true best that an index has among its candidates. Counts scores, not rows,
        so that equal vectors may stand in for each other."""
        if self._truth is None or not len(self._queries):
            return 1.0
        return self._found(version.index.candidates(self._queries, _CHECKED_K), self._truth.best())

    def discard(self) -> None:
        """Gives the build up, and the room that it took."""
        if self._index is not None:
            self._index.close()
        self._code_files.remove(self.plan.number)

    def _found(self, candidates: list[Rows], best: list[Scored]) -> float:
        """The part of the best that the candidates hold."""
        found = wanted = 0
        for query, rows, truth in zip(self._queries, candidates, best, strict=True):
            present, vectors = self._source.vectors(self._model.number, rows)
            values = scores(self._model.metric, query, vectors[present])
            wanted_here = min(_CHECKED_K, len(truth.scores))
            if not wanted_here:
                continue
            least = truth.scores.min()
            found += min(wanted_here, int(np.sum(values >= least - _SLACK * abs(least))))
            wanted += wanted_here
        return found / wanted if wanted else 1.0

    def _run(self) -> Iterator[int]:
        total = self._total = self._source.documents_with_vector(self._model.number)
        first_row = self._source.first_row
        sample: list[FloatArray] = []
        yield from self._sample(total, sample)
        sampled = np.concatenate([*sample, self._queries]).astype(np.float32)
        self._queries = sampled[:: max(1, len(sampled) // _CHECKED_QUERIES)][:_CHECKED_QUERIES]
        self._truth = ExactScan(self._model.metric, self._queries, _CHECKED_K)
        stem = self._code_files.stem(self.plan.number)
        encoding = yield from self._fitted(sampled, total)
        # Where there is nothing to learn from, there is little to search, too.
        dtype = self._source.stored_dtype if self.plan.fitted else None
        self._index = EncodedIndex.create(encoding, self._parameters, stem, first_row, dtype)
        del sample, sampled
        for rows, vectors in self._source.all_vectors(self._model.number):
            old = int(np.searchsorted(rows, self._last_scanned, side="right"))
            self._truth.feed(rows[:old], vectors[:old])
            for start in range(0, old, _STEP_ROWS):
                self._add_scanned(rows[start : min(start + _STEP_ROWS, old)])
                yield len(self._index)
            if old < len(rows):
                break
        self._check_scan(self._index)

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

    def _fitted(self, sampled: FloatArray, total: int) -> Generator[int, None, Encoding]:
        self._fitting = fitting = Aside(partial(self._encoding, sampled, total), f"fit-{self.plan.encoding}")
        while not fitting.wait(0.0):
            yield 0
        self._fitting, self.fitting_s = None, fitting.seconds
        return fitting.result()

    def _encoding(self, sampled: FloatArray, total: int) -> Encoding:
        metric, dimension = self._model.metric, self._model.dimension
        if not self.plan.fitted:
            return f32(metric, dimension)
        return fit(self.plan.spec, metric, dimension, sampled, total, self.plan.number)

    def _check_scan(self, index: EncodedIndex) -> None:
        """Int8 cannot tell some data apart, whatever the graph is made of. What filters leave of it is then compared
        with the stored vectors."""
        rows = np.sort(index.graph.rows())
        rows = rows[:: max(1, len(rows) // _CHECKED_ROWS)]
        candidates = index.scan_rows(self._queries, rows, _CHECKED_SCAN)
        if candidates is None:
            return
        present, vectors = self._source.vectors(self._model.number, rows)
        truth = ExactScan(self._model.metric, self._queries, _CHECKED_K)
        truth.feed(rows[present], vectors[present])
        if self._found(candidates, truth.best()) < _SCAN_RECALL_ENOUGH:
            index.drop_scan()
