"""The codes by row of index versions: they survive restarts, are checked, and go when their version goes."""

import asyncio
import resource
import shutil

import numpy as np
import pytest

from kintsugi.ann.spec import parse_name, problem_of
from kintsugi.errors import Unavailable
from kintsugi.metrics import Metric
from shard.indexer import IndexerSettings
from shard.rebuild_policy import RebuildSettings
from shard.searcher import SearchCall

SETTINGS = IndexerSettings(rebuild=RebuildSettings(calibrate_at=40, fit_at=40, rebuild_at=60))
ENCODINGS = ["f32", "f16", "bf16", "e4m3", "i8", "binary", "recurrent-2", "recurrent-4", "i8+prefix-8", "binary+pca-8"]


def vectors(count, dimension=16, seed=0):
    return np.random.default_rng(seed).standard_normal((count, dimension)).astype(np.float32)


def code_files(replica):
    return sorted(path.name for path in (replica.folder / "index").iterdir() if path.name.startswith("codes-"))


def rows_of(replica, ids):
    """Ids are numbers, in the order in which rows were given."""
    return np.array(ids, dtype=np.uint64) + np.uint64(1)


async def answers(searcher, seed=99):
    found = await searcher.search(SearchCall(vectors(4, seed=seed), 10, oversampling=30.0))
    return found.ids, found.scores.tolist()


async def assert_serves_truth(replica, searcher, pairs_of):
    queries = vectors(3, seed=98)
    found = await searcher.search(SearchCall(queries, 10, oversampling=30.0))
    for place, query in enumerate(queries):
        assert [hit[0] for hit in pairs_of(found, place)] == [hit[0] for hit in replica.oracle(query, 10)]


@pytest.mark.parametrize("encoding", ENCODINGS)
@pytest.mark.parametrize("metric", list(Metric))
async def test_every_encoding_is_built_served_saved_and_loaded(open_replica, pairs_of, encoding, metric):
    """A restart gives the same answers, of the graph and of the scan, from the same files."""
    wanted = parse_name(encoding)
    if problem_of(wanted, 16, metric):
        return
    replica = open_replica(16, metric)
    replica.put(dict(enumerate(vectors(200))))
    async with replica.serving(SETTINGS, wanted=wanted) as (indexer, searcher):
        assert indexer.serving.encoding == encoding
        await assert_serves_truth(replica, searcher, pairs_of)
        before = await answers(searcher)
        scanned = indexer.serving.index.scan_rows(vectors(4, seed=5), rows_of(replica, range(0, 200, 3)), 7)
        files = code_files(replica)
        assert len(files) >= 1
    replica.events.clear()
    async with replica.serving(SETTINGS, wanted=wanted) as (indexer, searcher):
        assert replica.events == [(1, encoding, "loaded")]
        assert code_files(replica) == files
        assert await answers(searcher) == before
        again = indexer.serving.index.scan_rows(vectors(4, seed=5), rows_of(replica, range(0, 200, 3)), 7)
        assert [found.tolist() for found in again] == [found.tolist() for found in scanned]


@pytest.mark.parametrize("encoding", ENCODINGS)
async def test_updates_and_deletes_after_a_restart_are_in_the_codes(open_replica, pairs_of, encoding):
    """What a loaded version takes over from the journal is compared as it is now, not as it was saved."""
    replica = open_replica(16)
    replica.put(dict(enumerate(vectors(200))))
    wanted = parse_name(encoding)
    async with replica.serving(SETTINGS, wanted=wanted):
        pass
    replica.put(dict(enumerate(vectors(50, seed=1), start=20)))
    replica.delete([70, 71, 72])
    replica.put(dict(enumerate(vectors(10, seed=2), start=300)))
    async with replica.serving(SETTINGS, wanted=wanted) as (indexer, searcher):
        await assert_serves_truth(replica, searcher, pairs_of)
        index, every = indexer.serving.index, np.arange(1, 400, dtype=np.uint64)
        for row, vector in enumerate(vectors(50, seed=1), start=21):
            assert index.scan_rows(vector[np.newaxis], every, 1)[0].tolist() == [row]
        assert len(index.scan_rows(vectors(1), every, 400)[0]) == len(replica.truth)


@pytest.mark.parametrize("encoding", ["i8", "recurrent-2"])
async def test_codes_newer_than_the_checkpoint_do_no_harm(open_replica, pairs_of, encoding, tmp_path):
    """After a kill the codes tell of changes that the graph's file does not; the journal brings both to the same place."""
    replica = open_replica(16)
    replica.put(dict(enumerate(vectors(200))))
    wanted, folder = parse_name(encoding), replica.folder / "index"
    async with replica.serving(SETTINGS, wanted=wanted):
        pass
    async with replica.serving(SETTINGS, wanted=wanted) as (indexer, _):
        replica.put(dict(enumerate(vectors(50, seed=1), start=20)))
        replica.delete([0, 25, 199])
        replica.put(dict(enumerate(vectors(10, seed=2), start=300)))
        await replica.caught_up(indexer)
        shutil.copytree(folder, tmp_path / "as killed")
    shutil.rmtree(folder)
    (tmp_path / "as killed").rename(folder)
    replica.put({30: vectors(1, seed=3)[0]})
    replica.events.clear()
    async with replica.serving(SETTINGS, wanted=wanted) as (indexer, searcher):
        assert replica.events == [(1, encoding, "loaded")]
        await assert_serves_truth(replica, searcher, pairs_of)
        every = np.arange(1, 400, dtype=np.uint64)
        found = indexer.serving.index.scan_rows(vectors(1, seed=3), every, 400)[0]
        assert (found[0], len(found)) == (31, len(replica.truth))


DAMAGES = {
    "missing": lambda path: path.unlink(),
    "short": lambda path: path.write_bytes(path.read_bytes()[:4200]),
    "empty": lambda path: path.write_bytes(b""),
    "another header": lambda path: path.write_bytes(path.read_bytes().replace(b"KINTROWS", b"KINTROSE")),
    "another file": lambda path: path.write_bytes(
        path.read_bytes()[:24] + bytes(16) + path.read_bytes()[40:],
    ),
}


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES.keys())
@pytest.mark.parametrize("kind", ["scan", "planes", "vectors"])
async def test_damaged_codes_lead_to_a_build(open_replica, pairs_of, damage, kind):
    """Without its codes a checkpoint is worth nothing: the index is built anew, under another number."""
    replica = open_replica(16)
    replica.put(dict(enumerate(vectors(100))))
    wanted = parse_name("recurrent-2")
    async with replica.serving(SETTINGS, wanted=wanted):
        pass
    assert code_files(replica) == [f"codes-v00000001.{one}" for one in ("planes", "scan", "vectors")]
    damage(replica.folder / "index" / f"codes-v00000001.{kind}")
    replica.events.clear()
    async with replica.serving(SETTINGS, wanted=wanted) as (_, searcher):
        assert replica.events[0] == (2, "recurrent-2", "begun")
        await assert_serves_truth(replica, searcher, pairs_of)
    assert code_files(replica) == [f"codes-v00000002.{one}" for one in ("planes", "scan", "vectors")]


async def test_codes_of_retired_versions_are_removed(open_replica, eventually):
    """A file stays while a checkpoint names its version, and goes with the last of them."""
    replica = open_replica(16)
    replica.put(dict(enumerate(vectors(100))))
    every_change = IndexerSettings(checkpoint_changes=1, rebuild=SETTINGS.rebuild)
    async with replica.serving(every_change) as (indexer, _):
        replica.delete(list(range(70)))
        await replica.caught_up(indexer)
        await eventually(lambda: indexer.serving.number > 1)
        for place in range(3):
            last = replica.put({1000 + place: vectors(1, seed=place)[0]})
            await replica.caught_up(indexer)
            await eventually(lambda last=last: indexer.checkpoint_seq >= last)
        number = indexer.serving.number
    files = [indexer.serving.index.scan, indexer.serving.index.vectors]
    kinds = [kind for kind, file in zip(("scan", "vectors"), files, strict=True) if file is not None]
    assert code_files(replica) == [f"codes-v{number:08d}.{kind}" for kind in kinds]


async def test_codes_that_no_checkpoint_names_are_removed_at_the_start(open_replica):
    """A crash during a build leaves its codes behind; a kill after it does not lose those of what serves."""
    replica = open_replica(16)
    replica.put(dict(enumerate(vectors(100))))
    async with replica.serving(SETTINGS):
        pass
    (replica.folder / "index" / "codes-v00000009.scan").write_bytes(b"left behind")
    async with replica.serving(SETTINGS) as (indexer, _):
        assert code_files(replica) == ["codes-v00000001.scan", "codes-v00000001.vectors"]
        assert indexer.serving.number == 1


async def test_a_long_lived_collection_begins_its_files_at_its_first_row(open_replica, eventually):
    """Rows are never given twice; those that are long gone are not part of what is built anew."""
    replica = open_replica(16)
    replica.put(dict(enumerate(vectors(300))))
    replica.delete(list(range(200)))
    async with replica.serving(SETTINGS) as (indexer, _):
        assert indexer.serving.index.scan.codes.first_row == 201
        # A document from before the build gets its vector only now.
        replica.put({250: vectors(1, seed=9)[0]})
        await replica.caught_up(indexer)
        assert indexer.serving.index.scan_rows(vectors(1, seed=9), rows_of(replica, [250]), 1)[0].tolist() == [251]


async def test_a_full_disk_fails_the_index_by_name(open_replica, eventually):
    """Codes that cannot be written are a failure like that of storage; after a restart everything is there."""
    replica = open_replica(16)
    replica.put(dict(enumerate(vectors(100))))
    async with replica.serving(SETTINGS) as (indexer, _):
        replica.put(dict(enumerate(vectors(20_000, seed=3), start=100)))
        with limited_files(2**18):
            indexer.notify()
            with pytest.raises(Unavailable, match="File too large") as full:
                await asyncio.wait_for(indexer.wait_searchable(replica.storage.position.seq), 60)
        assert full.value.reason == "STORAGE_FULL"
        assert isinstance(indexer.failure, OSError)
    async with replica.serving(SETTINGS) as (indexer, _):
        assert indexer.searchable == replica.storage.position
        assert len(indexer.serving.index) == len(replica.truth)


async def test_a_build_without_room_leaves_what_serves_alone(open_replica, pairs_of, eventually):
    """It is given up, its file removed, and the reason kept."""
    replica = open_replica(16)
    replica.put(dict(enumerate(vectors(30))))
    slow = IndexerSettings(rebuild=RebuildSettings(calibrate_at=20_000))
    async with replica.serving(slow) as (indexer, searcher):
        replica.put(dict(enumerate(vectors(20_000, seed=3), start=30)))
        with limited_files(2**18):
            await replica.caught_up(indexer)
            await eventually(lambda: indexer.rebuilder.refusals)
        assert "storage is full" in indexer.rebuilder.refusals["i8"].reason
        assert (indexer.failure, indexer.serving.encoding, code_files(replica)) == (None, "f32", [])
        await assert_serves_truth(replica, searcher, pairs_of)


class limited_files:  # noqa: N801 - reads as a function
    """No file may grow beyond a size meanwhile: a full disk, as far as a test can have one."""

    def __init__(self, most):
        self._most = most

    def __enter__(self):
        self._before = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (self._most, self._before[1]))

    def __exit__(self, *_):
        resource.setrlimit(resource.RLIMIT_FSIZE, self._before)
