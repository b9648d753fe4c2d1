"""Documents of a real database handed out for re-embedding."""

from dataclasses import replace

import numpy as np
import pytest

from kintsugi import columns, limits
from kintsugi.errors import StalePlan
from kintsugi.internal.v1 import shard_pb2
from kintsugi.metrics import Metric
from kintsugi.registry.records import Collection, Model
from shard.heat import HALF_LIFE_S, Hits
from shard.next_documents import Backfill
from shard.search_call import SearchCall, ShardHits

MODELS = (Model(1, "old", 4, Metric.COSINE), Model(2, "new", 4, Metric.COSINE))


def collection(shards=1):
    return Collection("uid", "docs", shards, 1, Metric.COSINE, "f32", MODELS, "old", 0)


class Clock:
    def __init__(self):
        self.now = 0.0

    def __call__(self):
        return self.now


def pull(backfill, limit=100, first=(), model="new", shards=1):
    request = shard_pb2.NextShardDocumentsRequest(
        model=model, limit=limit, lease_s=60, first=columns.pack_ids(list(first))
    )
    return backfill.next(collection(shards), None, request)


def told(answer):
    return [(columns.unpack_id(one.id, "id"), one.version, one.text) for one in answer.documents]


def hits_of(rows, lacking=(), projected=()):
    """What a search found: one hit per row."""
    flags = np.array([row in projected for row in rows], dtype=bool)
    return ShardHits(
        [len(rows)], [b"x"] * len(rows), np.zeros(len(rows)), rows, [], [], 5, 5, 1,
        projected=flags, lacking=np.array(lacking, dtype=np.uint64),
    )  # fmt: skip


@pytest.fixture
def filled(open_storage, memory_log):
    """Five documents without a vector of the new model."""
    storage = open_storage()
    for number in range(1, 6):
        storage.apply(memory_log.put(number, text=f"text {number}", attributes=b'{"n":1}'))
    return storage, memory_log


def test_documents_come_with_their_text_and_version(filled):
    """What a worker needs to embed a document, and to put its vector back."""
    storage, _ = filled
    answer = pull(Backfill(storage), limit=2)
    assert told(answer) == [(1, 1, "text 1"), (2, 2, "text 2")]
    assert answer.documents[0].attributes == '{"n":1}'
    assert answer.remaining == 5


def test_what_was_embedded_remains_no_more(filled):
    """A document with a new vector is not handed out, one that was rewritten is."""
    storage, log = filled
    backfill = Backfill(storage)
    first = pull(backfill)
    assert len(first.documents) == 5
    for document in first.documents:
        storage.apply(log.embed(document.id.integer, document.version))
    assert (told(pull(backfill)), pull(backfill).remaining) == ([], 0)
    storage.apply(log.put(3, text="new words"))
    again = pull(backfill)
    assert [(doc_id, text) for doc_id, _, text in told(again)] == [(3, "new words")]
    assert again.remaining == 1


def test_searched_and_wanted_documents_come_first(filled):
    """The asker's wish, then what searches asked for; deleted documents are no trouble."""
    storage, log = filled
    backfill = Backfill(storage)
    rows = storage.hits(np.arange(0, 20, dtype=np.uint64)).rows
    backfill.observe(2, SearchCall(np.zeros((1, 4), np.float32), 10), hits_of(rows, lacking=rows[[3, 4]]))
    storage.apply(log.delete(4))
    assert [doc_id for doc_id, _, _ in told(pull(backfill, first=[2, 77, 4]))] == [2, 5, 1, 3]


def test_large_documents_are_cut_and_come_next(open_storage, memory_log):
    """An answer keeps to the replica's part of a message, and the rest waits for no lease."""
    storage = open_storage()
    for number in range(1, 10):
        storage.apply(memory_log.put(number, text="x" * limits.MAX_TEXT_BYTES))
    backfill = Backfill(storage)
    sizes = [len(pull(backfill, shards=16).documents) for _ in range(3)]
    assert sizes == [3, 3, 3]


def test_a_limit_of_none_counts_only(filled):
    """What remains is told without a lease."""
    storage, _ = filled
    backfill = Backfill(storage)
    assert (told(pull(backfill, limit=0)), pull(backfill, limit=0).remaining) == ([], 5)
    assert len(pull(backfill).documents) == 5


def test_each_model_has_a_queue_of_its_own(filled):
    """After a rollback documents are handed out to the old model, whatever is leased for the new one."""
    storage, log = filled
    backfill = Backfill(storage)
    assert len(pull(backfill).documents) == 5
    assert pull(backfill, model="old").remaining == 0
    assert log.position.seq == 5


def test_leases_follow_the_clock(filled):
    """Nothing is handed out twice within a lease; behind it everything is."""
    storage, _ = filled
    clock = Clock()
    backfill = Backfill(storage, clock=clock)
    assert [len(pull(backfill).documents), len(pull(backfill).documents)] == [5, 0]
    clock.now = 60.0
    assert len(pull(backfill).documents) == 5


def test_hits_of_recent_searches_are_counted(filled):
    """How many had a vector of their own; older ones fade, and what the replica asks itself does not count."""
    clock = Clock()
    backfill = Backfill(filled[0], clock=clock)
    rows, call = np.arange(1, 6, dtype=np.uint64), SearchCall(np.zeros((1, 4), np.float32), 10)
    for _ in range(8):
        backfill.observe(2, call, hits_of(rows, projected=[1, 2]))
    backfill.observe(2, replace(call, is_live=False), hits_of(rows))
    assert backfill.traffic(2) == Hits(24, 40)
    assert backfill.traffic(1) == Hits(0, 0)
    clock.now = HALF_LIFE_S
    assert backfill.traffic(2) == Hits(12, 20)


def test_a_model_that_is_not_known_here_is_a_stale_plan(filled):
    """The coordinator has a newer registry than this server."""
    storage, _ = filled
    with pytest.raises(StalePlan, match="no model newest here yet"):
        pull(Backfill(storage), model="newest")
