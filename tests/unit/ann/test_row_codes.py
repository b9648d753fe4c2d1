"""Codes by row in a mapped file: holes, growth, replacement, what is not the saved file, and disks that are full."""

import errno
import resource
import threading

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kintsugi.ann.row_codes import RowCodes, RowCodesIdentity


def rows(*numbers):
    return np.array(numbers, dtype=np.uint64)


def codes(count, width=16, seed=0):
    return np.random.default_rng(seed).integers(-127, 128, (count, width), dtype=np.int8)


@pytest.fixture
def file(tmp_path):
    created = RowCodes.create(tmp_path / "codes", 16, np.int8, 1000)
    yield created
    created.close()


def test_codes_are_read_as_they_were_written_last(file):
    """In any order of rows, across gaps, and after being replaced."""
    written = codes(5)
    file.write(rows(1003, 1000, 1001, 40_000, 1002), written)
    assert (file.gather(rows(1000, 40_000, 1003)) == written[[1, 3, 0]]).all()
    file.write(rows(1000), codes(1, seed=1))
    assert (file.gather(rows(1000)) == codes(1, seed=1)).all()


@given(st.lists(st.lists(st.integers(7, 30_000), min_size=1, max_size=20, unique=True), max_size=10))
def test_any_history_of_writes_equals_that_of_a_dict(tmp_path_factory, history):
    """Whatever is written where, each row has the code that it got last."""
    file = RowCodes.create(tmp_path_factory.mktemp("codes") / "codes", 4, np.uint8, 7)
    truth = {}
    for seed, touched in enumerate(history):
        new = np.random.default_rng(seed).integers(0, 256, (len(touched), 4), dtype=np.uint8)
        file.write(np.array(touched, dtype=np.uint64), new)
        truth |= dict(zip(touched, new.tolist(), strict=True))
    if truth:
        assert file.gather(np.array(list(truth), dtype=np.uint64)).tolist() == list(truth.values())
    file.close()


def test_holes_take_no_room_on_the_disk(file):
    """A row far behind the others costs its own block, not those between."""
    file.write(rows(1000, 10_000_000), codes(2))
    assert file.path.stat().st_size > 10_000_000 * 16
    assert 0 < file.disk_bytes < 100_000
    file.close()
    assert file.disk_bytes == 0
    for change in (file.sync, lambda: file.write(rows(1000), codes(1))):
        with pytest.raises(ValueError, match="is closed"):
            change()


def test_gathers_go_on_while_the_file_grows_and_after_it_is_closed(file):
    """Other threads read what they read before, whatever happens to the map."""
    written = codes(100)
    known = np.arange(1000, 1100, dtype=np.uint64)
    file.write(known, written)
    stop, wrong = threading.Event(), []

    def gather():
        while not stop.is_set():
            if not (file.gather(known) == written).all():
                wrong.append(True)

    threads = [threading.Thread(target=gather) for _ in range(2)]
    for thread in threads:
        thread.start()
    for power in range(12, 23):
        file.write(rows(1000 + 2**power), codes(1))
    file.close()
    file.close()
    stop.set()
    for thread in threads:
        thread.join()
    assert not wrong
    assert (file.gather(known) == written).all()


def test_an_opened_file_equals_the_saved_one(file):
    """Identity, codes and growth go on where they ended."""
    file.write(rows(1000, 1005), codes(2))
    file.sync()
    file.close()
    opened = RowCodes.open(file.path, file.identity, np.int8, 1006)
    assert (opened.gather(rows(1000, 1005)) == codes(2)).all()
    opened.write(rows(90_000), codes(1))
    assert (opened.gather(rows(90_000, 1000)) == codes(2)[[0, 0]]).all()
    opened.close()


def test_what_is_not_the_saved_file_is_refused(file):
    """Another file of the same name, another width, a damaged header, a lost end and no file at all."""
    file.write(rows(9000), codes(1))
    file.close()
    identity = file.identity
    for other in (
        RowCodesIdentity(32, 1000, identity.token),
        RowCodesIdentity(16, 0, identity.token),
        RowCodesIdentity(16, 1000, "00" * 16),
    ):
        with pytest.raises(ValueError, match="not the file"):
            RowCodes.open(file.path, other, np.int8, 9001)
    whole = file.path.read_bytes()
    file.path.write_bytes(whole[: 4096 + 16 * 4000])
    with pytest.raises(ValueError, match="expected at least"):
        RowCodes.open(file.path, identity, np.int8, 9001)
    file.path.write_bytes(b"")
    with pytest.raises(ValueError, match="not the file"):
        RowCodes.open(file.path, identity, np.int8, 0)
    file.path.write_bytes(whole[:4096])
    with pytest.raises(ValueError, match="expected at least"):
        RowCodes.open(file.path, identity, np.int8, 0)
    file.path.unlink()
    with pytest.raises(OSError, match="No such file"):
        RowCodes.open(file.path, identity, np.int8, 9001)


def test_what_does_not_fit_the_file_is_refused(file):
    """Rows below the first, codes of another width, type or number; and rows that were never written to."""
    for touched, given_codes in [
        (rows(999), codes(1)),
        (rows(1000), codes(1, width=8)),
        (rows(1000), codes(2)),
        (rows(1000), codes(1).view(np.uint8)),
    ]:
        with pytest.raises(ValueError, match=r"below the first row|codes are"):
            file.write(touched, given_codes)
    with pytest.raises(IndexError):
        file.gather(rows(10_000_000))


def test_a_disk_that_takes_no_more_is_an_error_of_the_write(file):
    """The process lives on, and reads what was written before."""
    file.write(rows(1000), codes(1))
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096 + 16 * 2000, before[1]))
    try:
        with pytest.raises(OSError, match="File too large") as full:
            file.write(np.arange(1000, 4000, dtype=np.uint64), codes(3000))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert full.value.errno == errno.EFBIG
    assert len(file.gather(rows(1000, 4999))) == 2
    file.write(np.arange(1000, 4000, dtype=np.uint64), codes(3000))
    assert (file.gather(rows(1000, 3999)) == codes(3000)[[0, 2999]]).all()
