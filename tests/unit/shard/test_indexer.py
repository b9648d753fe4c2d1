"""Following the journal, checkpoints and recovery, re-encoding, and failures."""

import asyncio
import hashlib
import shutil

import msgspec
import numpy as np
import pytest

from kintsugi.ann.vector_index import GraphParameters
from kintsugi.durable import Disk
from kintsugi.errors import Unavailable
from kintsugi.metrics import Metric
from shard.checkpoint import Checkpoints
from shard.indexer import IndexerSettings
from shard.rebuild_policy import RebuildSettings
from shard.search_call import SearchCall

SMALL = IndexerSettings(rebuild=RebuildSettings(calibrate_at=40, rebuild_at=40))
EVERY_CHANGE = IndexerSettings(checkpoint_changes=1, rebuild=RebuildSettings(calibrate_at=40, rebuild_at=40))


def vectors(count, dimension=8, seed=0):
    return np.random.default_rng(seed).standard_normal((count, dimension)).astype(np.float32)


def nearly_alike(count, seed):
    """Two far clusters of vectors that differ within them by less than int8 can tell."""
    spread = vectors(count, seed=seed) * 0.01
    spread[:, 0] += np.where(np.arange(count) % 2, 1000, -1000)
    return spread


async def assert_serves_truth(replica, searcher, pairs_of, seed=99):
    queries = vectors(3, replica.model.dimension, seed)
    found = await searcher.search(SearchCall(queries, 10, oversampling=10.0))
    for place, query in enumerate(queries):
        got, expected = pairs_of(found, place), replica.oracle(query, 10)
        assert [hit[0] for hit in got] == [hit[0] for hit in expected]


def checkpoint_folders(replica):
    return sorted(path for path in (replica.folder / "index").iterdir() if path.name.startswith("v"))


async def test_small_indexes_are_f32_and_become_i8_when_they_have_grown(open_replica, pairs_of, eventually):
    """The version changes once, event by event, and the searches stay right."""
    replica = open_replica(8)
    replica.put(dict(enumerate(vectors(30))))
    async with replica.serving(SMALL) as (indexer, searcher):
        assert indexer.serving.encoding == "f32"
        await assert_serves_truth(replica, searcher, pairs_of)
        replica.put(dict(enumerate(vectors(60, seed=1))))
        await replica.caught_up(indexer)
        await eventually(lambda: replica.events[-1] == (2, "i8", "swapped-in"))
        assert indexer.serving.encoding == "i8"
        await assert_serves_truth(replica, searcher, pairs_of)
        assert replica.events == [
            (1, "f32", "begun"),
            (1, "f32", "built"),
            (1, "f32", "swapped-in"),
            (2, "i8", "begun"),
            (2, "i8", "built"),
            (2, "i8", "swapped-in"),
        ]


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda replica: replica.put(dict(enumerate(vectors(900, seed=1), start=1000))), "grew from"),
        (lambda replica: replica.put(dict(enumerate(vectors(1100, seed=1) * 50, start=1000))), "unlike those"),
        (lambda replica: replica.delete(list(range(45))), "removed vectors take part"),
    ],
)
async def test_the_index_is_rebuilt_when_it_no_longer_suits(open_replica, pairs_of, eventually, change, reason):
    """Growth, vectors unlike those the encoding was fitted to and tombstones each lead to a new version."""
    replica = open_replica(8, Metric.DOT)
    replica.put(dict(enumerate(vectors(50))))
    growth = 100 if reason.startswith("unlike") else 16
    rebuild = RebuildSettings(calibrate_at=40, recalibrate_growth=growth, rebuild_at=40)
    async with replica.serving(IndexerSettings(rebuild=rebuild)) as (indexer, searcher):
        before = indexer.serving
        assert before.encoding == "i8" or await eventually(lambda: indexer.serving.encoding == "i8") is None
        number = indexer.serving.number
        change(replica)
        await replica.caught_up(indexer)
        await eventually(lambda: indexer.serving.number > number)
        await assert_serves_truth(replica, searcher, pairs_of)


async def test_an_index_whose_scale_is_known_well_enough_is_not_rebuilt_for_growing(open_replica, eventually):
    """However much it grows."""
    replica = open_replica(250, Metric.COSINE)
    replica.put(dict(enumerate(vectors(1000, dimension=250))))
    async with replica.serving(IndexerSettings(rebuild=RebuildSettings(recalibrate_growth=2))) as (indexer, _):
        await eventually(lambda: indexer.serving.encoding == "i8")
        number = indexer.serving.number
        replica.put(dict(enumerate(vectors(1500, dimension=250, seed=1), start=1000)))
        await replica.caught_up(indexer)
        assert not indexer.rebuilder.build
        assert indexer.serving.number == number


async def test_data_that_int8_cannot_tell_apart_stays_in_full_precision(open_replica, pairs_of, eventually):
    """A build whose recall falls short does not replace the old one, nor is it tried again at once."""
    replica = open_replica(8, Metric.L2)
    replica.put(dict(enumerate(nearly_alike(30, 0))))
    async with replica.serving(SMALL) as (indexer, searcher):
        replica.put(dict(enumerate(nearly_alike(400, 1))))
        await replica.caught_up(indexer)
        await eventually(lambda: replica.events[-1] == (2, "i8", "failed"))
        assert indexer.serving.encoding == "f32"
        assert "recall of i8" in indexer.rebuilder.refusals["i8"].reason
        replica.put({1: nearly_alike(1, 2)[0]})
        await replica.caught_up(indexer)
        await assert_serves_truth(replica, searcher, pairs_of)
        assert replica.events[-1] == (2, "i8", "failed")
    async with replica.serving(SMALL) as (_, searcher):
        await assert_serves_truth(replica, searcher, pairs_of)


@pytest.mark.parametrize("at", [0, 1, 7, 39, 40, 41, 80, 120])
async def test_recovery_from_any_position_equals_never_having_stopped(open_replica, pairs_of, at):
    """A checkpoint at any place in a history of puts, updates and deletes, plus the journal, gives the same results."""
    replica = open_replica(8)
    data = vectors(130)

    def write(step):
        if step % 5 == 4:
            replica.delete([step - 3])
        else:
            replica.put({step if step % 3 else step // 2: data[step]})

    for step in range(at):
        write(step)
    async with replica.serving(SMALL) as (first, _):
        number = first.serving.number
    for step in range(at, 120):
        write(step)
    replica.events.clear()
    async with replica.serving(SMALL) as (indexer, searcher):
        assert indexer.searchable == replica.storage.position
        await assert_serves_truth(replica, searcher, pairs_of)
        if at:
            # Loaded, not built.
            assert replica.events[0][0] == number
            assert replica.events[0][2] == "loaded"


def older_format(path):
    """A whole manifest as an earlier release wrote it."""
    manifest = msgspec.json.decode(path.read_bytes())["manifest"] | {"format_version": 1, "calibration": None}
    encoded = msgspec.json.encode(manifest)
    return msgspec.json.encode({"manifest": msgspec.Raw(encoded), "sha256": hashlib.sha256(encoded).hexdigest()})


DAMAGES = {
    "no manifest": lambda folder: (folder / "manifest.json").unlink(),
    "torn manifest": lambda folder: (folder / "manifest.json").write_bytes(
        (folder / "manifest.json").read_bytes()[:50]
    ),
    "edited manifest": lambda folder: (folder / "manifest.json").write_bytes(
        (folder / "manifest.json").read_bytes().replace(b'"seq":', b'"seq":1')
    ),
    "binary manifest": lambda folder: (folder / "manifest.json").write_bytes(b"\xff\x00"),
    "no index": lambda folder: (folder / "index.usearch").unlink(),
    "torn index": lambda folder: (folder / "index.usearch").write_bytes((folder / "index.usearch").read_bytes()[:-9]),
    "flipped bit": lambda folder: (folder / "index.usearch").write_bytes(
        b"".join([(raw := (folder / "index.usearch").read_bytes())[:100], bytes([raw[100] ^ 1]), raw[101:]])
    ),
    "no encoding": lambda folder: (folder / "encoding.bin").unlink(),
    "torn encoding": lambda folder: (folder / "encoding.bin").write_bytes((folder / "encoding.bin").read_bytes()[:-1]),
    "older format": lambda folder: (folder / "manifest.json").write_bytes(older_format(folder / "manifest.json")),
    "empty folder": lambda folder: (shutil.rmtree(folder), folder.mkdir()),
}


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES.keys())
@pytest.mark.parametrize("damaged", [1, 2])
async def test_damaged_checkpoints_are_removed_and_recovery_takes_an_older_one_or_none(
    open_replica, pairs_of, damage, damaged
):
    """The newest whole checkpoint is taken; with none left the index is built from storage, under a new number."""
    replica = open_replica(8)
    for place in range(2):
        replica.put(dict(enumerate(vectors(50, seed=place))))
        async with replica.serving(SMALL) as (indexer, _):
            number = indexer.serving.number
    folders = checkpoint_folders(replica)
    assert len(folders) == 2
    for folder in folders[-damaged:]:
        damage(folder)
    replica.events.clear()
    async with replica.serving(SMALL) as (_, searcher):
        await assert_serves_truth(replica, searcher, pairs_of)
        assert not set(folders[-damaged:]) & set(checkpoint_folders(replica))
    if damaged == 2:
        assert replica.events[0] == (number + 1, "i8", "begun")
    else:
        assert replica.events[0][2] == "loaded"


async def test_a_checkpoint_of_another_history_is_not_used(open_replica, pairs_of, tmp_path):
    """A checkpoint ahead of storage, or whose digest differs at its position, is removed and the index built anew."""
    other = open_replica(8)
    other.put(dict(enumerate(vectors(60))))
    async with other.serving(SMALL):
        pass
    for count in (5, 70):
        replica = open_replica(8)
        replica.put(dict(enumerate(vectors(count, seed=3))))
        shutil.copytree(other.folder / "index", replica.folder / "index")
        async with replica.serving(SMALL) as (indexer, searcher):
            await assert_serves_truth(replica, searcher, pairs_of)
            assert indexer.serving.number > 1


async def test_a_trimmed_journal_leads_to_a_build(open_replica, pairs_of):
    """When the journal no longer reaches back to the checkpoint, the index is built from storage."""
    replica = open_replica(8)
    replica.put(dict(enumerate(vectors(50))))
    async with replica.serving(SMALL) as (indexer, _):
        assert indexer.journal_needed_from <= 50
    replica.delete([1, 2])
    replica.put(dict(enumerate(vectors(20, seed=1), start=50)))
    replica.storage.trim(60, 60)
    replica.events.clear()
    async with replica.serving(SMALL) as (_, searcher):
        await assert_serves_truth(replica, searcher, pairs_of)
    assert replica.events[0][2] == "begun"


async def test_two_checkpoints_are_kept_and_bound_the_journal(open_replica, eventually):
    """Of many checkpoints the newest two remain; the journal is needed from the older of them on."""
    replica = open_replica(8)
    async with replica.serving(EVERY_CHANGE) as (indexer, _):
        for place in range(5):
            last = replica.put({place: vectors(1, seed=place)[0]})
            await replica.caught_up(indexer)
            await eventually(lambda last=last: last in indexer._kept_seqs)
        assert len(checkpoint_folders(replica)) == 2
        assert indexer.journal_needed_from == 4


async def test_a_checkpoint_is_synced_before_it_is_named(open_replica):
    """Index, encoding and manifest are synced, then the folder, then comes the rename, then the parent is synced."""
    replica = open_replica(8)
    replica.put({1: vectors(1)[0]})
    real, calls = Disk(), []

    def recorded(name, call):
        def run(*paths):
            calls.append((name, paths[0].name if name != "rename" else paths[1].name))
            call(*paths)

        return run

    disk = Disk(
        sync_file=recorded("sync", real.sync_file),
        sync_folder=recorded("sync folder", real.sync_folder),
        rename=recorded("rename", real.rename),
    )
    async with replica.serving(disk=disk):
        calls.clear()
    name = checkpoint_folders(replica)[0].name
    assert calls == [
        ("sync", "index.usearch"),
        ("sync", "encoding.bin"),
        ("sync", "manifest.json"),
        ("sync folder", f"tmp-{name}"),
        ("rename", name),
        ("sync folder", "index"),
    ]


async def test_leftovers_of_a_crash_are_removed(open_replica):
    """Unfinished folders are not taken for checkpoints."""
    replica = open_replica(8)
    leftover = replica.folder / "index" / "tmp-v00000001-00000000000000000009"
    leftover.mkdir(parents=True)
    async with replica.serving():
        assert not leftover.exists()


async def test_version_numbers_are_never_given_twice(open_replica):
    """Not even when all checkpoints are gone."""
    replica = open_replica(8)
    folder = replica.folder / "index"
    numbers = [Checkpoints(folder, replica.model, GraphParameters()).next_number() for _ in range(3)]
    assert numbers == [1, 2, 3]


async def test_a_failure_of_the_thread_is_told_to_all_who_wait(open_replica, eventually):
    """Errors while following the journal end the indexer visibly; waiting fails at once, then and later."""
    replica = open_replica(8)

    class Failing:
        def __getattr__(self, name):
            return getattr(replica.storage, name)

        def changed_rows(self, after_seq, limit, model=None):
            raise OSError("disk on fire")

    replica.put({1: vectors(1)[0]})
    from shard.indexer import Indexer

    indexer = Indexer(Failing(), replica.model, replica.folder / "index")
    indexer.start()
    await asyncio.wait_for(indexer.wait_searchable(1), 30)
    waiting = asyncio.ensure_future(indexer.wait_searchable(2))
    await asyncio.sleep(0)
    replica.put({2: vectors(1)[0]})
    indexer.notify()
    with pytest.raises(Unavailable, match="disk on fire"):
        await asyncio.wait_for(waiting, 30)
    with pytest.raises(Unavailable):
        await indexer.wait_searchable(5)
    assert isinstance(indexer.failure, OSError)
    assert indexer.serving is not None
    indexer.close()


async def test_a_checkpoint_that_cannot_be_written_is_a_failure(open_replica, eventually):
    """A full disk shows in `failure`."""
    replica = open_replica(8)

    def full(_path):
        raise OSError(28, "no space left on device")

    disk = Disk()
    async with replica.serving(
        EVERY_CHANGE,
        disk=Disk(sync_file=lambda path: disk.sync_file(path) if path.name != "manifest.json" else full(path)),
    ) as (indexer, _):
        replica.put({1: vectors(1)[0]})
        indexer.notify()
        await eventually(lambda: indexer.failure is not None)


async def test_waiting_ends_with_close(open_replica):
    """Nobody waits for an index that is closed."""
    replica = open_replica(8)
    async with replica.serving() as (indexer, _):
        waiting = asyncio.ensure_future(indexer.wait_searchable(7))
        await asyncio.sleep(0)
    with pytest.raises(Unavailable):
        await waiting


async def test_every_write_is_found_once_it_is_searchable(open_replica):
    """wait_searchable returns only when a search sees the write."""
    replica = open_replica(8)
    async with replica.serving(SMALL) as (indexer, searcher):
        for place in range(120):
            vector = vectors(1, seed=place)[0]
            seq = replica.put({place: vector})
            indexer.notify()
            await indexer.wait_searchable(seq)
            found = await searcher.search(SearchCall(vector[np.newaxis], 1))
            assert found.versions.tolist() == [seq]
