"""100,000 vectors of 384 dimensions through the SDK: written, searched, some deleted, the cluster restarted.

Prints rates and times for people; asserts only answers.
"""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest

from kintsugi import BatchResult, Client, Model
from kintsugi.local.cluster import LocalCluster

pytestmark = pytest.mark.cluster

DOCUMENTS = 100_000
DIMENSION = 384
# Embeddings lie near a surface of few dimensions; white noise has no neighbours worth finding.
INTRINSIC_DIMENSION = 16
QUERIES = 256
EXACT_QUERIES = 32
K = 10
NAME = "hundred-thousand"


def embeddings() -> tuple[Any, Any]:
    """Documents and queries of one distribution."""
    numbers = np.random.default_rng(42)
    basis = numbers.standard_normal((INTRINSIC_DIMENSION, DIMENSION), dtype=np.float32)
    latent = numbers.standard_normal((DOCUMENTS + QUERIES, INTRINSIC_DIMENSION), dtype=np.float32)
    vectors = latent @ basis
    vectors += numbers.standard_normal(vectors.shape, dtype=np.float32) * 0.1
    return vectors[:DOCUMENTS], vectors[DOCUMENTS:]


@contextmanager
def timed(what: str) -> Iterator[None]:
    start = time.perf_counter()
    yield
    print(f"{what}: {time.perf_counter() - start:.2f} s", flush=True)


class Oracle:
    """Exact cosine similarities in float64."""

    def __init__(self, documents: Any, queries: Any) -> None:
        self._queries = normalised(queries)
        self._scores = np.concatenate([self._queries @ normalised(part).T for part in np.split(documents, 20)], axis=1)

    def forget(self, ids: Any) -> None:
        self._scores[:, ids] = -np.inf

    def best(self) -> Any:
        """The ids of the k best of each query, best first."""
        candidates = np.argpartition(-self._scores, K, axis=1)[:, :K]
        order = np.argsort(-np.take_along_axis(self._scores, candidates, axis=1), axis=1)
        return np.take_along_axis(candidates, order, axis=1)

    def scores(self, ids: Any) -> Any:
        return np.take_along_axis(self._scores, ids.astype(np.int64), axis=1)


def normalised(vectors: Any) -> Any:
    wide = vectors.astype(np.float64)
    return wide / np.linalg.norm(wide, axis=1, keepdims=True)


def check_approximate(oracle: Oracle, found: BatchResult, documents: int) -> None:
    """Exact scores in order, and almost all of the true neighbours."""
    assert found.coverage.documents_covered == found.coverage.documents_total == documents
    assert (found.counts == K).all()
    np.testing.assert_allclose(found.scores, oracle.scores(found.ids), rtol=1e-5)
    assert (np.diff(found.scores, axis=1) <= 0).all()
    best = oracle.best()
    recall = np.mean([np.isin(one, other).mean() for one, other in zip(best, found.ids, strict=True)])
    print(f"recall@{K}: {recall:.4f}", flush=True)
    assert recall >= 0.99


def check_exact(oracle: Oracle, found: BatchResult) -> None:
    """Ids and scores equal the oracle's, except for the order of scores within rounding."""
    best = oracle.best()[: len(found)]
    np.testing.assert_allclose(found.scores, np.take_along_axis(oracle._scores[: len(found)], best, axis=1), rtol=1e-5)
    differing = best != found.ids
    rows = np.take_along_axis(oracle._scores[: len(found)], found.ids.astype(np.int64), axis=1)
    np.testing.assert_allclose(rows[differing], found.scores[differing], rtol=1e-5)


@pytest.mark.long
@pytest.mark.timeout(280)
def test_a_hundred_thousand_vectors_survive_a_restart(new_cluster: Callable[..., LocalCluster]):
    """Bulk upsert, search, delete, restart, search: exact mode equals the oracle, recall holds, answers stay the same."""
    with timed("embeddings and oracle"):
        documents, queries = embeddings()
        oracle = Oracle(documents, queries)
    with timed("start"):
        cluster = new_cluster(servers=2)
    with Client(cluster.addresses, timeout_s=120) as client:
        client.create_collection(NAME, Model("m", DIMENSION), "cosine", shards=2)
        start = time.perf_counter()
        written = client.bulk_upsert(NAME, np.arange(DOCUMENTS), documents, progress=False)
        rate = DOCUMENTS / (time.perf_counter() - start)
        print(f"ingest: {rate:,.0f} durable documents/s", flush=True)
        assert written.applied == DOCUMENTS
        with timed("searchable"):
            client.search(NAME, queries[0], K, at_least=written.token, timeout_s=240)
        assert client.count(NAME) == DOCUMENTS
        with timed(f"{QUERIES} searches"):
            found = client.search_batch(NAME, queries, K)
        check_approximate(oracle, found, DOCUMENTS)
        with timed(f"{EXACT_QUERIES} exact searches"):
            exact = client.search_batch(NAME, queries[:EXACT_QUERIES], K, exact=True)
        check_exact(oracle, exact)

        # The best hits of all queries, so that every answer must change.
        gone = np.unique(found.ids[:, :2].astype(np.int64))[:1000]
        deleted = client.delete(NAME, gone, acknowledgement="searchable")
        assert deleted.found.all()
        oracle.forget(gone)
        left = DOCUMENTS - len(gone)
        before = client.search_batch(NAME, queries, K)
        check_approximate(oracle, before, left)
        exact_before = client.search_batch(NAME, queries[:EXACT_QUERIES], K, exact=True)
        check_exact(oracle, exact_before)

        with timed("stop"):
            assert set(cluster.stop().values()) == {0}
        with timed("restart"):
            cluster.start()
            cluster.wait_ready()
        assert client.count(NAME) == left
        after = client.search_batch(NAME, queries, K)
        check_approximate(oracle, after, left)
        exact_after = client.search_batch(NAME, queries[:EXACT_QUERIES], K, exact=True)
    for one, other in ((before, after), (exact_before, exact_after)):
        assert (one.ids == other.ids).all()
        assert (one.versions == other.versions).all()
        assert (one.scores == other.scores).all()
