"""The vectors that an index is made of while its collection is upgraded."""

import numpy as np
import pytest

from kintsugi.log.chain import extend
from kintsugi.log.read import LogEntry
from kintsugi.log.records import delete, embed, put
from kintsugi.metrics import Metric, StoredType
from kintsugi.projections.projection import Affine, Kind
from shard.effective import EffectiveSource, Fallback
from shard.storage import Storage

OLD, NEW = 1, 2
WEIGHTS = np.random.default_rng(3).standard_normal((4, 6), dtype=np.float32)
MAP = Affine(Kind.RIDGE, Metric.DOT, WEIGHTS, np.full(6, 0.5, dtype=np.float32))


@pytest.fixture
def storage(tmp_path):
    opened = Storage.open(
        tmp_path, stored=StoredType.F32, models={OLD: 4, NEW: 6}, map_size=2**30, max_bytes=2**30, sync=False
    )
    yield opened
    opened.close()


def write(storage, payloads):
    position = storage.position
    entries, digest = [], position.digest
    for seq, payload in enumerate(payloads, start=position.seq + 1):
        digest = extend(digest, seq, payload)
        entries.append(LogEntry(1, seq, payload, digest))
    storage.apply(entries)


def vectors(count, dimension, seed=0):
    return np.random.default_rng(seed).standard_normal((count, dimension)).astype(np.float32)


@pytest.fixture
def filled(storage):
    """Rows 1 to 30: in turns with an old vector, a new one, and both; row 4 is gone."""
    old, new = vectors(30, 4, 1), vectors(30, 6, 2)
    payloads = []
    for place in range(30):
        given = {OLD: old[place].tobytes(), NEW: new[place].tobytes()}
        if place % 3 < 2:
            del given[(NEW, OLD)[place % 3]]
        payloads.append(put(place, given))
    write(storage, [*payloads, delete(3)])
    expected = {place + 1: MAP.apply(old[place : place + 1])[0] for place in range(0, 30, 3)}
    expected |= {place + 1: new[place] for place in range(30) if place % 3}
    del expected[4]
    return storage, expected


def test_a_row_has_its_own_vector_else_the_projected_one(filled):
    """In the order asked for, whatever is missing."""
    storage, expected = filled
    source = EffectiveSource(storage, Fallback(OLD, MAP))
    rows = np.array([30, 4, 1, 2, 3, 99, 28], dtype=np.uint64)
    present, found = source.vectors(NEW, rows)
    assert present.tolist() == [True, False, True, True, True, False, True]
    for row, vector in zip(rows[present].tolist(), found[present], strict=True):
        assert vector == pytest.approx(expected[row])


def test_a_scan_gives_every_row_once(filled):
    """Rows ascend; there are as many as documents."""
    storage, expected = filled
    source = EffectiveSource(storage, Fallback(OLD, MAP))
    blocks = list(source.all_vectors(NEW))
    rows = np.concatenate([rows for rows, _ in blocks])
    found = np.concatenate([vectors for _, vectors in blocks])
    assert rows.tolist() == sorted(expected)
    assert found == pytest.approx(np.stack([expected[row] for row in sorted(expected)]))
    assert source.documents_with_vector(NEW) == len(expected) == storage.documents


def test_without_a_fallback_there_are_own_vectors_only(filled):
    """As storage has them."""
    storage, expected = filled
    source = EffectiveSource(storage)
    present, _ = source.vectors(NEW, np.arange(1, 31, dtype=np.uint64))
    assert present.tolist() == [row in expected and row % 3 != 1 for row in range(1, 31)]
    assert source.documents_with_vector(NEW) == present.sum() == sum(len(rows) for rows, _ in source.all_vectors(NEW))


def test_scans_of_many_rows_come_in_blocks(storage):
    """Of one state each, however the rows are spread."""
    old = vectors(9000, 4, 5)
    write(storage, [put(place, {OLD: old[place].tobytes()}) for place in range(9000)])
    write(storage, [delete(place) for place in range(0, 9000, 7)])
    source = EffectiveSource(storage, Fallback(OLD, MAP))
    blocks = [rows for rows, _ in source.all_vectors(NEW)]
    assert len(blocks) > 1
    assert np.concatenate(blocks).tolist() == [place + 1 for place in range(9000) if place % 7]


def test_an_index_follows_what_changes_its_vectors_only(filled):
    """A vector of the other model concerns it where a row has none of its own; the position goes on in any case."""
    storage, _ = filled
    source = EffectiveSource(storage, Fallback(OLD, MAP))
    seq = storage.position.seq
    old, new = vectors(1, 4, 5)[0].tobytes(), vectors(1, 6, 6)[0].tobytes()
    write(storage, [embed(1, {OLD: old}, expected_version=2), embed(2, {OLD: old}, expected_version=3)])
    nothing = source.changed_rows(seq, 10, NEW)
    assert (nothing.rows.tolist(), nothing.position) == ([], storage.position)
    write(storage, [embed(0, {OLD: old}, expected_version=1), embed(6, {NEW: new}, expected_version=7), delete(9)])
    assert source.changed_rows(seq, 10, NEW).rows.tolist() == [1, 7, 10]
    assert source.changed_rows(seq, 3, NEW).rows.tolist() == [1]
    assert source.changed_rows(storage.position.seq, 10, NEW).rows.tolist() == []
    assert EffectiveSource(storage).changed_rows(seq, 10, NEW).rows.tolist() == [7, 10]
