"""Hits of many queries in columns, and their exact merge into one top-k per query. Pure numpy. Groups: see grouping.

Best first, equal scores in the order of ids, so the order does not depend on which shard answered first. Knows nothing
about shards or RPC beyond the column messages.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from kintsugi import columns
from kintsugi.errors import Internal, InvalidArgument
from kintsugi.filters.tree import Value
from kintsugi.filters.wire import value_message, value_of_message
from kintsugi.ids import DocId
from kintsugi.internal.v1 import shard_pb2
from kintsugi.v1 import search_pb2, types_pb2

IndexArray: TypeAlias = npt.NDArray[np.int64]
BoolArray: TypeAlias = npt.NDArray[np.bool_]

NONE_PROJECTED: BoolArray = np.empty(0, np.bool_)


@dataclass(frozen=True, slots=True)
class Ids:
    """Ids of both kinds in order. `numbers` holds an integer id itself, or the place of a string id in `texts`."""

    numbers: columns.U64Array
    is_text: BoolArray
    texts: Sequence[str]

    @classmethod
    def of_column(cls, column: types_pb2.IdColumn) -> "Ids":
        """Trusts the column to be well-formed: shards are our own."""
        integers = columns.unpack_u64(column.integers, "ids.integers")
        texts = list(column.texts)
        if not texts:
            return cls(integers, np.zeros(len(integers), np.bool_), texts)
        if not column.kinds:
            return cls(np.arange(len(texts), dtype=np.uint64), np.ones(len(texts), np.bool_), texts)
        is_text = np.frombuffer(column.kinds, np.uint8) == 1
        numbers = np.empty(len(is_text), np.uint64)
        numbers[~is_text] = integers
        numbers[is_text] = np.arange(len(texts))
        return cls(numbers, is_text, texts)

    def column(self) -> types_pb2.IdColumn:
        texts = [self.texts[place] for place in self.numbers[self.is_text].tolist()]
        mixed = 0 < len(texts) < len(self.numbers)
        return types_pb2.IdColumn(
            integers=columns.pack_u64(self.numbers[~self.is_text]),
            texts=texts,
            kinds=self.is_text.astype(np.uint8).tobytes() if mixed else b"",
        )

    def decoded(self) -> list[DocId]:
        if not self.texts:
            numbers: list[DocId] = self.numbers.tolist()
            return numbers
        return [
            self.texts[number] if text else number
            for number, text in zip(self.numbers.tolist(), self.is_text.tolist(), strict=True)
        ]

    def take(self, rows: IndexArray | slice) -> "Ids":
        return Ids(self.numbers[rows], self.is_text[rows], self.texts)


def union(parts: Sequence[Ids], most: int) -> Ids:
    """Each id once, in the order of the parts, at most so many."""
    together = _concatenate_ids(parts)
    first: dict[DocId, int] = {}
    for place, doc_id in enumerate(together.decoded()):
        first.setdefault(doc_id, place)
    return together.take(np.fromiter(first.values(), np.int64, len(first))[:most])


def _concatenate_ids(parts: Sequence[Ids]) -> Ids:
    texts: list[str] = []
    if not any(part.texts for part in parts):
        together = np.concatenate([part.numbers for part in parts])
        return Ids(together, np.zeros(len(together), np.bool_), texts)
    numbers = []
    for part in parts:
        numbers.append(part.numbers + np.where(part.is_text, len(texts), 0).astype(np.uint64))
        texts.extend(part.texts)
    return Ids(np.concatenate(numbers), np.concatenate([part.is_text for part in parts]), texts)


@dataclass(frozen=True, slots=True)
class Hits:
    """`counts` has one entry per query; the other columns hold the hits of the first query, then of the second, ...
    `attributes`, `bodies` (the source texts) and `groups` are empty when not asked for, `projected` when no hit is."""

    counts: IndexArray
    ids: Ids
    scores: columns.F64Array
    versions: columns.U64Array
    attributes: Sequence[str] = ()
    bodies: Sequence[str] = ()
    groups: Sequence[Value] = ()
    projected: BoolArray = field(default_factory=lambda: NONE_PROJECTED)

    def __len__(self) -> int:
        return len(self.scores)

    def slice_queries(self, start: int, stop: int) -> "Hits":
        """The hits of the queries from `start` to before `stop`."""
        first, last = int(self.counts[:start].sum()), int(self.counts[:stop].sum())
        rows = slice(first, last)
        return Hits(
            self.counts[start:stop],
            self.ids.take(rows),
            self.scores[rows],
            self.versions[rows],
            self.attributes[rows],
            self.bodies[rows],
            self.groups[rows],
            self.projected[rows],
        )

    def batch_response(
        self, model: str, coverage: types_pb2.Coverage, projected_model: str = "", unmigrated: Ids | None = None
    ) -> search_pb2.SearchBatchResponse:
        any_projected = bool(self.projected.any())
        return search_pb2.SearchBatchResponse(
            counts=self.counts.tolist(),
            ids=self.ids.column(),
            scores=columns.pack_f64(self.scores),
            versions=columns.pack_u64(self.versions),
            attributes=self.attributes,
            texts=self.bodies,
            model=model,
            coverage=coverage,
            groups=map(value_message, self.groups),
            projected=self.projected.astype(np.uint8).tobytes() if any_projected else b"",
            projected_model=projected_model if any_projected else "",
            unmigrated=None if unmigrated is None else unmigrated.column(),
        )

    def response(
        self, model: str, coverage: types_pb2.Coverage, projected_model: str = "", unmigrated: Ids | None = None
    ) -> search_pb2.SearchResponse:
        """The friendly form, for the hits of a single query."""
        projected = self.projected.tolist() or [False] * len(self)
        hits = [
            search_pb2.Hit(
                id=columns.pack_id(doc_id),
                score=score,
                version=version,
                model=projected_model if projected[i] else model,
                projected=projected[i],
                attributes=self.attributes[i] if self.attributes else "",
                text=self.bodies[i] if self.bodies else "",
                group=value_message(self.groups[i]) if self.groups else None,
            )
            for i, (doc_id, score, version) in enumerate(
                zip(self.ids.decoded(), self.scores.tolist(), self.versions.tolist(), strict=True)
            )
        ]
        told = None if unmigrated is None else unmigrated.column()
        return search_pb2.SearchResponse(hits=hits, coverage=coverage, unmigrated=told)


def from_shard(response: shard_pb2.ShardSearchResponse, queries: int, *, grouped: bool = False) -> Hits:
    """Decodes a shard's answer. Raises Internal when its columns do not fit each other."""
    try:
        hits = Hits(
            np.fromiter(response.counts, np.int64, len(response.counts)),
            Ids.of_column(response.ids),
            columns.unpack_f64(response.scores, "scores"),
            columns.unpack_u64(response.versions, "versions"),
            list(response.attributes),
            list(response.texts),
            list(map(value_of_message, response.groups)),
            np.frombuffer(response.projected, np.uint8) == 1 if response.projected else NONE_PROJECTED,
        )
    except (InvalidArgument, ValueError) as error:
        raise Internal(f"a shard answered malformed columns: {error}") from error
    total = sum(response.counts)
    lengths = {len(hits.ids.numbers), len(hits.scores), len(hits.versions)}
    lengths |= {len(column) for column in (hits.attributes, hits.bodies, hits.projected) if len(column)}
    if grouped:
        lengths.add(len(hits.groups))
    if len(hits.counts) != queries or lengths != {total}:
        raise Internal(
            f"a shard answered {queries} queries with {len(hits.counts)} counts of {total} hits, "
            f"but columns of {sorted(lengths)}"
        )
    return hits


@dataclass(frozen=True, slots=True)
class Pool:
    """The hits of all parts together, each with its query."""

    queries: int
    query: IndexArray
    ids: Ids
    scores: columns.F64Array
    versions: columns.U64Array
    attributes: Sequence[str]
    bodies: Sequence[str]
    groups: Sequence[Value]
    projected: BoolArray

    @classmethod
    def of(cls, parts: Sequence[Hits]) -> "Pool":
        """At least one part; every part answers the same queries."""
        queries = len(parts[0].counts)
        return cls(
            queries,
            _queries_of(parts),
            _concatenate_ids([part.ids for part in parts]),
            np.concatenate([part.scores for part in parts]),
            np.concatenate([part.versions for part in parts]),
            [value for part in parts for value in part.attributes],
            [value for part in parts for value in part.bodies],
            [value for part in parts for value in part.groups],
            _concatenate_flags(parts),
        )

    def ranked(self, min_score: float | None = None) -> IndexArray:
        """The rows of at least this score by query, then score from the best, then id."""
        order = _order(self.query, self.scores, self.ids)
        return order if min_score is None else order[self.scores[order] >= min_score]

    def take(self, rows: IndexArray) -> Hits:
        """The hits of these rows, which stand in the order of the queries."""
        places = rows.tolist()
        return Hits(
            np.bincount(self.query[rows], minlength=self.queries),
            self.ids.take(rows),
            self.scores[rows],
            self.versions[rows],
            [self.attributes[place] for place in places] if self.attributes else (),
            [self.bodies[place] for place in places] if self.bodies else (),
            [self.groups[place] for place in places] if self.groups else (),
            self.projected[rows] if len(self.projected) else NONE_PROJECTED,
        )


def _queries_of(parts: Sequence[Hits]) -> IndexArray:
    queries = len(parts[0].counts)
    if queries == 1:
        return np.zeros(sum(map(len, parts)), np.int64)
    return np.concatenate([np.repeat(np.arange(queries), part.counts) for part in parts])


def _concatenate_flags(parts: Sequence[Hits]) -> BoolArray:
    if not any(len(part.projected) for part in parts):
        return NONE_PROJECTED
    none = (np.zeros(len(part), np.bool_) for part in parts)
    return np.concatenate(
        [part.projected if len(part.projected) else zeros for part, zeros in zip(parts, none, strict=True)]
    )


def merge(parts: Sequence[Hits], k: int, *, offset: int = 0, min_score: float | None = None) -> Hits:
    """The hits from `offset` to before `offset + k` of at least this score, exactly, per query, out of at least one part.

    Every part answers the same queries with its `offset + k` best hits, best first."""
    if len(parts) == 1 and not offset and min_score is None:
        return parts[0]
    pool = Pool.of(parts)
    rows = pool.ranked(min_score)
    if pool.queries == 1:
        return pool.take(rows[offset : offset + k])
    place = places_within(pool.query[rows])
    return pool.take(rows[(place >= offset) & (place < offset + k)])


def places_within(runs: IndexArray) -> IndexArray:
    """For each entry of an array whose equal entries stand together: how many like it stand before it."""
    starts = np.flatnonzero(np.diff(runs, prepend=-1))
    lengths = np.diff(starts, append=len(runs))
    return np.arange(len(runs)) - np.repeat(starts, lengths)


def _order(query: IndexArray, scores: columns.F64Array, ids: Ids) -> IndexArray:
    """The rows by query, then score from the best, then id."""
    if not ids.texts:
        return np.lexsort((ids.numbers, -scores, query))
    order: IndexArray = np.lexsort((ids.numbers, ids.is_text, -scores, query))
    # `numbers` of string ids are mere places: put runs of equal scores among strings in the order of their bytes.
    texts, ordered_query, ordered_scores = ids.is_text[order], query[order], scores[order]
    same = texts[1:] & texts[:-1]
    same &= (ordered_query[1:] == ordered_query[:-1]) & (ordered_scores[1:] == ordered_scores[:-1])
    edges = np.flatnonzero(np.diff(np.concatenate(([0], same.astype(np.int8), [0]))))
    for start, end in edges.reshape(-1, 2).tolist():
        run = order[start : end + 1]
        order[start : end + 1] = sorted(run.tolist(), key=lambda row: ids.texts[int(ids.numbers[row])].encode())
    return order
