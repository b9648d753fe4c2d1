"""Sets of rows: stored containers, and the bitmaps made of them, against Python's sets."""

import random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shard.attributes.layout import chunk_bytes
from shard.attributes.rowset import (
    bitmap_of_chunks,
    bitmap_of_rows,
    changed_container,
    container_bytes,
    rows_of,
    union,
)

CHUNK = 2**16
# Rows at the edges of chunks, and of the 2^32 rows that one bitmap of 32 bits holds.
rows = st.integers(0, 5) | st.sampled_from(
    [CHUNK - 1, CHUNK, 3 * CHUNK + 7, 2**32 - 1, 2**32, 2**32 + CHUNK, 2**48, 2**63]
)


def as_rows(items):
    return np.array(items, dtype=np.uint64)


@given(st.lists(rows))
def test_bitmap_holds_the_rows_it_is_given(items):
    """Any rows, in any order and repeated, come back ascending and once."""
    assert rows_of(bitmap_of_rows(as_rows(items))).tolist() == sorted(set(items))


@pytest.mark.parametrize("count", [1, 4095, 4096, 4097, CHUNK - 1, CHUNK])
@pytest.mark.parametrize("chunk", [0, 5, 2**17])
def test_containers_of_every_size_come_back(count, chunk):
    """Arrays and bitsets alike, the largest of either included; what follows the container is not looked at."""
    lows = sorted(random.Random(count).sample(range(CHUNK), count))
    value = changed_container(None, lows, ())
    assert len(value) == container_bytes(value) == 2 + (2 * count if count <= 4096 else 8192)
    expected = [chunk * CHUNK + low for low in lows]
    assert rows_of(bitmap_of_chunks([chunk], [value + b"behind"])).tolist() == expected
    assert rows_of(bitmap_of_rows(as_rows(expected))).tolist() == expected


def test_bitmap_joins_containers_of_ascending_chunks():
    """Chunks of several forms, and beyond 2^32 rows, become one bitmap."""
    sizes = {0: 1, 1: 5000, 7: 4096, 2**16: 60_000, 2**16 + 3: 2}
    containers, expected = {}, []
    for chunk, size in sizes.items():
        lows = sorted(random.Random(chunk).sample(range(CHUNK), size))
        containers[chunk] = changed_container(None, lows, ())
        expected += [chunk * CHUNK + low for low in lows]
    assert rows_of(bitmap_of_chunks(list(containers), list(containers.values()))).tolist() == expected
    twice = [*containers.items(), *reversed(containers.items())]
    joined = union([chunk_bytes(chunk) for chunk, _ in twice], [value for _, value in twice])
    assert rows_of(joined).tolist() == expected
    assert len(union([], [])) == 0


@settings(max_examples=30, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 2**16), st.integers(1, 9000), st.booleans()), min_size=1, max_size=8))
def test_container_follows_its_changes(changes):
    """Rows that come and go leave what a set would hold, as it grows into a bitset and shrinks again."""
    value, held = None, set()
    for seed, size, is_leaving in changes:
        drawn = set(random.Random(seed).sample(range(CHUNK), size))
        added, removed = sorted(drawn - held), sorted(drawn & held)
        if is_leaving:
            added, removed = [], sorted(held)[: len(held) - len(held) // 3]
        value = changed_container(value, added, removed)
        held = (held | set(added)) - set(removed)
        found = [] if value is None else rows_of(bitmap_of_chunks([0], [value])).tolist()
        assert found == sorted(held)
        assert (value is None) == (not held)


def test_container_that_fills_its_chunk_row_by_row_stays_readable():
    """A full chunk, which Roaring would keep as a run, is stored as bits."""
    value = changed_container(None, range(CHUNK - 1), ())
    value = changed_container(value, [CHUNK - 1], ())
    assert len(value) == 2 + 8192
    assert rows_of(bitmap_of_chunks([1], [value])).tolist() == list(range(CHUNK, 2 * CHUNK))
    assert changed_container(value, (), range(CHUNK)) is None
