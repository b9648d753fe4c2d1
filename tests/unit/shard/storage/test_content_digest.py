"""The digest of a replica's content: equal for equal content however it came to be, different for any difference."""

import pytest

from kintsugi.errors import Unavailable
from shard.content_digest import digest_content
from shard.layout import number, vector_key
from shard.storage_faults import StorageCorrupt

MODEL = 1


def digested(storage, draws=0):
    return digest_content(storage, MODEL, draws, lambda: None)


def fill(log, storage, count=300):
    """Documents with an update, a patch and a deletion among them."""
    for doc_id in range(count):
        storage.apply(log.put(doc_id, float(doc_id), attributes=b'{"n": %d}' % doc_id, text=f"text {doc_id}"))
    storage.apply(log.put(3, 0.5))
    storage.apply(log.patch(4, b'{"patched": true}'))
    storage.apply(log.delete(5))


def test_replicas_of_one_log_have_one_digest(open_storage, memory_log):
    """Batches of any size give the same content at the same position."""
    one, other = open_storage("one"), open_storage("other")
    fill(memory_log, one)
    other.apply(memory_log.entries)
    found = digested(one)
    assert found.digest == digested(other).digest
    assert found.position == other.position
    assert found.documents == other.documents == 299


@pytest.mark.parametrize(
    "change",
    [
        lambda log: log.put(7, 7.0, attributes=b'{"n": 7}', text="text 7"),
        lambda log: log.put(7, 7.5),
        lambda log: log.patch(7, b'{"n": 8}'),
        lambda log: log.delete(7),
        lambda log: log.put("new"),
    ],
    ids=["version", "vector", "attributes", "deletion", "insertion"],
)
def test_every_change_changes_the_digest(open_storage, memory_log, change):
    """A new version, vector, attribute or document, and one document less."""
    storage = open_storage()
    fill(memory_log, storage, 20)
    before = digested(storage)
    storage.apply(change(memory_log))
    assert digested(storage).digest != before.digest


def test_an_embed_changes_the_digest_and_vectors_of_retired_models_do_not_count(open_storage, memory_log):
    """Of two replicas that gave a model up, one has dropped its vectors and the other one has not."""
    one, other = open_storage("one"), open_storage("other")
    fill(memory_log, one, 20)
    other.apply(memory_log.entries)
    one.apply(memory_log.embed(7, 8))
    assert digested(one).digest != digested(other).digest
    other.apply(memory_log.entries)
    for storage in (one, other):
        storage.retire_models({1})
    one.drop_vectors(1)
    assert digested(one).digest == digested(other).digest


def test_text_and_attributes_are_told_apart(open_storage, new_memory_log):
    """The same bytes in another field are another content."""
    digests = set()
    for folder, options in (("a", {"attributes": b"{}", "text": "x"}), ("b", {"attributes": b"{}x", "text": ""})):
        storage = open_storage(folder)
        storage.apply(new_memory_log().put(1, **options))
        digests.add(digested(storage).digest)
    assert len(digests) == 2


def test_a_damaged_vector_shows(open_storage, memory_log):
    """A bit that changed on one disk gives another digest at the same position."""
    good, damaged = open_storage("good"), open_storage("damaged")
    fill(memory_log, good, 20)
    damaged.apply(memory_log.entries)
    with damaged._write_transaction() as txn:
        database = damaged._databases.vectors
        value = bytearray(txn.get(vector_key(MODEL, 8), None, database))
        value[0] ^= 1
        txn.put(vector_key(MODEL, 8), bytes(value), db=database)
    assert digested(good).position == digested(damaged).position
    assert digested(good).digest != digested(damaged).digest


@pytest.mark.parametrize("lost", ["id", "vector", "document"])
def test_a_replica_that_contradicts_itself_is_corrupt(open_storage, memory_log, lost):
    """A document without its id or vector, and an id or vector without its document."""
    storage = open_storage()
    fill(memory_log, storage, 20)
    with storage._write_transaction() as txn:
        databases = storage._databases
        if lost == "id":
            txn.drop(databases.ids, delete=False)
        elif lost == "vector":
            txn.delete(vector_key(MODEL, 8), db=databases.vectors)
        else:
            txn.delete(number(8), db=databases.documents)
    with pytest.raises(StorageCorrupt):
        digested(storage)


def test_drawn_vectors_are_spread_and_repeatable(open_storage, memory_log):
    """One out of each tenth, the same ones every time, and all when there are few."""
    storage = open_storage()
    fill(memory_log, storage)
    drawn = digested(storage, 10).drawn[:, 0]
    assert len(drawn) == 10
    assert all(place * 30 - 1 <= value <= place * 30 + 31 for place, value in enumerate(drawn))
    assert drawn.tolist() == digested(storage, 10).drawn[:, 0].tolist()
    assert len(digested(storage, 1000).drawn) == 299


def test_an_empty_replica_has_a_digest(open_storage):
    """Nothing is content, too."""
    found = digested(open_storage(), 10)
    assert (found.documents, found.digest, len(found.drawn)) == (0, bytes(32), 0)


def test_digesting_ends_when_it_is_unwanted(open_storage, memory_log):
    """What is called between pieces may end the work, and the storage closes at once."""
    storage = open_storage()
    fill(memory_log, storage)

    def refuse() -> None:
        raise Unavailable("enough")

    with pytest.raises(Unavailable, match="enough"):
        digest_content(storage, MODEL, 0, refuse)
    storage.close()
