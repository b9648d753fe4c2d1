"""Bad input on every field of every public rpc: the promised status names the field, the value and the bound.

Raw gRPC with the generated messages, so that nothing is checked or repaired on the way. After each refusal the cluster
is exactly as before.
"""

import asyncio
import re
from collections.abc import Iterator

import grpc
import pytest
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message
from google.rpc import error_details_pb2, status_pb2
from grpc_status import rpc_status
from harness.bad_input.artifacts import FILES
from harness.bad_input.case import INVALID, Bad, World, put
from harness.bad_input.good import GOOD, OTHER, VERSIONS, UpgradeAs, block, plan, request_for, spec, upsert
from harness.bad_input.table import CANNOT_BE_BAD, all_rows
from harness.waiting import until

from kintsugi import limits
from kintsugi.local.cluster import LocalCluster
from kintsugi.v1 import (
    cluster_pb2,
    cluster_pb2_grpc,
    collections_pb2,
    collections_pb2_grpc,
    documents_pb2,
    documents_pb2_grpc,
    search_pb2,
    search_pb2_grpc,
    types_pb2,
    upgrades_pb2,
    upgrades_pb2_grpc,
)

pytestmark = pytest.mark.cluster

SERVICES = {
    "Collections": (collections_pb2, collections_pb2_grpc.CollectionsStub),
    "Documents": (documents_pb2, documents_pb2_grpc.DocumentsStub),
    "Search": (search_pb2, search_pb2_grpc.SearchStub),
    "Cluster": (cluster_pb2, cluster_pb2_grpc.ClusterStub),
    "Upgrades": (upgrades_pb2, upgrades_pb2_grpc.UpgradesStub),
}
METHODS = {
    f"{service}.{method.name}": method
    for service, (module, _) in SERVICES.items()
    for method in module.DESCRIPTOR.services_by_name[service].methods
}
ROWS = all_rows()
TIMEOUT_S = 30
REFUSED = documents_pb2.WRITE_OUTCOME_REFUSED
APPLIED = documents_pb2.WRITE_OUTCOME_APPLIED
# What cannot be undone is left out where every good request is sent.
FINAL = {
    "Collections.Delete",
    "Cluster.AcceptLoss",
    "Upgrades.CutOver",
    "Upgrades.Rollback",
    "Upgrades.Finish",
}
SECRETS = re.compile(r"Traceback|File \"|\.py\b|0x[0-9a-f]{6}")
MARK = "MARKMARK"


class Refused(grpc.RpcError):
    """A status that came as a message on a stream, as the call would have raised it."""

    def __init__(self, status: bytes) -> None:
        self._rich = status_pb2.Status.FromString(status)

    def code(self) -> grpc.StatusCode:
        return next(code for code in grpc.StatusCode if code.value[0] == self._rich.code)

    def details(self) -> str:
        return self._rich.message

    def trailing_metadata(self) -> tuple[tuple[str, bytes], ...]:
        return (("grpc-status-details-bin", self._rich.SerializeToString()),)


class Wire:
    """The public surface of one coordinator, and what it holds."""

    def __init__(self, address: str) -> None:
        unlimited = [("grpc.max_send_message_length", -1), ("grpc.max_receive_message_length", -1)]
        self._channel = grpc.insecure_channel(address, options=unlimited)
        self._stubs = {name: stub(self._channel) for name, (_, stub) in SERVICES.items()}

    def call(self, rpc: str, request: Message) -> Message | list[Message]:
        """The answer; of an rpc that streams them, all."""
        service, method = rpc.split(".")
        send = getattr(self._stubs[service], method)
        if rpc == "Upgrades.Plan":
            self._upload(request.plan)
        if METHODS[rpc].client_streaming and not METHODS[rpc].server_streaming:
            return send(iter([request]), timeout=TIMEOUT_S)
        if METHODS[rpc].client_streaming:
            (answer,) = send(iter([request]), timeout=TIMEOUT_S)
            if getattr(answer, "status", b""):
                raise Refused(answer.status)
            return answer
        if METHODS[rpc].server_streaming:
            return list(send(request, timeout=TIMEOUT_S))
        return send(request, timeout=TIMEOUT_S)

    def _upload(self, plan: upgrades_pb2.UpgradePlan) -> None:
        """What the plan names, unless it names what there is not."""
        for name in {plan.bridge, plan.gallery_map, plan.reverse, plan.anchors, plan.uncertainty} & FILES.keys():
            data = FILES[name]
            request = upgrades_pb2.PutArtifactRequest(digest=name, total_bytes=len(data), data=data)
            self._stubs["Upgrades"].PutArtifact(iter([request]), timeout=TIMEOUT_S)

    def send_bytes(self, rpc: str, data: bytes) -> None:
        """Sends what need not be a message."""
        service, method = rpc.split(".")
        path = f"/kintsugi.v1.{service}/{method}"
        if METHODS[rpc].client_streaming and not METHODS[rpc].server_streaming:
            self._channel.stream_unary(path)(iter([data]), timeout=TIMEOUT_S)
        elif METHODS[rpc].client_streaming:
            list(self._channel.stream_stream(path)(iter([data]), timeout=TIMEOUT_S))
        elif METHODS[rpc].server_streaming:
            list(self._channel.unary_stream(path)(data, timeout=TIMEOUT_S))
        else:
            self._channel.unary_unary(path)(data, timeout=TIMEOUT_S)

    def upgrade(self, name: str) -> upgrades_pb2.Upgrade:
        """The upgrade of a collection; an empty one when there is none."""
        try:
            return self.call("Upgrades.Get", upgrades_pb2.GetUpgradeRequest(collection=name)).upgrade
        except grpc.RpcError as error:
            if error.code() is not grpc.StatusCode.NOT_FOUND:
                raise
            return upgrades_pb2.Upgrade()

    def contents(self, name: str = GOOD) -> tuple[bytes, bytes, bytes, int]:
        """Everything that a half-written request for a collection would change."""
        fields = types_pb2.DocumentFields(attributes=True, text=True, vectors=True)
        page = self.call("Documents.Scroll", documents_pb2.ScrollRequest(collection=name, limit=1000, fields=fields))
        listed = self.call("Collections.List", collections_pb2.ListCollectionsRequest())
        count = self.call("Documents.Count", documents_pb2.CountRequest(collection=name))
        told = [one.SerializeToString(deterministic=True) for one in (page, listed, self.upgrade(name))]
        return told[0], told[1], told[2], count.count

    def close(self) -> None:
        self._channel.close()


@pytest.fixture(scope="module")
def cluster(shared_cluster) -> LocalCluster:
    return shared_cluster(servers=2)


@pytest.fixture(scope="module")
def wire(cluster: LocalCluster) -> Iterator[Wire]:
    wire = Wire(cluster.address)
    yield wire
    wire.close()


@pytest.fixture(scope="module")
def world(wire: Wire) -> World:
    """Two collections with a few documents, and one in each state of an upgrade."""
    written = {}
    for name in (GOOD, OTHER):
        wire.call("Collections.Create", collections_pb2.CreateCollectionRequest(spec=spec(name)))
        request = upsert(first=0, count=8, collection=name)
        request.request_id = "used"
        written[name] = wire.call("Documents.Upsert", request)
    page = wire.call("Documents.Scroll", documents_pb2.ScrollRequest(collection=OTHER, limit=2))
    for name in UpgradeAs:
        begin_upgrade(wire, name)
    for name in UpgradeAs:
        bring(wire, name)
    return World(written[GOOD].token, written[OTHER].token, page.next_page_token, "used")


def begin_upgrade(wire: Wire, name: UpgradeAs) -> None:
    """A collection with documents and a plan, started unless it must not be."""
    wire.call("Collections.Create", collections_pb2.CreateCollectionRequest(spec=spec(name)))
    request = upsert(first=0, count=8, collection=name)
    request.request_id = "used"
    results = wire.call("Documents.Upsert", request).results
    assert tuple(result.version for result in results[: len(VERSIONS)]) == VERSIONS
    wire.call("Upgrades.Plan", upgrades_pb2.PlanUpgradeRequest(collection=name, plan=plan()))
    if name is UpgradeAs.GIVEN_UP:
        wire.call("Upgrades.Rollback", upgrades_pb2.RollbackUpgradeRequest(collection=name))
    elif name is not UpgradeAs.PLANNED:
        wire.call("Upgrades.Start", upgrades_pb2.StartUpgradeRequest(collection=name))


def bring(wire: Wire, name: UpgradeAs) -> None:
    """The upgrade to the state that its collection is named after."""
    if name in (UpgradeAs.PLANNED, UpgradeAs.GIVEN_UP):
        return
    reach(wire, name, "BACKFILLING")
    match name:
        case UpgradeAs.PAUSED:
            wire.call("Upgrades.Pause", upgrades_pb2.PauseUpgradeRequest(collection=name))
        case UpgradeAs.ROLLED_BACK:
            wire.call("Upgrades.Rollback", upgrades_pb2.RollbackUpgradeRequest(collection=name))
            reach(wire, name, "ROLLED_BACK")
        case UpgradeAs.FINISHED:
            migrate(wire, name)
            wire.call("Upgrades.CutOver", upgrades_pb2.CutOverRequest(collection=name))
            wire.call("Upgrades.Finish", upgrades_pb2.FinishUpgradeRequest(collection=name))
            reach(wire, name, "FINISHED")


def reach(wire: Wire, name: str, state: str) -> None:
    wanted = upgrades_pb2.UpgradeState.Value(f"UPGRADE_STATE_{state}")
    asyncio.run(until(lambda: wire.upgrade(name).state == wanted, f"the upgrade of {name} is {state}"))


def migrate(wire: Wire, name: str) -> None:
    """Every document gets a vector of the new model."""
    handed = wire.call("Upgrades.NextDocuments", upgrades_pb2.NextDocumentsRequest(collection=name)).documents
    ids, versions = [one.id for one in handed], [one.version for one in handed]
    request = upgrades_pb2.PutVectorsRequest(
        collection=name, model="n", ids=ids, versions=versions, block=block(len(ids))
    )
    assert wire.call("Upgrades.PutVectors", request).written == len(upsert(count=8).documents)


def concerned(rpc: str, request: Message) -> str:
    """The collection that a half-written request would change."""
    name = getattr(request, "collection", GOOD)
    known = rpc.startswith("Upgrades.") and name in {OTHER, *UpgradeAs}
    return name if known else GOOD


def refusal(send, *arguments) -> tuple[grpc.StatusCode, str, str]:
    """The status code, the message and the field path in the details of a call that must fail."""
    with pytest.raises(grpc.RpcError) as caught:
        send(*arguments)
    error = caught.value
    status = rpc_status.from_call(error)
    field = ""
    for detail in status.details if status is not None else ():
        violations = error_details_pb2.BadRequest()
        if detail.Unpack(violations):
            (violation,) = violations.field_violations
            field = violation.field
            assert violation.description == error.details()
    assert not SECRETS.search(str(error.details()))
    return error.code(), str(error.details()), field


@pytest.mark.parametrize("row", ROWS, ids=str)
def test_each_bad_field_is_refused_by_name_value_and_bound(wire: Wire, world: World, row: Bad):
    """The promised status with the path of the field in its details; a bulk call refuses a bad item alone."""
    request = request_for(row.rpc)
    row.spoil(request, world)
    name = concerned(row.rpc, request)
    before = wire.contents(name)
    if row.rpc == "Documents.BulkUpsert" and row.alone:
        results = wire.call(row.rpc, request).response.results
        refused = [result for result in results if result.outcome == REFUSED]
        assert refused
        assert all(result.outcome == APPLIED for result in results if result not in refused)
        message = refused[-1].message
        assert not SECRETS.search(message)
        undo(wire, results, request)
    else:
        code, message, field = refusal(wire.call, row.rpc, request)
        assert (code, field) == (row.code, row.violation), message
    assert wire.contents(name) == before
    for part in row.says:
        assert part in message


def undo(wire: Wire, results, request: documents_pb2.BulkUpsertRequest) -> None:
    """Deletes what a bulk call wrote beside its bad items."""
    written = [
        document.id
        for document, result in zip(request.upsert.documents, results, strict=True)
        if result.outcome == APPLIED
    ]
    if written:
        wire.call("Documents.Delete", documents_pb2.DeleteRequest(collection=GOOD, ids=written))


@pytest.mark.parametrize("name", ["collection", "acknowledgement", "durable_replicas"])
def test_a_bulk_call_is_refused_when_a_later_chunk_differs(wire: Wire, world: World, name: str):
    """Collection, acknowledgement and durable_replicas must be those of the first chunk."""
    other = {"collection": OTHER, "acknowledgement": types_pb2.ACKNOWLEDGEMENT_SEARCHABLE, "durable_replicas": 1}
    first = documents_pb2.BulkUpsertRequest(chunk=0, upsert=upsert(first=0, count=2))
    second = documents_pb2.BulkUpsertRequest(chunk=1, upsert=upsert())
    setattr(second.upsert, name, other[name])
    count = wire.contents()[-1]
    call = wire._stubs["Documents"].BulkUpsert(iter([first, second]), timeout=TIMEOUT_S)
    code, message, field = refusal(list, call)
    assert (code, field) == (INVALID, f"upsert.{name}")
    assert "chunk 1" in message
    assert wire.contents()[-1] == count


# --- What is no message -----------------------------------------------------------------------------------------------


def fields_of(
    message: type | object, prefix: str = "", around: tuple[object, ...] = ()
) -> Iterator[tuple[str, FieldDescriptor]]:
    """The path and descriptor of every field of a message type, nested ones included; of a type in itself only the field
    that holds it."""
    around = (*around, message)
    for field in message.fields:
        yield prefix + field.name, field
        if field.message_type is not None and field.message_type not in around:
            yield from fields_of(field.message_type, f"{prefix}{field.name}.", around)


def request_fields() -> list[tuple[str, str, FieldDescriptor]]:
    return [(rpc, path, field) for rpc, method in METHODS.items() for path, field in fields_of(method.input_type)]


STRINGS = [(rpc, path) for rpc, path, field in request_fields() if field.type == FieldDescriptor.TYPE_STRING]


def indexed(message: Message, path: str) -> str:
    """The path with [0] behind each repeated field, which gets an entry when it has none."""
    steps = []
    for name in path.split("."):
        field = message.DESCRIPTOR.fields_by_name[name]
        if not field.is_repeated:
            steps.append(name)
            message = getattr(message, name)
            continue
        entries = getattr(message, name)
        if not entries:
            entries.add()
        steps.append(f"{name}[0]")
        message = entries[0]
    return ".".join(steps)


@pytest.mark.parametrize(("rpc", "path"), STRINGS, ids=lambda value: value)
def test_a_string_that_is_not_utf8_is_refused(wire: Wire, world: World, rpc: str, path: str):
    """Every string field of every request: INVALID_ARGUMENT that says so."""
    request = request_for(rpc)
    put(request, indexed(request, path), MARK)
    data = request.SerializeToString()
    assert data.count(MARK.encode()) == 1
    before = wire.contents()
    code, message, field = refusal(wire.send_bytes, rpc, data.replace(MARK.encode(), b"MARK\xff\xfeRK"))
    assert (code, field) == (INVALID, "request")
    assert "UTF-8" in message
    assert wire.contents() == before


@pytest.mark.parametrize("rpc", METHODS)
def test_bytes_that_are_no_message_are_refused(wire: Wire, world: World, rpc: str):
    """Corrupt and cut-off messages: INVALID_ARGUMENT that names the message."""
    for data in (b"\xff", b"\x0a\x7f", b"\x0b" * 1000, request_for(rpc).SerializeToString() + b"\x0a\x05a"):
        code, message, field = refusal(wire.send_bytes, rpc, data)
        assert (code, field) == (INVALID, "request")
        assert METHODS[rpc].input_type.name in message


@pytest.mark.parametrize("rpc", ["Documents.Upsert", "Documents.BulkUpsert", "Search.Search", "Cluster.GetStatus"])
def test_a_message_over_the_bound_is_refused(wire: Wire, world: World, rpc: str):
    """RESOURCE_EXHAUSTED that names both sizes."""
    before = wire.contents()
    size = limits.MAX_MESSAGE_BYTES + 1
    code, message, _ = refusal(wire.send_bytes, rpc, bytes(size))
    assert code is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert str(size) in message
    assert str(limits.MAX_MESSAGE_BYTES) in message
    assert wire.contents() == before


def test_the_largest_good_request_is_taken(wire: Wire, world: World):
    """A batch just below the bound in bytes is written, and can be read and deleted."""
    request = upsert(first=5000, count=64)
    for document in request.documents:
        document.text = "x" * 256 * 1024
    request.documents[-1].ClearField("text")
    assert limits.MAX_BATCH_BYTES * 0.98 < request.ByteSize() <= limits.MAX_BATCH_BYTES
    answer = wire.call("Documents.Upsert", request)
    assert {result.outcome for result in answer.results} == {APPLIED}
    ids = [document.id for document in request.documents]
    fields = types_pb2.DocumentFields(text=True)
    found = wire.call("Documents.Get", documents_pb2.GetRequest(collection=GOOD, ids=ids, fields=fields))
    assert [document.text for document in found.documents] == [document.text for document in request.documents]
    wire.call("Documents.Delete", documents_pb2.DeleteRequest(collection=GOOD, ids=ids))


# --- The table --------------------------------------------------------------------------------------------------------


def test_every_field_of_every_public_request_has_a_row():
    """A field is in the table, or it says why it cannot be bad; the table names no field that does not exist."""
    fields = {f"{rpc} {path}" for rpc, path, _ in request_fields()}
    tested = {f"{row.rpc} {row.about}" for row in ROWS}
    assert fields - tested - CANNOT_BE_BAD.keys() == set()
    assert tested - fields == set()
    assert CANNOT_BE_BAD.keys() - fields == set()
    assert CANNOT_BE_BAD.keys() & tested == set()


def test_the_good_requests_are_good(wire: Wire, world: World):
    """Each request of the table is taken when nothing is changed in it."""
    for rpc in METHODS:
        if rpc not in FINAL:
            wire.call(rpc, request_for(rpc))
    wire.call("Collections.Delete", collections_pb2.DeleteCollectionRequest(name="new"))


def test_the_servers_took_no_harm(cluster: LocalCluster, wire: Wire, world: World):
    """After all of the above every process runs, and none has logged a defect."""
    cluster.wait_ready()
    for name in cluster.names():
        assert cluster.is_running(name)
        log = cluster.log_path(name).read_text("utf-8", errors="replace")
        assert "Traceback" not in log, log[max(0, log.index("Traceback") - 500) :][:3000]
    assert wire.contents()[-1] > 0
