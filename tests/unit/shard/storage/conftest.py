"""A log in memory and a storage on disk, for the tests of the shard's database."""

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from kintsugi.log import records
from kintsugi.log.chain import extend
from kintsugi.log.read import LogEntry
from kintsugi.metrics import StoredType
from kintsugi.position import START, Position
from shard.storage import Storage

DIMENSION = 4


class MemoryLog:
    """Chains payloads as the log does."""

    def __init__(self, position: Position = START, epoch: int = 1) -> None:
        self.position = position
        self.epoch = epoch
        self.entries: list[LogEntry] = []

    def append(self, *payloads: bytes) -> list[LogEntry]:
        added = []
        for payload in payloads:
            seq = self.position.seq + 1
            entry = LogEntry(self.epoch, seq, payload, extend(self.position.digest, seq, payload))
            self.position = entry.position
            added.append(entry)
        self.entries += added
        return added

    def packed(self, *entries: LogEntry) -> list[LogEntry]:
        """These entries, the last ones that were appended, as one."""
        first = self.entries.index(entries[0])
        before = self.entries[first - 1].position if first else START
        (payload,) = records.pack([entry.payload for entry in entries])
        seq = entries[-1].seq
        entry = LogEntry(self.epoch, seq, payload.data, extend(before.digest, seq, payload.data), payload.records)
        self.entries[first:] = [entry]
        self.position = entry.position
        return [entry]

    def put(self, doc_id: int | str, value: float = 0.0, **options: object) -> list[LogEntry]:
        vector = np.full(DIMENSION, value, dtype="<f4").tobytes()
        return self.append(records.stamp(records.put(doc_id, {1: vector}, **options), 7))

    def delete(self, doc_id: int | str, **options: object) -> list[LogEntry]:
        return self.append(records.stamp(records.delete(doc_id, **options), 7))

    def patch(self, doc_id: int | str, attributes: bytes, **options: object) -> list[LogEntry]:
        return self.append(records.stamp(records.patch(doc_id, attributes, **options), 8))

    def embed(self, doc_id: int | str, version: int, value: float = 0.0, model: int = 2) -> list[LogEntry]:
        vector = np.full(DIMENSION, value, dtype="<f4").tobytes()
        return self.append(records.stamp(records.embed(doc_id, {model: vector}, expected_version=version), 9))


@pytest.fixture
def memory_log() -> MemoryLog:
    return MemoryLog()


@pytest.fixture
def new_memory_log() -> type[MemoryLog]:
    return MemoryLog


@pytest.fixture
def open_storage(tmp_path: Path) -> Iterator[Callable[..., Storage]]:
    """Opens storages in folders of the test, with models 1 and 2, and closes them in the end."""
    opened: list[Storage] = []

    def open_one(folder: str = "replica", **options: object) -> Storage:
        arguments: dict[str, object] = {
            "stored": StoredType.F32,
            "models": {1: DIMENSION, 2: DIMENSION},
            "map_size": 2**30,
            "max_bytes": 2**30,
            # The tests that care about syncing say so.
            "sync": False,
        }
        opened.append(Storage.open(tmp_path / folder, **(arguments | options)))
        return opened[-1]

    yield open_one
    for storage in opened:
        storage.close()
