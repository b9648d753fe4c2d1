"""Group commit: what is appended together, in which order, and what waiting requests learn."""

import asyncio

import pytest

from coordinator.deadline import Deadline
from coordinator.group_commit import GroupCommit, GroupLimits
from kintsugi.errors import DeadlineExceeded, ResourceExhausted, Unavailable
from kintsugi.log.append import NOT_WRITTEN, OUTCOME_UNKNOWN, AppendRequest, AppendResult
from kintsugi.log.payload import Payload
from kintsugi.position import Position

KEY = ("uid1", 0)
LIMITS = GroupLimits(documents=4, bytes=100, pending_bytes=1000)


class Log:
    """Takes groups; holds each one back until it is released."""

    def __init__(self, *, held=False):
        self.groups = []
        self.gate = asyncio.Event()
        self.failure = None
        self.seq = 0
        if not held:
            self.gate.set()

    async def __call__(self, _key, requests, _deadline):
        self.groups.append([request.request_id for request in requests])
        await self.gate.wait()
        if self.failure:
            raise self.failure
        return [self._result(request) for request in requests]

    def _result(self, request):
        if request.request_id == "full":
            return ResourceExhausted("full")
        first, self.seq = self.seq + 1, self.seq + request.records
        return AppendResult(request.request_id, first, Position(1, self.seq, b"d"), repeated=False)


def request(name, count=1, size=1):
    return AppendRequest(name, [Payload(b"x" * size)] * count)


def start(commit, deadline, *requests):
    return [asyncio.create_task(commit.append(KEY, one, deadline)) for one in requests]


async def settle():
    for _ in range(5):
        await asyncio.sleep(0)


async def test_requests_that_arrive_during_an_append_share_the_next_one(deadline):
    """A lone request goes at once; what comes while it is written goes together, in order."""
    log = Log(held=True)
    commit = GroupCommit(log, LIMITS)
    tasks = start(commit, deadline, request("a"))
    await settle()
    tasks += start(commit, deadline, request("b"), request("c", 2))
    await settle()
    log.gate.set()
    results = await asyncio.gather(*tasks)
    assert log.groups == [["a"], ["b", "c"]]
    assert [result.first_seq for result in results] == [1, 2, 3]


async def test_groups_are_bounded_and_large_requests_go_alone(deadline):
    """Neither the documents nor the bytes of a group exceed the limits, unless one request does."""
    log = Log()
    commit = GroupCommit(log, LIMITS)
    await asyncio.gather(
        *start(
            commit,
            deadline,
            request("a", 3),
            request("b", 2),
            request("c", 1, 200),
            request("d", 1, 60),
            request("e", 1, 60),
        )
    )
    assert log.groups == [["a"], ["b"], ["c"], ["d"], ["e"]]


async def test_repeated_request_id_goes_into_a_later_group(deadline):
    """One call of the script names each request id once."""
    log = Log()
    commit = GroupCommit(log, LIMITS)
    await asyncio.gather(*start(commit, deadline, request("a"), request("a"), request("b")))
    assert log.groups == [["a"], ["a", "b"]]


async def test_one_refused_request_does_not_fail_its_group(deadline):
    """Each request of a group has its own outcome."""
    commit = GroupCommit(Log(), LIMITS)
    full, fine = await asyncio.gather(*start(commit, deadline, request("full"), request("a")), return_exceptions=True)
    assert isinstance(full, ResourceExhausted)
    assert fine.first_seq == 1


async def test_failed_append_is_told_to_everybody_in_it_and_the_next_goes_on(deadline):
    """A failure does not stop the shard's writer."""
    log = Log()
    log.failure = Unavailable("gone", reason=NOT_WRITTEN)
    commit = GroupCommit(log, LIMITS)
    failures = await asyncio.gather(*start(commit, deadline, request("a"), request("b")), return_exceptions=True)
    assert [str(failure) for failure in failures] == ["gone", "gone"]
    log.failure = None
    assert (await commit.append(KEY, request("c"), deadline)).first_seq == 1


async def test_waiting_request_that_times_out_was_not_written():
    """It is taken out of the queue, so that its outcome is certain; the one in flight is not."""
    log = Log(held=True)
    commit = GroupCommit(log, LIMITS)
    soon = Deadline.after(0.02, asyncio.get_running_loop().time)
    in_flight = start(commit, soon, request("a"))
    await settle()
    waiting = start(commit, soon, request("b"))
    errors = await asyncio.gather(*in_flight, *waiting, return_exceptions=True)
    assert [type(error) for error in errors] == [DeadlineExceeded, DeadlineExceeded]
    assert [error.reason for error in errors] == [OUTCOME_UNKNOWN, NOT_WRITTEN]
    log.gate.set()
    await commit.close()
    assert log.groups == [["a"]]


async def test_too_many_waiting_bytes_are_sent_away_with_a_retry_delay(deadline):
    """What waits in memory is bounded, and room comes back."""
    log = Log(held=True)
    commit = GroupCommit(log, LIMITS)
    tasks = start(commit, deadline, request("a", 1, 900))
    await settle()
    with pytest.raises(ResourceExhausted) as caught:
        await commit.append(KEY, request("b", 1, 200), deadline)
    assert caught.value.retry_delay_s
    log.gate.set()
    await asyncio.gather(*tasks)
    await commit.append(KEY, request("b", 1, 200), deadline)


async def test_cancelled_caller_leaves_the_queue(deadline):
    """A call that its client gave up before it was appended is not appended."""
    log = Log(held=True)
    commit = GroupCommit(log, LIMITS)
    first, second = start(commit, deadline, request("a"))[0], start(commit, deadline, request("b"))[0]
    await settle()
    third = start(commit, deadline, request("c"))[0]
    await settle()
    third.cancel()
    await settle()
    log.gate.set()
    await asyncio.gather(first, second)
    await commit.close()
    assert ["c"] not in log.groups
