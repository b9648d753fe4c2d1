"""What a shard server asks its peers: how far they are, which history they hold, and copies of what they have."""

import asyncio
from collections.abc import AsyncIterable, AsyncIterator, Callable, Iterable
from typing import TYPE_CHECKING, TypeVar

from kintsugi.errors import KintsugiError, Unavailable
from kintsugi.internal.v1 import shard_pb2
from kintsugi.limits import MAX_ARTIFACT_BYTES
from kintsugi.position import Position
from kintsugi.registry.records import Role, View
from kintsugi.rpc.errors import grpc_errors

if TYPE_CHECKING:
    from kintsugi.internal.v1.shard_pb2_grpc import ShardAsyncStub  # the stubs have it for type checkers only

ASK_TIMEOUT_S = 2.0
# How long a stream may give nothing. A peer copies its whole database before a snapshot's first piece.
TAIL_STALL_S = 15.0
ARTIFACT_STALL_S = 15.0
SNAPSHOT_STALL_S = 300.0

Item = TypeVar("Item")


class Peers:
    """`stub_for` gives the stub of an address, `view` the current registry."""

    def __init__(self, stub_for: "Callable[[str], ShardAsyncStub]", view: Callable[[], View | None]) -> None:
        self._stub_for = stub_for
        self._view = view

    def stub(self, member: str) -> "ShardAsyncStub":
        view = self._view()
        known = view.members.get(member) if view else None
        if known is None:
            raise Unavailable(f"member {member} is not in the registry")
        return self._stub_for(known.address)

    async def position(
        self, member: str, replica: shard_pb2.ReplicaRef, *, fence_epoch: int = 0, digest_at: int = 0
    ) -> shard_pb2.GetPositionResponse:
        """Asks one peer how far its replica is; see GetPosition in shard.proto."""
        request = shard_pb2.GetPositionRequest(replica=replica, fence_epoch=fence_epoch, digest_at=digest_at)
        stub = self.stub(member)
        with grpc_errors():
            return await stub.GetPosition(request, timeout=ASK_TIMEOUT_S)

    async def reachable_positions(self, members: Iterable[str], replica: shard_pb2.ReplicaRef) -> list[Position]:
        """The durable positions of those peers that answer."""
        found = []
        for member in members:
            try:
                answer = await self.position(member, replica)
            except KintsugiError:
                continue  # a silent peer proves nothing; recovery is where every one of them must answer
            found.append(from_wire(answer.durable))
        return found

    def others(self, member: str) -> list[str]:
        """The shard servers that the registry knows, but this one."""
        view = self._view()
        members = view.members.values() if view else ()
        return sorted(one.id for one in members if one.role is Role.SHARD and one.id != member)

    async def artifact(self, member: str, digest: str) -> bytes:
        """An artifact that a peer holds. Raises NotFound, or what calls raise."""
        stub, data = self.stub(member), bytearray()
        with grpc_errors():
            call = stub.GetArtifact(shard_pb2.GetArtifactRequest(digest=digest))
            async for chunk in _flowing(call, ARTIFACT_STALL_S, f"artifact of {member}"):
                data += chunk.data
                if len(data) > MAX_ARTIFACT_BYTES:
                    call.cancel()
                    raise Unavailable(f"artifact {digest} of {member} has more than {MAX_ARTIFACT_BYTES} bytes")
        return bytes(data)

    async def registry(self, address: str) -> bytes:
        """The registry that the shard server at an address keeps; empty when it has none."""
        stub = self._stub_for(address)
        with grpc_errors():
            answer = await stub.GetRegistry(shard_pb2.GetRegistryRequest(), timeout=ASK_TIMEOUT_S)
        return answer.snapshot

    async def tail(
        self, member: str, replica: shard_pb2.ReplicaRef, first: int, last: int
    ) -> AsyncIterator[shard_pb2.TailEntry]:
        """The log entries of a peer that hold the records `first` to `last`, in order."""
        request = shard_pb2.ReadTailRequest(replica=replica, from_seq=first, to_seq=last)
        stub = self.stub(member)
        with grpc_errors():
            async for entry in _flowing(stub.ReadTail(request), TAIL_STALL_S, f"tail of {member}"):
                yield entry

    async def snapshot(self, member: str, replica: shard_pb2.ReplicaRef) -> AsyncIterator[shard_pb2.SnapshotChunk]:
        """A copy of a peer's database, in pieces."""
        stub = self.stub(member)
        with grpc_errors():
            call = stub.Snapshot(shard_pb2.SnapshotRequest(replica=replica))
            async for chunk in _flowing(call, SNAPSHOT_STALL_S, f"snapshot of {member}"):
                yield chunk


async def _flowing(stream: AsyncIterable[Item], stall_s: float, what: str) -> AsyncIterator[Item]:
    """The items of a stream. Unavailable when the next one takes too long: whoever waits may hold a lease."""
    items = aiter(stream)
    while True:
        try:
            async with asyncio.timeout(stall_s):
                item = await anext(items)
        except StopAsyncIteration:
            return
        except TimeoutError as error:
            raise Unavailable(f"{what} gave nothing for {stall_s:g} s") from error
        yield item


def from_wire(position: shard_pb2.Position) -> Position:
    return Position(position.epoch, position.seq, position.digest)


def to_wire(position: Position) -> shard_pb2.Position:
    return shard_pb2.Position(epoch=position.epoch, seq=position.seq, digest=position.digest)
