"""Filters that go with the query or against it, on indexes large enough to be encoded, while documents change."""

from collections.abc import Collection

import numpy as np
import pytest

from kintsugi import AsyncClient, Model
from kintsugi.filters.matching import group_value, matches
from kintsugi.filters.tree import AllOf, Equals, Exists, Filter, Not, Range

pytestmark = pytest.mark.cluster

COUNT, DIMENSION, K = 8_000, 32, 10


class Documents:
    """What the cluster should hold. `place` is a document's in the first query's ranking, at first."""

    def __init__(self) -> None:
        random = np.random.default_rng(11)
        basis = random.standard_normal((16, DIMENSION)) / np.sqrt(np.arange(1, 17))[:, np.newaxis]
        self.vectors = (random.standard_normal((COUNT, 16)) @ basis).astype(np.float32)
        self.queries = (random.standard_normal((8, 16)) @ basis).astype(np.float32)
        place = np.argsort(np.argsort(-self.scores(0)))
        self.attributes = {
            number: {
                "place": int(place[number]),
                "tenth": number % 10,
                "half": bool(random.random() < 0.5),
                "topic": "crowd" if place[number] < COUNT // 3 else f"topic {number % 40}",
            }
            for number in range(COUNT)
        }

    def scores(self, query: int) -> np.ndarray:
        vectors, asked = self.vectors.astype(np.float64), self.queries[query].astype(np.float64)
        return vectors @ asked / (np.linalg.norm(vectors, axis=1) * np.linalg.norm(asked))

    def fulfilling(self, condition: Filter) -> set[int]:
        return {one for one, attributes in self.attributes.items() if matches(condition, attributes)}

    def ranking(self, query: int, among: Collection[int]) -> list[int]:
        """Some documents, best first."""
        return [one for one in np.argsort(-self.scores(query), kind="stable").tolist() if one in among]

    def groups(self, query: int, k: int, size: int) -> list[int]:
        found: dict[object, list[int]] = {}
        for one in self.ranking(query, self.attributes):
            found.setdefault(group_value(self.attributes[one], "topic"), []).append(one)
        return [one for members in list(found.values())[:k] for one in members[:size]]


HALF = Equals("half", True)
FILTERS = [
    Equals("place", 5000.0),
    Range("place", below=4.0),
    Range("place", at_least=float(COUNT - 120)),
    Range("place", at_least=float(COUNT // 2)),
    Range("place", below=float(COUNT // 2)),
    Equals("tenth", 3.0),
    HALF,
    AllOf((Not(Equals("topic", "crowd")), Range("tenth", at_least=5.0))),
    Exists("place"),
    Equals("half", "true"),
]


async def test_filtered_searches_find_what_exact_ones_do(new_cluster):
    """All of k whenever k match, nearly all of them the right ones, on encoded indexes, before and after documents are
    rewritten, change their attributes only, and are deleted; exact searches, pages, least scores and groups agree."""
    documents = Documents()
    async with AsyncClient(new_cluster(servers=2).addresses) as client:
        await client.create_collection("docs", Model("m", DIMENSION), shards=2, replicas=1, encoding="i8")
        await client.bulk_upsert(
            "docs", range(COUNT), documents.vectors, attributes=list(documents.attributes.values()),
            acknowledgement="searchable", progress=False,
        )  # fmt: skip
        await assert_right(client, documents)
        await change(client, documents)
        await assert_right(client, documents)


async def change(client: AsyncClient, documents: Documents) -> None:
    random = np.random.default_rng(12)
    moved, patched, gone = np.split(random.permutation(COUNT)[:2400], 3)
    for one in [*moved.tolist(), *patched.tolist()]:
        documents.attributes[one] = documents.attributes[one] | {"half": bool(random.random() < 0.5), "tenth": 3}
    documents.vectors[moved] = documents.vectors[random.permutation(moved)]
    for one in gone.tolist():
        del documents.attributes[one]
    await client.upsert(
        "docs", moved.tolist(), documents.vectors[moved], attributes=[documents.attributes[one] for one in moved]
    )
    await client.update_attributes("docs", patched.tolist(), [documents.attributes[one] for one in patched])
    await client.delete("docs", gone.tolist(), acknowledgement="searchable")


async def assert_right(client: AsyncClient, documents: Documents) -> None:
    recalls = []
    for condition in FILTERS:
        fulfilling = documents.fulfilling(condition)
        batch = await client.search_batch("docs", documents.queries, K, filter=condition)
        for query in range(len(documents.queries)):
            expected = documents.ranking(query, fulfilling)[:K]
            found = [hit.id for hit in batch.hits(query)]
            assert len(found) == len(expected)
            if expected:
                recalls.append(len({*found} & {*expected}) / len(expected))
        exact = await client.search("docs", documents.queries[0], K, filter=condition, exact=True, offset=2)
        assert [hit.id for hit in exact] == documents.ranking(0, fulfilling)[2 : K + 2]
    assert np.mean(recalls) >= 0.98
    best = documents.ranking(0, documents.fulfilling(HALF))
    least = float(documents.scores(0)[best[6]]) - 1e-9
    bounded = await client.search("docs", documents.queries[0], K, filter=HALF, min_score=least, exact=True)
    assert [hit.id for hit in bounded] == best[:7]
    for exact in (True, False):
        groups = await client.search("docs", documents.queries[0], 12, group_by="topic", group_size=3, exact=exact)
        expected = documents.groups(0, 12, 3)
        assert len(groups) == len(expected)
        assert len({hit.id for hit in groups} & {*expected}) >= (1.0 if exact else 0.9) * len(expected)
