"""Which hits make up the best groups, against the plain definition."""

from hypothesis import given
from hypothesis import strategies as st

from shard.grouping import Collected, chosen, group_of

VALUES = st.sampled_from(["a", "b", "1", 1.0, 2.0, 0.0, True, False, None])


def defined(values, k, size):
    """The places of the `size` best of each of the k groups whose best hits come first."""
    best = {}
    for place, value in enumerate(values):
        if value is not None:
            best.setdefault((type(value), value), []).append(place)
    groups = sorted(best.values())[:k]
    return sorted(place for places in groups for place in places[:size])


@given(values=st.lists(VALUES, max_size=40), k=st.integers(1, 6), size=st.integers(1, 4))
def test_chosen_equals_the_definition(values, k, size):
    """The best few of each of the best groups, in rank order; nothing without a group; True is not 1."""
    assert chosen(map(group_of, values), k, size) == defined(values, k, size)


@given(values=st.lists(VALUES, max_size=40), k=st.integers(1, 6), size=st.integers(1, 4), cut=st.integers(0, 40))
def test_collecting_piecewise_equals_choosing_at_once(values, k, size, cut):
    """Hits may come in pieces, the better ones first, and some of them twice."""
    groups = [group_of(value) for value in values]
    collected = Collected(k, size)
    collected.add(list(range(cut))[: len(values)], groups[:cut])
    again = max(0, cut - 3)
    collected.add(list(range(again, len(values))), groups[again:])
    assert sorted(collected.rows) == defined(values, k, size)
    assert collected.has_all_groups == (len({group for group in groups if group is not None}) >= k)


def test_a_group_is_filled_with_its_best():
    """What was collected of a group gives way to what a search for it found."""
    collected = Collected(2, 2)
    collected.add([7, 8, 9], [group_of("a"), group_of("b"), group_of("b")])
    assert collected.unfilled() == [(str, "a")]
    assert collected.count((str, "a")) == 1
    collected.fill((str, "a"), [7, 3])
    assert collected.rows == [7, 3, 8, 9]
    assert collected.unfilled() == []
