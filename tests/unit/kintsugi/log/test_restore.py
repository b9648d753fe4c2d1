"""Rebuilding a log under a higher epoch."""

import pytest

from kintsugi.errors import Unavailable
from kintsugi.log.append import AppendRequest
from kintsugi.log.chain import extend
from kintsugi.log.faults import LogForked, LogGap, RestoreRefused
from kintsugi.log.payload import Payload
from kintsugi.position import START, Position

UID = "c1"
SHARD = 3


def chained(payloads, base=START, records=1):
    """The entries (seq, payload, digest) of so many records each that follow `base`."""
    entries, seq, digest = [], base.seq, base.digest
    for payload in payloads:
        seq += records
        digest = extend(digest, seq, payload)
        entries.append((seq, Payload(payload, records), digest))
    return entries


def end(entries):
    return Position(0, entries[-1][0], entries[-1][2])


async def begin(log, epoch=2, base=START, positions=None):
    await log.restorer.begin(UID, SHARD, 1, epoch, base=base, positions=positions or {})


async def test_a_wiped_log_is_restored_with_its_numbers_and_digests(log, redis):
    """After FLUSHALL the entries of a replica make the same log again, under a higher epoch, and writes go on."""
    await log.append(b"a", b"b", b"c")
    held = [(entry.seq, Payload(entry.payload), entry.digest) for entry in await log.entries()]
    await redis.flushall()
    base = Position(1, held[0][0], held[0][2])
    await begin(log, base=base, positions={"a": 3, "b": 1})
    await log.restorer.append(UID, SHARD, 1, 2, held[1:])
    await log.restorer.finish(UID, SHARD, 1, 2, last=end(held))
    result = await log.append(b"d", epoch=2, floor=end(held))
    assert result.last == Position(2, 4, extend(held[-1][2], 4, b"d"))
    assert [(entry.epoch, entry.seq, entry.payload) for entry in await log.entries(2)] == [
        (2, 2, b"b"),
        (2, 3, b"c"),
        (2, 4, b"d"),
    ]
    assert await log.positions.all(UID, SHARD) == {"a": 3, "b": 1}
    head = await log.reader.verify(1, 2, base)
    assert (head.base_seq, head.base_digest, head.open) == (1, base.digest, True)


async def test_appends_are_refused_until_the_restoration_is_finished(log):
    """Nothing may slip in between restored entries, neither under the new epoch nor under the old one."""
    await begin(log)
    for epoch, reason in ((2, "LOG_RESTORING"), (1, "EPOCH_MOVED")):
        with pytest.raises(Unavailable) as raised:
            await log.append(b"x", epoch=epoch)
        assert raised.value.reason == reason
    assert await log.entries(2) == []


@pytest.mark.parametrize("epoch", [0, 1], ids=["older", "same and open"])
async def test_a_log_is_not_replaced_without_a_higher_epoch(log, epoch):
    """A restorer that comes late changes nothing."""
    await log.append(b"a")
    with pytest.raises(RestoreRefused):
        await begin(log, epoch=epoch)
    assert len(await log.entries()) == 1


async def test_a_restorer_of_a_lower_epoch_is_fenced_at_every_step(log):
    """Once a restoration under a higher epoch has begun, the earlier one can neither append nor finish."""
    entries = chained([b"a"])
    await begin(log, epoch=2)
    await begin(log, epoch=3)
    with pytest.raises(RestoreRefused):
        await begin(log, epoch=2)
    with pytest.raises(RestoreRefused):
        await log.restorer.append(UID, SHARD, 1, 2, entries)
    with pytest.raises(RestoreRefused):
        await log.restorer.finish(UID, SHARD, 1, 2, last=START)
    await log.restorer.append(UID, SHARD, 1, 3, entries)
    await log.restorer.finish(UID, SHARD, 1, 3, last=end(entries))


async def test_a_restorer_of_a_lower_incarnation_is_refused(log):
    """A registry that was left behind by a restored one restores nothing."""
    await log.restorer.begin(UID, SHARD, 2, 2, base=START, positions={})
    with pytest.raises(RestoreRefused):
        await log.restorer.begin(UID, SHARD, 1, 3, base=START, positions={})


async def test_a_restoration_may_start_over(log):
    """A second restorer under the same epoch begins with an empty log again."""
    await begin(log)
    await log.restorer.append(UID, SHARD, 1, 2, chained([b"a", b"b"]))
    await begin(log)
    entries = chained([b"c"])
    await log.restorer.append(UID, SHARD, 1, 2, entries)
    await log.restorer.finish(UID, SHARD, 1, 2, last=end(entries))
    assert [entry.payload for entry in await log.entries(2)] == [b"c"]


async def test_repeated_steps_do_no_harm(log):
    """A step whose reply was lost is simply taken again."""
    entries = chained([b"a", b"b", b"c"])
    await begin(log)
    await log.restorer.append(UID, SHARD, 1, 2, entries[:2])
    await log.restorer.append(UID, SHARD, 1, 2, entries[:2])
    await log.restorer.append(UID, SHARD, 1, 2, entries[1:])
    await log.restorer.finish(UID, SHARD, 1, 2, last=end(entries))
    await log.append(b"d", epoch=2)
    await log.restorer.finish(UID, SHARD, 1, 2, last=end(entries))
    assert [entry.payload for entry in await log.entries(2)] == [b"a", b"b", b"c", b"d"]


async def test_entries_of_several_records_are_restored_as_they_were(log):
    """Numbers go on behind the last record of each, and the log tells the first record that it holds."""
    entries = chained([b"a", b"b"], Position(1, 10, b"d" * 20), records=3)
    await begin(log, base=Position(1, 10, b"d" * 20))
    await log.restorer.append(UID, SHARD, 1, 2, entries)
    await log.restorer.append(UID, SHARD, 1, 2, entries)
    await log.restorer.finish(UID, SHARD, 1, 2, last=end(entries))
    restored = await log.entries(2)
    assert [(entry.first_seq, entry.seq, entry.payload) for entry in restored] == [(11, 13, b"a"), (14, 16, b"b")]
    assert (await log.append(b"c", epoch=2)).first_seq == 17
    assert (await log.reader.head()).first_seq == 11


async def test_a_request_that_a_restoration_discarded_is_written_anew(log):
    """Also when a larger entry stands over its place by now."""
    await log.append(b"a")
    entries = chained([b"a"])
    await log.append(b"b", request_id="r")
    await begin(log)
    await log.restorer.append(UID, SHARD, 1, 2, entries)
    await log.restorer.finish(UID, SHARD, 1, 2, last=end(entries))
    await log.writer.append(log.target(epoch=2), [AppendRequest("other", [Payload(b"c", 3)])], 5.0)
    again = await log.append(b"b", request_id="r", epoch=2)
    assert (again.first_seq, again.repeated) == (5, False)


@pytest.mark.parametrize(
    ("entries", "fault"),
    [
        (chained([b"a", b"b", b"c"])[1:], LogGap),
        ([(seq, Payload(payload.data, 2), digest) for seq, payload, digest in chained([b"a"], records=3)], LogGap),
        ([chained([b"a"])[0], (2, Payload(b"b"), b"?" * 20)], LogForked),
        ([(1, Payload(b"changed"), chained([b"a"])[0][2])], LogForked),
    ],
    ids=["gap", "too few records", "other digest", "other payload"],
)
async def test_entries_that_do_not_continue_are_refused_whole(log, entries, fault):
    """A batch with one wrong entry leaves the log as it was."""
    await begin(log)
    with pytest.raises(fault):
        await log.restorer.append(UID, SHARD, 1, 2, entries)
    assert (await log.reader.head()).position.seq == 0
    assert await log.entries(2) == []


@pytest.mark.parametrize("payloads", [[b"x"], [b"x", b"y"], [b"x", b"y", b"z"]])
async def test_another_history_than_the_one_restored_is_a_fork(log, payloads):
    """A second restorer that holds other entries under the same numbers is refused."""
    await begin(log)
    await log.restorer.append(UID, SHARD, 1, 2, chained([b"a", b"b"]))
    with pytest.raises(LogForked):
        await log.restorer.append(UID, SHARD, 1, 2, chained(payloads))


async def test_an_open_log_takes_no_restored_entries(log):
    """A restorer that was late for the finish does not write past it, and does not believe that it finished."""
    entries = chained([b"a", b"b"])
    await begin(log)
    await log.restorer.append(UID, SHARD, 1, 2, entries[:1])
    await log.restorer.finish(UID, SHARD, 1, 2, end(entries[:1]))
    with pytest.raises(RestoreRefused):
        await log.restorer.append(UID, SHARD, 1, 2, entries)
    for last in (end(entries), end(chained([b"x"]))):
        with pytest.raises(RestoreRefused):
            await log.restorer.finish(UID, SHARD, 1, 2, last)


async def test_finish_is_refused_when_the_log_ends_elsewhere(log):
    """A log opens only where its restorer meant it to end."""
    entries = chained([b"a", b"b"])
    await begin(log)
    await log.restorer.append(UID, SHARD, 1, 2, entries[:1])
    for last in (end(entries), end(chained([b"x"]))):
        with pytest.raises(RestoreRefused):
            await log.restorer.finish(UID, SHARD, 1, 2, last)
    assert not (await log.reader.head()).open


async def test_a_missing_log_takes_no_restored_entries(log, redis):
    """When Redis is wiped again in the middle, the restorer notices."""
    await begin(log)
    await redis.flushall()
    with pytest.raises(RestoreRefused):
        await log.restorer.append(UID, SHARD, 1, 2, chained([b"a"]))
    with pytest.raises(RestoreRefused):
        await log.restorer.finish(UID, SHARD, 1, 2, last=START)


async def test_a_request_id_is_believed_only_as_far_as_its_entries_survived(log):
    """After a recovery a repetition gets its numbers when its entries are there, is written anew when they were
    discarded, and is answered with unknown when nobody can tell."""
    for payload in (b"a", b"b", b"c"):
        await log.append(payload, request_id=payload.decode())
    first, second, _ = await log.entries()
    await begin(log, base=first.position)
    await log.restorer.append(UID, SHARD, 1, 2, [(second.seq, Payload(second.payload), second.digest)])
    await log.restorer.finish(UID, SHARD, 1, 2, last=second.position)
    kept = await log.append(b"b", request_id="b", epoch=2)
    assert (kept.repeated, kept.last) == (True, second.position)
    assert (await log.append(b"a", request_id="a", epoch=2)).last == first.position
    rewritten = await log.append(b"c", request_id="c", epoch=2)
    assert (rewritten.repeated, rewritten.first_seq) == (False, 3)
    await begin(log, epoch=3, base=rewritten.last)
    await log.restorer.finish(UID, SHARD, 1, 3, last=rewritten.last)
    with pytest.raises(Unavailable) as raised:
        await log.append(b"b", request_id="b", epoch=3)
    assert raised.value.reason == "OUTCOME_UNKNOWN"
