"""The write path over a real log: two coordinators, repetition, partial writes, recovery, a log that went back."""

import time
from contextlib import aclosing

import msgspec
import numpy as np
import pytest

from coordinator.acks import Acknowledgements, Changes
from coordinator.floor import Floors
from coordinator.group_commit import GroupCommit, GroupLimits
from coordinator.put_vectors import PutVectors
from coordinator.shard_log import ShardLogs
from coordinator.views import Views
from coordinator.writes import Writes
from kintsugi import columns, ids, tokens
from kintsugi.errors import Aborted, FailedPrecondition, InvalidArgument, NotFound, ResourceExhausted, Unavailable
from kintsugi.internal.v1 import shard_pb2
from kintsugi.log import records
from kintsugi.log.append import LogWriter
from kintsugi.log.read import LogReader
from kintsugi.metrics import Metric
from kintsugi.redis_client import connect
from kintsugi.registry.records import LogState, Model, Snapshot, encode_record, field_of
from kintsugi.v1 import documents_pb2, types_pb2, upgrades_pb2

APPLIED = documents_pb2.WRITE_OUTCOME_APPLIED
UNWRITTEN = documents_pb2.WRITE_OUTCOME_NOT_WRITTEN
DURABLE = types_pb2.ACKNOWLEDGEMENT_DURABLE


@pytest.fixture
async def logs(redis, keys):
    writer = LogWriter(redis, keys, max_log_bytes=2**20)
    for shard in (0, 1):
        await writer.create("uid1", shard, 1, 1, ["shard-a", "shard-b"])
    return writer


@pytest.fixture
def new_coordinator(registry, replicas, logs):
    """Makes coordinators that share registry, replicas and Redis."""

    def make(log=logs, now_us=lambda: time.time_ns() // 1000):
        views = Views(registry, time.monotonic)
        shard_logs = ShardLogs(
            registry, Floors(views.current, registry.refresh, replicas.position, log.server), log.append
        )
        commit = GroupCommit(shard_logs.append, GroupLimits(256, 2**20, 2**24))
        acks = Acknowledgements(lambda: registry.view, Changes(registry.subscribe), replicas.await_write)
        return Writes(views, shard_logs, commit, acks, now_us)

    return make


async def entries(redis, keys, shard):
    return await LogReader(redis, keys, "uid1", shard).read(1, 0, 1000)


async def logged_records(redis, keys, shard):
    """The records of all entries, unpacked, in their order."""
    found = await entries(redis, keys, shard)
    return [record for entry in found for record in records.unpack(entry.payload)]


def id_on(shard):
    return next(number for number in range(100) if ids.shard_of(number, 2) == shard)


def one_document(shard, **fields):
    request = documents_pb2.UpsertRequest(collection="docs", **fields)
    request.documents.add(id=columns.pack_id(id_on(shard)))
    request.vectors.add(block=columns.pack_vectors(np.ones((1, 3), np.float32)))
    return request


async def test_documents_stand_in_the_logs_of_their_shards(new_coordinator, redis, keys, deadline, kit):
    """Twenty documents, each in one log; versions are sequence numbers; the token names the ends of both logs."""
    response = await new_coordinator().upsert(kit.upsert(20), deadline)
    logged = [await entries(redis, keys, shard) for shard in (0, 1)]
    assert sum(entry.records for of_shard in logged for entry in of_shard) == 20
    assert {result.outcome for result in response.results} == {APPLIED}
    for index, result in enumerate(response.results):
        assert 1 <= result.version <= logged[ids.shard_of(index, 2)][-1].seq
    positions = dict(tokens.decode(response.token).positions)
    assert {shard: positions[shard].digest for shard in (0, 1)} == {shard: logged[shard][-1].digest for shard in (0, 1)}


async def test_repetition_through_another_coordinator_writes_nothing_twice(new_coordinator, redis, keys, deadline, kit):
    """The same request id gives the same versions, at another time, through whichever coordinator."""
    first = await new_coordinator(now_us=lambda: 1).upsert(kit.upsert(20, request_id="r1"), deadline)
    second = await new_coordinator(now_us=lambda: 2).upsert(kit.upsert(20, request_id="r1"), deadline)
    assert list(first.results) == list(second.results)
    assert first.token == second.token
    assert sum([len(await logged_records(redis, keys, shard)) for shard in (0, 1)]) == 20


async def test_request_id_with_another_content_is_refused(new_coordinator, deadline):
    """Nothing of the second request is written."""
    coordinator = new_coordinator()
    await coordinator.upsert(one_document(0, request_id="r1"), deadline)
    changed = one_document(0, request_id="r1")
    changed.documents[0].attributes = "{}"
    with pytest.raises(InvalidArgument) as caught:
        await coordinator.upsert(changed, deadline)
    assert caught.value.field == "request_id"


async def test_bad_document_keeps_the_whole_request_out_of_the_log(new_coordinator, redis, keys, deadline, kit):
    """Validation is all or nothing."""
    request = kit.upsert(20)
    request.documents[19].attributes = "[]"
    with pytest.raises(InvalidArgument):
        await new_coordinator().upsert(request, deadline)
    assert [await entries(redis, keys, shard) for shard in (0, 1)] == [[], []]


async def test_missing_log_of_one_shard_is_told_per_item(new_coordinator, logs, deadline, kit):
    """The other shard's documents are applied."""
    await logs.drop("uid1", 1)
    response = await new_coordinator().upsert(kit.upsert(20), deadline)
    for index, result in enumerate(response.results):
        assert result.outcome == (UNWRITTEN if ids.shard_of(index, 2) else APPLIED)
        assert bool(result.message) == (result.outcome == UNWRITTEN)


async def test_log_that_nobody_can_write_fails_the_call(new_coordinator, logs, deadline):
    """Nothing at all was written: UNAVAILABLE."""
    await logs.drop("uid1", 1)
    with pytest.raises(Unavailable):
        await new_coordinator().upsert(one_document(1), deadline)


async def test_full_log_asks_to_come_back(new_coordinator, redis, keys, deadline):
    """RESOURCE_EXHAUSTED with a delay, never silent loss."""
    coordinator = new_coordinator(LogWriter(redis, keys, max_log_bytes=200))
    await coordinator.upsert(one_document(0), deadline)
    with pytest.raises(ResourceExhausted) as caught:
        await coordinator.upsert(one_document(0), deadline)
    assert caught.value.retry_delay_s


async def test_batch_that_no_log_could_hold_is_bad_input(new_coordinator, redis, keys, deadline):
    """INVALID_ARGUMENT naming the bound: coming back would not help."""
    small = LogWriter(redis, keys, max_log_bytes=10)
    with pytest.raises(InvalidArgument, match="must cost at most 10"):
        await new_coordinator(small).upsert(one_document(0), deadline)


async def test_log_behind_what_a_replica_holds_is_not_written(new_coordinator, redis, keys, replicas, deadline):
    """A fresh coordinator over an older copy of the log is stopped by the floor."""
    position = shard_pb2.Position(epoch=1, seq=5, digest=b"x" * 20)
    replicas.positions["shard-b"] = shard_pb2.GetPositionResponse(durable=position)
    with pytest.raises(Unavailable) as caught:
        await new_coordinator().upsert(one_document(0), deadline)
    assert caught.value.reason == "LOG_BEHIND"
    assert await entries(redis, keys, 0) == []


async def test_log_that_lost_our_own_append_is_not_written(new_coordinator, logs, deadline):
    """The floor covers what this coordinator wrote, though no replica told of it."""
    coordinator = new_coordinator()
    await coordinator.upsert(one_document(0), deadline)
    await logs.drop("uid1", 0)
    await logs.create("uid1", 0, 1, 1, [])
    with pytest.raises(Unavailable) as caught:
        await coordinator.upsert(one_document(0), deadline)
    assert caught.value.reason == "LOG_BEHIND"


async def test_write_that_recovery_discarded_is_aborted(new_coordinator, replicas, deadline):
    """The replica says so."""
    coordinator = new_coordinator()
    await coordinator.upsert(one_document(0), deadline)
    replicas.silent = {"shard-a": Aborted("discarded"), "shard-b": Aborted("discarded")}
    with pytest.raises(Aborted):
        await coordinator.upsert(one_document(0), deadline)


async def test_recovering_shard_is_refused_before_anything_is_written(
    new_coordinator, registry, redis, keys, deadline, kit
):
    """Also the part of the request that another shard would take."""
    registry.set(kit.shard(1, log_state=LogState.RECOVERING))
    with pytest.raises(Unavailable, match="recovering"):
        await new_coordinator().upsert(kit.upsert(20), deadline)
    assert await entries(redis, keys, 0) == []


async def test_more_durable_replicas_than_in_sync_are_refused(new_coordinator, redis, keys, deadline):
    """Nothing is written that could not be acknowledged."""
    with pytest.raises(FailedPrecondition) as caught:
        await new_coordinator().upsert(one_document(0, durable_replicas=3), deadline)
    assert caught.value.field == "durable_replicas"
    assert await entries(redis, keys, 0) == []


async def test_unknown_collection_is_not_found(new_coordinator, deadline):
    """Also for deletes."""
    with pytest.raises(NotFound):
        await new_coordinator().delete(
            documents_pb2.DeleteRequest(collection="nope", ids=[columns.pack_id(1)]), deadline
        )


async def test_deleted_documents_are_found_or_not(new_coordinator, replicas, deadline):
    """Deleting what is not there is applied, with found = false."""
    replicas.outcome = shard_pb2.RECORD_OUTCOME_NOT_THERE
    request = documents_pb2.DeleteRequest(collection="docs", ids=[columns.pack_id(1)])
    result = (await new_coordinator().delete(request, deadline)).results[0]
    assert (result.outcome, result.found, result.version) == (APPLIED, False, 0)


async def test_chunk_that_cannot_be_written_is_answered_per_item(new_coordinator, registry, deadline, kit):
    """The bulk call goes on; its client sends these items again."""
    coordinator = new_coordinator()
    write = await coordinator.validated_chunk(kit.upsert(20, acknowledgement=DURABLE), deadline)
    registry.set(kit.shard(0, log_state=LogState.RECOVERING))
    response = await coordinator.write_chunk(write, deadline)
    assert {result.outcome for result in response.results} == {UNWRITTEN}


async def test_chunk_of_bad_items_only_is_answered(new_coordinator, deadline, kit):
    """Nothing is logged and each item carries its reason."""
    request = kit.upsert(1)
    request.documents[0].attributes = "[]"
    coordinator = new_coordinator()
    response = await coordinator.write_chunk(await coordinator.validated_chunk(request, deadline), deadline)
    assert response.results[0].outcome == documents_pb2.WRITE_OUTCOME_REFUSED
    assert "attributes" in response.results[0].message


async def test_restarted_redis_that_lost_the_writes_of_others_is_not_written(
    new_valkey, registry, replicas, new_coordinator, keys, deadline
):
    """The floor of an old coordinator does not know them; after a restart the replicas are asked again."""
    server = new_valkey()
    async with aclosing(connect(server.url)) as client:
        writer = LogWriter(client, keys, max_log_bytes=2**20)
        await writer.create("uid1", 0, 1, 1, ["shard-a", "shard-b"])
        coordinator, other = new_coordinator(writer), new_coordinator(writer)
        await coordinator.upsert(one_document(0), deadline)
        await client.execute_command("CONFIG", "SET", "appendonly", "no")
        await other.upsert(one_document(0), deadline)
        lost = await LogReader(client, keys, "uid1", 0).read(1, 1, 10)
        server.kill()
        server.start()
        position = shard_pb2.Position(epoch=1, seq=2, digest=lost[0].digest)
        replicas.positions["shard-b"] = shard_pb2.GetPositionResponse(durable=position)
        with pytest.raises(Unavailable) as caught:
            await coordinator.upsert(one_document(0), deadline)
        assert caught.value.reason == "LOG_BEHIND"
        assert (await LogReader(client, keys, "uid1", 0).head()).position.seq == 1


async def test_new_vectors_stand_in_the_logs_of_their_documents(new_coordinator, redis, keys, deadline):
    """One record per document at the version that was embedded; a repetition writes nothing twice."""
    request = upgrades_pb2.PutVectorsRequest(collection="docs", model="m1", request_id="r1", versions=range(1, 21))
    request.ids.extend(columns.pack_id(number) for number in range(20))
    request.block.CopyFrom(columns.pack_vectors(np.ones((20, 3), np.float32)))
    first = await PutVectors(new_coordinator()).put(request, deadline)
    again = await PutVectors(new_coordinator()).put(request, deadline)
    assert (first.written, first.stale, first.missing) == (20, 0, 0)
    assert first == again
    logged = [record for shard in (0, 1) for record in await logged_records(redis, keys, shard)]
    versions = [records.parse(record).expected_version for record in logged]
    assert sorted(versions) == list(range(1, 21))


async def fenced(logs, registry, *changes, shards=(0, 1)):
    """Raises the fence of logs over what the coordinators know; their next refresh finds the collection changed."""
    known = registry.view
    collection = msgspec.structs.replace(known.collections["uid1"], **dict(changes))
    fields = {**known.snapshot.fields, field_of(collection): encode_record(collection)}
    revision = known.snapshot.revision + 1
    registry.newer = Snapshot("c1", 1, revision, f"d{revision}", fields)
    for shard in shards:
        await logs.fence("uid1", shard, 1, 1, revision)


async def test_a_write_behind_a_fence_is_validated_again(new_coordinator, logs, registry, redis, keys, deadline, kit):
    """When it is still valid the caller notices nothing."""
    await fenced(logs, registry)
    response = await new_coordinator().upsert(kit.upsert(20), deadline)
    assert {result.outcome for result in response.results} == {APPLIED}
    assert sum([len(await logged_records(redis, keys, shard)) for shard in (0, 1)]) == 20


async def test_a_write_of_a_retired_model_does_not_slip_in(new_coordinator, logs, registry, redis, keys, deadline, kit):
    """It was valid by the registry that the coordinator knew; nothing of it is written."""
    after = (*registry.view.collections["uid1"].models, Model(2, "m2", 3, Metric.COSINE))
    await fenced(logs, registry, ("models", after), ("serving_model", "m2"), ("retired", ("m1",)))
    request = kit.upsert(20)
    request.vectors[0].model = "m1"
    with pytest.raises(FailedPrecondition, match="m1.*retired.*m2") as caught:
        await new_coordinator().upsert(request, deadline)
    assert caught.value.reason == "MODEL_RETIRED"
    assert [await entries(redis, keys, shard) for shard in (0, 1)] == [[], []]


async def test_what_was_written_before_the_fence_stays(new_coordinator, logs, registry, deadline, kit):
    """With one shard's log fenced only, the items tell which were written and why the others were not."""
    after = (*registry.view.collections["uid1"].models, Model(2, "m2", 3, Metric.COSINE))
    changes = (("models", after), ("serving_model", "m2"), ("retired", ("m1",)))
    await fenced(logs, registry, *changes, shards=(1,))
    request = kit.upsert(20)
    request.vectors[0].model = "m1"
    response = await new_coordinator().upsert(request, deadline)
    for index, result in enumerate(response.results):
        assert (result.outcome == APPLIED) is (ids.shard_of(index, 2) == 0), result.message
