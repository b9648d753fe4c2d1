"""The best groups out of the hits of many shards. Pure.

A group is as good as its best hit. Wanted are the k best groups with the `size` best hits of each. A shard gives its own k
best groups with its own `size` best hits of each, and that decides a part of the answer:

1. The k best groups and the best hit of each are among what the shards gave. Let G be one of them and h its best hit, on
   shard s. Had s not given h, it would have given k other groups whose best hits are better than h: k groups would be better
   than G. So with a `size` of 1 the merge is exact.
2. The further hits of G may be missing: G may be one of the k best for its best hit on another shard, while s gave k groups
   that are better than G is on s. But then no hit of G on s is better than the worst of the k groups that s gave. So s
   misses nothing when it gave hits of G (its `size` best), when it gave fewer than k groups (all it has), or when `size`
   hits of G are known that are better than the worst group of s.
3. Otherwise s is asked once more, for G alone (`unsettled` says of whom to ask what). With those answers merged, all hits of
   the k groups are known that can be among their `size` best.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np

from coordinator.merge import Hits, IndexArray, Pool, places_within
from kintsugi.filters.tree import Value

# True and 1.0 are different groups, although Python takes them for equal.
_Group: TypeAlias = tuple[type, Value]


@dataclass(frozen=True, slots=True)
class Unsettled:
    """Groups of one query of which these shards may hold hits that they did not give."""

    query: int
    values: tuple[Value, ...]
    shards: frozenset[int]


def merge_groups(parts: Sequence[Hits], k: int, size: int, min_score: float | None = None) -> Hits:
    """Per query the k best groups, one after the other, each with its `size` best hits. A document counts once."""
    pool = Pool.of(parts)
    rows = _first_of_each_document(pool, pool.ranked(min_score))
    numbers: dict[tuple[int, type, Value], int] = {}
    queries, groups = pool.query[rows].tolist(), map(pool.groups.__getitem__, rows.tolist())
    # Groups are numbered in the order of their best hits: by query, then from the best.
    named = [(query, type(value), value) for query, value in zip(queries, groups, strict=True)]
    group = np.array([numbers.setdefault(name, len(numbers)) for name in named], np.int64)
    rank = places_within(np.array([query for query, _, _ in numbers], np.int64))
    together = np.argsort(group, kind="stable")
    rows, group = rows[together], group[together]
    return pool.take(rows[(rank[group] < k) & (places_within(group) < size)])


def unsettled(parts: Mapping[int, Hits], merged: Hits, k: int, size: int) -> list[Unsettled]:
    """What the shards must be asked for again. `parts` by shard."""
    if size == 1 or len(parts) == 1:
        return []
    found = []
    for query in range(len(merged.counts)):
        given_by = {shard: _scores_of_groups(part, query) for shard, part in parts.items()}
        values: dict[_Group, None] = {}
        shards = set()
        for group, scores in _scores_of_groups(merged, query).items():
            enough = scores[size - 1] if len(scores) >= size else -np.inf
            for shard, given in given_by.items():
                if group not in given and len(given) >= k and enough <= min(best[0] for best in given.values()):
                    values[group] = None
                    shards.add(shard)
        if values:
            found.append(Unsettled(query, tuple(value for _, value in values), frozenset(shards)))
    return found


def placed(hits: Hits, query: int, queries: int) -> Hits:
    """The answer to one query alone as a part of the answer to all of them."""
    counts = np.zeros(queries, np.int64)
    counts[query] = len(hits)
    return Hits(counts, hits.ids, hits.scores, hits.versions, hits.attributes, hits.bodies, hits.groups, hits.projected)


def _scores_of_groups(hits: Hits, query: int) -> dict[_Group, list[float]]:
    """The scores of one query's hits by group, each best first."""
    one = hits.slice_queries(query, query + 1)
    scores: dict[_Group, list[float]] = {}
    for value, score in zip(one.groups, one.scores.tolist(), strict=True):
        scores.setdefault((type(value), value), []).append(score)
    return scores


def _first_of_each_document(pool: Pool, rows: IndexArray) -> IndexArray:
    """A document whose group changes while shards are asked a second time may be given twice."""
    queries, doc_ids = pool.query[rows].tolist(), pool.ids.take(rows).decoded()
    first: dict[object, int] = {}
    for place, name in enumerate(zip(queries, doc_ids, strict=True)):
        first.setdefault(name, place)
    return rows if len(first) == len(rows) else rows[np.fromiter(first.values(), np.int64, len(first))]
