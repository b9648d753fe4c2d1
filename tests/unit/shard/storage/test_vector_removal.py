"""Giving a model up: its vectors go, and none comes any more."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from kintsugi.ids import encode
from kintsugi.log import records
from shard.content_digest import digest_content
from shard.reader import Fields
from shard.storage_faults import StorageFault

VECTORS = Fields(vectors=True)


def put(log, doc_id, *models, size=16, **options):
    body = records.put(doc_id, {model: bytes([model]) * size for model in models}, **options)
    return log.append(records.stamp(body, 7))


def models_of(storage, doc_id):
    (found,) = storage.get([encode(doc_id)], VECTORS)
    return sorted(found.vectors)


def consistent(storage):
    """Raises StorageCorrupt when documents, vectors and counts do not fit."""
    return digest_content(storage, 1, 0, lambda: None)


def test_dropping_takes_the_vectors_of_one_model_only(open_storage, memory_log):
    """Documents, their other vectors and the position stay; counts, rows and the database agree, also after reopening."""
    storage = open_storage()
    for number in range(1200):
        storage.apply(put(memory_log, number, 1, 2, text="text"))
    storage.apply(put(memory_log, "only new", 2) + put(memory_log, "only old", 1))
    assert len(storage.rows_with(1)) == 1201
    assert storage.drop_vectors(1) == 1201
    assert storage.documents_with_vector(1) == 0
    assert not len(storage.rows_with(1))
    assert (models_of(storage, 7), models_of(storage, "only new"), models_of(storage, "only old")) == ([2], [2], [])
    assert storage.position == memory_log.position
    assert consistent(storage).documents == 1202
    assert storage.drop_vectors(1) == 0
    storage.close()
    again = open_storage()
    assert (again.documents_with_vector(1), len(again.rows_with(2))) == (0, 1201)


def test_dropping_goes_on_where_it_was_interrupted(open_storage, memory_log):
    """What is left after a crash is dropped by the next call, and writes go between its transactions."""
    seen = []

    def interrupt(event):
        seen.append(event.kind)
        if seen.count("trim") == 1:
            raise StorageFault("interrupted")

    storage = open_storage(models={1: 1024, 2: 1024}, observe=interrupt)
    for number in range(600):
        storage.apply(put(memory_log, number, 1, 2, size=4096))
    with pytest.raises(StorageFault, match="interrupted"):
        storage.drop_vectors(1)
    storage.close()
    again = open_storage(models={1: 1024, 2: 1024})
    assert again.documents_with_vector(1) == 100
    consistent(again)
    before = again.used_bytes
    assert again.drop_vectors(1) == 100
    assert again.used_bytes < before
    consistent(again)


def test_documents_may_change_while_vectors_are_dropped(open_storage, memory_log):
    """Records go between the transactions; what they write of the dropped model is dropped as well, or never stored."""
    storage = open_storage()
    storage.apply([entry for number in range(3000) for entry in put(memory_log, number, 1, 2)])
    storage.retire_models({1})
    with ThreadPoolExecutor(1) as thread:
        dropping = thread.submit(storage.drop_vectors, 1)
        for number in range(0, 3000, 300):
            storage.apply(put(memory_log, number, 1, 2) + memory_log.delete(number + 1))
        assert dropping.result() <= 3000
    assert (storage.documents, storage.documents_with_vector(1), storage.documents_with_vector(2)) == (2990, 0, 2990)
    consistent(storage)


def test_records_are_applied_without_vectors_of_retired_models(open_storage, memory_log):
    """Puts and embeds keep the rest, with the outcomes that they had before; models nobody declared may be retired."""
    storage = open_storage()
    storage.apply(put(memory_log, "a", 1))
    storage.retire_models({2, 9})
    storage.apply(put(memory_log, "b", 1, 2, 9) + memory_log.embed("a", 1))
    assert (models_of(storage, "a"), models_of(storage, "b")) == ([1], [1])
    assert [version for _, version in storage.outcomes(2, 3)] == [2, 1]
    assert storage.documents_with_vector(2) == 0
    present, _ = storage.vectors(2, np.array([1, 2], dtype=np.uint64))
    assert not present.any()
