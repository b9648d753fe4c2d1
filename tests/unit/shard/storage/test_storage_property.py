"""Storage against a dictionary, over random histories cut into random batches."""

import shutil
import tempfile
from itertools import pairwise
from pathlib import Path

import numpy as np
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from kintsugi.ids import encode
from kintsugi.internal.v1 import log_pb2
from kintsugi.log import records
from kintsugi.log.chain import extend
from kintsugi.log.read import LogEntry
from kintsugi.metrics import StoredType
from shard.outcomes import Condition, Operation, Outcome, decide
from shard.reader import Fields
from shard.storage import Storage

EVERYTHING = Fields(attributes=True, text=True, vectors=True)
# Long ids that share everything but what LMDB's keys have no room for, and multi-byte characters.
STEM = "k" * 509
ENDS = ["", "a", "a\x00", "a\x00\x00", "aaa", "ab", "aé", "é"]
IDS = [0, 7, 2**64 - 1, "7", "a", "a\x00", "é", STEM[:-1], *(STEM + end for end in ENDS)]


vectors = st.dictionaries(st.sampled_from([1, 2]), st.binary(min_size=8, max_size=8), max_size=2)
operations = st.lists(
    st.tuples(
        # Few ids per history, so that records meet documents.
        st.sampled_from([7, "a", STEM + "a", STEM + "aaa", STEM + "ab"]),
        st.sampled_from(list(Operation)),
        st.sampled_from([Condition.ALWAYS, *Condition]),
        st.integers(1, 12),
        st.sampled_from([b"", b'{"a":1}', b'{"b":"\xc3\xa9"}']),
        st.sampled_from(["", "a text", "ü" * 1500]),
        vectors,
    ),
    max_size=24,
)


class Oracle:
    """What a replica must hold: id -> (version, written at, attributes, text, vectors)."""

    def __init__(self):
        self.documents = {}
        self.outcomes = []

    def apply(self, seq, step):
        doc_id, operation, condition, expected, attributes, text, given_vectors = possible(step)
        current = self.documents.get(doc_id)
        decision = decide(operation, condition, expected, seq, current and current[0])
        self.outcomes.append((decision.outcome, decision.version))
        if decision.outcome is not Outcome.APPLIED:
            return
        if operation is Operation.PUT:
            self.documents[doc_id] = (seq, seq, attributes.decode(), text, given_vectors)
        elif operation is Operation.PATCH:
            self.documents[doc_id] = (current[0], seq, attributes.decode(), *current[3:])
        elif operation is Operation.EMBED:
            self.documents[doc_id] = (*current[:4], current[4] | given_vectors)
        else:
            del self.documents[doc_id]


places = st.lists(st.integers(0, 100), max_size=4)


def possible(step):
    """The step, as it can stand in a log: what embeds has a version and a vector."""
    doc_id, operation, condition, expected, attributes, text, given_vectors = step
    if operation is Operation.EMBED:
        condition, given_vectors = Condition.IF_VERSION, given_vectors or {2: b"12345678"}
    return doc_id, operation, condition, expected, attributes, text, given_vectors


def payload_of(seq, step):
    doc_id, operation, condition, expected, attributes, text, given_vectors = possible(step)
    record = log_pb2.Record(format_version=1, id=encode(doc_id), condition=int(condition), written_at_us=seq)
    record.expected_version = expected if condition is Condition.IF_VERSION else 0
    if operation is Operation.PUT:
        put = records.parse(records.put(doc_id, given_vectors, attributes=attributes, text=text)).put
        record.put.CopyFrom(put)
    elif operation is Operation.PATCH:
        record.patch.attributes = attributes
    elif operation is Operation.EMBED:
        embed = records.parse(records.embed(doc_id, given_vectors, expected_version=expected)).embed
        record.embed.CopyFrom(embed)
    else:
        record.delete.SetInParent()
    return record.SerializeToString()


def entries_of(steps, packs):
    """The log of the steps. `packs`: where an entry of several records may end."""
    digest, entries = b"", []
    edges = sorted({0, len(steps), *(end % (len(steps) + 1) for end in packs)})
    for start, end in pairwise(edges if packs else range(len(steps) + 1)):
        found = records.pack([payload_of(seq, step) for seq, step in enumerate(steps[start:end], start + 1)])
        for payload in found:
            seq = (entries[-1].seq if entries else 0) + payload.records
            digest = extend(digest, seq, payload.data)
            entries.append(LogEntry(1, seq, payload.data, digest, payload.records))
    return entries


def batches_of(entries, cuts):
    edges = sorted({0, len(entries), *(cut % (len(entries) + 1) for cut in cuts)})
    return [entries[start:end] for start, end in pairwise(edges)]


def open_at(path):
    return Storage.open(path, stored=StoredType.F32, models={1: 2, 2: 2}, map_size=2**28, max_bytes=2**28, sync=False)


def contents(storage):
    """Everything that replicas must have in common."""
    documents = storage.scroll(b"", 1000, EVERYTHING).documents
    changed = storage.changed_rows(0, 1000).rows.tolist() if storage.position.seq else []
    counts = [storage.documents_with_vector(model) for model in (1, 2)]
    outcomes = storage.outcomes(1, storage.position.seq)
    return documents, changed, counts, outcomes, storage.position, list(storage.tail(1, 1000))


@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
@given(operations, places, places, places, st.booleans())
def test_storage_equals_a_dictionary_however_the_log_is_cut(steps, packs, cuts, other_cuts, reopens):
    """Documents, order, counts and outcomes are those of the oracle; entries, batches, repetition and reopening change
    nothing."""
    folder = Path(tempfile.mkdtemp())
    storage, other = open_at(folder / "one"), open_at(folder / "other")
    try:
        oracle = Oracle()
        for seq, step in enumerate(steps, 1):
            oracle.apply(seq, step)
        entries = entries_of(steps, packs)
        for batch in batches_of(entries, cuts):
            storage.rows_with(2)  # kept from now on
            storage.apply(batch)
            if reopens:
                storage.close()
                storage = open_at(folder / "one")
        done = 0
        for batch in batches_of(entries, other_cuts):
            # All that was applied before comes again.
            done += len(batch)
            other.apply(entries[:done])
        assert_equal(storage, oracle)
        assert contents(storage) == contents(other)
    finally:
        storage.close()
        other.close()
        shutil.rmtree(folder)


def assert_equal(storage, oracle):
    found = storage.scroll(b"", 1000, EVERYTHING).documents
    assert [document.id for document in found] == sorted(map(encode, oracle.documents))
    by_id = {encode(doc_id): document for doc_id, document in oracle.documents.items()}
    for document in found:
        state = (document.version, document.written_at_us, document.attributes, document.text, document.vectors)
        assert state == by_id[document.id]
    assert storage.documents == len(oracle.documents)
    assert storage.outcomes(1, storage.position.seq) == oracle.outcomes
    assert [document and document.id for document in storage.get([encode(doc_id) for doc_id in IDS])] == [
        encode(doc_id) if doc_id in oracle.documents else None for doc_id in IDS
    ]
    for model in (1, 2):
        expected = {document.row: document.vectors[model] for document in found if model in document.vectors}
        assert storage.documents_with_vector(model) == len(expected)
        chunks = [(rows.tolist(), matrix.tobytes()) for rows, matrix in storage.all_vectors(model)]
        assert [row for rows, _ in chunks for row in rows] == sorted(expected)
        assert b"".join(data for _, data in chunks) == b"".join(expected[row] for row in sorted(expected))
        assert storage.rows_with(model).rows().tolist() == sorted(expected)
        present, _ = storage.vectors(model, np.array([document.row for document in found], dtype=np.uint64))
        assert present.tolist() == [model in document.vectors for document in found]


@settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.sets(st.sampled_from(IDS), min_size=1), st.integers(1, 4), st.sampled_from(IDS))
def test_scroll_pages_meet_in_id_order_from_anywhere(ids, limit, start):
    """Pages joined are the ids in order, also behind an id that does not exist."""
    folder = Path(tempfile.mkdtemp())
    storage = open_at(folder)
    try:
        storage.apply(entries_of([(doc_id, Operation.PUT, Condition.ALWAYS, 1, b"", "", {}) for doc_id in ids], []))
        after, found, more = encode(start), [], True
        while more:
            page = storage.scroll(after, limit)
            found += [document.id for document in page.documents]
            more = page.more
            after = found[-1] if found else after
        assert found == sorted(encode(doc_id) for doc_id in ids if encode(doc_id) > encode(start))
    finally:
        storage.close()
        shutil.rmtree(folder)


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(operations, st.integers(0, 100), st.integers(0, 100), st.booleans())
def test_replicas_agree_whenever_they_gave_a_model_up(steps, early, late, reopens):
    """Each hears at another time that model 1 is given up; in the end both hold what the oracle holds without it."""
    folder = Path(tempfile.mkdtemp())
    replicas = [open_at(folder / "one"), open_at(folder / "other")]
    try:
        oracle = Oracle()
        for seq, step in enumerate(steps, 1):
            oracle.apply(seq, step)
        entries = entries_of(steps, [])
        for place, when in enumerate((early, late)):
            cut = when % (len(entries) + 1)
            replicas[place].apply(entries[:cut])
            if reopens:
                replicas[place].close()
                replicas[place] = open_at(folder / ("one", "other")[place])
            replicas[place].retire_models({1})
            if when % 2:
                replicas[place].drop_vectors(1)
            replicas[place].apply(entries[cut:])
            replicas[place].drop_vectors(1)
        for doc_id, (*rest, given_vectors) in oracle.documents.items():
            left = {model: data for model, data in given_vectors.items() if model != 1}
            oracle.documents[doc_id] = (*rest, left)
        for storage in replicas:
            assert_equal(storage, oracle)
        assert contents(replicas[0]) == contents(replicas[1])
    finally:
        for storage in replicas:
            storage.close()
        shutil.rmtree(folder)
