"""Reads the vectors of candidates from the index's own file, as long as that holds the state of the documents that is read.

The file is the index's, which follows the documents: it is right for a snapshot only if the index held exactly the
snapshot's state before the candidates were found, and has not changed since. It is asked after the vectors were gathered; if it
has changed, they are read from the snapshot instead. Knows nothing of how the index follows.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from kintsugi.ann.encoded_index import EncodedIndex
from kintsugi.ann.row_codes import RowCodes
from kintsugi.ann.vector_index import Rows
from kintsugi.filters.tree import Filter
from kintsugi.metrics import FloatArray
from shard.attributes.lookup import Matches
from shard.reader import Fields, HitColumns
from shard.source import DocumentsSnapshot, Mask


@dataclass(frozen=True, slots=True, eq=False)
class Steady:
    """A state that an index holds exactly: `seq` is that of its last record."""

    seq: int
    index: EncodedIndex


class SteadySnapshot:
    """A snapshot of the documents whose vectors of one model come from a file, for rows that have one. `is_steady` tells
    whether the index is still in the snapshot's state."""

    def __init__(
        self, snapshot: DocumentsSnapshot, model: int, vectors: RowCodes, is_steady: Callable[[], bool]
    ) -> None:
        self._snapshot = snapshot
        self._model = model
        self._vectors = vectors
        self._is_steady = is_steady

    @property
    def seq(self) -> int:
        return self._snapshot.seq

    def vectors(self, model: int, rows: Rows) -> tuple[Mask, FloatArray]:
        if model == self._model and self._is_steady():
            gathered: FloatArray = self._vectors.gather(rows)
            if self._is_steady():
                return np.ones(len(rows), dtype=np.bool_), gathered
        return self._snapshot.vectors(model, rows)

    def match(self, condition: Filter) -> Matches:
        return self._snapshot.match(condition)

    def rows_with(self, model: int) -> Matches:
        return self._snapshot.rows_with(model)

    def hits(self, rows: Rows, fields: Fields) -> HitColumns:
        return self._snapshot.hits(rows, fields)
