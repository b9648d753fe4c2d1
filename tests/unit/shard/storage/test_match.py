"""Storage.match at sizes where containers change their form, while others write, after failures and upgrades."""

import json
import random
import threading
from functools import partial

import lmdb
import msgspec
import numpy as np
import pytest

from kintsugi.filters.matching import matches
from kintsugi.filters.tree import AllOf, AnyOf, Equals, Exists, Not, OneOf, Range
from kintsugi.metrics import StoredType
from shard.attributes.upgrade import index_some
from shard.environment import open_environment
from shard.storage_faults import StorageFull

# Neither a quota nor a map that matters.
ROOM = 2**30


def attributes_of(one):
    return json.dumps(one).encode()


def rows_of(storage, condition):
    return storage.match(condition).rows().tolist()


def index_entries(folder):
    """How many entries the attribute index of a closed storage has, by sub-database."""
    env = lmdb.open(str(folder), max_dbs=16, readonly=True)
    try:
        with env.begin() as txn:
            return [txn.stat(env.open_db(name, txn=txn))["entries"] for name in (b"names", b"postings", b"numbers")]
    finally:
        env.close()


def test_nothing_matches_in_an_empty_storage(open_storage):
    """Filters on unknown attributes match nothing, and their negation every document."""
    storage = open_storage()
    for condition in (Exists("a"), Equals("a", 1), Range("a", above="x"), Not(Exists("a"))):
        found = storage.match(condition)
        assert (len(found), found.rows().tolist(), found.seq) == (0, [], 0)
        assert found.contains(np.array([0, 1, 2**40], dtype=np.uint64)).tolist() == [False] * 3


def test_documents_with_and_without_vectors_or_attributes_are_told_apart(open_storage, memory_log):
    """A document without attributes fulfils negations only."""
    storage = open_storage()
    storage.apply(memory_log.put("plain") + memory_log.put("tagged", attributes=b'{"tag":["x","y"]}'))
    assert rows_of(storage, Equals("tag", "y")) == [2]
    assert rows_of(storage, Not(Equals("tag", "y"))) == [1]
    assert rows_of(storage, AnyOf((Exists("tag"), Not(Exists("tag"))))) == [1, 2]


def test_attributes_that_are_no_object_match_nothing(open_storage, memory_log):
    """What no coordinator lets in does not stop a replica: the document counts as one without attributes."""
    storage = open_storage()
    for doc_id, content in enumerate((b"[1]", b'"text"', b"{", b"\xff", b"")):
        storage.apply(memory_log.put(doc_id, attributes=content))
    assert rows_of(storage, Not(Exists("text"))) == [1, 2, 3, 4, 5]
    storage.apply(memory_log.patch(2, b'{"a":true}'))
    assert rows_of(storage, Equals("a", True)) == [3]


def test_texts_that_differ_behind_what_is_compared_replace_each_other(open_storage, memory_log):
    """A text that changes only behind its 1025th byte stays where it is."""
    storage = open_storage()
    storage.apply(memory_log.put("a", attributes=attributes_of({"t": "k" * 1100 + "1"})))
    storage.apply(memory_log.patch("a", attributes_of({"t": "k" * 1100 + "2"})))
    assert rows_of(storage, Range("t", above="k" * 1024)) == [1]
    assert rows_of(storage, Range("t", at_most="k" * 1024)) == []
    storage.apply(memory_log.patch("a", attributes_of({"t": "k" * 1024})))
    assert rows_of(storage, Equals("t", "k" * 1024)) == [1]
    assert rows_of(storage, Range("t", above="k" * 1024)) == []


def test_matches_stay_exact_through_large_changes(open_storage, memory_log):
    """Five thousand documents that come, change and go in batches of any size, compared with the semantics."""
    storage, rng = open_storage(), random.Random(11)
    held = {}

    def draw():
        return {
            "lang": rng.choice(["en", "de", "fr"]),
            "even": rng.random() < 0.97,
            "year": rng.randrange(1900, 2030),
            "price": rng.random(),
            "tags": rng.sample(["a", "b", "c", "d", "e"], rng.randrange(4)),
            "url": f"https://example.org/{rng.randrange(400)}",
        }

    conditions = [
        Equals("even", True),
        Range("year", at_least=1950, below=1960.5),
        Range("price", above=0.25, at_most=0.5),
        OneOf("year", (1901, 1902, 2029, "1903")),
        Range("url", above="https://example.org/1", below="https://example.org/3"),
        AllOf((Equals("tags", "a"), Not(Equals("lang", "en")), Range("price", below=0.9))),
        AnyOf((Equals("tags", "e"), Equals("year", 2000), Not(Exists("price")))),
    ]
    for size in (5000, 1, 3000, 17, 4000, 300):
        entries = []
        for doc_id in rng.sample(range(6000), size):
            if doc_id in held and rng.random() < 0.2:
                del held[doc_id]
                entries += memory_log.delete(doc_id)
            else:
                held[doc_id] = draw()
                entries += memory_log.put(doc_id, attributes=attributes_of(held[doc_id]))
        storage.apply(entries)
        rows = {int.from_bytes(one.id[1:], "big"): one.row for one in storage.scroll(b"", 10_000).documents}
        for condition in conditions:
            expected = sorted(rows[doc_id] for doc_id, one in held.items() if matches(condition, one))
            assert rows_of(storage, condition) == expected


def test_index_does_not_grow_with_churn(open_storage, memory_log, tmp_path):
    """However often documents get other values and names, the index holds what they have now, and so does a column."""
    storage = open_storage()
    entries = []
    for turn in range(60):
        for doc_id in range(200):
            values = {"n": turn * 1000.0 + doc_id, "s": f"{turn}-{doc_id}", f"name-{turn}-{doc_id % 7}": 1}
            entries.append(partial(memory_log.put, doc_id, attributes=attributes_of(values)))
    for start in range(0, len(entries), 500):
        storage.apply([entry for write in entries[start : start + 500] for entry in write()])
        assert len(storage.match(Range("n", at_least=0.0))) == storage.documents
    assert len(storage.match(Exists("name-59-3"))) == len(range(3, 200, 7))
    assert len(storage.match(Exists("name-58-3"))) == 0
    assert storage.column_bytes < 500_000
    storage.close()
    # n, s and 7 names; all documents, a posting per name and a text per document; 2 blocks for n and for each name.
    assert index_entries(tmp_path / "replica") == [9, 1 + 9 + 200, 2 + 7 * 2]


def test_readers_see_one_state_while_documents_change(open_storage, memory_log):
    """While every batch moves all documents to another number and text, each read finds all of them in its state."""
    storage, count, batches = open_storage(), 40, 150
    done, wrong, looks = threading.Event(), [], []

    def write(turn):
        content = attributes_of({"n": turn, "s": str(turn)})
        storage.apply([entry for doc_id in range(count) for entry in memory_log.put(doc_id, attributes=content)])

    def read():
        while not done.is_set():
            with storage.reading() as reader:
                turn = reader.state().seq // count
                for condition in (Equals("n", turn), Equals("s", str(turn)), Range("n", above=turn - 1)):
                    found = reader.match(condition)
                    if len(found) != count or found.seq != turn * count:
                        wrong.append((condition, len(found), found.seq, turn))
            looks.append(turn)

    write(1)
    readers = [threading.Thread(target=read) for _ in range(3)]
    for reader in readers:
        reader.start()
    for turn in range(2, batches):
        write(turn)
    done.set()
    for reader in readers:
        reader.join(30)
    assert wrong == []
    assert looks


def test_reader_of_an_old_state_keeps_its_matches(open_storage, memory_log):
    """A read that began several batches ago finds what was there then, and does not spoil it for later ones."""
    storage = open_storage()
    storage.apply(memory_log.put(0, attributes=b'{"n":0}'))
    with storage.reading() as reader:
        for turn in range(1, 5):
            entries = memory_log.put(0, attributes=attributes_of({"n": turn}))
            writer = threading.Thread(target=storage.apply, args=[entries])
            writer.start()
            writer.join()
        assert reader.match(Equals("n", 0)).rows().tolist() == [1]
        assert rows_of(storage, Equals("n", 4)) == [1]
        assert reader.match(Equals("n", 4)).rows().tolist() == []
    assert rows_of(storage, Equals("n", 0)) == []


def test_batch_that_fails_leaves_matches_as_they_were(open_storage, memory_log):
    """What a refused batch would have changed is in no index and in no column."""
    storage = open_storage(max_bytes=300_000)
    storage.apply(memory_log.put("a", attributes=b'{"n":1,"s":"x"}'))
    assert rows_of(storage, Equals("n", 1)) == [1]
    kept = len(memory_log.entries)
    large = memory_log.put("a", attributes=b'{"n":2,"s":"y","new":1}', text="x" * 250_000)
    with pytest.raises(StorageFull):
        storage.apply(large)
    for condition in (Equals("n", 1), Equals("s", "x"), Not(Exists("new"))):
        found = storage.match(condition)
        assert (found.rows().tolist(), found.seq) == ([1], kept)
    assert rows_of(storage, OneOf("n", (2,))) == []


def test_copy_matches_like_its_origin(open_storage, memory_log, tmp_path):
    """A copy brings the attribute index along."""
    storage = open_storage()
    for doc_id in range(300):
        memory_log.put(doc_id, attributes=attributes_of({"n": doc_id, "s": str(doc_id)}))
    storage.apply(memory_log.entries)
    storage.copy_to(tmp_path / "copy")
    copy = open_storage("copy")
    for condition in (Range("n", below=100), Range("s", at_least="2"), Not(Exists("n"))):
        assert rows_of(copy, condition) == rows_of(storage, condition)


def downgrade(folder):
    """Makes a database what the release before the attribute index wrote."""
    env = lmdb.open(str(folder), max_dbs=16, map_size=ROOM)
    meta = env.open_db(b"meta")
    databases = [env.open_db(name) for name in (b"names", b"postings", b"numbers")]
    with env.begin(write=True) as txn:
        for database in databases:
            txn.drop(database)
        state = msgspec.msgpack.decode(txn.get(b"state", db=meta))
        del state["next_attribute"]
        txn.put(b"state", msgspec.msgpack.encode(state), db=meta)
        txn.put(b"format", b"1", db=meta)
    env.close()


@pytest.mark.parametrize("transactions", [0, 1, 2])
def test_database_of_the_format_before_is_indexed_when_it_is_opened(
    open_storage, memory_log, new_memory_log, tmp_path, transactions
):
    """After an upgrade, also one that crashed on the way, matches and entries are those of a replica that was always
    indexed, and both go on alike."""
    for doc_id in range(5000):
        content = attributes_of({"n": doc_id % 97, "s": f"s{doc_id % 11}", "tags": [f"t{doc_id % 3}"]})
        memory_log.put(doc_id, attributes=b"" if doc_id % 10 == 0 else content)
    for doc_id in range(0, 5000, 7):
        memory_log.delete(doc_id)
    storage, always = open_storage("old"), open_storage("always")
    for one in (storage, always):
        one.apply(memory_log.entries)
    storage.close()
    downgrade(tmp_path / "old")
    for _ in range(transactions):
        environment, state = open_environment(tmp_path / "old", stored=StoredType.F32, map_size=ROOM, sync=False)
        index_some(environment, state)
        environment.env.close()
    storage = open_storage("old")
    more = memory_log.put(1, attributes=b'{"new":["x"],"n":-1}') + memory_log.delete(2) + memory_log.put(9999)
    conditions = [Range("n", below=50), Equals("s", "s3"), Equals("tags", "t1"), Exists("new"), Not(Exists("n"))]
    for entries in ([], more):
        storage.apply(entries)
        always.apply(entries)
        for condition in conditions:
            assert rows_of(storage, condition) == rows_of(always, condition)
    storage.close()
    always.close()
    assert index_entries(tmp_path / "old") == index_entries(tmp_path / "always")
