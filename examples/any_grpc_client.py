"""A client without Kintsugi's package: the servers describe themselves by gRPC reflection.

The same works in any language with gRPC. In Python it needs grpcio, grpcio-reflection and protobuf. docs/api/grpc.md
explains every message; the JSON names of the fields are the ones of the protos.

    python examples/any_grpc_client.py [ADDRESS]
"""

import base64
import struct
import sys
from typing import Any

import grpc
from google.protobuf import json_format
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message_factory import GetMessageClass
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase

COLLECTION = "any-grpc-client"


class Server:
    """Calls methods with dictionaries. The descriptors come from the server."""

    def __init__(self, channel: grpc.Channel) -> None:
        self._channel = channel
        self._pool = DescriptorPool(ProtoReflectionDescriptorDatabase(channel))

    def call(self, service: str, method: str, **request: Any) -> dict[str, Any]:
        described = self._pool.FindServiceByName(f"kintsugi.v1.{service}").FindMethodByName(method)
        asks, answers = GetMessageClass(described.input_type), GetMessageClass(described.output_type)
        send = self._channel.unary_unary(
            f"/kintsugi.v1.{service}/{method}",
            request_serializer=asks.SerializeToString,
            response_deserializer=answers.FromString,
        )
        answer = send(json_format.ParseDict(request, asks()), timeout=60)
        return json_format.MessageToDict(answer, preserving_proto_field_name=True)


def floats(*values: float) -> str:
    """Vectors are little-endian f32; JSON carries bytes as base64."""
    return base64.b64encode(struct.pack(f"<{len(values)}f", *values)).decode()


def main(address: str) -> None:
    with grpc.insecure_channel(address) as channel:
        server = Server(channel)
        spec = {"name": COLLECTION, "metric": "METRIC_L2", "models": [{"name": "my-model", "dimension": 3}]}
        server.call("Collections", "Create", spec=spec)

        documents = [{"id": {"integer": 1}, "text": "one"}, {"id": {"text": "two"}, "attributes": '{"lang": "en"}'}]
        vectors = [{"block": {"data": floats(0, 0, 1, 0, 1, 0), "count": 2, "dimension": 3}}]
        written = server.call("Documents", "Upsert", collection=COLLECTION, documents=documents, vectors=vectors)
        print("outcomes:", [item["outcome"] for item in written["results"]])

        query = {"values": {"values": [0.0, 0.2, 0.9]}}
        options = {"k": 2, "at_least": written["token"], "fields": {"text": True}}
        found = server.call("Search", "Search", collection=COLLECTION, vectors=[query], options=options)
        for hit in found["hits"]:
            print(round(hit["score"], 3), hit["id"], hit.get("text", ""))

        server.call("Collections", "Delete", name=COLLECTION)


if __name__ == "__main__":
    main((sys.argv[1:] or ["127.0.0.1:7700"])[0])
