"""Vectors of candidates come from the index's file exactly while that holds the state of the documents that is read."""

import asyncio
from itertools import chain, repeat

import numpy as np
import pytest

from kintsugi.ann.row_codes import RowCodes
from kintsugi.ids import decode
from kintsugi.metrics import Metric, scores
from shard.indexer import IndexerSettings
from shard.rebuild_policy import RebuildSettings
from shard.search_batch import BatchSearch
from shard.search_call import SearchCall
from shard.steady import SteadySnapshot

CALIBRATED = IndexerSettings(rebuild=RebuildSettings(calibrate_at=40, rebuild_at=10**6))
ROWS = np.array([3, 1], dtype=np.uint64)


class Stored:
    """A snapshot that has zeros, and says that the second row is gone."""

    def vectors(self, model, rows):
        return np.array([True, False]), np.zeros((len(rows), 4), dtype=np.float32)


def vectors(count, seed=0):
    return np.random.default_rng(seed).standard_normal((count, 16)).astype(np.float32)


@pytest.fixture
def ones(tmp_path):
    """A file that has ones for every row."""
    file = RowCodes.create(tmp_path / "file", 4, np.float32, 0)
    file.write(np.arange(10, dtype=np.uint64), np.ones((10, 4), dtype=np.float32))
    yield file
    file.close()


@pytest.mark.parametrize(
    ("model", "told", "of_file"),
    [(1, [True, True], True), (1, [True, False], False), (1, [False], False), (2, [], False)],
)
def test_the_file_is_asked_only_while_it_is_right(ones, model, told, of_file):
    """Before its vectors are gathered and after it; the snapshot answers else, and for other models."""
    present, found = SteadySnapshot(Stored(), 1, ones, iter(told).__next__).vectors(model, ROWS)
    assert (found == (1.0 if of_file else 0.0)).all()
    assert present.tolist() == [True, of_file]


async def test_an_index_is_steady_once_it_has_followed(open_replica):
    """At the position of the storage; anew after each change, and not while it lags."""
    replica = open_replica(16)
    replica.put(dict(enumerate(vectors(100))))
    async with replica.serving(CALIBRATED) as (indexer, _):
        first = indexer.steady
        assert (first.seq, first.index) == (100, indexer.serving.index)
        assert first.index.vectors.dtype == np.float32
        # Nobody tells the indexer: it is still where it was, which is not where the storage is.
        replica.put({5: vectors(1, seed=1)[0]})
        assert replica.storage.position.seq == 101
        await replica.caught_up(indexer)
        assert indexer.steady is not first
        assert indexer.steady.seq == 101


async def test_a_search_asks_the_file_only_in_the_state_that_it_reads(open_replica):
    """What only the file says is what it tells; once the index has changed, or the documents have, it tells what is stored."""
    replica = open_replica(16)
    replica.put(dict(enumerate(vectors(100))))
    query = vectors(1, seed=7)
    async with replica.serving(CALIBRATED) as (indexer, searcher):
        steady, serving = indexer.steady, indexer.serving
        steady.index.vectors.write(np.arange(1, 101, dtype=np.uint64), np.repeat(query, 100, axis=0))

        def best(then):
            told = chain([steady], repeat(then))
            batch = BatchSearch(replica.storage, indexer.model, steady=lambda: next(told))
            return batch.search(serving, [SearchCall(query, 3)], 0.0, lambda: False).hits(0, 1).scores[0]

        assert (await searcher.search(SearchCall(query, 3))).scores == pytest.approx([1.0] * 3)
        assert best(steady) == pytest.approx(1.0)
        assert best(None) < 0.99
        replica.put({5: vectors(1, seed=8)[0]})
        assert best(steady) < 0.99


async def test_scores_are_those_of_the_versions_that_are_told(open_replica):
    """While documents are rewritten without pause, each hit has the score of the vector that its version had."""
    replica = open_replica(16, Metric.L2)
    written = {}

    def write(ids, seed):
        fresh, first = vectors(len(ids), seed), replica.storage.position.seq + 1
        written.update({(doc_id, first + place): fresh[place] for place, doc_id in enumerate(ids)})
        replica.put(dict(zip(ids, fresh, strict=True)))

    def rewrite(seed):
        write(np.random.default_rng(seed).choice(300, 5, replace=False).tolist(), seed)
        indexer.notify()

    write(list(range(300)), 0)
    async with replica.serving(CALIBRATED) as (indexer, searcher):
        for seed in range(1, 400):
            queries = vectors(4, 10_000 + seed)
            searching = asyncio.ensure_future(searcher.search(SearchCall(queries, 10)))
            _, found = await asyncio.gather(asyncio.to_thread(rewrite, seed), searching)
            owners = np.repeat(np.arange(4), found.counts)
            for owner, encoded, version, score in zip(
                owners, found.ids, found.versions.tolist(), found.scores, strict=True
            ):
                vector = written[decode(encoded), version]
                assert scores(Metric.L2, queries[owner], vector[np.newaxis])[0] == score
            if not seed % 3:
                await replica.caught_up(indexer)
