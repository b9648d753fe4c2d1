"""The calls that writing and reporting make to shard servers. Every failure is an error of kintsugi.errors.

Knows where members listen, and nothing of what the answers mean.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import TypeVar

from kintsugi.errors import KintsugiError, Unavailable
from kintsugi.internal.v1 import shard_pb2, shard_pb2_grpc
from kintsugi.registry.records import Member, View
from kintsugi.rpc.errors import grpc_errors

Answer = TypeVar("Answer")

# A shard server that is up answers these from memory.
ASK_TIMEOUT_S = 2.0


class ReplicaCalls:
    """`stub_for` gives the stub of an address, `view` the present registry."""

    def __init__(
        self, stub_for: Callable[[str], "shard_pb2_grpc.ShardAsyncStub"], view: Callable[[], View | None]
    ) -> None:
        self._stub_for = stub_for
        self._view = view

    async def position(self, member: str, replica: shard_pb2.ReplicaRef) -> shard_pb2.GetPositionResponse:
        stub = self._stub(member)
        with grpc_errors():
            return await stub.GetPosition(shard_pb2.GetPositionRequest(replica=replica), timeout=ASK_TIMEOUT_S)

    async def await_write(
        self, member: str, request: shard_pb2.AwaitRequest, timeout_s: float
    ) -> shard_pb2.AwaitResponse:
        stub = self._stub(member)
        with grpc_errors():
            return await stub.Await(request, timeout=timeout_s)

    async def status(self, member: str, timeout_s: float = ASK_TIMEOUT_S) -> shard_pb2.GetServerStatusResponse:
        stub = self._stub(member)
        with grpc_errors():
            return await stub.GetServerStatus(shard_pb2.GetServerStatusRequest(), timeout=timeout_s)

    async def verify(
        self, member: str, request: shard_pb2.VerifyReplicaRequest, timeout_s: float
    ) -> shard_pb2.VerifyReplicaResponse:
        stub = self._stub(member)
        with grpc_errors():
            return await stub.VerifyReplica(request, timeout=timeout_s)

    async def artifact(self, member: str, digest: str) -> bytes:
        stub = self._stub(member)
        request = shard_pb2.GetArtifactRequest(digest=digest)
        with grpc_errors():
            return b"".join([chunk.data async for chunk in stub.GetArtifact(request, timeout=ASK_TIMEOUT_S)])

    def _stub(self, member: str) -> "shard_pb2_grpc.ShardAsyncStub":
        view = self._view()
        members: Mapping[str, Member] = view.members if view else {}
        if member not in members:
            raise Unavailable(f"member {member} is not in the registry")
        return self._stub_for(members[member].address)


def answered(members: Sequence[str], answers: Sequence[Answer | BaseException]) -> dict[str, Answer]:
    """The answers by member, without those who could not be reached. Defects of ours are raised."""
    found = {}
    for member, answer in zip(members, answers, strict=True):
        if not isinstance(answer, BaseException):
            found[member] = answer
        elif not isinstance(answer, KintsugiError):
            raise answer
    return found
