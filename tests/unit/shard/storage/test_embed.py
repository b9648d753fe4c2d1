"""Vectors that are added to documents later, and those of models that are given up."""

import numpy as np
import pytest

from kintsugi.ids import encode
from kintsugi.internal.v1 import log_pb2
from kintsugi.log import records
from kintsugi.log.faults import RecordUnreadable, UnknownModel
from shard.outcomes import Outcome
from shard.reader import Fields

EVERYTHING = Fields(attributes=True, text=True, vectors=True)


def vector(value):
    return np.full(4, value, dtype="<f4").tobytes()


def document(storage, doc_id):
    (found,) = storage.get([encode(doc_id)], EVERYTHING)
    return found


def test_an_embed_adds_a_vector_and_leaves_the_rest_alone(open_storage, memory_log):
    """Version, time, attributes and text stay; the vector joins those of other models, and is counted once."""
    storage = open_storage()
    storage.apply(memory_log.put("a", 1.0, attributes=b'{"n":1}', text="one"))
    before = document(storage, "a")
    storage.apply(memory_log.embed("a", 1, 2.0) + memory_log.embed("a", 1, 3.0))
    after = document(storage, "a")
    assert after.vectors == {1: vector(1.0), 2: vector(3.0)}
    assert (after.version, after.written_at_us) == (before.version, before.written_at_us)
    assert (after.attributes, after.text, after.row) == ('{"n":1}', "one", before.row)
    assert storage.documents_with_vector(2) == 1
    assert storage.changed_rows(1, 10).rows.tolist() == [before.row]


def test_a_stale_embed_is_dropped(open_storage, memory_log):
    """A document written or deleted since then keeps what it has, in one batch as in several."""
    storage = open_storage()
    storage.apply(memory_log.put("a", 1.0) + memory_log.put("a", 2.0) + memory_log.embed("a", 1))
    storage.apply(memory_log.embed("a", 1) + memory_log.delete("a") + memory_log.embed("a", 2))
    assert [outcome for outcome, _ in storage.outcomes(3, 6)] == [
        Outcome.VERSION_DIFFERS,
        Outcome.VERSION_DIFFERS,
        Outcome.APPLIED,
        Outcome.MISSING,
    ]
    assert storage.documents_with_vector(2) == 0


def test_stale_embeds_are_counted(open_storage, memory_log):
    """Once, however often the log gives them; those that came in time and other refusals do not count."""
    storage = open_storage()
    storage.apply(memory_log.put("a", 1.0) + memory_log.put("a", 2.0))
    late = memory_log.embed("a", 1) + memory_log.embed("b", 1) + memory_log.embed("a", 2)
    storage.apply(late)
    storage.apply(late)
    assert storage.stale_vectors == 2


@pytest.mark.parametrize("condition", [log_pb2.CONDITION_UNSPECIFIED, log_pb2.CONDITION_UPDATE_ONLY])
def test_an_embed_without_a_version_is_refused(open_storage, memory_log, condition):
    """It would be a vector of nobody knows which content."""
    record = records.parse(records.embed("a", {2: vector(1.0)}, expected_version=1))
    record.condition = condition
    storage = open_storage()
    with pytest.raises(RecordUnreadable, match="without a version"):
        storage.apply(memory_log.append(records.stamp(record.SerializeToString(), 7)))


def test_an_embed_without_a_vector_is_refused(open_storage, memory_log):
    """Nothing to add is a defect of who wrote it."""
    storage = open_storage()
    with pytest.raises(RecordUnreadable, match="without a vector"):
        storage.apply(memory_log.append(records.stamp(records.embed("a", {}, expected_version=1), 7)))


def test_an_unknown_model_is_told_by_its_number(open_storage, memory_log):
    """Nothing of the batch is written, and it applies once the model is declared."""
    storage = open_storage()
    entries = memory_log.put("a") + memory_log.embed("a", 1, model=3)
    with pytest.raises(UnknownModel) as caught:
        storage.apply(entries)
    assert caught.value.model == 3
    assert storage.position.seq == 0
    storage.declare_model(3, 4)
    storage.apply(entries)
    assert storage.documents_with_vector(3) == 1


def test_the_index_of_another_model_need_not_follow_an_embed(open_storage, memory_log):
    """Rows are told to whom their vectors changed, and to all when it was written anew meanwhile."""
    storage = open_storage()
    storage.apply(memory_log.put("a") + memory_log.put("b") + memory_log.put("c"))
    both = records.embed("b", {1: vector(1.0), 2: vector(2.0)}, expected_version=2)
    storage.apply(memory_log.embed("a", 1) + memory_log.append(records.stamp(both, 7)) + memory_log.embed("c", 3))
    for model, rows in ((None, [1, 2, 3]), (1, [2]), (2, [1, 2, 3])):
        assert storage.changed_rows(3, 10, model).rows.tolist() == rows
    storage.apply(memory_log.put("a"))
    assert storage.changed_rows(3, 10, 1).rows.tolist() == [1, 2]
