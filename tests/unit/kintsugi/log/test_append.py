"""Appending: order, request ids, fencing, bounds."""

import asyncio
import os

import pytest

from kintsugi.errors import AlreadyExists, InvalidArgument, ResourceExhausted, Unavailable
from kintsugi.log import records
from kintsugi.log.append import AppendRequest, LogWriter
from kintsugi.log.chain import extend
from kintsugi.log.faults import LogForked
from kintsugi.log.payload import Payload
from kintsugi.log.read import verify_next
from kintsugi.position import START, Position

UID = "c1"
SHARD = 3


async def test_entries_carry_raw_bytes_and_chain_from_the_start(log):
    """What was appended is read back byte for byte, in order, each entry continuing the one before."""
    payloads = [bytes(range(256)), b"", b"\r\n\x00"]
    result = await log.append(*payloads)
    entries = await log.entries()
    assert [entry.payload for entry in entries] == payloads
    position = START
    for entry in entries:
        position = verify_next(position, entry)
    assert (result.first_seq, result.last, result.repeated) == (1, position, False)


async def test_concurrent_appenders_get_contiguous_numbers(log, redis, keys):
    """Requests of many appenders get disjoint runs of numbers that leave no gap, and one valid chain."""
    writer = LogWriter(redis, keys, max_log_bytes=10**9)

    async def appender(name: int):
        found = []
        for turn in range(5):
            group = [
                AppendRequest(f"{name}/{turn}/{item}", [Payload(b"%d.%d.%d" % (name, turn, item))] * (item + 1))
                for item in range(3)
            ]
            found += zip(group, await writer.append(log.target(), group, 10.0), strict=True)
        return found

    written = [pair for pairs in await asyncio.gather(*(appender(name) for name in range(20))) for pair in pairs]
    entries = await log.entries()
    assert [entry.seq for entry in entries] == list(range(1, 20 * 5 * 6 + 1))
    by_seq = {entry.seq: entry.payload for entry in entries}
    for request, result in written:
        run = range(result.first_seq, result.last.seq + 1)
        assert [by_seq[seq] for seq in run] == [payload.data for payload in request.payloads]
    position = START
    for entry in entries:
        position = verify_next(position, entry)


async def test_large_sequence_numbers_keep_every_digit(log, redis, keys):
    """Numbers beyond what Lua prints exactly by default stay exact in ids, digests and replies."""
    seq = 10**15 + 7
    digest = b"d" * 20
    await redis.hset(keys.shard(UID, SHARD).head, mapping={"seq": seq, "digest": digest, "base_seq": seq})
    result = await log.append(b"x")
    assert result.last == Position(1, seq + 1, extend(digest, seq + 1, b"x"))
    assert [entry.seq for entry in await log.entries()] == [seq + 1]


async def test_a_repeated_request_gets_its_first_numbers(log):
    """The same request id and content is written once, however often and after whatever else it comes."""
    first = await log.append(b"a", b"b", request_id="r")
    await log.append(b"c")
    again = await log.append(b"a", b"b", request_id="r")
    assert (again.first_seq, again.last, again.repeated) == (first.first_seq, first.last, True)
    assert len(await log.entries()) == 3


async def test_a_repetition_is_recognised_by_content_whatever_its_stamp(log):
    """A repetition through another coordinator, at another time, is still the same request."""
    body = records.put("doc", {1: b"\0\0\0\0"})
    content = records.content_digest([body])
    results = []
    for written_at_us in (1, 2):
        request = AppendRequest("r", [Payload(records.stamp(body, written_at_us))], content)
        results += await log.writer.append(log.target(), [request], 5.0)
    assert results[1].repeated
    assert results[1].last == results[0].last
    assert len(await log.entries()) == 1


async def test_a_reused_request_id_is_refused_alone(log):
    """Another content under a known request id is refused, and the rest of its group is written."""
    await log.append(b"a", request_id="r")
    group = [
        AppendRequest("x", [Payload(b"1")]),
        AppendRequest("r", [Payload(b"other")]),
        AppendRequest("y", [Payload(b"2")]),
    ]
    before, refused, after = await log.writer.append(log.target(), group, 5.0)
    assert isinstance(refused, InvalidArgument)
    assert (refused.reason, refused.field) == ("REQUEST_ID_REUSED", "request_id")
    assert (before.first_seq, after.first_seq) == (2, 3)
    assert [entry.payload for entry in await log.entries()] == [b"a", b"1", b"2"]


async def test_a_request_twice_in_one_group_is_written_once(log):
    """A repetition that lands in the same group as its original is recognised."""
    group = [AppendRequest("r", [Payload(b"1")]), AppendRequest("r", [Payload(b"1")])]
    first, second = await log.writer.append(log.target(), group, 5.0)
    assert (first.repeated, second.repeated) == (False, True)
    assert first.last == second.last


async def test_request_ids_are_forgotten_after_ten_minutes(log, redis, keys):
    """The memory of a request id expires, so that it cannot fill Redis."""
    await log.append(b"a", request_id="r")
    assert 590_000 < await redis.pttl(keys.shard(UID, SHARD).request("r")) <= 600_000


@pytest.mark.parametrize(
    "target", [{"epoch": 2}, {"epoch": 0}, {"incarnation": 2}], ids=["newer epoch", "stale epoch", "other incarnation"]
)
async def test_another_epoch_or_incarnation_is_refused(log, target):
    """A writer that knows another epoch or incarnation than the log writes nothing."""
    with pytest.raises(Unavailable) as raised:
        await log.append(b"a", **target)
    assert raised.value.reason == "EPOCH_MOVED"
    assert await log.entries() == []


async def test_a_wiped_redis_is_refused(log, redis):
    """After FLUSHALL there is no log, and an append does not start a new one."""
    await log.append(b"a")
    await redis.flushall()
    with pytest.raises(Unavailable) as raised:
        await log.append(b"b")
    assert raised.value.reason == "LOG_MISSING"
    assert await redis.dbsize() == 0


async def test_a_log_behind_the_floor_is_refused(log):
    """A log that ends before what a replica holds lost entries."""
    await log.append(b"a")
    with pytest.raises(Unavailable) as raised:
        await log.append(b"b", floor=Position(1, 2, b"x" * 20))
    assert raised.value.reason == "LOG_BEHIND"
    assert len(await log.entries()) == 1


@pytest.mark.parametrize("seq", [1, 2], ids=["inside", "last entry"])
async def test_another_entry_at_the_floor_is_refused(log, seq):
    """A log that lost entries and took others in their place is found out by the digest at the floor."""
    await log.append(b"a", b"b")
    with pytest.raises(Unavailable) as raised:
        await log.append(b"c", floor=Position(1, seq, b"x" * 20))
    assert raised.value.reason == "LOG_BEHIND"


async def test_a_floor_that_the_log_holds_is_accepted(log):
    """The floor may be the last entry, an inner one, one of an earlier epoch, or one that is trimmed."""
    await log.append(b"a", b"b", b"c")
    entries = await log.entries()
    for entry in entries:
        await log.append(b"d", floor=Position(0, entry.seq, entry.digest))
    await log.report("a", 3)
    await log.append(b"e", floor=entries[0].position)
    await log.append(b"f", floor=entries[0].position)
    assert (await log.reader.head()).first_seq == 3


async def test_entries_of_several_records_take_as_many_numbers(log):
    """An entry has the number of its last record; it is trimmed as a whole, once a position is behind all of it."""
    request = AppendRequest("r", [Payload(b"a", 3), Payload(b"b"), Payload(b"c", 2)])
    (result,) = await log.writer.append(log.target(), [request], 5.0)
    entries = await log.entries()
    assert [(entry.first_seq, entry.seq, entry.payload) for entry in entries] == [
        (1, 3, b"a"),
        (4, 4, b"b"),
        (5, 6, b"c"),
    ]
    assert (result.first_seq, result.last) == (1, entries[-1].position)
    position = START
    for entry in entries:
        position = verify_next(position, entry)
    (again,) = await log.writer.append(log.target(floor=entries[0].position), [request], 5.0)
    assert (again.first_seq, again.last, again.repeated) == (1, result.last, True)
    for seq, first_kept in ((2, 1), (3, 1), (4, 4), (6, 5)):
        assert await log.report("a", seq)
        await log.append(b"d")
        assert (await log.reader.head()).first_seq == first_kept
    assert not await log.report("late", 3)


async def test_a_position_inside_another_entry_is_another_history(log):
    """Where Redis lost entries, and a larger one came over their place: neither a floor nor a replica fits there."""
    await log.append(b"a")
    for lost in (b"b", b"c"):
        await log.append(lost)
    held = (await log.entries())[-1].position
    await log.client.flushall()
    await log.create()
    await log.append(b"a")
    (written,) = await log.writer.append(log.target(), [AppendRequest("r", [Payload(b"other", 5)])], 5.0)
    with pytest.raises(Unavailable) as raised:
        await log.append(b"d", floor=held)
    assert raised.value.reason == "LOG_BEHIND"
    with pytest.raises(LogForked):
        await log.reader.verify(1, 1, held)
    inside = Position(1, 3, written.last.digest)  # as an index may stand there
    assert (await log.reader.verify(1, 1, inside)).first_end_seq == 1


async def test_entries_of_an_earlier_release_have_one_record(log, redis):
    """They do not say how many; what follows them goes on behind them."""
    await log.append(b"a", b"b")
    found = await redis.xrange(log.stream)
    await redis.delete(log.stream)
    for entry_id, fields in found:
        del fields[b"n"]
        await redis.xadd(log.stream, fields, id=entry_id)
    assert [entry.first_seq for entry in await log.entries()] == [1, 2]
    assert (await log.append(b"c")).first_seq == 3
    assert (await log.reader.head()).first_seq == 1


async def test_a_log_that_lost_its_last_entries_is_refused(log, redis):
    """A head whose stream ends elsewhere is not appended to."""
    await log.append(b"a", b"b")
    await redis.xdel(log.stream, "1-2")
    with pytest.raises(Unavailable) as raised:
        await log.append(b"c")
    assert raised.value.reason == "LOG_BEHIND"


async def test_a_full_log_refuses_until_positions_advance(log):
    """Beyond its byte bound a log refuses with a retry delay, and takes writes again once replicas hold its entries."""
    log.max_log_bytes = 10_000
    for _ in range(8):
        await log.append(os.urandom(1000))
    with pytest.raises(ResourceExhausted) as raised:
        await log.append(os.urandom(1000))
    assert raised.value.reason == "LOG_FULL"
    assert raised.value.retry_delay_s > 0
    assert len(await log.entries()) == 8
    await log.report("a", 5)
    result = await log.append(os.urandom(1000))
    assert result.first_seq == 9
    head = await log.reader.head()
    assert (head.first_seq, head.bytes) == (5, 5 * 1128)


async def test_a_request_that_no_log_could_hold_is_refused_for_good(log):
    """It names the bound, and asks for no retry."""
    log.max_log_bytes = 10_000
    with pytest.raises(InvalidArgument, match="10384 bytes in the log of one shard, must cost at most 10000") as raised:
        await log.append(*(os.urandom(5064) for _ in range(2)))
    assert (raised.value.reason, raised.value.field) == ("LARGER_THAN_LOG", "documents")
    assert not await log.entries()


async def test_the_byte_bound_counts_the_whole_group(log):
    """Of a group that would exceed the bound together, only the requests that fit are written."""
    log.max_log_bytes = 2500
    group = [AppendRequest(name, [Payload(b"x" * 1000)]) for name in ("1", "2", "3")]
    results = await log.writer.append(log.target(), group, 5.0)
    assert [isinstance(result, ResourceExhausted) for result in results] == [False, False, True]
    assert len(await log.entries()) == 2


async def test_a_full_log_still_answers_repetitions(log):
    """A request that was written before the log became full is recognised when it comes again, next to one refused."""
    log.max_log_bytes = 2000
    first = await log.append(b"a" * 1500, request_id="r")
    group = [AppendRequest("new", [Payload(b"b" * 1500)]), AppendRequest("r", [Payload(b"a" * 1500)])]
    refused, repeated = await log.writer.append(log.target(), group, 5.0)
    assert isinstance(refused, ResourceExhausted)
    assert repeated.last == first.last


async def test_trimming_keeps_what_any_position_needs(log):
    """The log keeps every entry after the lowest position and the one at it, whoever reports it."""
    for number in range(10):
        await log.append(b"%d" % number)
    await log.report("a", 9)
    await log.report("joining", 4)
    await log.append(b"x")
    assert [entry.seq for entry in await log.entries()] == list(range(4, 12))
    await log.positions.drop(UID, SHARD, "joining")
    await log.append(b"y")
    assert [entry.seq for entry in await log.entries()] == list(range(9, 13))


async def test_a_position_is_dropped_only_where_it_was_seen(log):
    """Who moved on since may have become somebody to wait for."""
    await log.append(b"a", b"b")
    await log.report("b", 1)
    assert not await log.positions.drop(UID, SHARD, "b", 0)
    assert (await log.positions.all(UID, SHARD))["b"] == 1
    assert await log.positions.drop(UID, SHARD, "b", 1)
    assert not await log.positions.drop(UID, SHARD, "b")
    assert "b" not in await log.positions.all(UID, SHARD)


async def test_trimming_keeps_the_last_entry_and_heeds_no_position_beyond_it(log):
    """A position ahead of the log, of a replica that knows more, removes nothing that is needed."""
    await log.append(b"a", b"b")
    await log.report("a", 99)
    await log.append(b"c")
    assert [entry.seq for entry in await log.entries()] == [2, 3]


async def test_one_append_trims_a_bounded_number_of_entries(log):
    """A log that kept very much for a late replica is trimmed in steps, none of which holds up Redis for long."""
    for _ in range(5):
        await log.append(*[b""] * 5000)
    await log.report("a", 24_000)
    await log.append(b"x")
    assert (await log.reader.head()).first_seq == 20_001
    await log.append(b"x")
    assert (await log.reader.head()).first_seq == 24_000


async def test_nothing_is_trimmed_without_positions(log):
    """A log that no replica reports on keeps everything."""
    await log.positions.drop(UID, SHARD, "a")
    await log.append(b"a")
    await log.append(b"b")
    assert len(await log.entries()) == 2


async def test_creation_is_repeatable_and_never_replaces_a_log(log):
    """Creating a log again does nothing, and under another epoch it is refused."""
    await log.append(b"a")
    await log.create()
    assert len(await log.entries()) == 1
    with pytest.raises(AlreadyExists):
        await log.writer.create(UID, SHARD, 1, 2)


async def test_dropping_a_log_removes_all_its_keys(log, redis, keys):
    """A dropped log is missing, and leaves only request ids, which expire."""
    await log.append(b"a", request_id="r")
    await log.writer.drop(UID, SHARD)
    assert await redis.keys() == [keys.shard(UID, SHARD).request("r").encode()]
    assert not await log.report("a", 1)
    assert await log.positions.all(UID, SHARD) == {}


async def test_a_request_without_payloads_is_refused(log):
    """There is nothing to append, hence no number to give back."""
    with pytest.raises(InvalidArgument):
        await log.append()


async def test_scripts_survive_a_script_flush(log, redis):
    """A server that forgot the scripts gets them again."""
    await log.append(b"a")
    await redis.script_flush()
    assert (await log.append(b"b")).first_seq == 2


async def checked_at(log, revision, request_id="r"):
    """Appends a request that was checked against a revision of the registry."""
    (result,) = await log.writer.append(
        log.target(), [AppendRequest(request_id, [Payload(b"x")], revision=revision)], 5.0
    )
    return result


async def test_a_fence_refuses_requests_of_earlier_registries(log):
    """Those of its revision and later pass, and those to which no change of the registry matters."""
    await log.append(b"before")
    assert await log.writer.fence(UID, SHARD, 1, 1, 7) == 1
    refused = await checked_at(log, 6)
    assert isinstance(refused, Unavailable)
    assert refused.reason == "REGISTRY_BEHIND"
    assert len(await log.entries()) == 1
    assert (await checked_at(log, 7)).first_seq == 2
    assert (await checked_at(log, None, "other")).first_seq == 3


async def test_a_fence_refuses_alone(log):
    """Other requests of its group are written."""
    await log.writer.fence(UID, SHARD, 1, 1, 7)
    group = [
        AppendRequest("a", [Payload(b"1"), Payload(b"2")], revision=6),
        AppendRequest("b", [Payload(b"3")], revision=7),
    ]
    behind, written = await log.writer.append(log.target(), group, 5.0)
    assert behind.reason == "REGISTRY_BEHIND"
    assert (written.first_seq, [entry.payload for entry in await log.entries()]) == (1, [b"3"])


async def test_a_fence_does_not_undo_what_was_written_before(log):
    """The repetition of an earlier request gets its numbers, whatever registry it was checked against."""
    first = await checked_at(log, 6)
    await log.writer.fence(UID, SHARD, 1, 1, 7)
    again = await checked_at(log, 6)
    assert (again.first_seq, again.repeated) == (first.first_seq, True)


async def test_a_fence_is_never_lowered(log):
    """A coordinator that comes late with an earlier one changes nothing."""
    await log.writer.fence(UID, SHARD, 1, 1, 7)
    await log.writer.fence(UID, SHARD, 1, 1, 5)
    assert (await checked_at(log, 6)).reason == "REGISTRY_BEHIND"


@pytest.mark.parametrize(
    ("where", "reason"), [((1, 2), "EPOCH_MOVED"), ((2, 1), "EPOCH_MOVED"), ((1, 1), "LOG_MISSING")]
)
async def test_only_the_log_that_is_meant_is_fenced(log, where, reason):
    """Another one, or none, is refused."""
    if reason == "LOG_MISSING":
        await log.writer.drop(UID, SHARD)
    with pytest.raises(Unavailable) as raised:
        await log.writer.fence(UID, SHARD, *where, 7)
    assert raised.value.reason == reason
