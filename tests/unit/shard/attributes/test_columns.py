"""Number columns: sorted again after many changes, in the states that readers are in, within their memory."""

import random

import numpy as np
import pytest

from shard.attributes.column import Column, Interval
from shard.attributes.columns import NumberColumns
from shard.attributes.rowset import rows_of

EVERYTHING = Interval()


def column_of(pairs):
    """A column of (row, number) pairs."""
    return Column.of(
        np.array([number for _, number in pairs], dtype=np.float64),
        np.array([row for row, _ in pairs], dtype=np.uint64),
    )


def rows_in(column, interval=EVERYTHING):
    return rows_of(column.within(interval)).tolist()


class Database:
    """Stands for the numbers of one attribute in each state, and counts how often they are read."""

    def __init__(self):
        self.states = {0: {}}
        self.reads = 0

    def write(self, columns, seq, changes):
        """A batch as the writer makes it: told, then committed."""
        columns.tell(seq, {1: changes})
        held = dict(self.states[max(self.states)])
        for row, numbers in changes.items():
            held.pop(row, None)
            if numbers:
                held[row] = numbers
        self.states[seq] = held

    def read(self, seq):
        self.reads += 1
        return column_of([(row, number) for row, numbers in self.states[seq].items() for number in numbers])

    def rows(self, columns, seq):
        found = rows_in(columns.column(1, seq, lambda: self.read(seq)))
        assert found == sorted(self.states[seq])
        return found


@pytest.fixture
def database():
    return Database()


def test_interval_ends_are_open_or_closed():
    """Bounds count where the interval holds them, also among numbers that repeat; an empty interval holds nothing."""
    column = column_of([(5, 1.0), (1, 2.0), (4, 2.0), (2, 3.0), (3, -np.inf), (6, np.inf)])
    assert rows_in(column) == [1, 2, 3, 4, 5, 6]
    assert rows_in(column, Interval(1.0, 2.0)) == [1, 4, 5]
    assert rows_in(column, Interval(1.0, 2.0, low_open=True)) == [1, 4]
    assert rows_in(column, Interval(1.0, 2.0, high_open=True)) == [5]
    assert rows_in(column, Interval(2.0, 2.0, low_open=True)) == []
    assert rows_in(column, Interval(3.0, 1.0)) == []
    assert rows_of(column.equal_to(np.array([2.0, 3.0, 9.0]))).tolist() == [1, 2, 4]


def test_column_follows_changes_through_sorting_again():
    """After tens of thousands of changes a column finds what it would if it had been read anew, and is no larger."""
    rng = random.Random(3)
    held = {row: (rng.random(),) for row in range(20_000)}
    column = column_of([(row, numbers[0]) for row, numbers in held.items()])
    for _ in range(40):
        drawn = [rng.randrange(25_000) for _ in range(1500)]
        changes = {row: rng.choice([(), (rng.random(),), (rng.random(), 2.0)]) for row in drawn}
        held |= changes
        column = column.changed_by(changes)
        for interval in (Interval(0.2, 0.3), Interval(2.0, 2.0)):
            fulfils = {
                row for row, numbers in held.items() if any(interval.low <= one <= interval.high for one in numbers)
            }
            assert rows_in(column, interval) == sorted(fulfils)
    pairs = sum(map(len, held.values()))
    assert column.bytes < 16 * pairs + 24 * 10_000


def test_column_is_read_once_and_then_kept_up(database):
    """Batches after the first use are followed without the database."""
    columns = NumberColumns(0)
    database.write(columns, 1, {7: (1.0,)})
    for seq in range(2, 6):
        database.rows(columns, seq - 1)
        database.write(columns, seq, {seq: (1.0,), 7: (2.0,)})
        # Before it commits, readers are in the state before, and find its column.
        database.rows(columns, seq - 1)
    assert database.rows(columns, 5) == [2, 3, 4, 5, 7]
    assert database.reads == 1


def test_reader_of_an_old_state_reads_for_itself(database):
    """A state that is no longer kept is read, and the columns of the present ones stay."""
    columns = NumberColumns(0)
    for seq in range(1, 6):
        database.write(columns, seq, {seq: (1.0,)})
        database.rows(columns, seq)
    assert database.reads == 1
    assert database.rows(columns, 2) == [1, 2]
    assert database.rows(columns, 5) == [1, 2, 3, 4, 5]
    assert database.reads == 2


def test_first_use_in_an_old_state_keeps_nothing_wrong(database):
    """What is read in a state from which there is no catching up serves that reader only."""
    columns = NumberColumns(0)
    for seq in range(1, 5):
        database.write(columns, seq, {1: (float(seq),)})
    assert database.rows(columns, 1) == [1]
    assert columns.bytes == 0
    database.rows(columns, 4)
    assert columns.bytes > 0


@pytest.mark.parametrize("behind", [0, 1])
def test_batches_told_while_a_column_is_read_are_caught_up(database, behind):
    """A column that is read while batches commit is kept with them, also when its state was already the one before."""
    columns = NumberColumns(0)
    for seq in range(1, 4):
        database.write(columns, seq, {seq: (1.0,)})
    state = 3 - behind

    def read():
        column = database.read(state)
        database.write(columns, 4, {4: (1.0,)})
        database.write(columns, 5, {1: ()})
        return column

    assert rows_in(columns.column(1, state, read)) == list(range(1, state + 1))
    assert database.rows(columns, 5) == [2, 3, 4]
    assert database.rows(columns, 4) == [1, 2, 3, 4]
    assert database.reads == 1


def test_column_that_could_not_be_read_is_read_by_the_next(database):
    """A failed read leaves nothing behind that would keep others from it."""
    columns = NumberColumns(0)
    database.write(columns, 1, {1: (1.0,)})

    def fail():
        raise OSError("unreadable")

    with pytest.raises(OSError, match="unreadable"):
        columns.column(1, 1, fail)
    assert database.rows(columns, 1) == [1]
    assert database.rows(columns, 1) == [1]
    assert database.reads == 1


def test_batch_that_was_told_but_did_not_commit_is_forgotten(database):
    """After forget() the columns are those of the database, also for a column that was being read meanwhile."""
    columns = NumberColumns(0)
    database.write(columns, 1, {1: (1.0,)})
    database.rows(columns, 1)
    columns.tell(2, {1: {1: (), 2: (5.0,)}})
    columns.forget(1)
    assert database.rows(columns, 1) == [1]

    def read():
        other.tell(2, {1: {3: (5.0,)}})
        other.forget(1)
        return database.read(1)

    other = NumberColumns(1)
    assert rows_in(other.column(1, 1, read)) == [1]
    database.write(other, 2, {9: (1.0,)})
    assert database.rows(other, 2) == [1, 9]


def test_columns_used_least_recently_go_first():
    """The memory stays within its bound as far as one column does, the one in use."""
    columns = NumberColumns(0, max_bytes=40_000)
    reads = []

    def use(attribute, size=1000):
        def read():
            reads.append(attribute)
            return column_of([(row, 1.0) for row in range(size)])

        columns.column(attribute, 0, read)

    for attribute in (1, 2, 1, 3, 1, 2):
        use(attribute)
    assert reads == [1, 2, 3, 2]
    assert columns.bytes == 32_000
    use(4, size=10_000)
    assert columns.bytes == 160_000
    use(4)
    assert reads[-1] == 4
    use(1)
    assert columns.bytes == 16_000
    columns.tell(1, {1: dict.fromkeys(range(20000), (2.0,))})
    assert columns.bytes < 400_000
