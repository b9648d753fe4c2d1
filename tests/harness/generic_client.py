"""A client in "any language": it knows an address, the gRPC protocols (health, reflection) and nothing else.

Run as a program with the address of a coordinator. Messages and methods are built from descriptors that the server
sends; importing our package is what this must not do. Prints what it found as JSON.
"""

import base64
import json
import struct
import sys
from typing import Any

import grpc
from google.protobuf import json_format
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message_factory import GetMessageClass
from google.rpc import error_details_pb2, status_pb2
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase

PACKAGE = "kintsugi.v1"
TIMEOUT_S = 60


class Reflected:
    """The services of a server, callable with plain dictionaries."""

    def __init__(self, channel: grpc.Channel) -> None:
        self._channel = channel
        self._database = ProtoReflectionDescriptorDatabase(channel)
        self._pool = DescriptorPool(self._database)

    def services(self) -> dict[str, list[str]]:
        names = sorted(self._database.get_services())
        return {name: [method.name for method in self._pool.FindServiceByName(name).methods] for name in names}

    def call(self, name: str, request: Any) -> dict[str, Any]:
        """Calls "Service.Method" with a request, or a streaming method with a list of them."""
        service, _, method_name = name.partition(".")
        method = self._pool.FindServiceByName(f"{PACKAGE}.{service}").FindMethodByName(method_name)
        make, answer = GetMessageClass(method.input_type), GetMessageClass(method.output_type)
        streaming = method.client_streaming
        connect = self._channel.stream_stream if streaming else self._channel.unary_unary
        send = connect(f"/{PACKAGE}.{service}/{method_name}", make.SerializeToString, answer.FromString)
        if streaming:
            requests = [json_format.ParseDict(one, make()) for one in request]
            answers = list(send(iter(requests), timeout=TIMEOUT_S))
            return {"answers": [self._as_dictionary(one) for one in answers]}
        return self._as_dictionary(send(json_format.ParseDict(request, make()), timeout=TIMEOUT_S))

    def _as_dictionary(self, message: Any) -> dict[str, Any]:
        return json_format.MessageToDict(message, preserving_proto_field_name=True, descriptor_pool=self._pool)

    def refusal(self, name: str, request: Any) -> dict[str, Any]:
        """The rich error of a call that must fail."""
        try:
            answer = self.call(name, request)
        except grpc.RpcError as error:
            metadata = dict(error.trailing_metadata())
            status = status_pb2.Status.FromString(metadata["grpc-status-details-bin"])
            details: dict[str, Any] = {"code": error.code().name, "message": status.message}
            for packed in status.details:
                for kind in (error_details_pb2.ErrorInfo, error_details_pb2.BadRequest):
                    if packed.Is(kind.DESCRIPTOR):
                        unpacked = kind()
                        packed.Unpack(unpacked)
                        details[kind.DESCRIPTOR.name] = json_format.MessageToDict(unpacked)
            return details
        raise AssertionError(f"{name} must be refused, answered {answer}")


def base64_floats(*values: float) -> str:
    """Bytes as JSON carries them."""
    return base64.b64encode(struct.pack(f"<{len(values)}f", *values)).decode()


def tour(address: str) -> dict[str, Any]:
    """Everything a newcomer would try."""
    found: dict[str, Any] = {}
    with grpc.insecure_channel(address) as channel:
        server = Reflected(channel)
        found["services"] = server.services()
        health = health_pb2_grpc.HealthStub(channel)
        found["health"] = {
            name: health_pb2.HealthCheckResponse.ServingStatus.Name(
                health.Check(health_pb2.HealthCheckRequest(service=name), timeout=TIMEOUT_S).status
            )
            for name in ("", f"{PACKAGE}.Search")
        }
        model = {"name": "tiny", "dimension": 3}
        spec = {"name": "generic", "shards": 2, "metric": "METRIC_COSINE", "models": [model]}
        found["created"] = server.call("Collections.Create", {"spec": spec})["collection"]
        written = server.call("Documents.Upsert", upsert())
        found["written"] = written
        found["bulk"] = server.call("Documents.BulkUpsert", [{"chunk": 0, "upsert": bulk_upsert()}])["answers"]
        options = {"k": 2, "at_least": written["token"], "fields": {"attributes": True, "text": True}}
        query = {"collection": "generic", "vectors": [{"values": {"values": [1.0, 0.1, 0.0]}}], "options": options}
        found["by_floats"] = server.call("Search.Search", query)
        query["vectors"] = [{"data": base64_floats(1.0, 0.1, 0.0)}]
        found["by_bytes"] = server.call("Search.Search", query)
        ids = [{"integer": 1}, {"text": "two"}, {"text": "nobody"}]
        everything = {"attributes": True, "text": True, "vectors": True}
        found["got"] = server.call("Documents.Get", {"collection": "generic", "ids": ids, "fields": everything})
        found["walked"] = list(walk(server))
        found["count"] = server.call("Documents.Count", {"collection": "generic"})
        options["k"] = 5000
        found["refused"] = server.refusal("Search.Search", query)
        found["unknown"] = server.refusal("Documents.Count", {"collection": "nobody"})
    return found


def upsert() -> dict[str, Any]:
    documents = [
        {"id": {"integer": 1}, "attributes": '{"colour": "red"}'},
        {"id": {"text": "two"}, "text": "the second"},
    ]
    block = {"data": base64_floats(1, 0, 0, 0, 1, 0), "count": 2, "dimension": 3}
    level = "ACKNOWLEDGEMENT_SEARCHABLE"
    vectors = [{"model": "tiny", "block": block}]
    return {"collection": "generic", "documents": documents, "vectors": vectors, "acknowledgement": level}


def bulk_upsert() -> dict[str, Any]:
    block = {"data": base64_floats(0, 0, 1), "count": 1, "dimension": 3}
    return {"collection": "generic", "documents": [{"id": {"integer": 3}}], "vectors": [{"block": block}]}


def walk(server: Reflected) -> Any:
    """The ids of all documents, page by page."""
    request: dict[str, Any] = {"collection": "generic", "limit": 1}
    while True:
        page = server.call("Documents.Scroll", request)
        yield from (document["id"] for document in page.get("documents", ()))
        if "next_page_token" not in page:
            return
        request["page_token"] = page["next_page_token"]


if __name__ == "__main__":
    report = tour(sys.argv[1])
    report["imported"] = sorted(name for name in sys.modules if name.partition(".")[0] in ("kintsugi", "coordinator"))
    json.dump(report, sys.stdout)
