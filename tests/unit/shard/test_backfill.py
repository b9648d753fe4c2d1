"""The queue of documents to re-embed: its order, its leases, and that nothing is left behind."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from shard.backfill import BackfillQueue
from shard.heat import Heat


class Clock:
    def __init__(self):
        self.now = 0.0

    def __call__(self):
        return self.now


class Documents:
    """Rows that lack a vector."""

    def __init__(self, lacking):
        self.lacking = set(lacking)

    def among(self, rows):
        return np.array([row for row in rows.tolist() if row in self.lacking], dtype=np.uint64)

    def after(self, row, limit):
        return np.array(sorted(one for one in self.lacking if one > row)[:limit], dtype=np.uint64)


def observe(heat, *rows):
    heat.observe(np.array(rows, dtype=np.uint64))


def test_rows_come_in_their_order_when_nothing_is_known_of_them():
    """Without searches and predictions, rows are handed out in row order, each once."""
    queue = BackfillQueue(Documents(range(1, 8)), Heat(), clock=Clock(), window_rows=3)
    assert queue.next(5, 60).tolist() == [1, 2, 3, 4, 5]
    assert queue.next(5, 60).tolist() == [6, 7]
    assert queue.next(5, 60).tolist() == []


def test_named_rows_come_before_hot_ones_and_hot_ones_before_unsure_ones():
    """The asker's wish, then traffic, then the doubt of the projection."""
    heat = Heat(clock=Clock())
    observe(heat, 4, 5)
    observe(heat, 5)
    queue = BackfillQueue(Documents(range(1, 9)), heat, unsure=lambda rows: rows % 3, clock=Clock())
    assert queue.next(8, 60, first=[7, 99]).tolist() == [7, 5, 4, 2, 8, 1, 3, 6]


def test_doubt_orders_within_a_window_only():
    """Windows follow the rows, whatever the predictor thinks of later ones."""
    queue = BackfillQueue(
        Documents(range(1, 7)), Heat(), unsure=lambda rows: rows.astype(float), clock=Clock(), window_rows=3
    )
    assert queue.next(6, 60).tolist() == [3, 2, 1, 6, 5, 4]


def test_a_row_comes_again_when_its_lease_is_over():
    """What a worker took and never gave back is handed out anew, not earlier."""
    clock = Clock()
    queue = BackfillQueue(Documents([1, 2]), Heat(clock=clock), clock=clock)
    assert queue.next(10, 60).tolist() == [1, 2]
    clock.now = 59.9
    assert queue.next(10, 60).tolist() == []
    clock.now = 60.0
    assert queue.next(10, 60).tolist() == [1, 2]


def test_a_hot_row_that_was_embedded_is_skipped():
    """The documents are asked again: heat of yesterday hands out nothing twice."""
    documents, heat = Documents([1, 2, 3]), Heat(clock=Clock())
    observe(heat, 3)
    queue = BackfillQueue(documents, heat, clock=Clock())
    documents.lacking.remove(3)
    assert queue.next(10, 60).tolist() == [1, 2]
    assert len(heat) == 0


def test_rows_written_behind_the_scan_are_found_on_the_next_way_around():
    """A document that comes to lack its vector where the scan has been is not left behind."""
    documents = Documents([5, 6, 7, 8])
    queue = BackfillQueue(documents, Heat(), clock=Clock(), window_rows=2)
    assert queue.next(3, 60).tolist() == [5, 6, 7]
    documents.lacking |= {2, 9}
    assert queue.next(10, 60).tolist() == [8, 9, 2]


def test_what_nobody_can_embed_holds_up_nothing():
    """A hot row that was handed out is hot again only when searches ask for it again."""
    clock = Clock()
    heat = Heat(clock=clock)
    observe(heat, 9)
    queue = BackfillQueue(Documents(range(1, 10)), heat, clock=clock)
    assert queue.next(2, 1).tolist() == [9, 1]
    clock.now = 5.0
    assert queue.next(2, 1).tolist() == [2, 3]
    observe(heat, 9)
    assert queue.next(1, 1).tolist() == [9]


def test_leases_are_bounded():
    """When so many rows are out, no more are handed out before some lease is over."""
    clock = Clock()
    queue = BackfillQueue(Documents(range(1, 100)), Heat(), clock=clock, max_leases=5)
    assert len(queue.next(10, 60)) == 5
    assert len(queue.next(10, 60)) == 0
    clock.now = 61.0
    assert len(queue.next(3, 60)) == 3


def test_what_is_given_back_comes_next():
    """Rows that did not fit into an answer wait for no lease, and get a full one when they are handed out."""
    clock = Clock()
    queue = BackfillQueue(Documents(range(1, 7)), Heat(), clock=clock)
    rows = queue.next(4, 60)
    queue.give_back(rows[1:])
    clock.now = 30.0
    assert queue.next(4, 60).tolist() == [2, 3, 4, 5]
    clock.now = 61.0
    assert queue.next(4, 60).tolist() == [6, 1]


@settings(max_examples=200)
@given(
    lacking=st.sets(st.integers(1, 60)),
    hot=st.lists(st.integers(1, 60), max_size=20),
    window=st.integers(1, 20),
    limits=st.lists(st.integers(1, 10), min_size=1, max_size=5),
)
def test_every_lacking_row_is_handed_out_exactly_once(lacking, hot, window, limits):
    """However pulls are cut and whatever is hot: within a lease, each row once and none is missing."""
    heat = Heat()
    observe(heat, *hot)
    queue = BackfillQueue(Documents(lacking), heat, clock=Clock(), window_rows=window)
    given_out = []
    turn = 0
    while len(rows := queue.next(limits[turn % len(limits)], 60)):
        given_out += rows.tolist()
        turn += 1
    assert sorted(given_out) == sorted(lacking)
    hot_there = set(hot) & lacking
    assert set(given_out[: len(hot_there)]) == hot_there


class Workers(RuleBasedStateMachine):
    """Askers, writers and a clock in any order, against a plain model of leases."""

    def __init__(self):
        super().__init__()
        self.clock = Clock()
        self.documents = Documents(range(1, 20))
        self.heat = Heat(clock=self.clock)
        self.queue = BackfillQueue(self.documents, self.heat, clock=self.clock, window_rows=4)
        self.leased = {}
        self.next_row = 20

    @rule(limit=st.integers(1, 8), lease_s=st.integers(1, 30), first=st.lists(st.integers(1, 40), max_size=3))
    def pull(self, limit, lease_s, first):
        free = {row for row in self.documents.lacking if self.leased.get(row, -1) <= self.clock.now}
        rows = self.queue.next(limit, lease_s, first).tolist()
        assert len(set(rows)) == len(rows)
        assert set(rows) <= free
        assert len(rows) == min(limit, len(free))
        self.leased |= dict.fromkeys(rows, self.clock.now + lease_s)

    @rule(rows=st.lists(st.integers(1, 40), max_size=6))
    def embed(self, rows):
        self.documents.lacking -= set(rows)

    @rule(count=st.integers(1, 5))
    def write(self, count):
        self.documents.lacking |= set(range(self.next_row, self.next_row + count))
        self.next_row += count

    @rule(rows=st.lists(st.integers(1, 60), max_size=6))
    def search(self, rows):
        observe(self.heat, *rows)

    @rule(seconds=st.integers(1, 40))
    def wait(self, seconds):
        self.clock.now += seconds

    @invariant()
    def heat_is_bounded(self):
        assert len(self.heat) <= 60


TestWorkers = Workers.TestCase
TestWorkers.settings = settings(max_examples=60, stateful_step_count=30)
