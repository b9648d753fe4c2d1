"""From whom a log is rebuilt and who can follow it, for any replicas; and the records that come of it. Pure."""

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kintsugi.log.chain import extend
from kintsugi.position import Position
from kintsugi.registry.records import (
    Defaults,
    EpochStart,
    LogState,
    ReplicaState,
    Shard,
    Snapshot,
    View,
    decode_record,
    encode_record,
    field_of,
)
from shard.recovery import Held, RebuildPlan, close_logs, plan_rebuild, reopened_shard, successors

IN_SYNC, JOINING, OUT_OF_SYNC = ReplicaState.IN_SYNC, ReplicaState.JOINING, ReplicaState.OUT_OF_SYNC


def history(fork_at: int, name: str, length: int) -> list[bytes]:
    """The digests of a history that leaves the common one behind `fork_at`."""
    digests = [b""]
    for seq in range(1, length + 1):
        content = b"common" if seq <= fork_at else name.encode()
        digests.append(extend(digests[-1], seq, content))
    return digests


@st.composite
def replicas(draw):
    """Replicas and each one's whole history, by name."""
    held, histories = [], {}
    for number in range(draw(st.integers(1, 5))):
        name = f"m{number}"
        seq = draw(st.integers(0, 12))
        digests = histories[name] = history(draw(st.integers(0, 12)), name, seq)
        first = draw(st.integers(0, seq))
        held.append(Held(name, Position(draw(st.integers(1, 3)) if seq else 0, seq, digests[seq]), first))
    return held, histories


@given(replicas(), st.integers(0, 12))
def test_a_plan_continues_from_the_furthest_for_all_who_share_its_history(drawn, journal_first):
    """The leader is furthest, no follower holds another history, and the leader can give each what it lacks."""
    held, histories = drawn
    leader = max(held, key=lambda one: (one.position.seq, one.position.epoch, one.member))
    told = dict(enumerate(histories[leader.member]))
    digests = {one.position.seq: told[one.position.seq] for one in held if one.position.seq >= journal_first}
    plan = plan_rebuild(leader, held, digests)

    assert plan.leader == leader
    assert leader in plan.followers
    assert {one.member for one in plan.followers} | {*plan.left_behind} == {one.member for one in held}
    assert not {one.member for one in plan.followers} & {*plan.left_behind}
    for follower in plan.followers:
        seq = follower.position.seq
        assert histories[follower.member] == histories[leader.member][: seq + 1]
        assert seq >= plan.base.seq
    assert plan.base.digest == told[plan.base.seq]
    if plan.base.seq < leader.position.seq:
        assert 0 < leader.tail_first_seq <= plan.base.seq + 1
    for other in held:  # nobody is left behind without a reason
        same = other.position.seq == 0 or digests.get(other.position.seq) == other.position.digest
        given_all = other.position.seq == leader.position.seq or 0 < leader.tail_first_seq <= other.position.seq + 1
        if same and given_all:
            assert other in plan.followers


@pytest.mark.parametrize(
    ("epoch", "told", "superseded"),
    [
        (2, b"other", True),
        (2, b"same", False),  # rebuilt from the longer one, and not yet through with it
        (1, b"other", False),  # the longer history counts
        (2, b"", False),  # the leader's journal no longer reaches back that far
        (2, None, False),
    ],
)
def test_a_history_that_a_later_epoch_left_behind_leads_nobody(epoch, told, superseded):
    """However long it is: what was acknowledged since stands in the shorter one."""
    longer, shorter = Held("a", Position(1, 9, b"x"), 1), Held("b", Position(epoch, 7, b"same"), 1)
    digests = {} if told is None else {7: told}
    assert successors(longer, [longer, shorter], digests) == ([shorter] if superseded else [])
    assert plan_rebuild(shorter, [longer, shorter], {}).left_behind == ("a",)


@pytest.mark.parametrize(
    ("before", "given_up", "after"),
    [
        ({"a": IN_SYNC, "b": IN_SYNC, "c": IN_SYNC}, (), {"a": IN_SYNC, "b": IN_SYNC, "c": OUT_OF_SYNC}),
        ({"a": IN_SYNC, "b": IN_SYNC, "c": JOINING}, (), {"a": IN_SYNC, "b": IN_SYNC, "c": JOINING}),
        ({"a": OUT_OF_SYNC, "b": JOINING, "d": IN_SYNC}, ("d",), {"a": IN_SYNC, "b": IN_SYNC, "d": OUT_OF_SYNC}),
    ],
)
def test_a_reopened_shard_trusts_those_it_was_rebuilt_from(before, given_up, after):
    """Leader and followers are in sync, those left behind and given up are not, the others stay as they were."""
    leader, follower = Held("a", Position(1, 9, b"x"), 1), Held("b", Position(1, 7, b"y"), 1)
    plan = RebuildPlan(leader, follower.position, (leader, follower), ("c",))
    shard = Shard("u", 0, (EpochStart(1, 0),), LogState.RECOVERING, before, given_up)
    reopened = reopened_shard(shard, 4, plan)
    assert reopened == Shard("u", 0, (EpochStart(1, 0), EpochStart(4, 9)), LogState.OPEN, after, ())
    assert reopened.survived(1, 9)
    assert not reopened.survived(1, 10)


def test_a_restored_registry_has_every_log_wait_for_its_recovery():
    """Restoring changes the state of every log and nothing else."""
    open_shard = Shard("u", 0, (EpochStart(1, 0),), LogState.OPEN, {"a": IN_SYNC})
    other = msgspec.structs.replace(open_shard, shard=1, log_state=LogState.RECOVERING)
    fields = {field_of(record): encode_record(record) for record in (Defaults(2, 2), open_shard, other)}
    closed = close_logs(Snapshot("cluster", 1, 5, "digest", fields))
    view = View(Snapshot("cluster", 2, 6, "digest", closed))
    assert view.defaults == Defaults(2, 2)
    assert {shard.log_state for shard in view.shards.values()} == {LogState.RECOVERING}
    assert view.shards["u", 0] == msgspec.structs.replace(open_shard, log_state=LogState.RECOVERING)
    assert decode_record(field_of(other), closed[field_of(other)]) == other
