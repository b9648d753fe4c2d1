"""Storage.match against what filters mean, over random histories, batches, reopenings and filters."""

import json
import shutil
import tempfile
from itertools import pairwise
from pathlib import Path

import lmdb
import numpy as np
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from kintsugi.filters.matching import flatten, matches
from kintsugi.filters.tree import AllOf, AnyOf, Equals, Exists, Not, OneOf, Range
from kintsugi.log import records
from kintsugi.log.chain import extend
from kintsugi.log.read import LogEntry
from kintsugi.metrics import StoredType
from shard.attributes.terms import decode_attributes
from shard.reader import Fields
from shard.storage import Storage

# Texts around what a key holds (480 bytes) and what comparisons look at (1024 bytes), many with one beginning.
STEMS = ["", "a", "é" * 240, "k" * 479, "k" * 480, "k" * 481, "k" * 700, "k" * 1024]
ENDS = ["", "\x00", "\x00\x00", "\x01", "a", "b", "\U0010ffff"]
TEXTS = sorted({stem + end for stem in STEMS for end in ENDS if len((stem + end).encode()) <= 1024})
LONG_TEXTS = [*TEXTS, "k" * 1024 + "a", "k" * 1024 + "b", "k" * 3000, "l" * 3000]
NUMBERS = [0.0, -0.0, 1, 1.0, -1, 2.5, 2**53, 2**53 + 1, 1e308, -1e308, 10**30, -(10**400), 5e-324]
LONG_NAME = "n" * 512
NAMES = ["a", "b", "a.b", "a.b.c", "c", "é", LONG_NAME]


def one_of(items):
    """As st.sampled_from, without showing all of the long items in every failure."""

    def item(place):
        return items[place]

    return st.integers(0, len(items) - 1).map(item)


scalars = st.one_of(
    one_of(LONG_TEXTS), st.sampled_from(["x", "y", "z"]), st.sampled_from(NUMBERS), st.booleans(), st.none()
)
values = st.recursive(
    st.one_of(scalars, st.lists(scalars, max_size=3)),
    lambda inner: st.dictionaries(st.sampled_from(["b", "c", "b.c", ""]), inner, max_size=3),
    max_leaves=4,
)
anything = st.fixed_dictionaries({"a": values}, optional=dict.fromkeys([*NAMES[1:], LONG_NAME + "n", ""], values))
# Histories of one kind of values, so that the same posting, or the same column, changes again and again.
numeric = st.fixed_dictionaries({"a": one_of(NUMBERS)}, optional={"b": one_of(NUMBERS)})
textual = st.fixed_dictionaries({"a": one_of(LONG_TEXTS) | st.lists(one_of(LONG_TEXTS), max_size=3)})

texts = one_of(TEXTS) | st.sampled_from(["x", "y"])
numbers = st.sampled_from([float(one) for one in NUMBERS if abs(one) < 10**300] + [1.5])
wanted = st.one_of(texts, numbers, st.booleans())


def ranges(bounds):
    low = st.tuples(st.sampled_from(["above", "at_least"]), bounds)
    high = st.tuples(st.sampled_from(["below", "at_most"]), bounds)
    given_bounds = st.one_of(st.tuples(low), st.tuples(high), st.tuples(low, high))
    return st.tuples(one_of(NAMES), given_bounds).map(lambda pair: Range(pair[0], **dict(pair[1])))


leaves = st.one_of(
    st.builds(Equals, one_of(NAMES), wanted),
    st.builds(OneOf, one_of(NAMES), st.lists(wanted, min_size=1, max_size=4).map(tuple)),
    st.builds(Exists, one_of([*NAMES, "absent"])),
    ranges(texts),
    ranges(numbers),
)
filters = st.recursive(
    leaves,
    lambda inner: st.one_of(
        st.builds(AllOf, st.lists(inner, min_size=1, max_size=3).map(tuple)),
        st.builds(AnyOf, st.lists(inner, min_size=1, max_size=3).map(tuple)),
        st.builds(Not, inner),
    ),
    max_leaves=5,
)

# Few ids, so that documents change; a step is a put, a patch or a delete.
IDS = [1, 2, 3, "a", "b"]


def histories(attributes):
    operations = st.sampled_from(["put", "put", "patch", "delete"])
    return st.lists(st.tuples(st.sampled_from(IDS), operations, st.none() | attributes), min_size=6, max_size=20)


cuts = st.just(list(range(20))) | st.lists(st.integers(0, 100), max_size=5)
steps = histories(anything) | histories(numeric) | histories(textual)


def is_long(value):
    """No filter names such a text."""
    return isinstance(value, str) and len(value.encode()) > 1024


def encoded(given_attributes):
    return b"" if given_attributes is None else json.dumps(given_attributes).encode()


class Replica:
    """A storage, and the records it is given in batches."""

    def __init__(self, folder):
        self.folder = folder
        self.storage = self._open()

    def _open(self):
        return Storage.open(
            self.folder, stored=StoredType.F32, models={1: 2}, map_size=2**30, max_bytes=2**30, sync=False
        )

    def reopen(self):
        self.storage.close()
        self.storage = self._open()

    def apply(self, batch):
        position = self.storage.position
        digest, entries = position.digest, []
        for seq, (doc_id, operation, given_attributes) in enumerate(batch, position.seq + 1):
            payload = records.delete(doc_id)
            if operation == "put":
                payload = records.put(doc_id, {}, attributes=encoded(given_attributes))
            elif operation == "patch":
                payload = records.patch(doc_id, encoded(given_attributes))
            digest = extend(digest, seq, payload)
            entries.append(LogEntry(1, seq, payload, digest))
        self.storage.apply(entries)

    def documents(self):
        """Attributes by row."""
        page = self.storage.scroll(b"", 100_000, Fields(attributes=True))
        return {one.row: decode_attributes(one.attributes.encode()) for one in page.documents}

    def check_all(self, conditions):
        """Checks the conditions, and those that are about the values that there are."""
        documents = self.documents()
        found = {pair for one in documents.values() for pair in flatten(one) if not is_long(pair[1])}
        for name, value in sorted(found, key=repr)[:12]:
            self.check(documents, Equals(name, value))
            if not isinstance(value, bool):
                for bound in ("above", "at_least", "below", "at_most"):
                    self.check(documents, Range(name, **{bound: value}))
        for condition in conditions:
            self.check(documents, condition)

    def check(self, documents, condition):
        expected = sorted(row for row, one in documents.items() if matches(condition, one))
        found = self.storage.match(condition)
        assert found.rows().tolist() == expected, condition
        assert (len(found), found.seq) == (len(expected), self.storage.position.seq)
        asked = np.arange(self.storage.position.seq + 2, dtype=np.uint64)[::-1]
        assert found.contains(asked).tolist() == [int(row) in set(expected) for row in asked]


def index_entries(folder):
    """How many entries the attribute index of a closed storage has, by sub-database."""
    env = lmdb.open(str(folder), max_dbs=16, readonly=True)
    try:
        with env.begin() as txn:
            return [txn.stat(env.open_db(name, txn=txn))["entries"] for name in (b"names", b"postings", b"numbers")]
    finally:
        env.close()


def in_batches(items, edges):
    edges = sorted({0, len(items), *(edge % (len(items) + 1) for edge in edges)})
    return [items[start:end] for start, end in pairwise(edges)]


@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
@given(steps, cuts, st.lists(filters, min_size=1, max_size=5), st.booleans())
def test_match_finds_the_documents_that_fulfil_the_filter(history, edges, conditions, reopens):
    """After every batch the matches are those of the semantics, also from columns that earlier filters left in memory."""
    folder = Path(tempfile.mkdtemp())
    replica = Replica(folder)
    try:
        for batch in in_batches(history, edges):
            replica.apply(batch)
            if reopens:
                replica.reopen()
            replica.check_all(conditions)
    finally:
        replica.storage.close()
        shutil.rmtree(folder)


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(steps, cuts)
def test_index_of_no_documents_is_empty(history, edges):
    """Whatever was there leaves nothing behind once every document is deleted: no posting, block or name."""
    folder = Path(tempfile.mkdtemp())
    replica = Replica(folder)
    try:
        for batch in in_batches(history, edges):
            replica.apply(batch)
        replica.apply([(doc_id, "delete", None) for doc_id in IDS])
        replica.storage.close()
        assert index_entries(folder) == [0, 0, 0]
    finally:
        replica.storage.close()
        shutil.rmtree(folder)
