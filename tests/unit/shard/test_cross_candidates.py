"""Candidates of two parts out of one index that holds both: asked once, and again for a part of which too little came."""

import numpy as np
import pytest
from pyroaring import BitMap64

from shard.attributes.lookup import Matches
from shard.cross_candidates import Densities, KeptParts, Parts, SharedCandidates
from shard.mixed_search import Spaces

QUERIES = np.zeros((2, 8), np.float32)


def matches(rows):
    return Matches(BitMap64(rows), 1)


class Index:
    """Gives rows in their order, and notes what it was asked for. Of 3 candidates per hit all are wanted."""

    def __init__(self, order):
        self.order = np.array(order, np.uint64)
        self.asked = []

    def usual(self, hits):
        return 12 * hits

    def enough(self, hits, rows):
        return min(3 * hits, rows)

    def broadly(self, queries, hits, count):
        self.asked.append((len(queries), count, None))
        return [self.order[: max(count, self.usual(hits))] for _ in queries]

    def find(self, queries, hits, among, *, density=1.0):
        self.asked.append((len(queries), hits, len(among)))
        return [self.order[among.contains(self.order)][: 3 * hits] for _ in queries]


def candidates(index, native, lacking, densities=None):
    parts = Parts(matches(native), matches(lacking), matches(lacking))
    return SharedCandidates(index, lambda: parts, Spaces(4), densities or Densities())


def test_parts_that_lie_mixed_are_asked_for_once():
    """One search of the graph has enough of both."""
    index = Index(range(1, 101))
    found = candidates(index, range(1, 101, 2), range(2, 101, 2)).find(QUERIES, 10, None)
    assert index.asked == [(2, 120, None)]
    assert all(np.count_nonzero(rows % 2) >= 18 for rows in found)


def test_a_part_that_lies_far_down_is_asked_for_by_itself():
    """Its rows join those of the other part, and no row comes twice."""
    index = Index(range(1, 201))
    found = candidates(index, range(151, 201), range(1, 151)).find(QUERIES, 10, None)
    assert [among for *_, among in index.asked] == [None, 50]
    for rows in found:
        assert len(set(rows.tolist())) == len(rows)
        assert np.count_nonzero(rows > 150) == 3 * 7
        assert set(range(1, 31)) <= set(rows.tolist())


def test_an_index_learns_that_one_part_lies_further_down():
    """Then it is asked more broadly at once, within bounds."""
    densities, order = (
        Densities(),
        [row for row in range(1, 301) if row % 3] + [row for row in range(1, 301) if not row % 3],
    )
    order = [*order[:40], *order[200:220], *order[40:200], *order[220:]]
    counts = []
    for _ in range(60):
        index = Index(order)
        candidates(index, range(3, 301, 3), [row for row in range(1, 301) if row % 3], densities).find(
            QUERIES, 10, None
        )
        counts.append(index.asked[0][1])
    assert counts[0] == 120 < counts[-1]
    assert max(counts) <= 240
    assert densities.of_parts[0] < 1 < densities.of_parts[1]


def test_nothing_is_asked_for_twice_where_there_is_nothing_more():
    """A part without rows needs none."""
    index = Index(range(1, 31))
    (rows, _) = candidates(index, range(1, 31), []).find(QUERIES, 10, None)
    assert rows.tolist() == list(range(1, 31))
    assert len(index.asked) == 1


class Snapshot:
    """Bitmaps by model."""

    def __init__(self, rows):
        self._rows = rows

    def rows_with(self, model):
        return Matches(self._rows[model], 1)


@pytest.mark.parametrize("changed", [1, 2])
def test_parts_are_kept_until_a_row_gets_or_loses_a_vector(changed):
    """Of either model; nothing is computed for each search."""
    rows = {1: BitMap64([1, 2, 3]), 2: BitMap64([2, 3, 4])}
    kept = KeptParts(1, 2)
    first = kept.of(Snapshot(rows))
    assert first.lacking.rows().tolist() == [4]
    assert kept.of(Snapshot(rows)) is first
    other = kept.of(Snapshot(rows | {changed: BitMap64([3, 5])}))
    assert other is not first
    assert other.lacking.rows().tolist() == ([2, 4] if changed == 1 else [5])
