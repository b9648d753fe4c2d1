"""Delete by filter: pages of all shards, deletes of the versions found, limits, failures in the middle."""

import time
from collections import deque

import pytest

from coordinator import delete_by_filter
from coordinator.acks import RecordResult
from coordinator.answers import PartOutcome
from coordinator.deadline import Deadline
from coordinator.delete_by_filter import DeleteByFilter
from coordinator.operations import Level
from coordinator.plan import plan_read
from coordinator.reads import Read
from coordinator.views import Views
from kintsugi import columns, ids, tokens
from kintsugi.errors import Aborted, InvalidArgument, ResourceExhausted, Unavailable
from kintsugi.internal.v1 import log_pb2, shard_pb2
from kintsugi.log.read import Head
from kintsugi.position import Position
from kintsugi.v1 import documents_pb2, filters_pb2, types_pb2

TRASH = filters_pb2.Filter(equals=filters_pb2.Equals(attribute="kind", value=filters_pb2.AttributeValue(text="trash")))


class Cluster:
    """Reads and Writes over documents in memory. `documents` holds, per shard, row -> (id, version), all of which fulfil
    the filter; `faults` are raised by the calls in turn, None for none."""

    def __init__(self, registry):
        self.registry = registry
        self.documents = {0: {}, 1: {}}
        self.read_faults = deque()
        self.part_faults = {0: deque(), 1: deque()}
        self.rewritten = set()
        self.forgotten = False
        self.pages = []
        self.writes = []
        self.tokens = []
        self.heads = {0: 5, 1: 0}
        self.slow = lambda: None

    def fill(self, count):
        for number in range(count):
            self.documents[number % 2][number + 1] = (f"d{number}", 100 + number)

    async def head(self, _uid, shard):
        seq = self.heads[shard]
        return None if seq is None else Head(1, Position(1, seq, b"digest" if seq else b""), 0, b"", 1, 1, 0, open=True)

    async def begin(self, _name, token, deadline):
        self.tokens.append(token)
        view = self.registry.view
        return Read(plan_read(view, view.collections_by_name["docs"], token), token, deadline)

    async def match(self, _read, condition, behind, limit):
        assert condition == TRASH
        self.slow()
        self.pages.append((dict(behind), limit))
        if self.read_faults and (fault := self.read_faults.popleft()):
            raise fault
        return {shard: self._page(shard, row, limit) for shard, row in behind.items()}

    def _page(self, shard, behind, limit):
        rows = sorted(row for row in self.documents[shard] if row > behind)
        found = [self.documents[shard][row] for row in rows[:limit]]
        return shard_pb2.MatchDocumentsResponse(
            ids=columns.pack_ids([doc_id for doc_id, _ in found]),
            versions=columns.pack_u64([version for _, version in found]),
            last_row=rows[:limit][-1] if found else behind,
            more=len(rows) > limit,
        )

    async def write(self, write, _deadline):
        self.writes.append(write)
        return [self._part(part) for part in write.parts()]

    def _part(self, part):
        faults = self.part_faults[part.shard]
        if faults and (fault := faults.popleft()):
            return PartOutcome(part, error=fault)
        records = [self._replay(part.shard, operation) for operation in part.operations]
        return PartOutcome(part, position=Position(1, 10 + len(self.writes), b"d"), records=records)

    def _replay(self, shard, operation):
        record = log_pb2.Record.FromString(operation.body)
        assert record.condition == log_pb2.CONDITION_IF_VERSION
        doc_id = ids.decode(record.id)
        if self.forgotten:
            return RecordResult(shard_pb2.RECORD_OUTCOME_FORGOTTEN, 0)
        if doc_id in self.rewritten:
            return RecordResult(shard_pb2.RECORD_OUTCOME_VERSION_DIFFERS, 999)
        (row,) = (row for row, one in self.documents[shard].items() if one == (doc_id, record.expected_version))
        del self.documents[shard][row]
        return RecordResult(shard_pb2.RECORD_OUTCOME_APPLIED, 0)

    @property
    def left(self):
        return sum(map(len, self.documents.values()))


@pytest.fixture
def cluster(registry):
    return Cluster(registry)


@pytest.fixture
def delete(cluster, registry, deadline):
    by_filter = DeleteByFilter(Views(registry, time.monotonic), cluster, cluster, cluster.head)

    async def run(until=deadline, **fields):
        request = documents_pb2.DeleteByFilterRequest(**{"collection": "docs", "filter": TRASH, **fields})
        return await by_filter.run(request, until)

    return run


async def test_all_that_match_are_deleted(delete, cluster):
    """Page by page, on all shards at once, at most 1000 documents in a write, with a token over all parts."""
    cluster.fill(2501)
    answer = await delete()
    assert (answer.deleted, answer.changed, answer.more, cluster.left) == (2501, 0, False, 0)
    assert [len(write.operations) for write in cluster.writes] == [1000, 1000, 501]
    assert cluster.pages == [({0: 0, 1: 0}, 500), ({0: 999, 1: 1000}, 500), ({0: 1999, 1: 2000}, 500)]
    assert [(shard, position.seq) for shard, position in tokens.decode(answer.token).positions] == [(0, 13), (1, 13)]
    assert {write.options.level for write in cluster.writes} == {Level.DURABLE}
    assert len({write.options.request_id for write in cluster.writes}) == 3


async def test_nothing_to_delete_writes_nothing(delete, cluster):
    """An answer of zeros, whose token sees nothing new."""
    answer = await delete()
    assert (answer.deleted, answer.changed, answer.more) == (0, 0, False)
    assert tokens.decode(answer.token).positions == ()
    assert not cluster.writes


@pytest.mark.parametrize(
    ("count", "limit", "more"), [(10, 4, True), (10, 10, False), (10, 9, True), (3, 1, True), (2, 2, False)]
)
async def test_the_limit_holds_and_is_told(delete, cluster, count, limit, more):
    """Never more than the limit, `more` only when documents are left."""
    cluster.fill(count)
    answer = await delete(limit=limit)
    assert (answer.deleted, answer.more, cluster.left) == (limit, more, count - limit)


async def test_a_document_rewritten_meanwhile_stays(delete, cluster):
    """It counts as changed, and is not tried again."""
    cluster.fill(6)
    cluster.rewritten = {"d1", "d4"}
    answer = await delete(limit=5)
    assert (answer.deleted, answer.changed, cluster.left) == (4, 2, 2)


async def test_the_filter_sees_all_that_was_acknowledged(delete, cluster, registry):
    """Replicas must have reached where the logs stood, and what the caller names."""
    given = tokens.Token.of("uid1", [(1, Position(1, 3, b"given"))])
    await delete(at_least=given.encode())
    assert cluster.tokens[0].positions == ((0, Position(1, 5, b"digest")), (1, Position(1, 3, b"given")))


async def test_a_log_that_recovery_rebuilt_is_waited_for_as_replicas_know_it(delete, cluster, registry, kit):
    """Who held the last record before the recovery does not follow it into the new epoch."""
    registry.set(kit.shard(0, epochs=((1, 0), (2, 5))))
    cluster.heads[0] = 5
    await delete()
    assert cluster.tokens[0].positions == ((0, Position(1, 5, b"digest")),)
    registry.set(kit.shard(0, epochs=((1, 0), (2, 4))))
    await delete()
    assert cluster.tokens[1].positions == ((0, Position(2, 5, b"digest")),)


async def test_without_the_logs_nothing_is_deleted(delete, cluster):
    """What was acknowledged is then not known."""
    cluster.fill(2)
    cluster.heads[1] = None
    with pytest.raises(Unavailable, match="log of shard 1 is missing"):
        await delete()
    assert cluster.left == 2


async def test_a_missing_shard_deletes_nothing(delete, cluster):
    """The first page needs all shards."""
    cluster.fill(4)
    cluster.read_faults.append(Unavailable("shard 1 of collection docs did not answer"))
    with pytest.raises(Unavailable) as error:
        await delete()
    assert (cluster.left, error.value.message) == (4, "shard 1 of collection docs did not answer")
    assert "deleted" not in error.value.metadata


async def test_a_failure_in_the_middle_tells_what_was_deleted(delete, cluster):
    """In words and for programs; the same call then deletes the rest."""
    cluster.fill(2000)
    cluster.read_faults.extend([None, Unavailable("shard 1 did not answer", reason="SHARD_UNAVAILABLE")])
    with pytest.raises(Unavailable, match="shard 1 did not answer; 1000 documents were deleted before") as error:
        await delete()
    assert (error.value.metadata["deleted"], error.value.metadata["changed"]) == ("1000", "0")
    assert error.value.reason == "SHARD_UNAVAILABLE"
    assert (await delete()).deleted == 1000


async def test_the_other_shards_of_a_failed_write_count(delete, cluster):
    """One log refused its part: what the other one took is told, and the refusal keeps its delay."""
    cluster.fill(10)
    cluster.part_faults[0].append(ResourceExhausted("the log is full", retry_delay_s=2.0))
    with pytest.raises(ResourceExhausted, match="the log is full; 5 documents were deleted before") as error:
        await delete()
    assert (error.value.retry_delay_s, cluster.left) == (2.0, 5)


async def test_an_unknown_outcome_is_an_error(delete, cluster):
    """Deletes that nobody remembers are not counted as anything."""
    cluster.fill(2)
    cluster.forgotten = True
    with pytest.raises(Unavailable) as error:
        await delete()
    assert error.value.reason == "OUTCOME_UNKNOWN"
    cluster.forgotten = False
    cluster.part_faults[0].append(Aborted("discarded"))
    with pytest.raises(Aborted):
        await delete()


async def test_a_call_that_runs_late_ends_with_what_it_has(delete, cluster):
    """Rather than with an error that the caller may not even receive."""
    cluster.fill(5000)
    now = [0.0]

    def page():
        now[0] += 1.0

    cluster.slow = page
    answer = await delete(Deadline(4.5, lambda: now[0]))
    assert (answer.deleted, answer.more) == (3000, True)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"limit": 100_001}, "limit is 100001, must be 1 to 100000"),
        ({"durable_replicas": 9}, "durable_replicas is 9, must be 1 to 8"),
        (
            {"acknowledgement": types_pb2.ACKNOWLEDGEMENT_LOGGED},
            "acknowledgement is LOGGED, must be DURABLE or above: every delete has a condition",
        ),
        ({"collection": ""}, "collection has 0 characters, must have 1 to 64 characters"),
    ],
)
async def test_bounds(delete, cluster, fields, message):
    """What the proto promises, before anybody is asked."""
    cluster.fill(2)
    with pytest.raises(InvalidArgument) as error:
        await delete(**fields)
    assert (error.value.message, cluster.left) == (message, 2)


async def test_a_filter_is_required(delete, cluster):
    """Deleting everything takes an explicit condition."""
    cluster.fill(2)
    with pytest.raises(InvalidArgument, match="^filter "):
        await delete(filter=filters_pb2.Filter())
    assert cluster.left == 2


def test_pages_fill_a_batch():
    """Whatever the number of shards, at least one document each."""
    size = delete_by_filter._page_size
    assert size({0: 0}, 10_000) == 1000
    assert size(dict.fromkeys(range(256), 0), 10_000) == 3
    assert size(dict.fromkeys(range(256), 0), 5) == 1
