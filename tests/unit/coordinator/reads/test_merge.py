"""The merge of shards' hits equals sorting them all together."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from coordinator import merge
from coordinator.merge import Hits, Ids
from kintsugi import columns, ids
from kintsugi.errors import Internal
from kintsugi.internal.v1 import shard_pb2
from kintsugi.v1.filters_pb2 import AttributeValue

DOC_ID = st.one_of(st.integers(0, 40), st.integers(2**64 - 5, 2**64 - 1), st.text("aé\0z", min_size=1, max_size=3))
HIT = st.tuples(DOC_ID, st.sampled_from([-1.0, 0.0, -0.0, 0.5, 2.0]))


def make_hits(per_query):
    """Hits from one list of (id, score) per query, sorted as a shard sorts them."""
    ordered = [sorted(hits, key=lambda hit: (-hit[1], ids.order_key(hit[0]))) for hits in per_query]
    flat = [hit for hits in ordered for hit in hits]
    return Hits(
        np.array([len(hits) for hits in ordered], np.int64),
        Ids.of_column(columns.pack_ids([doc_id for doc_id, _ in flat])),
        np.array([score for _, score in flat], np.float64),
        np.arange(len(flat), dtype=np.uint64),
        [f"a{doc_id!r}" for doc_id, _ in flat],
        [f"t{doc_id!r}" for doc_id, _ in flat],
    )


@st.composite
def shard_lists(draw):
    """Per query, unique hits spread over shards; hits[shard][query]."""
    shards, queries = draw(st.integers(1, 4)), draw(st.integers(1, 3))
    hits = [[[] for _ in range(queries)] for _ in range(shards)]
    for query in range(queries):
        for hit in draw(st.lists(HIT, unique_by=lambda hit: hit[0], max_size=12)):
            hits[draw(st.integers(0, shards - 1))][query].append(hit)
    return hits


@given(shard_lists(), st.integers(1, 8))
def test_merging_equals_sorting_everything(hits, k):
    """For every query, the merge is the first k of all hits by score, then id, with each hit's own columns."""
    parts = [make_hits([query[:] for query in shard]) for shard in hits]
    parts = [cut(part, k) for part in parts]
    merged = merge.merge(parts, k)
    found = iter(zip(merged.ids.decoded(), merged.scores.tolist(), merged.attributes, merged.bodies, strict=True))
    for query, count in enumerate(merged.counts.tolist()):
        union = sorted((h for shard in hits for h in shard[query]), key=lambda h: (-h[1], ids.order_key(h[0])))[:k]
        expected = [(doc_id, score, f"a{doc_id!r}", f"t{doc_id!r}") for doc_id, score in union]
        assert [next(found) for _ in range(count)] == expected
    assert next(found, None) is None


@given(shard_lists(), st.integers(1, 4), st.integers(0, 6), st.sampled_from([None, -0.5, 0.0, 0.5, 3.0]))
def test_a_page_is_a_slice_of_everything(hits, k, offset, min_score):
    """For every query, the hits from the offset on of all those that score enough, though shards cut theirs."""
    parts = [cut(make_hits([query[:] for query in shard]), offset + k) for shard in hits]
    merged = merge.merge(parts, k, offset=offset, min_score=min_score)
    found = iter(zip(merged.ids.decoded(), merged.scores.tolist(), strict=True))
    for query, count in enumerate(merged.counts.tolist()):
        union = sorted((h for shard in hits for h in shard[query]), key=lambda h: (-h[1], ids.order_key(h[0])))
        enough = [hit for hit in union if min_score is None or hit[1] >= min_score]
        assert [next(found) for _ in range(count)] == enough[offset : offset + k]
    assert next(found, None) is None


def cut(part, k):
    """What a shard sends: at most k hits per query."""
    rows = []
    start = 0
    for count in part.counts.tolist():
        rows += range(start, start + min(count, k))
        start += count
    rows = np.array(rows, np.int64)
    return Hits(
        np.minimum(part.counts, k),
        part.ids.take(rows),
        part.scores[rows],
        part.versions[rows],
        [part.attributes[row] for row in rows],
        [part.bodies[row] for row in rows],
    )


@given(shard_lists())
def test_slices_of_queries_add_up(hits):
    """Splitting an answer between the waiters of a message loses and mixes nothing."""
    part = make_hits(hits[0])
    slices = [part.slice_queries(query, query + 1) for query in range(len(part.counts))]
    assert [doc_id for one in slices for doc_id in one.ids.decoded()] == part.ids.decoded()
    assert [text for one in slices for text in one.bodies] == list(part.bodies)


@given(st.lists(DOC_ID, unique=True, max_size=10))
def test_ids_survive_the_way_through_columns(doc_ids):
    """Columns in and out of the merge's own form are the same."""
    column = columns.pack_ids(doc_ids)
    assert Ids.of_column(column).column() == column
    assert Ids.of_column(column).decoded() == doc_ids


@pytest.mark.parametrize(
    "changes",
    [{"counts": [1]}, {"counts": [2, 2]}, {"scores": bytes(8)}, {"scores": bytes(7)}, {"texts": ["only one"]}],
)
def test_columns_that_do_not_fit_are_a_defect(changes):
    """A malformed answer of a shard is INTERNAL, never a wrong result."""
    response = shard_pb2.ShardSearchResponse(
        counts=[1, 2], ids=columns.pack_ids([1, 2, 3]), scores=bytes(24), versions=bytes(24)
    )
    assert len(merge.from_shard(response, 2)) == 3
    for name, value in changes.items():
        response.ClearField(name)
        if isinstance(value, bytes):
            setattr(response, name, value)
        else:
            getattr(response, name).extend(value)
    with pytest.raises(Internal):
        merge.from_shard(response, 2)


@pytest.mark.parametrize("groups", [[], [AttributeValue(number=1)], [AttributeValue()] * 3])
def test_groups_that_do_not_fit_are_a_defect(groups):
    """Every hit of a grouped search has a group."""
    response = shard_pb2.ShardSearchResponse(
        counts=[1, 2], ids=columns.pack_ids([1, 2, 3]), scores=bytes(24), versions=bytes(24), groups=groups
    )
    with pytest.raises(Internal):
        merge.from_shard(response, 2, grouped=True)
