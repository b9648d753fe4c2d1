"""Compares a cluster with its oracle, and its replicas with each other."""

import random

import grpc.aio
import numpy as np

from harness.oracle import DIMENSION, Oracle, State, state_of, vector_of
from harness.waiting import PATIENCE_S, until_empty
from kintsugi import AsyncClient, KintsugiError
from kintsugi.ids import DocId, encode, order_key
from kintsugi.internal.v1 import shard_pb2
from kintsugi.internal.v1.shard_pb2_grpc import ShardStub
from kintsugi.sdk import answers
from kintsugi.sdk.status import ClusterStatus
from kintsugi.sdk.types import SearchResult
from kintsugi.v1 import types_pb2

K = 20


def unsettled(status: ClusterStatus) -> str:
    """What is not yet as it should be in the end; '' when the cluster is at rest and whole."""
    if status.registry != "ok":
        return f"the registry is {status.registry}: {status.message}"
    for collection in status.collections:
        for shard in collection.shards:
            name = f"{collection.name}/{shard.shard}"
            if shard.log_state != "open":
                return f"{name} is {shard.log_state}: {shard.message}"
            for replica in shard.replicas:
                at = (replica.durable_seq, replica.searchable_seq)
                if (replica.state, replica.phase) != ("in-sync", "serving") or at != (shard.log_seq, shard.log_seq):
                    return f"{name} ends at {shard.log_seq}, {replica}"
    return ""


async def settled(client: AsyncClient, timeout_s: float = PATIENCE_S) -> ClusterStatus:
    """Waits until every replica is in sync, serves, and holds all of its log."""
    last: list[ClusterStatus] = []

    async def problem() -> str:
        try:
            last[:] = [await client.status()]
        except KintsugiError as error:
            return str(error)
        return unsettled(last[0])

    await until_empty(problem, timeout_s)
    return last[0]


async def verify(client: AsyncClient, collection: str, oracle: Oracle, seed: int = 0) -> None:
    """Waits until the cluster is at rest; then nothing is lost, double, stale, or half there, by scroll, get, count,
    exact and approximate search; and all replicas of a shard hold the same. What was found is pinned in the oracle."""
    status = await settled(client)
    described = await client.collection(collection)
    documents = [
        document async for document in client.scroll(collection, limit=500, attributes=True, text=True, vectors=True)
    ]
    found = {document.id: state_of(document) for document in documents}
    assert len(found) == len(documents), "a document came twice"
    assert list(found) == sorted(found, key=order_key), "the scroll is out of order"
    problems = oracle.differences(found, described.shards)
    assert not problems, f"{len(problems)} documents of {len(found)} are wrong: {problems[:5]}"
    oracle.pin(found)
    assert await client.count(collection) == len(found)
    rng = random.Random(seed)
    await _verify_get(client, collection, oracle, found, rng)
    await _verify_search(client, collection, found, rng)
    for shard in next(one for one in status.collections if one.name == collection).shards:
        addresses = [m.address for m in status.members if m.id in {replica.member for replica in shard.replicas}]
        await verify_replicas(addresses, described.uid, shard.shard)


async def _verify_get(
    client: AsyncClient, collection: str, oracle: Oracle, found: dict[DocId, State], rng: random.Random
) -> None:
    wanted = rng.sample(oracle.ids, min(300, len(oracle.ids)))
    got = await client.get(collection, wanted, attributes=True, text=True, vectors=True)
    assert {document.id: state_of(document) for document in got} == {i: found[i] for i in wanted if i in found}
    assert set(got.missing) == {i for i in wanted if i not in found}


async def _verify_search(client: AsyncClient, collection: str, found: dict[DocId, State], rng: random.Random) -> None:
    ids = list(found)
    matrix = np.array([vector_of(i, found[i].content) for i in ids], dtype=np.float64).reshape(-1, DIMENSION)
    matrix /= np.linalg.norm(matrix, axis=1, keepdims=True)
    for doc_id in rng.sample(ids, min(5, len(ids))):
        query = vector_of(doc_id, found[doc_id].content)
        scores = matrix @ (query / np.linalg.norm(query))
        best = np.sort(scores)[::-1][: min(K, len(ids))]
        by_id = dict(zip(ids, scores, strict=True))
        for exact in (True, False):
            result = await client.search(collection, query, k=K, exact=exact, attributes=True)
            _verify_hits(result, found, by_id)
            got = np.array([hit.score for hit in result.hits])
            if exact:
                np.testing.assert_allclose(got, best, rtol=1e-5, atol=1e-6)
            else:
                assert np.mean(np.isin(got.round(5), best.round(5))) >= 0.8, "the index misses documents"


def _verify_hits(result: SearchResult, found: dict[DocId, State], scores: dict[DocId, float]) -> None:
    assert result.coverage.complete
    assert result.coverage.documents_covered == result.coverage.documents_total == len(found)
    assert len({hit.id for hit in result.hits}) == len(result.hits), "a document was found twice"
    for hit in result.hits:
        assert hit.id in found, f"{hit.id} is deleted and was found"
        there = found[hit.id]
        assert hit.attributes == {"serial": there.attributes}
        assert hit.version == there.version
        np.testing.assert_allclose(hit.score, scores[hit.id], rtol=1e-5, atol=1e-6)


async def verify_replicas(addresses: list[str], uid: str, shard: int) -> None:
    """Asks the shard servers themselves: all replicas stand at one position and hold the same documents."""
    contents = [await contents_of(address, uid, shard) for address in addresses]
    positions = [await position_of(address, uid, shard) for address in addresses]
    assert len({(p.seq, p.digest) for p in positions}) == 1, f"replicas of shard {shard} stand at {positions}"
    for other in contents[1:]:
        assert other == contents[0], f"replicas of shard {shard} differ"


async def position_of(address: str, uid: str, shard: int) -> shard_pb2.Position:
    async with grpc.aio.insecure_channel(address) as channel:
        request = shard_pb2.GetPositionRequest(replica=shard_pb2.ReplicaRef(collection_uid=uid, shard=shard))
        return (await ShardStub(channel).GetPosition(request, timeout=10)).durable


async def contents_of(address: str, uid: str, shard: int) -> list[bytes]:
    """Every document of one replica, serialised."""
    found: list[bytes] = []
    after, more = b"", True
    async with grpc.aio.insecure_channel(address) as channel:
        while more:
            request = shard_pb2.ScrollDocumentsRequest(
                replica=shard_pb2.ReplicaRef(collection_uid=uid, shard=shard),
                after=after,
                limit=500,
                fields=types_pb2.DocumentFields(attributes=True, text=True, vectors=True),
            )
            page = await ShardStub(channel).ScrollDocuments(request, timeout=10)
            found += [document.SerializeToString(deterministic=True) for document in page.documents]
            more = page.more
            if page.documents:
                after = encode(answers.unpack_id(page.documents[-1].id))
    return found
