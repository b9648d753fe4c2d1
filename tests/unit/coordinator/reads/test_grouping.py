"""The best groups of many shards equal those of all documents together."""

from dataclasses import dataclass

import numpy as np
from hypothesis import example, given
from hypothesis import strategies as st

from coordinator import grouping
from coordinator.merge import Hits, Ids
from kintsugi import columns, ids

GROUPS = ["a", "b", "1", 1.0, True, 0.0, False]
Document = tuple[int, float, str | float | bool | None]


def rank(documents):
    return sorted(documents, key=lambda one: (-one[1], ids.order_key(one[0])))


def flat(groups):
    return [one for group in groups for one in group]


def best_groups(documents, k, size, only=None):
    """Of documents (id, score, group): the k best groups as lists of their `size` best."""
    groups = {}
    for one in rank(documents):
        name = (type(one[2]), one[2])
        if one[2] is not None and (only is None or name in only):
            groups.setdefault(name, []).append(one)
    return [found[:size] for found in list(groups.values())[:k]]


@dataclass
class FakeShard:
    """Documents per query; answers as a shard does: hits by score, not by group."""

    documents: list[list[Document]]

    def search(self, k, size):
        return make_hits([rank(flat(best_groups(one, k, size))) for one in self.documents])

    def search_again(self, query, values, size):
        only = {(type(value), value) for value in values}
        return make_hits([rank(flat(best_groups(self.documents[query], len(values), size, only)))])


def make_hits(per_query):
    flat = [hit for hits in per_query for hit in hits]
    return Hits(
        np.array([len(hits) for hits in per_query], np.int64),
        Ids.of_column(columns.pack_ids([doc_id for doc_id, _, _ in flat])),
        np.array([score for _, score, _ in flat], np.float64),
        np.arange(len(flat), dtype=np.uint64),
        groups=[group for _, _, group in flat],
    )


def search(shards, k, size, *, ask_again=True):
    """What the coordinator does: the merged groups per query, and how many shards were asked a second time."""
    parts = {number: shard.search(k, size) for number, shard in enumerate(shards)}
    merged = grouping.merge_groups(list(parts.values()), k, size)
    missing = grouping.unsettled(parts, merged, k, size) if ask_again else []
    more = [
        grouping.placed(shards[number].search_again(one.query, one.values, size), one.query, len(merged.counts))
        for one in missing
        for number in one.shards
    ]
    if more:
        merged = grouping.merge_groups([*parts.values(), *more], k, size)
    found = iter(zip(merged.ids.decoded(), merged.scores.tolist(), merged.groups, strict=True))
    return [[next(found) for _ in range(count)] for count in merged.counts.tolist()], len(more)


@st.composite
def worlds(draw):
    """Shards with documents per query: few scores and groups, so that there are ties and groups on many shards."""
    shards, queries = draw(st.integers(1, 4)), draw(st.integers(1, 2))
    documents = st.tuples(
        st.integers(0, 60), st.sampled_from([0.0, 0.25, 0.5, 1.0, 2.0]), st.sampled_from([*GROUPS, None])
    )
    spread = [[[] for _ in range(queries)] for _ in range(shards)]
    for query in range(queries):
        for one in draw(st.lists(documents, unique_by=lambda one: one[0], max_size=30)):
            spread[one[0] % shards][query].append(one)
    return [FakeShard(one) for one in spread]


# "b" is the best group for its hit on the first shard; its second hit stands behind all groups of the second shard.
SPLIT_GROUP = [
    FakeShard([[(0, 2.0, "b"), (2, 1.0, "a")]]),
    FakeShard([[(1, 1.0, "a"), (3, 1.0, 1.0), (5, 0.5, "b")]]),
]


@given(worlds(), st.integers(1, 4), st.integers(1, 3))
@example(SPLIT_GROUP, 2, 2)
def test_merging_groups_equals_grouping_everything(shards, k, size):
    """For every query, the k best groups of all documents with the best hits of each, one group after the other."""
    found, _ = search(shards, k, size)
    for query, hits in enumerate(found):
        everything = [one for shard in shards for one in shard.documents[query]]
        expected = flat(best_groups(everything, k, size))
        assert hits == expected
        assert [type(group) for _, _, group in hits] == [type(group) for _, _, group in expected]


@given(worlds(), st.integers(1, 4))
def test_one_hit_per_group_needs_no_second_question(shards, k):
    """The best hit of each of the best groups is among what the shards give at first."""
    found, asked = search(shards, k, 1)
    assert asked == 0
    for query, hits in enumerate(found):
        assert hits == flat(best_groups([one for shard in shards for one in shard.documents[query]], k, 1))


def test_further_hits_of_a_group_can_be_missing_at_first():
    """Why shards are asked again: the second hit of the best group is not among the groups that its shard gives."""
    complete, asked = search(SPLIT_GROUP, 2, 2)
    assert asked == 1
    assert [doc_id for doc_id, _, _ in complete[0]] == [0, 5, 1, 2]
    cut_short, _ = search(SPLIT_GROUP, 2, 2, ask_again=False)
    assert [doc_id for doc_id, _, _ in cut_short[0]] == [0, 1, 2]


def test_nothing_is_asked_again_of_a_shard_whose_groups_are_all_known_to_be_worse():
    """When the hits of a group are full and better than every group of a shard, that shard cannot have better ones."""
    shards = [FakeShard([[(0, 2.0, "b"), (2, 1.5, "b")]]), FakeShard([[(1, 1.0, "a"), (3, 0.5, "b")]])]
    found, asked = search(shards, 1, 2)
    assert asked == 0
    assert [doc_id for doc_id, _, _ in found[0]] == [0, 2]


def test_a_document_that_changes_its_group_meanwhile_is_given_once():
    """A shard that is asked again may see a newer version of a document: the better hit counts."""
    first = make_hits([[(0, 2.0, "b"), (1, 1.0, "a")]])
    later = make_hits([[(1, 1.0, "b")]])
    merged = grouping.merge_groups([first, later], 2, 2)
    assert sorted(merged.ids.decoded()) == [0, 1]
