"""What the SDK takes and gives back: frozen values, numpy arrays for everything that is long.

Pure: knows nothing of protobuf or RPC. Arrays in results are the reader's own and may be changed.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from pathlib import Path
from typing import Any, Literal, TypeAlias

import numpy as np
import numpy.typing as npt

from kintsugi.filters.tree import Value
from kintsugi.ids import DocId

Attributes: TypeAlias = Mapping[str, Any]
UintArray: TypeAlias = npt.NDArray[np.uint64]
FloatArray: TypeAlias = npt.NDArray[np.floating]

MetricName: TypeAlias = Literal["cosine", "dot", "l2"]
StoredName: TypeAlias = Literal["f32", "f16"]
AcknowledgementName: TypeAlias = Literal["logged", "durable", "searchable"]


class Outcome(StrEnum):
    """What became of one item of a write."""

    APPLIED = "applied"
    """Written, to the level of the acknowledgement asked for."""
    REFUSED = "refused"
    """Not written, for good: its condition did not hold or it is malformed."""
    NOT_WRITTEN = "not-written"
    """Not written; it may be sent again."""
    UNKNOWN = "unknown"
    """It could not be learnt in time: repeat the call with the same request id."""


@dataclass(frozen=True, slots=True)
class Model:
    """An embedding model version: the contract that makes vectors comparable. `dimension` is 1 to 8192."""

    name: str
    dimension: int
    revision: str = ""
    metric: MetricName | None = None
    normalised: bool = False
    query_prefix: str = ""
    document_prefix: str = ""
    pooling: str = ""


@dataclass(frozen=True, slots=True)
class Collection:
    """A collection as it stands. `serving_model` is meant by requests that name no model. `encoding` is how vectors are
    held in memory, such as "i8", "binary", "recurrent-2" or "i8+pca-96", "auto" for Kintsugi's choice; `oversampling` its
    searches' candidates per hit, 0 for the encoding's own; `encoding_requests` how often an encoding was asked for."""

    name: str
    uid: str
    shards: int
    replicas: int
    metric: MetricName
    models: tuple[Model, ...]
    stored: StoredName
    serving_model: str
    created_at: datetime
    encoding: str = "auto"
    oversampling: float = 0.0
    encoding_requests: int = 0


@dataclass(frozen=True, slots=True)
class ModelCoverage:
    """The documents of the answering shards that have a current vector of this model."""

    model: str
    documents: int


@dataclass(frozen=True, slots=True)
class ShardFailure:
    """Why a shard did not answer: a gRPC status name and a sentence."""

    shard: int
    code: str
    message: str


@dataclass(frozen=True, slots=True)
class Coverage:
    """What part of a collection a search really saw."""

    shards_total: int
    shards_answered: int
    documents_total: int
    documents_covered: int
    models: tuple[ModelCoverage, ...] = ()
    failures: tuple[ShardFailure, ...] = ()

    @property
    def complete(self) -> bool:
        return self.shards_answered == self.shards_total


@dataclass(frozen=True, slots=True)
class Hit:
    """One document found. `attributes` and `text` are None unless asked for; a document without text has ''. `group`: the
    value it is grouped by, None without group_by. `model`: whose stored vector was scored. `projected`: it is not that of the
    model that was searched, the score was projected or calibrated."""

    id: DocId
    score: float
    version: int
    model: str
    attributes: Attributes | None = None
    text: str | None = None
    group: Value | None = None
    projected: bool = False


@dataclass(frozen=True, slots=True)
class SearchResult:
    """The answer to one query: at most k hits, best first, equal scores in the order of ids. With group_by: the hits of at
    most k groups, one group after the other from the best, each with its hits best first. `unmigrated`: with tell_unmigrated,
    candidates that lack a vector of the model that was searched."""

    hits: tuple[Hit, ...]
    coverage: Coverage
    unmigrated: tuple[DocId, ...] = ()

    def __iter__(self) -> Iterator[Hit]:
        return iter(self.hits)

    def __len__(self) -> int:
        return len(self.hits)


@dataclass(frozen=True, slots=True, eq=False)
class BatchResult:
    """The answers to n queries as columns of n rows, best hits first; `width` is the largest number of hits of a query.

    `counts` (n, int64): the hits of each query. Cells from counts[i] on are padding: id 0 or None, score NaN, version 0.
    `ids` (n x width): uint64 when all ids are integers, else objects (int or str).
    `scores` (n x width): float64. `versions` (n x width): uint64.
    `attributes`, `texts`, `groups`: per query a tuple of one entry per hit, or None unless asked for.
    `projected` (n x width, bool): see Hit. `projected_model`: the model of those hits, '' when there are none.
    `unmigrated`: as in SearchResult, for all queries together.
    """

    counts: npt.NDArray[np.int64]
    ids: npt.NDArray[Any]
    scores: npt.NDArray[np.float64]
    versions: UintArray
    model: str
    coverage: Coverage
    attributes: tuple[tuple[Attributes, ...], ...] | None = None
    texts: tuple[tuple[str, ...], ...] | None = None
    groups: tuple[tuple[Value, ...], ...] | None = None
    projected: npt.NDArray[np.bool_] = field(default_factory=lambda: np.empty((0, 0), np.bool_))
    projected_model: str = ""
    unmigrated: tuple[DocId, ...] = ()

    def __len__(self) -> int:
        return len(self.counts)

    def hits(self, query: int) -> tuple[Hit, ...]:
        """The hits of one query as objects."""
        projected = self.projected[query].tolist() if len(self.projected) else [False] * int(self.counts[query])
        return tuple(
            Hit(
                id=document_id(self.ids[query, place]),
                score=float(self.scores[query, place]),
                version=int(self.versions[query, place]),
                model=self.projected_model if projected[place] else self.model,
                projected=projected[place],
                attributes=self.attributes[query][place] if self.attributes is not None else None,
                text=self.texts[query][place] if self.texts is not None else None,
                group=self.groups[query][place] if self.groups is not None else None,
            )
            for place in range(self.counts[query])
        )


@dataclass(frozen=True, slots=True, eq=False)
class WriteResult:
    """What became of the n items of a write, in the order of the call.

    `versions` (n, uint64): the document version after the write; 0 when not applied, deleted or not known ("logged").
    `found` (n, bool): for deletes, whether there was such a document; true for upserts that were applied.
    `messages`: for people, why an item was not applied; '' otherwise.
    `token`: give it as `at_least` to a read that must see this write.
    """

    outcomes: tuple[Outcome, ...]
    versions: UintArray
    found: npt.NDArray[np.bool_]
    messages: tuple[str, ...]
    token: bytes
    request_id: str

    @property
    def applied(self) -> int:
        """How many items were applied."""
        return self.outcomes.count(Outcome.APPLIED)

    @property
    def settled(self) -> bool:
        """Whether every item is applied or refused for good."""
        return all(outcome in (Outcome.APPLIED, Outcome.REFUSED) for outcome in self.outcomes)


@dataclass(frozen=True, slots=True)
class DeletedByFilter:
    """What a delete by filter did. `changed` documents fulfilled the filter, but were rewritten or deleted by somebody else
    meanwhile, and were left alone. `more`: the limit ended it, documents that fulfil the filter may be left. `token`: give
    it as `at_least` to a read that must see the deletes; those of calls that failed in the middle are not in it."""

    deleted: int
    changed: int
    more: bool
    token: bytes


@dataclass(frozen=True, slots=True)
class UnappliedItem:
    """An item of a bulk upsert that was not applied; `index` is its place in the call."""

    index: int
    id: DocId
    outcome: Outcome
    message: str


@dataclass(frozen=True, slots=True, eq=False)
class BulkResult:
    """What became of a bulk upsert of n items.

    `versions` (n, uint64): as in WriteResult. `unapplied`: the items that were not applied, in the order of the call.
    `resumed`: how many times the stream broke and was continued. `token`: sees all writes of the call.
    """

    items: int
    versions: UintArray
    unapplied: tuple[UnappliedItem, ...]
    token: bytes
    chunks: int
    resumed: int
    elapsed_s: float

    @property
    def applied(self) -> int:
        """How many items were applied."""
        return self.items - len(self.unapplied)


@dataclass(frozen=True, slots=True)
class ImportResult:
    """What became of a bulk import, over all of its runs.

    `rejects` names the file with the items that were refused, None when there are none. `resumed_at` is the place at
    which this run began, 0 for the first one. `token` sees all writes. `elapsed_s` is of this run.
    """

    items: int
    applied: int
    refused: int
    resumed_at: int
    rejects: Path | None
    token: bytes
    elapsed_s: float


@dataclass(frozen=True, slots=True)
class ExportResult:
    """What a bulk export wrote, over all of its runs. `skipped` documents have no vector of the model and stand in no
    file; `resumed_at` documents were there when this run began, and `elapsed_s` is of this run."""

    files: tuple[Path, ...]
    documents: int
    skipped: int
    resumed_at: int
    elapsed_s: float


@dataclass(frozen=True, slots=True, eq=False)
class Document:
    """A document as it is read back. `attributes`, `text` and `vectors` are None unless asked for; `vectors` holds
    one array of `dimension` elements, in the stored number format, per model."""

    id: DocId
    version: int
    written_at: datetime
    attributes: Attributes | None = None
    text: str | None = None
    vectors: Mapping[str, FloatArray] | None = None


@dataclass(frozen=True, slots=True, eq=False)
class GetResult:
    """The documents that exist, in the order of the ids asked for, and the ids that do not."""

    documents: tuple[Document, ...]
    missing: tuple[DocId, ...] = ()

    def __iter__(self) -> Iterator[Document]:
        return iter(self.documents)

    def __len__(self) -> int:
        return len(self.documents)


@dataclass(frozen=True, slots=True, eq=False)
class Page:
    """A page of documents in the order of their ids; `next_token` is b'' after the last page."""

    documents: tuple[Document, ...]
    next_token: bytes


@dataclass(frozen=True, slots=True)
class AcceptedLoss:
    """What a recovery gives up: the shard servers it no longer waits for; writes after `kept_seq` are lost."""

    given_up_members: tuple[str, ...]
    kept_seq: int
    message: str


def document_id(value: Any) -> DocId:
    """A plain int or str from a cell of a numpy column; anything else as it is, for the check to refuse."""
    if isinstance(value, np.integer):
        return int(value)
    if isinstance(value, np.str_):
        return str(value)
    return value  # type: ignore[no-any-return]
