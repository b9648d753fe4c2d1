"""A fair sample of a collection, its queries and its parts."""

from datetime import UTC, datetime

import numpy as np
import pytest

from kintsugi import ids
from kintsugi.metrics import Metric
from kintsugi.sdk.types import Document, GetResult, Page
from kintsugi.tuning.ground import held_out, prepare
from kintsugi.tuning.sampling import draw

WRITTEN = datetime(2026, 11, 21, tzinfo=UTC)


class Collection:
    """Documents in memory, with the calls of the client. `gone`: deleted between being listed and being read."""

    def __init__(self, count, *, without_vector=0, gone=()):
        self.documents = {
            i: Document(
                i, 1, WRITTEN, vectors=None if i < without_vector else {"m": np.array([i, 1.0], dtype=np.float32)}
            )
            for i in range(count)
        }
        self.gone = gone
        self.read = 0

    def count(self, collection):
        return len(self.documents)

    def scroll_page(self, collection, page_token, limit, *, vectors=False):
        start = int(page_token or b"0")
        page = tuple(self.documents.values())[start : start + limit]
        self.read += len(page) if vectors else 0
        return Page(page, b"%d" % (start + limit) if start + limit < len(self.documents) else b"")

    def get(self, collection, asked, *, vectors=False):
        self.read += len(asked)
        return GetResult(tuple(self.documents[i] for i in asked if i not in self.gone), ())


def ignore(_done):
    pass


def test_a_small_collection_is_taken_whole():
    """Then nothing needs to be extrapolated."""
    sample = draw(Collection(2500), "c", "m", 2500, 1, ignore)
    assert sorted(sample.ids) == list(range(2500))
    assert sample.is_whole
    assert all(vector[0] == doc_id for doc_id, vector in zip(sample.ids, sample.vectors, strict=True))


def test_a_large_collection_is_sampled_evenly():
    """Every tenth of the ids gives about a tenth of the sample; only the sample's vectors are read."""
    source = Collection(20_000)
    sample = draw(source, "c", "m", 1000, 1, ignore)
    assert (len(set(sample.ids)), source.read, sample.collection_vectors) == (1000, 1000, 20_000)
    assert not sample.is_whole
    by_tenth = np.bincount(np.array(sample.ids) // 2000, minlength=10)
    assert by_tenth.min() > 65
    assert by_tenth.max() < 140


def test_the_sample_is_in_random_order():
    """So that its first part is a fair sample too, and any documents of it may serve as queries."""
    sample = draw(Collection(4000), "c", "m", 1000, 1, ignore)
    assert abs(np.mean(sample.ids[:200]) - 2000) < 350


def test_a_seed_draws_the_same_sample_again():
    """And another one another."""
    first, again, other = (draw(Collection(5000), "c", "m", 300, seed, ignore) for seed in (1, 1, 2))
    assert first.ids == again.ids
    assert set(first.ids) != set(other.ids)


def test_documents_without_a_vector_are_left_out_and_not_counted():
    """They are in no index; in a sample they are as frequent as in the collection."""
    assert draw(Collection(1000, without_vector=400), "c", "m", 1000, 1, ignore).collection_vectors == 600
    sampled = draw(Collection(10_000, without_vector=4000), "c", "m", 2000, 1, ignore)
    assert sampled.collection_vectors == pytest.approx(6000, rel=0.05)
    assert len(sampled.ids) == pytest.approx(1200, rel=0.1)


def test_documents_deleted_meanwhile_do_not_stop_it():
    """A tuning is no reason to stop writing."""
    sample = draw(Collection(5000, gone=set(range(0, 5000, 2))), "c", "m", 1000, 1, ignore)
    assert all(doc_id % 2 for doc_id in sample.ids)


def test_progress_counts_every_document_looked_at():
    """Those listed, and those read again with their vectors."""
    done = []
    draw(Collection(5000), "c", "m", 1000, 1, done.append)
    assert sum(done) == 6000


def test_queries_are_documents_that_are_not_searched():
    """Each would else find itself."""
    rest, queries = held_out(draw(Collection(1000), "c", "m", 1000, 1, ignore), 100)
    assert (len(rest.ids), queries.shape, rest.collection_vectors, rest.is_whole) == (900, (100, 2), 900, True)
    assert not set(rest.ids) & set(queries[:, 0].astype(int))


def test_a_whole_collection_is_split_as_its_shards_split_it():
    """By the hash of the ids."""
    sample = draw(Collection(1000), "c", "m", 1000, 1, ignore)
    ground = prepare(sample, sample.vectors[:3], metric=Metric.DOT, shards=3, k=5)
    assert ground.is_whole
    for shard, part in enumerate(ground.parts):
        assert all(ids.shard_of(sample.ids[place], 3) == shard for place in part)
    assert sum(map(len, ground.parts)) == 1000


@pytest.mark.parametrize(("shards", "parts"), [(1, 1), (4, 1), (20, 2), (100, 10)])
def test_a_sample_is_split_into_parts_about_as_large_as_shards(shards, parts):
    """A thousand of ten thousand documents; never into more than would be as large, so that each has a graph to lose
    neighbours in."""
    sample = draw(Collection(10_000), "c", "m", 1000, 1, ignore)
    ground = prepare(sample, sample.vectors[:3], metric=Metric.DOT, shards=shards, k=5)
    assert len(ground.parts) == parts
    assert ground.shard_vectors == 10_000 // shards
    assert ground.is_whole == (shards >= 20)


def test_a_ground_is_reduced_evenly_and_has_its_own_truth():
    """A quarter of each part, whose neighbours are those among what is left."""
    sample = draw(Collection(1000), "c", "m", 1000, 1, ignore)
    ground = prepare(sample, np.array([[1.0, 0.0]], dtype=np.float32), metric=Metric.DOT, shards=2, k=5)
    small = ground.reduced(0.25)
    assert len(small.vectors) == pytest.approx(250, abs=2)
    assert [len(part) for part in small.parts] == [round(len(part) / 4) for part in ground.parts]
    assert small.truth.scores[0].tolist() == np.sort(small.vectors[:, 0])[::-1][:5].tolist()


def test_a_collection_that_is_too_small_says_so():
    """Ten hits of ten vectors tell nothing."""
    sample = draw(Collection(10), "c", "m", 100, 1, ignore)
    with pytest.raises(ValueError, match="has 10 vectors"):
        prepare(sample, sample.vectors[:3], metric=Metric.DOT, shards=1, k=10)
