"""The rows with a vector of a model: those of the reader's state, whatever was written before, meanwhile and in vain."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pyroaring import BitMap64

from kintsugi.log import records
from shard.storage_faults import StorageFull
from shard.vector_rows import Change, VectorRows


def rows_with(storage, model):
    return storage.rows_with(model).rows().tolist()


def put(log, doc_id, *models):
    return log.append(records.stamp(records.put(doc_id, {model: bytes(16) for model in models}), 7))


def test_rows_follow_what_is_written(open_storage, memory_log):
    """Puts, embeds and deletes, before the first question and after it."""
    storage = open_storage()
    storage.apply(put(memory_log, "a", 1) + put(memory_log, "b", 1, 2))
    assert rows_with(storage, 2) == [2]
    storage.apply(memory_log.embed("a", 1) + put(memory_log, "c", 2))
    assert rows_with(storage, 2) == [1, 2, 3]
    storage.apply(memory_log.delete("b") + put(memory_log, "c", 1))
    assert rows_with(storage, 2) == [1]
    assert rows_with(storage, 1) == [1, 3]


def test_a_document_that_moves_within_a_batch_leaves_its_row(open_storage, memory_log):
    """Deleted and written again at once, it has a new row."""
    storage = open_storage()
    storage.apply(put(memory_log, "a", 1))
    assert rows_with(storage, 1) == [1]
    storage.apply(memory_log.delete("a") + put(memory_log, "a", 1))
    assert rows_with(storage, 1) == [2]


def test_a_reader_keeps_its_state(open_storage, memory_log):
    """What is committed later does not show, and is not lost for those who begin then."""
    storage = open_storage()
    storage.apply(put(memory_log, "a", 1))
    with storage.reading() as first:
        storage.apply(put(memory_log, "b", 1))
        with storage.reading() as second:
            storage.apply(memory_log.delete("a"))
            for _ in range(2):
                assert first.rows_with(1).rows().tolist() == [1]
                assert second.rows_with(1).rows().tolist() == [1, 2]
                assert rows_with(storage, 1) == [2]


def test_a_batch_that_fails_leaves_no_trace(open_storage, memory_log, new_memory_log):
    """The rows are right after a full disk, too, with the next batch under the same transaction."""
    storage = open_storage(max_bytes=200_000)
    storage.apply(put(memory_log, "a", 1))
    assert rows_with(storage, 1) == [1]
    with pytest.raises(StorageFull):
        storage.apply(new_memory_log(memory_log.position).put("b", text="x" * 300_000))
    assert rows_with(storage, 1) == [1]
    storage.apply(put(memory_log, "c", 2))
    assert (rows_with(storage, 1), rows_with(storage, 2)) == ([1], [2])


def test_rows_combine_with_filters_and_with_each_other(open_storage, memory_log):
    """Sets of one state can be cut and subtracted; documents without the vector are what remains of all."""
    storage = open_storage()
    storage.apply(put(memory_log, "a", 1) + put(memory_log, "b", 1, 2) + put(memory_log, "c", 2))
    with storage.reading() as reader:
        one, two = reader.rows_with(1), reader.rows_with(2)
        assert (one & two).rows().tolist() == [2]
        assert (one - two).rows().tolist() == [1]
        assert reader.rows_lacking(1).rows().tolist() == [3]
        asked = np.array([3, 9, 1], dtype=np.uint64)
        assert reader.has_vectors(1, asked).tolist() == [False, False, True]


def test_rows_of_documents_come_in_pages(open_storage, memory_log):
    """All rows behind one, ascending, without those that are gone."""
    storage = open_storage()
    storage.apply(put(memory_log, "a", 1) + put(memory_log, "b") + put(memory_log, "c", 2) + memory_log.delete("a"))
    with storage.reading() as reader:
        assert reader.rows_after(0, 1).tolist() == [2]
        assert reader.rows_after(2, 10).tolist() == [3]
        assert not len(reader.rows_after(3, 10))


# Per transaction, which rows have a vector afterwards; and whether it fails first, which leaves no trace.
histories = st.lists(st.tuples(st.sets(st.integers(1, 6)), st.booleans()), max_size=12)


@given(histories, st.data())
def test_every_state_is_told_right(history, data):
    """Readers of any state, in any order and between any transactions, get its rows."""
    states, kept = [set()], VectorRows()

    def check():
        at = data.draw(st.integers(0, len(states) - 1))
        assert set(kept.rows(1, at, lambda: BitMap64(states[at]))) == states[at]

    for rows, fails in history:
        number = len(states)
        if fails:
            kept.tell(number, {1: Change(BitMap64({7}), BitMap64(states[-1]))})
            check()
            kept.forget(number - 1)
        added, removed = rows - states[-1], states[-1] - rows
        kept.tell(number, {1: Change(BitMap64(added), BitMap64(removed))} if rows != states[-1] else {})
        check()
        states.append(rows)
        check()


def test_an_old_reader_reads_for_itself():
    """Behind more transactions than are remembered nothing can be undone; what it reads is not kept."""
    kept = VectorRows()
    kept.rows(1, 0, BitMap64)
    for number in range(1, 300):
        kept.tell(number, {1: Change(BitMap64({number}), BitMap64())})
    assert kept.rows(1, 3, lambda: BitMap64({1, 2, 3})) == BitMap64({1, 2, 3})
    assert len(kept.rows(1, 299, BitMap64)) == 299
