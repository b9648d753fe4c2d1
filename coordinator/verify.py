"""Verify: has every replica of a collection checked, and tells what each one found as soon as it has.

1. All in-sync and joining replicas are asked. One that cannot be checked, and one that is out of sync, which may hold anything,
   is reported with the reason, never left out.
2. A server checks one replica at a time: its replicas are asked one after the other, those of different servers at once,
   and a server that is busy with another caller's check is asked again until the deadline.
3. Nothing is judged here: whoever asked compares the digests.
"""

import asyncio
from collections.abc import AsyncIterator

from coordinator.deadline import Deadline
from coordinator.replica_calls import ReplicaCalls
from coordinator.views import Views
from kintsugi import limits
from kintsugi.cancelling import end
from kintsugi.errors import InvalidArgument, KintsugiError, ResourceExhausted
from kintsugi.internal.v1 import shard_pb2
from kintsugi.registry.records import ReplicaState, Shard
from kintsugi.v1 import cluster_pb2

_ASK_AGAIN_S = 1.0
# Left of the call's deadline to tell what was not checked in time.
_ANSWER_RESERVE_S = 1.0


class Verify:
    def __init__(self, views: Views, calls: ReplicaCalls) -> None:
        self._views = views
        self._calls = calls

    async def run(
        self, request: cluster_pb2.VerifyRequest, deadline: Deadline
    ) -> AsyncIterator[cluster_pb2.VerifyResponse]:
        queries = _bounded(request.queries or limits.DEFAULT_VERIFY_QUERIES, "queries", limits.MAX_VERIFY_QUERIES)
        k = _bounded(request.k or limits.DEFAULT_VERIFY_K, "k", limits.MAX_VERIFY_K)
        view, collection = await self._views.collection(request.collection, deadline)
        deadline = deadline.earlier_by(_ANSWER_RESERVE_S)
        turns: dict[str, asyncio.Lock] = {}

        async def check(shard: Shard, member: str) -> cluster_pb2.VerifyResponse:
            async with turns.setdefault(member, asyncio.Lock()):
                return await self._check(shard, member, queries, k, deadline)

        replicas = [(shard, member) for shard in view.shards_of(collection) for member in sorted(shard.replicas)]
        tasks = [asyncio.create_task(check(shard, member)) for shard, member in replicas]
        try:
            for checked in asyncio.as_completed(tasks):
                yield await checked
        finally:
            await end(tasks)

    async def _check(
        self, shard: Shard, member: str, queries: int, k: int, deadline: Deadline
    ) -> cluster_pb2.VerifyResponse:
        response = cluster_pb2.VerifyResponse(shard=shard.shard, member=member, replicas=len(shard.replicas))
        if shard.replicas[member] is ReplicaState.OUT_OF_SYNC:
            response.failure = "it is out of sync"
            return response
        ref = shard_pb2.ReplicaRef(collection_uid=shard.collection_uid, shard=shard.shard)
        request = shard_pb2.VerifyReplicaRequest(replica=ref, queries=queries, k=k)
        try:
            answer = await self._ask(member, request, deadline)
        except KintsugiError as error:
            response.failure = error.message
            return response
        response.seq, response.log_digest = answer.position.seq, answer.position.digest
        response.content_digest, response.documents = answer.content_digest, answer.documents
        response.index_version, response.encoding = answer.index_version, answer.encoding
        response.queries, response.recall = answer.queries, answer.recall
        return response

    async def _ask(
        self, member: str, request: shard_pb2.VerifyReplicaRequest, deadline: Deadline
    ) -> shard_pb2.VerifyReplicaResponse:
        while True:
            try:
                return await self._calls.verify(member, request, max(deadline.remaining_s, 0.001))
            except ResourceExhausted as error:
                pause_s = _ASK_AGAIN_S if error.retry_delay_s is None else error.retry_delay_s
                if pause_s >= deadline.remaining_s:
                    raise
            await asyncio.sleep(pause_s)


def _bounded(value: int, field: str, bound: int) -> int:
    if value > bound:
        raise InvalidArgument(field, f"is {value}", f"must be 1 to {bound}")
    return value
