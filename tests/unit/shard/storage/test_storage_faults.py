"""Storage on damaged files, full disks and foreign formats."""

import errno
import os
import shutil

import lmdb
import pytest

from kintsugi.errors import Unavailable
from kintsugi.metrics import StoredType
from shard.layout import FORMAT_VERSION
from shard.storage_faults import StorageCorrupt, StorageFault, StorageFull, StorageTooNew, fault_of


@pytest.fixture
def filled(open_storage, memory_log, tmp_path):
    """The data file of a closed replica with some hundred documents."""
    storage = open_storage()
    for doc_id in range(300):
        memory_log.put(doc_id, text="x" * 3000)
    storage.apply(memory_log.entries)
    storage.close()
    return tmp_path / "replica" / "data.mdb"


@pytest.mark.parametrize("share", [0.0, 0.00005, 0.01, 0.5, 0.99])
def test_torn_file_is_corrupt(filled, open_storage, share):
    """A file that was cut off anywhere is refused when opened, instead of killing the process later."""
    os.truncate(filled, int(filled.stat().st_size * share))
    with pytest.raises(StorageCorrupt):
        open_storage()


def test_foreign_file_is_corrupt(filled, open_storage):
    """A file that is not LMDB's is refused."""
    filled.write_bytes(os.urandom(65536))
    with pytest.raises(StorageCorrupt):
        open_storage()


def test_overwritten_pages_are_corrupt(filled, open_storage):
    """Garbage behind the header is found at the latest when it is opened for documents."""
    with filled.open("r+b") as file:
        file.seek(8192)
        file.write(bytes(filled.stat().st_size - 8192))
    with pytest.raises(StorageCorrupt):
        open_storage()


def test_file_put_in_place_of_a_replica_opens(filled, open_storage, memory_log, tmp_path):
    """A copy takes the place of a data file, as bootstrap does it, although the lock file is an old one."""
    compact = tmp_path / "compact"
    storage = open_storage()
    storage.copy_to(compact)
    storage.close()
    shutil.copy(compact / "data.mdb", filled)
    assert open_storage().position == memory_log.position


def test_later_format_is_refused(filled, open_storage):
    """A database of a later release is not touched."""
    env = lmdb.open(str(filled.parent), max_dbs=16)
    with env.begin(write=True, db=env.open_db(b"meta")) as txn:
        txn.put(b"format", str(FORMAT_VERSION + 1).encode())
    env.close()
    with pytest.raises(StorageTooNew, match=f"format {FORMAT_VERSION + 1}"):
        open_storage()


def test_other_element_type_is_refused(filled, open_storage):
    """Vectors are never read as another type than they were stored in."""
    with pytest.raises(StorageFault, match="f32"):
        open_storage(stored=StoredType.F16)


def test_full_map_refuses_the_batch_and_keeps_the_rest(open_storage, memory_log):
    """A batch that does not fit raises StorageFull; what was there stays, and smaller batches still apply."""
    storage = open_storage(map_size=2**20)
    storage.apply(memory_log.put(0))
    large = [entry for doc_id in range(1, 40) for entry in memory_log.put(doc_id, text="x" * 100_000)]
    with pytest.raises(StorageFull):
        storage.apply(large)
    assert (storage.position.seq, storage.documents) == (1, 1)
    assert storage.apply(large[:1]).seq == 2


def test_quota_refuses_growth_until_there_is_room(open_storage, memory_log):
    """Beyond max_bytes nothing is written; after trimming, writes go on."""
    storage = open_storage(max_bytes=500_000)

    def fill() -> None:
        for doc_id in range(10_000):
            storage.apply(memory_log.put(doc_id % 3, text="x" * 3000))

    with pytest.raises(StorageFull, match="quota is 500000"):
        fill()
    applied = memory_log.position.seq - 1
    assert storage.position.seq == applied
    storage.trim(applied, applied)
    assert storage.used_bytes < 500_000
    assert storage.apply(memory_log.entries[-1:]).seq == applied + 1


def test_closed_storage_is_unavailable(open_storage):
    """Reads and writes after close() are refused; closing again is harmless."""
    storage = open_storage()
    storage.close()
    storage.close()
    with pytest.raises(StorageFault, match="closed"):
        storage.get([b"\x01a"])
    with pytest.raises(Unavailable):
        storage.fence(2)


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (lmdb.MapFullError("full"), StorageFull),
        (lmdb.DiskError("mdb_txn_commit: No space left on device"), StorageFull),
        (lmdb.Error("mdb_txn_commit: No space left on device"), StorageFull),
        (OSError(errno.ENOSPC, "No space left on device"), StorageFull),
        (OSError(errno.EDQUOT, "Disk quota exceeded"), StorageFull),
        (lmdb.CorruptedError("page"), StorageCorrupt),
        (lmdb.InvalidError("not LMDB"), StorageCorrupt),
        (lmdb.PanicError("meta"), StorageCorrupt),
        (lmdb.ReadersFullError("readers"), StorageFault),
        (OSError(errno.EIO, "Input/output error"), StorageFault),
    ],
)
def test_foreign_errors_have_their_fault(error, kind):
    """Errors of LMDB and of the system become the fault that the replica acts on."""
    assert type(fault_of(error)) is kind
