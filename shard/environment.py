"""Opens the LMDB environment of a replica, checks that it is whole, and counts what it uses.

Guarantees: a file that is torn, foreign, or of a later format is refused (StorageCorrupt, StorageTooNew) before any of
its pages is used; formats only go up. LMDB has no checksums: damage inside a page is found only when it breaks the
structure. Does not know documents.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Final

import lmdb
from lmdb.verify import VerifyError, verify

from kintsugi.metrics import StoredType
from shard.layout import FORMAT_VERSION, State, decode_state, encode_state, number
from shard.storage_faults import StorageCorrupt, StorageFault, StorageTooNew, faults_mapped

DATA_FILE: Final = "data.mdb"
META_FORMAT: Final = b"format"
META_STATE: Final = b"state"
# The last row that is in the attribute index, while that is being filled.
META_ATTRIBUTES: Final = b"attributes"

# LMDB's limit on simultaneous read transactions: search, reads, followers and copies of one replica stay far below it.
_MAX_READERS = 512

# From a format to the next one. A migration runs in the transaction that raises the format.
MIGRATIONS: Mapping[int, Callable[[Any, Any], None]] = {
    # The attribute index is new and empty; Storage.open fills it.
    1: lambda txn, meta: txn.put(META_ATTRIBUTES, number(0), db=meta),
    # The tail may hold entries of several records from now on.
    2: lambda _txn, _meta: None,
}


@dataclass(frozen=True, slots=True)
class Databases:
    """The handles of the sub-databases."""

    meta: Any
    ids: Any
    documents: Any
    vectors: Any
    journal: Any
    tail: Any
    names: Any
    postings: Any
    numbers: Any

    def all(self) -> tuple[Any, ...]:
        return tuple(getattr(self, one.name) for one in fields(self))


@dataclass(frozen=True, slots=True)
class Environment:
    env: Any
    databases: Databases
    path: Path

    @property
    def is_synced(self) -> bool:
        """Whether a commit returns only after it is on the disk, by the flags that LMDB itself reports."""
        flags = self.env.flags()
        return bool(flags["sync"] and flags["metasync"])

    @property
    def disk_bytes(self) -> int:
        return (self.path / DATA_FILE).stat().st_size

    @property
    def last_transaction(self) -> int:
        """The id of the last transaction that was committed."""
        return int(self.env.info()["last_txnid"])

    def used_bytes(self, txn: Any) -> int:
        """The pages in use as `txn` sees them; free pages inside the file do not count."""
        pages = 0
        for database in self.databases.all():
            stat = txn.stat(database)
            pages += stat["branch_pages"] + stat["leaf_pages"] + stat["overflow_pages"]
        return int(pages * self.env.stat()["psize"])


def open_environment(path: Path, *, stored: StoredType, map_size: int, sync: bool) -> tuple[Environment, State]:
    """Opens or creates the environment in the folder `path`."""
    if (path / DATA_FILE).exists() and (path / DATA_FILE).stat().st_size == 0:
        # LMDB would silently start anew.
        raise StorageCorrupt(f"{path / DATA_FILE} is empty")
    with faults_mapped:
        path.mkdir(parents=True, exist_ok=True)
        env = lmdb.open(
            str(path),
            map_size=map_size,
            max_dbs=len(Databases.__slots__),
            max_readers=_MAX_READERS,
            max_spare_txns=16,
            sync=sync,
            metasync=sync,
            readahead=False,
        )
    try:
        with faults_mapped:
            return _prepare(env, path, stored)
    except BaseException:
        env.close()
        raise


def _prepare(env: Any, path: Path, stored: StoredType) -> tuple[Environment, State]:
    _check_whole(env, path)
    # Readers that died with their process would keep old pages from being reused.
    env.reader_check()
    is_new = env.info()["last_txnid"] == 0
    # One transaction: a crash leaves either nothing or a whole database.
    with env.begin(write=True) as txn:
        meta = env.open_db(b"meta", txn=txn, create=is_new)
        state = _create(txn, meta, stored) if is_new else _migrate(txn, meta, stored)
        # Older databases have none of the attribute index.
        lacks_index = is_new or txn.get(META_ATTRIBUTES, db=meta) == number(0)
        databases = Databases(
            meta=meta,
            ids=env.open_db(b"ids", txn=txn, create=is_new, dupsort=True, dupfixed=True),
            documents=env.open_db(b"documents", txn=txn, create=is_new),
            vectors=env.open_db(b"vectors", txn=txn, create=is_new),
            journal=env.open_db(b"journal", txn=txn, create=is_new),
            tail=env.open_db(b"tail", txn=txn, create=is_new),
            names=env.open_db(b"names", txn=txn, create=lacks_index),
            postings=env.open_db(b"postings", txn=txn, create=lacks_index),
            numbers=env.open_db(b"numbers", txn=txn, create=lacks_index),
        )
    return Environment(env, databases, path), state


def _check_whole(env: Any, path: Path) -> None:
    """Refuses a file that ends before its last page: reading there would kill the process with SIGBUS.

    LMDB may legally leave free pages at the end unwritten, so only a short file is examined page by page.
    """
    needed = (env.info()["last_pgno"] + 1) * env.stat()["psize"]
    size = (path / DATA_FILE).stat().st_size
    if size >= needed:
        return
    try:
        problems = verify(str(path / DATA_FILE), subdir=False)  # type: ignore[no-untyped-call]
    except VerifyError as error:
        problems = [str(error)]
    if problems:
        raise StorageCorrupt(f"{path / DATA_FILE} has {size} bytes, its pages need {needed}: {problems[0]}")


def _create(txn: Any, meta: Any, stored: StoredType) -> State:
    state = State(stored=stored.value)
    txn.put(META_FORMAT, str(FORMAT_VERSION).encode(), db=meta)
    txn.put(META_STATE, encode_state(state), db=meta)
    return state


def _migrate(txn: Any, meta: Any, stored: StoredType) -> State:
    """Checks the format, raises it step by step where needed, and returns the state."""
    raw_format, raw_state = txn.get(META_FORMAT, db=meta), txn.get(META_STATE, db=meta)
    if raw_format is None or raw_state is None or not raw_format.isdigit():
        raise StorageCorrupt("meta has no format or no state")
    version = int(raw_format)
    if version > FORMAT_VERSION:
        raise StorageTooNew(f"database has format {version}, this release reads up to {FORMAT_VERSION}")
    for step in range(version, FORMAT_VERSION):
        MIGRATIONS[step](txn, meta)
    if version < FORMAT_VERSION:
        txn.put(META_FORMAT, str(FORMAT_VERSION).encode(), db=meta)
    state = decode_state(txn.get(META_STATE, db=meta))
    if state.stored != stored.value:
        raise StorageFault(f"database holds vectors as {state.stored}, the collection says {stored.value}")
    return state
