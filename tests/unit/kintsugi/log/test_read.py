"""Reading, and finding out what Redis lost."""

import asyncio

import pytest

from kintsugi.errors import Unavailable
from kintsugi.log.faults import LogBehind, LogForked, LogGap, LogMissing, LogMoved, LogRestoring
from kintsugi.log.read import LogEntry, verify_next
from kintsugi.position import START, Position
from kintsugi.redis_client import connect

UID = "c1"
SHARD = 3


async def test_read_returns_entries_after_a_position_up_to_the_count(log):
    """A reader goes on where it stopped and takes no more than it asked for."""
    await log.append(b"a", b"b", b"c", b"d")
    assert [entry.seq for entry in await log.reader.read(1, 1, 2)] == [2, 3]
    assert await log.reader.read(1, 4, 2) == []


async def test_a_blocking_read_wakes_up_when_an_entry_comes(log):
    """A reader that waits gets the next entry as soon as it is appended."""
    waiting = asyncio.create_task(log.reader.read(1, 0, 10, block_ms=2000))
    await log.append(b"a")
    assert [entry.payload for entry in await waiting] == [b"a"]


async def test_a_blocking_read_ends_without_entries(log):
    """A reader that waits in vain gets nothing, not an error."""
    assert await log.reader.read(1, 0, 10, block_ms=1) == []


async def test_one_entry_can_be_read(log):
    """An entry is found by epoch and seq, or is not there."""
    last = (await log.append(b"a", b"b")).last
    assert await log.reader.entry(1, 2) == LogEntry(1, 2, b"b", last.digest)
    assert await log.reader.entry(1, 3) is None


async def test_trimmed_entries_are_a_gap(log, redis):
    """Redis returns what is left without an error; the reader sees that entries are missing."""
    await log.append(*[b"%d" % number for number in range(10)])
    entries = await log.entries()
    await redis.xtrim(log.stream, minid="1-6", approximate=False)
    (left, *_) = await log.entries(after_seq=2)
    assert left.seq == 6
    with pytest.raises(LogGap):
        verify_next(entries[1].position, left)
    with pytest.raises(LogGap):
        await log.reader.verify(1, 1, entries[1].position)
    assert (await log.reader.verify(1, 1, entries[4].position)).first_seq == 6


async def test_replaced_entries_are_a_fork(log, redis, keys):
    """A log that went back and took other entries under the same numbers looks contiguous, and is found out."""
    await log.append(b"a", b"b", b"c")
    before = await redis.dump(keys.shard(UID, SHARD).head), await redis.dump(log.stream)
    await log.append(b"lost 1", b"lost 2", b"lost 3", b"lost 4", b"lost 5")
    ours = (await log.entries())[-1].position
    await redis.restore(keys.shard(UID, SHARD).head, 0, before[0], replace=True)
    await redis.restore(log.stream, 0, before[1], replace=True)
    with pytest.raises(LogBehind):
        await log.reader.verify(1, 1, ours)
    await log.append(b"new 1", b"new 2", b"new 3", b"new 4", b"new 5", b"new 6")
    (following,) = await log.entries(after_seq=ours.seq)
    assert following.seq == ours.seq + 1
    with pytest.raises(LogForked):
        verify_next(ours, following)
    with pytest.raises(LogForked):
        await log.reader.verify(1, 1, ours)
    with pytest.raises(Unavailable) as raised:
        await log.append(b"x", floor=ours)
    assert raised.value.reason == "LOG_BEHIND"


async def test_a_request_that_was_lost_with_its_entries_is_written_again(log, redis, keys):
    """A remembered request id whose entries Redis replaced is no longer an excuse not to write."""
    before = await redis.dump(keys.shard(UID, SHARD).head)
    await log.append(b"a", b"b", request_id="r")
    await redis.restore(keys.shard(UID, SHARD).head, 0, before, replace=True)
    await redis.delete(log.stream)
    assert not (await log.append(b"other", b"others")).repeated
    again = await log.append(b"a", b"b", request_id="r")
    assert (again.first_seq, again.repeated) == (3, False)


@pytest.mark.parametrize(
    ("entry", "fault"),
    [
        (LogEntry(1, 7, b"x", b"?" * 20), LogGap),
        (LogEntry(1, 5, b"x", b"?" * 20), LogForked),
        (LogEntry(0, 6, b"x", b"?" * 20), LogForked),
        (LogEntry(1, 6, b"x", b"?" * 20), LogForked),
        (LogEntry(1, 8, b"x", b"?" * 20, records=2), LogGap),
        (LogEntry(1, 7, b"x", b"?" * 20, records=3), LogForked),
    ],
    ids=["later", "again", "older epoch", "other digest", "one between", "one again"],
)
def test_verify_next_refuses_what_does_not_continue(entry, fault):
    """Only the very next entry, of the same or a higher epoch, with the chained digest, is accepted."""
    with pytest.raises(fault):
        verify_next(Position(1, 5, b"d" * 20), entry)


async def test_verify_accepts_any_position_of_the_history(log):
    """A replica that is behind, or at the head, or at the very start, may read on."""
    await log.append(b"a", b"b")
    positions = [START, *(entry.position for entry in await log.entries())]
    for position in positions:
        assert (await log.reader.verify(1, 1, position)).position == positions[-1]


async def test_verify_finds_a_missing_moved_or_restored_log(log, redis):
    """A reader learns that its log is gone, of another epoch, or being rebuilt."""
    with pytest.raises(LogMoved) as moved:
        await log.reader.verify(2, 1, START)
    assert (moved.value.incarnation, moved.value.epoch) == (1, 1)
    await log.restorer.begin(UID, SHARD, 1, 2, base=START, positions={})
    with pytest.raises(LogRestoring):
        await log.reader.verify(1, 2, START)
    await redis.flushall()
    assert await log.reader.head() is None
    with pytest.raises(LogMissing):
        await log.reader.verify(1, 1, START)


async def test_verify_finds_lost_last_entries(log, redis):
    """A stream that ends before its head says lost entries, even those that a replica does not hold yet."""
    await log.append(b"a", b"b")
    await redis.xdel(log.stream, "1-2")
    with pytest.raises(LogBehind):
        await log.reader.verify(1, 1, START)


async def test_reading_a_stream_of_another_epoch_is_refused(log):
    """Entries of a rebuilt log are not taken for those that follow in the old one."""
    await log.restorer.begin(UID, SHARD, 1, 2, base=START, positions={})
    await log.restorer.finish(UID, SHARD, 1, 2, last=START)
    await log.append(b"a", epoch=2)
    with pytest.raises(LogMoved) as moved:
        await log.entries(epoch=1, after_seq=5)
    assert moved.value.epoch == 2


async def test_report_tells_whether_the_log_still_holds_what_follows(log, redis):
    """A hold that comes too late, after the trim, is answered with no."""
    await log.append(b"a", b"b", b"c", b"d")
    assert await log.report("late", 0)
    await redis.xtrim(log.stream, minid="1-3", approximate=False)
    assert not await log.report("late", 1)
    assert "late" not in await log.positions.all(UID, SHARD), "a hold that came too late would stop every later trim"
    assert await log.report("late", 2)
    assert await log.positions.all(UID, SHARD) == {"a": 0, "late": 2}


async def test_an_unreachable_redis_is_unavailable(log, keys):
    """A lost Redis is told apart from a faulty log."""
    client = connect("redis://127.0.0.1:1")
    reader = type(log.reader)(client, keys, UID, SHARD)
    for call in (reader.head(), reader.read(1, 0, 1), reader.entry(1, 1), reader.verify(1, 1, START)):
        with pytest.raises(Unavailable):
            await call
    await client.aclose()
