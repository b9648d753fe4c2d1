"""Searches of a replica while its collection moves from one model to another, against an oracle of native and calibrated scores."""

import asyncio
import json

import numpy as np
import pytest

from kintsugi.ann.vector_index import GraphParameters
from kintsugi.errors import FailedPrecondition, InvalidArgument, Unavailable
from kintsugi.filters.tree import Equals, Range
from kintsugi.ids import encode
from kintsugi.log.chain import extend
from kintsugi.log.read import LogEntry
from kintsugi.log.records import embed, put
from kintsugi.metrics import Metric, StoredType, scores
from kintsugi.projections.calibration import Calibration, calibrate
from kintsugi.projections.projection import Affine, Kind
from kintsugi.projections.strategy import Strategy
from kintsugi.registry.records import Model
from shard.checkpoint import IndexedModel
from shard.crossing import Crossing
from shard.effective import EffectiveSource, Fallback
from shard.indexer import Indexer, IndexerSettings
from shard.rebuild_policy import RebuildSettings
from shard.rebuilder import Outside
from shard.search_call import Grouping, SearchCall
from shard.searcher import Searcher
from shard.storage import Storage

SMALL = IndexerSettings(rebuild=RebuildSettings(calibrate_at=40, rebuild_at=40), graph=GraphParameters(exact_below=0))
OLD = Model(number=1, name="old", dimension=9, metric=Metric.COSINE)
NEW = Model(number=2, name="new", dimension=6, metric=Metric.COSINE)


def affine(source, target):
    return Affine(Kind.RIDGE, Metric.COSINE, source, target)


class Moving:
    """A replica of 150 documents, every `step`-th of which lacks a new vector; old vectors are a noisy image of the new ones."""

    def __init__(self, folder, step, strategy, calibration, *, is_filled=False):
        random = np.random.default_rng(step)
        self.to_old = random.standard_normal((6, 9)).astype(np.float32)
        to_new = np.linalg.pinv(self.to_old).astype(np.float32)
        self.new = random.standard_normal((150, 6)).astype(np.float32)
        self.old = self._image(self.new, random)
        self.anchors_new = random.standard_normal((80, 6)).astype(np.float32)
        self.anchors_old = self._image(self.anchors_new, random)
        self.bridge = affine(self.to_old, np.zeros(9, np.float32))
        self.map = affine(to_new, np.zeros(6, np.float32))
        self.has_new = np.arange(150) % step != 0
        self.attributes = [{"g": f"g{n % 7}", "n": n} for n in range(150)]
        self.is_filled = is_filled
        self.calibration = calibration
        self.storage = Storage.open(
            folder / "lmdb", stored=StoredType.F32, models={1: 9, 2: 6}, map_size=2**30, max_bytes=2**30, sync=False
        )
        fallback = Fallback(1, self.map) if is_filled else None
        self.source = EffectiveSource(self.storage, fallback)
        self.indexers = [
            self._indexer(folder, OLD, EffectiveSource(self.storage)),
            self._indexer(folder, NEW, self.source),
        ]
        anchors_other = self.map.apply(self.anchors_old) if is_filled else self.anchors_old
        self.crossing = Crossing(
            strategy, calibration, NEW, OLD, is_filled, None if strategy is Strategy.BOTH else self.bridge,
            self.anchors_new, anchors_other, lambda: self.indexers[0].serving,
        )  # fmt: skip
        self.searcher = Searcher(self.source, self.indexers[1], crossings=lambda: self.crossing)

    def _image(self, vectors, random):
        return (vectors @ self.to_old + 0.3 * random.standard_normal((len(vectors), 9))).astype(np.float32)

    def _indexer(self, folder, model, source):
        indexed = IndexedModel(model.number, model.dimension, model.metric)
        return Indexer(source, indexed, folder / model.name, settings=SMALL, outside=Outside(lambda *_: None))

    async def __aenter__(self):
        self.write(
            put(
                n,
                {1: self.old[n].tobytes()} | ({2: self.new[n].tobytes()} if self.has_new[n] else {}),
                attributes=json.dumps(self.attributes[n]).encode(),
            )
            for n in range(150)
        )
        for indexer in self.indexers:
            indexer.start()
        self.searcher.start()
        await self.caught_up()
        return self

    async def __aexit__(self, *_):
        await asyncio.to_thread(self.searcher.close)
        for indexer in self.indexers:
            await asyncio.to_thread(indexer.close)
        self.storage.close()

    def write(self, payloads):
        entries, digest, seq = [], self.storage.position.digest, self.storage.position.seq
        for payload in payloads:
            seq += 1
            digest = extend(digest, seq, payload)
            entries.append(LogEntry(1, seq, payload, digest))
        self.storage.apply(entries)

    async def caught_up(self):
        for indexer in self.indexers:
            indexer.notify()
            await asyncio.wait_for(indexer.wait_searchable(self.storage.position.seq), 60)

    def migrate(self, count):
        """Gives new vectors to the next documents that lack one."""
        chosen = np.flatnonzero(~self.has_new)[:count]
        self.write(embed(int(n), {2: self.new[n].tobytes()}, expected_version=1 + int(n)) for n in chosen)
        self.has_new[chosen] = True

    def values(self, query, other=None):
        """The score of every document."""
        if self.is_filled:
            rest = scores(Metric.COSINE, query, self.map.apply(self.old))
            anchors = scores(Metric.COSINE, query, self.map.apply(self.anchors_old))
        else:
            other = self.bridge.apply(query[np.newaxis])[0] if other is None else other
            rest = scores(Metric.COSINE, other, self.old)
            anchors = scores(Metric.COSINE, other, self.anchors_old)
        rest = calibrate(self.calibration, anchors, scores(Metric.COSINE, query, self.anchors_new), rest)
        return np.where(self.has_new, scores(Metric.COSINE, query, self.new), rest)

    def oracle(self, query, k, *, other=None, among=None):
        values = self.values(query, other)
        places = [n for n in range(150) if among is None or among(self.attributes[n])]
        best = sorted(places, key=lambda n: (-values[n], n))[:k]
        return [(encode(n), values[n], not self.has_new[n]) for n in best]


def assert_same(found, place, expected):
    start = sum(found.counts[:place])
    end = start + found.counts[place]
    assert found.ids[start:end] == [one for one, _, _ in expected]
    np.testing.assert_allclose(found.scores[start:end], [value for _, value, _ in expected], rtol=1e-5, atol=1e-6)
    assert found.projected[start:end].tolist() == [flag for _, _, flag in expected]


CASES = [
    (Strategy.BRIDGE, Calibration.QUANTILES, False),
    (Strategy.BRIDGE, Calibration.MOMENTS, False),
    (Strategy.MAP, Calibration.QUANTILES, True),
    (Strategy.MAP, Calibration.RAW, True),
    (Strategy.MAP, Calibration.MOMENTS, False),
]


@pytest.mark.parametrize(("strategy", "calibration", "is_filled"), CASES)
@pytest.mark.parametrize("step", [1, 2, 10])
async def test_hits_are_those_of_native_and_calibrated_scores(tmp_path, strategy, calibration, is_filled, step):
    """With the index and exactly, with and without a filter, each hit flagged, at any migrated fraction."""
    queries = np.random.default_rng(9).standard_normal((3, 6)).astype(np.float32)
    async with Moving(tmp_path, step, strategy, calibration, is_filled=is_filled) as moving:
        for exact in (False, True):
            for k in (1, 10, 200):
                found = await moving.searcher.search(SearchCall(queries, k, exact=exact, oversampling=20.0))
                for place, query in enumerate(queries):
                    assert_same(found, place, moving.oracle(query, k))
            condition = Range("n", below=40.0)
            found = await moving.searcher.search(
                SearchCall(queries, 12, exact=exact, oversampling=20.0, filter=condition)
            )
            for place, query in enumerate(queries):
                assert_same(found, place, moving.oracle(query, 12, among=lambda one: one["n"] < 40))
        assert (found.documents_with_vector, found.documents_with_other) == (int(moving.has_new.sum()), 150)
        assert found.other_model == "old"


async def test_given_vectors_of_the_other_model_take_the_place_of_projected_ones(tmp_path):
    """With both vectors nothing is projected; calls with and without them are answered together."""
    random = np.random.default_rng(4)
    queries, others = (
        random.standard_normal((2, 6)).astype(np.float32),
        random.standard_normal((2, 9)).astype(np.float32),
    )
    async with Moving(tmp_path, 2, Strategy.BRIDGE, Calibration.QUANTILES) as moving:
        calls = [SearchCall(queries, 20, oversampling=20.0, other_queries=given) for given in (others, None, others)]
        both, alone, again = await asyncio.gather(*map(moving.searcher.search, calls))
        for place, query in enumerate(queries):
            assert_same(both, place, moving.oracle(query, 20, other=others[place]))
            assert_same(again, place, moving.oracle(query, 20, other=others[place]))
            assert_same(alone, place, moving.oracle(query, 20))


async def test_without_a_bridge_both_vectors_are_needed(tmp_path):
    """Also by exact searches; and they must be of the other model's dimension."""
    query = np.ones((1, 6), np.float32)
    async with Moving(tmp_path, 2, Strategy.BOTH, Calibration.MOMENTS) as moving:
        for exact in (False, True):
            with pytest.raises(FailedPrecondition, match="needs a query vector of old as well"):
                await moving.searcher.search(SearchCall(query, 3, exact=exact))
            with pytest.raises(InvalidArgument, match="other_queries"):
                await moving.searcher.search(
                    SearchCall(query, 3, exact=exact, other_queries=np.ones((1, 5), np.float32))
                )
            other = np.ones((1, 9), np.float32)
            found = await moving.searcher.search(
                SearchCall(query, 5, exact=exact, oversampling=20.0, other_queries=other)
            )
            assert_same(found, 0, moving.oracle(query[0], 5, other=other[0]))


@pytest.mark.parametrize("exact", [False, True])
async def test_a_minimal_score_is_on_the_scale_of_the_new_model(tmp_path, exact):
    """It cuts calibrated scores as it cuts native ones."""
    query = np.random.default_rng(8).standard_normal((1, 6)).astype(np.float32)
    async with Moving(tmp_path, 2, Strategy.BRIDGE, Calibration.QUANTILES) as moving:
        expected = moving.oracle(query[0], 50)
        least = (expected[19][1] + expected[20][1]) / 2
        call = SearchCall(query, 50, exact=exact, oversampling=20.0, min_score=least)
        found = await moving.searcher.search(call)
        assert_same(found, 0, expected[:20])
        assert {flag for _, _, flag in expected[:20]} == {True, False}


@pytest.mark.parametrize(("strategy", "calibration", "is_filled"), CASES)
@pytest.mark.parametrize("exact", [False, True])
async def test_groups_hold_documents_of_both_kinds(tmp_path, strategy, calibration, is_filled, exact):
    """The best groups with their best hits, by scores on one scale, filtered too."""
    queries = np.random.default_rng(7).standard_normal((2, 6)).astype(np.float32)
    async with Moving(tmp_path, 2, strategy, calibration, is_filled=is_filled) as moving:
        for condition, among in ((None, lambda _: True), (Equals("g", "g3"), lambda one: one["g"] == "g3")):
            call = SearchCall(queries, 3, exact=exact, oversampling=20.0, group=Grouping("g", 4), filter=condition)
            found = await moving.searcher.search(call)
            for place, query in enumerate(queries):
                groups, expected = {}, []
                for hit in moving.oracle(query, 150, among=among):
                    group = f"g{(int.from_bytes(hit[0][1:], 'big')) % 7}"
                    if (group in groups or len(groups) < 3) and groups.get(group, 0) < 4:
                        groups[group] = groups.get(group, 0) + 1
                        expected.append(hit)
                assert_same(found, place, expected)


async def test_a_document_that_migrates_is_scored_by_its_own_vector_from_then_on(tmp_path):
    """Flags go as new vectors come; when all have come, nothing is projected."""
    query = np.random.default_rng(3).standard_normal((1, 6)).astype(np.float32)
    async with Moving(tmp_path, 2, Strategy.BRIDGE, Calibration.QUANTILES) as moving:
        while not moving.has_new.all():
            moving.migrate(25)
            # The new index may still lack them: the documents decide.
            found = await moving.searcher.search(SearchCall(query, 150))
            assert_same(found, 0, moving.oracle(query[0], 150))
            await moving.caught_up()
        assert not found.projected.any()


async def test_candidates_that_lack_a_vector_are_told(tmp_path):
    """Rows of all of them, those of hits first, for each call its own; ids only when asked for."""
    queries = np.random.default_rng(2).standard_normal((2, 6)).astype(np.float32)
    async with Moving(tmp_path, 2, Strategy.BRIDGE, Calibration.QUANTILES) as moving:
        told, silent = await asyncio.gather(
            moving.searcher.search(SearchCall(queries[:1], 5, tell_unmigrated=True)),
            moving.searcher.search(SearchCall(queries[1:], 5)),
        )
        lacking = {encode(int(n)) for n in np.flatnonzero(~moving.has_new)}
        hits = [one for one, flag in zip(told.ids, told.projected, strict=True) if flag]
        assert told.unmigrated[: len(hits)] == hits
        assert set(told.unmigrated) <= lacking
        assert len(told.unmigrated) == len(set(told.unmigrated)) == len(told.lacking)
        assert silent.unmigrated == []
        assert len(silent.lacking)


async def test_the_replicas_own_probes_see_the_models_own_index_only(tmp_path):
    """Recall is measured of one index."""
    query = np.random.default_rng(1).standard_normal((1, 6)).astype(np.float32)
    async with Moving(tmp_path, 2, Strategy.BRIDGE, Calibration.QUANTILES) as moving:
        found = await moving.searcher.search(SearchCall(query, 200, is_live=False))
        assert found.counts == [75]
        assert not len(found.projected)


async def test_without_the_other_index_there_is_no_answer(tmp_path):
    """A part that cannot be searched is not left out silently; without the own index its rows are compared one by one."""
    query = np.random.default_rng(1).standard_normal((1, 6)).astype(np.float32)
    async with Moving(tmp_path, 2, Strategy.BRIDGE, Calibration.QUANTILES) as moving:
        whole = moving.crossing
        moving.crossing = Crossing(
            whole.strategy, whole.calibration, NEW, OLD, False, whole.bridge, whole.anchors_own, whole.anchors_other
        )
        with pytest.raises(Unavailable, match="not built yet"):
            await moving.searcher.search(SearchCall(query, 5))


async def test_outside_of_upgrades_nothing_is_told(tmp_path):
    """No flags, no other model, only documents that have a vector of the model."""
    query = np.random.default_rng(1).standard_normal((1, 6)).astype(np.float32)
    async with Moving(tmp_path, 2, Strategy.BRIDGE, Calibration.QUANTILES) as moving:
        moving.crossing = None
        found = await moving.searcher.search(SearchCall(query, 200))
        assert (found.counts, found.other_model, len(found.projected), len(found.lacking)) == ([75], "", 0, 0)
