"""The command that verifies a collection: whom it looks at again, and what it makes of it."""

from kintsugi.cli.verify import compared
from kintsugi.sdk.verifying import Agreement, ReplicaCheck, verdicts


def check(member="s0", shard=0, seq=7, content=b"c", failure="", queries=100, recall=0.9):
    return ReplicaCheck(shard, member, 2, failure, seq, b"l", content, 3, 1, "i8", queries, recall)


class Looks:
    """What the cluster says at each further look, and how many queries it was asked for."""

    def __init__(self, *answers):
        self.answers = list(answers)
        self.queries = []

    def __call__(self, queries):
        self.queries.append(queries)
        return self.answers.pop(0)


def agreements(checks):
    return [told.agreement for told in verdicts(checks)]


def test_replicas_at_one_position_are_not_looked_at_again():
    """There is nothing more to learn."""
    looks = Looks()
    found = compared([check("s1"), check()], looks)
    assert [one.member for one in found] == ["s0", "s1"]
    assert not looks.queries


def test_replicas_at_different_positions_are_looked_at_again():
    """With one query, until they meet; the recall is that of the first look."""
    looks = Looks(
        [check(seq=9, queries=1, recall=1.0), check("s1", seq=8, queries=1, recall=1.0)],
        [check(seq=9, queries=1, recall=1.0), check("s1", seq=9, queries=1, recall=1.0)],
    )
    found = compared([check(seq=7), check("s1", seq=8)], looks)
    assert agreements(found) == [Agreement.AGREE]
    assert {(one.seq, one.queries, one.recall) for one in found} == {(9, 100, 0.9)}
    assert looks.queries == [1, 1]


def test_looking_again_ends():
    """Writers that never pause leave replicas uncompared."""
    looks = Looks(*[[check(seq=2 * n), check("s1", seq=2 * n + 1)] for n in range(5, 8)])
    assert agreements(compared([check(seq=7), check("s1", seq=8)], looks)) == [Agreement.NOT_COMPARED]
    assert len(looks.queries) == 3


def test_looking_again_finds_differences_and_leaves_other_shards_alone():
    """What was compared at the first look stands."""
    first = [check(seq=7), check("s1", seq=8), check(shard=1), check("s1", shard=1)]
    looks = Looks([
        check(seq=9), check("s1", seq=9, content=b"x"), check(shard=1, seq=9), check("s1", shard=1, failure="gone"),
    ])  # fmt: skip
    found = compared(first, looks)
    assert agreements(found) == [Agreement.DIFFER, Agreement.AGREE]
    assert [one.seq for one in found] == [9, 9, 7, 7]
