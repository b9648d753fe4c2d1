"""Asks processes over gRPC whether they can be used. Blocking; a refusal or silence is an answer, not an error."""

import grpc

from kintsugi import health
from kintsugi.rpc.channels import CHANNEL_OPTIONS
from kintsugi.v1 import cluster_pb2, cluster_pb2_grpc

_CALL_TIMEOUT_S = 2.0


def is_serving(address: str) -> bool:
    """Whether gRPC health says SERVING."""
    return health.check(address, timeout_s=_CALL_TIMEOUT_S).serving


def what_is_missing(coordinator: str, shard_servers: list[str]) -> str:
    """What a coordinator still lacks before it can place collections on all shard servers; '' when nothing."""
    with grpc.insecure_channel(coordinator, options=CHANNEL_OPTIONS) as channel:
        try:
            status = cluster_pb2_grpc.ClusterStub(channel).GetStatus(
                cluster_pb2.GetStatusRequest(), timeout=_CALL_TIMEOUT_S
            )
        except grpc.RpcError as error:
            return f"does not tell its status: {error}"
    if status.registry != "ok":
        return f"sees a registry that is {status.registry}: {status.message}"
    alive = {member.address for member in status.members if member.alive and member.role == "shard"}
    absent = [address for address in shard_servers if address not in alive]
    return f"does not see the shard servers at {', '.join(absent)}" if absent else ""
