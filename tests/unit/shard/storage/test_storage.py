"""Storage: batches, rows, journal, tail, fences, and what a commit tells its observer."""

import random
import threading
from dataclasses import replace

import numpy as np
import pytest

from kintsugi.ids import encode
from kintsugi.internal.v1 import shard_pb2
from kintsugi.log import records
from kintsugi.log.chain import extend
from kintsugi.log.faults import LogForked, LogGap, RecordUnreadable
from kintsugi.log.payload import Payload
from kintsugi.log.read import LogEntry
from kintsugi.metrics import StoredType
from kintsugi.position import START, Position
from shard.outcomes import Outcome
from shard.reader import Fields, StoredDocument
from shard.storage import Storage, StorageEvent
from shard.storage_faults import EpochFenced, JournalTrimmed, StorageFault


def rows_of(storage, *ids):
    return np.array([document.row for document in storage.get([encode(doc_id) for doc_id in ids])], dtype=np.uint64)


def ids_of(storage):
    return [document.id for document in storage.scroll(b"", 1000).documents]


def test_new_storage_is_at_the_start(open_storage):
    """A new database is empty and stands at the start of the log."""
    storage = open_storage()
    assert storage.position == START
    assert (storage.documents, storage.tail_first_seq, storage.journal_first_seq) == (0, 0, 0)
    assert storage.digest_at(0) == b""
    assert storage.digest_at(1) is None
    assert not len(storage.changed_rows(0, 10).rows)
    assert storage.apply([]) == START


def test_state_survives_reopening(open_storage, memory_log):
    """Position, counts, rows and fence are there after closing and opening."""
    storage = open_storage()
    storage.apply(memory_log.put(1) + memory_log.put("a"))
    storage.fence(4)
    storage.close()
    again = open_storage()
    assert again.position == memory_log.position
    assert (again.documents, again.documents_with_vector(1), again.documents_with_vector(2)) == (2, 2, 0)
    assert again.fenced_epoch == 4
    memory_log.epoch = 5
    again.apply(memory_log.put(2))
    assert rows_of(again, 1, "a", 2).tolist() == [1, 2, 3]


def test_updated_document_keeps_its_row_and_a_deleted_one_never_returns_to_it(open_storage, memory_log):
    """Rows are monotone: an update keeps the row, a new document after a delete gets a new one."""
    storage = open_storage()
    storage.apply(memory_log.put("a", 1.0) + memory_log.put("a", 2.0))
    assert rows_of(storage, "a").tolist() == [1]
    storage.apply(memory_log.delete("a") + memory_log.put("a", 3.0))
    assert rows_of(storage, "a").tolist() == [2]
    present, matrix = storage.vectors(1, np.array([1, 2], dtype=np.uint64))
    assert present.tolist() == [False, True]
    assert matrix.tolist() == [[0.0] * 4, [3.0] * 4]


def test_put_replaces_everything_and_patch_only_the_attributes(open_storage, memory_log):
    """A patch keeps version, text and vectors; a put drops what it does not bring."""
    storage = open_storage()
    everything = Fields(attributes=True, text=True, vectors=True)
    storage.apply(memory_log.put("a", 1.0, attributes=b'{"n":1}', text="one"))
    (before,) = storage.get([encode("a")], everything)
    storage.apply(memory_log.patch("a", b'{"n":2}'))
    (patched,) = storage.get([encode("a")], everything)
    assert patched == replace(before, attributes='{"n":2}', written_at_us=8)
    storage.apply(memory_log.append(records.stamp(records.put("a", {2: bytes(16)}), 9)))
    (put,) = storage.get([encode("a")], everything)
    assert put == StoredDocument(encode("a"), row=1, version=3, written_at_us=9, vectors={2: bytes(16)})
    assert (storage.documents_with_vector(1), storage.documents_with_vector(2)) == (0, 1)


def test_hits_leave_out_rows_that_are_gone(open_storage, memory_log):
    """Columns hold the documents that still exist, in the order asked for."""
    storage = open_storage()
    storage.apply(memory_log.put("a", attributes=b'{"n":1}', text="ä") + memory_log.put("b") + memory_log.put("c"))
    storage.apply(memory_log.delete("b"))
    hits = storage.hits(np.array([3, 2, 1, 99], dtype=np.uint64), Fields(attributes=True, text=True))
    assert hits.rows.tolist() == [3, 1]
    assert hits.ids == [encode("c"), encode("a")]
    assert hits.versions.tolist() == [3, 1]
    assert hits.attributes == ["", '{"n":1}']
    assert hits.texts == ["", "ä"]
    assert storage.hits(hits.rows).attributes == []


def test_reading_holds_one_state(open_storage, memory_log):
    """Reads of one reading() do not see what another thread commits meanwhile."""
    storage = open_storage()
    storage.apply(memory_log.put("a", 1.0))
    row = rows_of(storage, "a")
    with storage.reading() as reader:
        entries = memory_log.put("a", 2.0)
        writer = threading.Thread(target=storage.apply, args=[entries])
        writer.start()
        writer.join()
        assert reader.hits(row).versions.tolist() == [1]
        assert reader.vectors(1, row)[1][0, 0] == 1.0
    assert storage.hits(row).versions.tolist() == [2]


def test_scroll_page_ends_when_it_is_large(open_storage, memory_log):
    """A page stops behind the document that passes its byte bound, and says that there is more."""
    storage = open_storage()
    for doc_id in range(4):
        storage.apply(memory_log.put(doc_id, text="x" * 1000))
    page = storage.scroll(b"", 10, Fields(text=True), max_bytes=1500)
    assert ([document.id for document in page.documents], page.more) == ([encode(0), encode(1)], True)
    rest = storage.scroll(page.documents[-1].id, 2, Fields(text=True))
    assert ([document.id for document in rest.documents], rest.more) == ([encode(2), encode(3)], False)


def test_gap_is_refused_and_nothing_written(open_storage, memory_log):
    """A batch with a missing record in it is refused as a whole."""
    storage = open_storage()
    first, _, third = memory_log.put(1) + memory_log.put(2) + memory_log.put(3)
    with pytest.raises(LogGap):
        storage.apply([first, third])
    assert (storage.position, storage.documents, storage.tail_first_seq) == (START, 0, 0)


def test_fork_is_refused_and_nothing_written(open_storage, memory_log, new_memory_log):
    """A record of another history is refused, at the position and before it."""
    storage = open_storage()
    storage.apply(memory_log.put(1) + memory_log.put(2))
    other = new_memory_log()
    other.put(1)
    other.put(3)
    other.put(4)
    for entries in (other.entries[2:], other.entries[1:], other.entries):
        with pytest.raises(LogForked):
            storage.apply(entries)
    assert storage.position == memory_log.position
    assert ids_of(storage) == [encode(1), encode(2)]


def test_altered_payload_is_refused(open_storage, memory_log):
    """A payload that does not match its digest is a fork."""
    storage = open_storage()
    (entry,) = memory_log.put(1)
    with pytest.raises(LogForked):
        storage.apply([LogEntry(entry.epoch, entry.seq, entry.payload + b"\x00", entry.digest)])


def test_unreadable_record_refuses_its_batch(open_storage, new_memory_log):
    """Damaged records, later formats, unknown models and wrong sizes stop the replica; nothing is skipped."""
    newer = records.parse(records.delete(1))
    newer.format_version = 3
    unknown_condition = records.parse(records.delete(1))
    unknown_condition.condition = 77
    bad_id = records.parse(records.delete("a"))
    bad_id.id = b"\x01\xff"
    bad = [
        b"\xff\xff",
        newer.SerializeToString(),
        unknown_condition.SerializeToString(),
        bad_id.SerializeToString(),
        records.put(1, {9: bytes(16)}),
        records.put(1, {1: bytes(15)}),
    ]
    for number, payload in enumerate(bad):
        storage = open_storage(f"replica-{number}")
        log = new_memory_log()
        with pytest.raises(RecordUnreadable, match="record 2"):
            storage.apply(log.put(5) + log.append(payload))
        assert (storage.position, storage.documents) == (START, 0)


def test_record_of_a_new_model_applies_once_it_is_declared(open_storage, memory_log):
    """A replica that did not know a model goes on after declare_model."""
    storage = open_storage()
    entries = memory_log.append(records.put(1, {9: bytes(8)}))
    with pytest.raises(RecordUnreadable):
        storage.apply(entries)
    storage.declare_model(9, 2)
    assert storage.apply(entries) == memory_log.position
    assert storage.documents_with_vector(9) == 1
    with pytest.raises(ValueError, match="dimension 2"):
        storage.declare_model(9, 3)


def test_fenced_replica_takes_no_record_of_a_lower_epoch(open_storage, memory_log):
    """After a fence, only records of the new epoch are applied; a fence never goes down."""
    storage = open_storage()
    storage.apply(memory_log.put(1))
    storage.fence(3)
    storage.fence(2)
    assert storage.fenced_epoch == 3
    repeated, refused = memory_log.entries[0], memory_log.put(2)[0]
    with pytest.raises(EpochFenced):
        storage.apply([repeated, refused])
    assert storage.apply([repeated]).seq == 1
    again = LogEntry(3, refused.seq, refused.payload, refused.digest)
    assert storage.apply([again]) == Position(3, 2, refused.digest)


def test_changed_rows_are_deduplicated_and_bounded(open_storage, memory_log):
    """A slice covers at most `limit` records and names each row once; patches and refusals name none."""
    storage = open_storage()
    for _ in range(3):
        memory_log.put("a")
        memory_log.put("b")
    memory_log.patch("a", b"{}")
    memory_log.delete("missing")
    memory_log.delete("b")
    storage.apply(memory_log.entries)
    first = storage.changed_rows(0, 4)
    assert (first.rows.tolist(), first.last_seq) == ([1, 2], 4)
    assert (first.epoch, first.digest) == (1, memory_log.entries[3].digest)
    rest = storage.changed_rows(6, 100)
    assert (rest.rows.tolist(), rest.position) == ([2], storage.position)
    nothing = storage.changed_rows(9, 100)
    assert (nothing.rows.tolist(), nothing.position) == ([], storage.position)
    with pytest.raises(JournalTrimmed):
        storage.changed_rows(10, 100)


def test_trimmed_journal_forgets_outcomes_and_refuses_followers(open_storage, memory_log):
    """What was trimmed is FORGOTTEN, and a follower from before must start over; the newest record stays."""
    storage = open_storage()
    for doc_id in range(5):
        storage.apply(memory_log.put(doc_id))
    assert storage.trim(3, 0) == 2
    assert storage.outcomes(2, 3) == [(Outcome.FORGOTTEN, 0), (Outcome.APPLIED, 3)]
    assert storage.journal_first_seq == 3
    assert storage.changed_rows(2, 10).rows.tolist() == [3, 4, 5]
    with pytest.raises(JournalTrimmed):
        storage.changed_rows(1, 10)
    storage.trim(100, 0)
    assert storage.journal_first_seq == 5
    assert storage.digest_at(5) == storage.position.digest
    assert storage.apply(memory_log.entries) == memory_log.position
    assert storage.apply(memory_log.put(9)).seq == 6


def test_tail_gives_records_as_they_stood_in_the_log(open_storage, memory_log):
    """The tail returns payloads and digests from where it was trimmed to, and says so when asked for older ones."""
    storage = open_storage()
    storage.apply(memory_log.put("a") + memory_log.patch("a", b"{}") + memory_log.delete("a"))
    expected = [(entry.seq, Payload(entry.payload), entry.digest) for entry in memory_log.entries]
    assert list(storage.tail(1, 99)) == expected
    assert list(storage.tail(2, 2)) == expected[1:2]
    storage.trim(0, 3)
    assert (storage.tail_first_seq, list(storage.tail(3, 3))) == (3, expected[2:])
    with pytest.raises(JournalTrimmed):
        list(storage.tail(2, 3))
    storage.trim(0, 99)
    assert (storage.tail_first_seq, list(storage.tail(4, 9))) == (0, [])


def test_an_entry_of_several_records_is_kept_as_it_is(open_storage, memory_log):
    """Each record has its outcome, all of them the digest of the entry; the tail gives and trims the entry as a whole."""
    storage = open_storage()
    storage.apply(memory_log.put("a"))
    first = memory_log.entries[0]
    storage.apply(memory_log.packed(*memory_log.put("b"), *memory_log.put("a"), *memory_log.delete("b")))
    entry = memory_log.entries[1]
    assert (entry.first_seq, storage.position) == (2, entry.position)
    assert [version for _, version in storage.outcomes(1, 4)] == [1, 2, 3, 0]
    assert [storage.digest_at(seq) for seq in (1, 2, 3, 4)] == [first.digest, *[entry.digest] * 3]
    kept = (4, Payload(entry.payload, 3), entry.digest)
    assert list(storage.tail(1, 1)) == [(1, Payload(first.payload), first.digest)]
    assert list(storage.tail(1, 2)) == [(1, Payload(first.payload), first.digest), kept]
    assert list(storage.tail(3, 9)) == list(storage.tail(4, 4)) == [kept]
    storage.trim(0, 4)
    assert (storage.tail_first_seq, list(storage.tail(3, 3))) == (2, [kept])
    with pytest.raises(JournalTrimmed):
        list(storage.tail(1, 4))
    assert storage.apply(memory_log.entries) == entry.position


def test_an_entry_that_holds_not_what_its_log_says_is_refused(open_storage, memory_log):
    """Its records would get numbers that others have."""
    storage = open_storage()
    payload = records.pack([entry.payload for entry in memory_log.put("a") + memory_log.put("b")])[0].data
    for count in (1, 3):
        with pytest.raises(RecordUnreadable):
            storage.apply([LogEntry(1, count, payload, extend(b"", count, payload), count)])
    assert storage.position == START


def test_trim_works_in_bounded_transactions(open_storage, memory_log, new_memory_log):
    """Many entries are deleted in several transactions, each observed."""
    events = []
    storage = open_storage(observe=events.append)
    for doc_id in range(4500):
        memory_log.delete(doc_id)
    storage.apply(memory_log.entries)
    assert storage.trim(0, 4501) == 4500
    assert [event.kind for event in events] == ["commit", "trim", "trim", "trim"]


def test_copy_is_a_storage_of_the_same_state(open_storage, memory_log, tmp_path):
    """A copy opens as a replica at the same position, and goes on from there."""
    storage = open_storage()
    storage.apply(memory_log.put("a") + memory_log.put("b"))
    storage.copy_to(tmp_path / "copy")
    copy = open_storage("copy")
    storage.apply(memory_log.put("c"))
    assert ids_of(copy) == [encode("a"), encode("b")]
    copy.apply(memory_log.entries)
    assert (ids_of(copy), copy.position) == (ids_of(storage), storage.position)


@pytest.mark.parametrize("sync", [True, False])
def test_commit_is_observed_before_it_is_seen_and_tells_whether_it_was_synced(open_storage, memory_log, sync):
    """The event of a commit comes before its position is visible, with LMDB's own word on syncing."""
    seen = []

    def observe(event: StorageEvent) -> None:
        seen.append((event, storage.position.seq))

    storage = open_storage(sync=sync, observe=observe)
    storage.apply(memory_log.put(1))
    storage.fence(2)
    assert storage.is_synced is sync
    assert seen == [(StorageEvent("commit", 1, sync), 0), (StorageEvent("fence", 1, sync), 1)]


def test_storage_syncs_unless_told_otherwise(tmp_path):
    """The default is a synced environment."""
    storage = Storage.open(tmp_path, stored=StoredType.F32, models={}, map_size=2**20, max_bytes=2**20)
    assert storage.is_synced
    storage.close()


def test_outcome_numbers_are_those_of_the_protocol():
    """Outcomes go into responses as they are."""
    names = {f"RECORD_OUTCOME_{outcome.name}": int(outcome) for outcome in Outcome}
    assert names == {name: value for name, value in shard_pb2.RecordOutcome.items() if value}


def test_readers_in_many_threads_see_whole_documents(open_storage, memory_log):
    """While documents are replaced, every reader sees vector and version of the same write, and close() waits."""
    storage = open_storage()
    storage.apply([entry for doc_id in range(50) for entry in memory_log.put(doc_id, 0.0)])
    done, torn = threading.Event(), []

    def read() -> None:
        rows = np.arange(1, 51, dtype=np.uint64)
        while not done.is_set():
            try:
                with storage.reading() as reader:
                    values = reader.vectors(1, rows)[1][:, 0]
                    texts = reader.hits(rows, Fields(text=True)).texts
            except StorageFault:
                return
            torn.extend(1 for value, text in zip(values, texts, strict=True) if text and float(text) != value)

    readers = [threading.Thread(target=read) for _ in range(4)]
    for reader in readers:
        reader.start()
    order = random.Random(5)
    for value in range(200):
        doc_ids = order.sample(range(50), 5)
        storage.apply([e for doc_id in doc_ids for e in memory_log.put(doc_id, float(value), text=str(value))])
    storage.close()
    done.set()
    for reader in readers:
        reader.join(10)
    assert torn == []


def test_new_vectors_fill_the_pages_of_the_database(open_storage, memory_log):
    """Two vectors of 384 elements share a page, when they come in batches, one behind the other."""
    storage = open_storage(models={1: 384})
    vector = bytes(384 * 4)
    before, count = storage.used_bytes, 400
    for first in range(0, count, 10):
        bodies = [records.put(doc_id, {1: vector}) for doc_id in range(first, first + 10)]
        storage.apply(memory_log.append(*(records.stamp(body, 7) for body in bodies)))
    storage.trim(memory_log.position.seq, memory_log.position.seq + 1)
    assert storage.used_bytes - before < count * 3000
