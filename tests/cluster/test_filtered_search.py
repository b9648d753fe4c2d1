"""Searches with filters, pages and groups over real shards, through the SDK and the command line, against an oracle."""

import asyncio
import os
import subprocess
import sys

import numpy as np
import pytest

from kintsugi import AsyncClient, InvalidArgument, Model
from kintsugi.filters.matching import group_value, matches
from kintsugi.filters.tree import AllOf, AnyOf, Equals, Exists, Not, OneOf, Range
from kintsugi.ids import order_key

pytestmark = pytest.mark.cluster

DIMENSION, COUNT = 16, 600
GENERATOR = np.random.default_rng(7)
VECTORS = GENERATOR.normal(size=(COUNT, DIMENSION)).astype(np.float32)
IDS = [number if number % 3 else f"d{number}" for number in range(COUNT)]
ATTRIBUTES = [
    {
        "year": 1990 + number % 30,
        "tags": [f"t{number % 5}", f"t{number % 7}"],
        "author": {"name": f"name {number % 11}"},
        "size": number / 2,
        "draft": number % 4 == 0,
    }
    | ({"lang": ("de", "en", True, 1)[number % 8 // 2]} if number % 13 else {})
    for number in range(COUNT)
]
FORMS = [
    ({"year": {"gte": 2000, "lt": 2010}, "tags": ["t1", "t3"]},
     AllOf((Range("year", at_least=2000, below=2010), OneOf("tags", ("t1", "t3"))))),
    ("author.name = 'name 3' or not exists(lang)",
     AnyOf((Equals("author.name", "name 3"), Not(Exists("lang"))))),
    (Equals("lang", True), Equals("lang", True)),
    ({"lang": 1}, Equals("lang", 1)),
    ("draft = true and 100 < size <= 200.5", AllOf((Equals("draft", True), Range("size", above=100, at_most=200.5)))),
    ("year = 1800", Equals("year", 1800)),
]  # fmt: skip


@pytest.fixture(scope="module")
def cluster(shared_cluster):
    return shared_cluster(servers=2)


@pytest.fixture(scope="module")
def token(cluster) -> bytes:
    """Of the writes that every search must see."""

    async def fill() -> bytes:
        async with AsyncClient(cluster.addresses) as client:
            await client.create_collection("docs", Model("m", DIMENSION), metric="dot", shards=3, replicas=1)
            written = await client.bulk_upsert("docs", IDS, VECTORS, attributes=ATTRIBUTES, progress=False)
            return written.token

    return asyncio.run(fill())


def ranked(query, condition=None):
    """All documents that fulfil the condition, best first, as (place, score)."""
    scores = VECTORS.astype(np.float64) @ np.asarray(query, np.float64)
    order = sorted(range(COUNT), key=lambda place: (-scores[place], order_key(IDS[place])))
    return [(place, scores[place]) for place in order if condition is None or matches(condition, ATTRIBUTES[place])]


def best_groups(query, attribute, k, size, condition=None):
    groups = {}
    for place, _ in ranked(query, condition):
        value = group_value(ATTRIBUTES[place], attribute)
        if value is not None:
            groups.setdefault((type(value), value), []).append((IDS[place], value))
    return [hit for hits in list(groups.values())[:k] for hit in hits[:size]]


def ids_of(found):
    return [hit.id for hit in found]


@pytest.mark.parametrize("exact", [True, False])
@pytest.mark.parametrize(("form", "condition"), FORMS, ids=lambda value: str(value)[:30])
async def test_the_best_documents_that_fulfil_a_filter_are_found(cluster, token, form, condition, exact):
    """All of k whenever there are k, in the order of an exact search; a batch says the same."""
    queries = GENERATOR.normal(size=(3, DIMENSION)).astype(np.float32)
    async with AsyncClient(cluster.addresses) as client:
        options = {"filter": form, "exact": exact, "at_least": token}
        batch = await client.search_batch("docs", queries, 20, **options)
        for place, query in enumerate(queries):
            expected = [IDS[one] for one, _ in ranked(query, condition)][:20]
            found = await client.search("docs", query, 20, **options)
            assert ids_of(found) == expected
            assert ids_of(batch.hits(place)) == expected
            assert found.coverage.documents_covered == COUNT


async def test_pages_and_least_scores_cut_the_same_ranking(cluster, token):
    """Pages add up; no hit scores below the least score, and all above it are there."""
    query = GENERATOR.normal(size=DIMENSION).astype(np.float32)
    everything = ranked(query)
    least = everything[50][1] - 1e-9
    async with AsyncClient(cluster.addresses) as client:
        pages = [await client.search("docs", query, 100, offset=first, exact=True) for first in range(0, 700, 100)]
        assert [doc_id for page in pages for doc_id in ids_of(page)] == [IDS[place] for place, _ in everything]
        found = await client.search("docs", query, 100, min_score=least, exact=True)
        assert ids_of(found) == [IDS[place] for place, score in everything if score >= least]
        second = await client.search("docs", query, 30, offset=30, min_score=least, exact=True)
        assert ids_of(second) == ids_of(found)[30:]


@pytest.mark.parametrize(
    ("attribute", "k", "size"), [("lang", 3, 4), ("author.name", 2, 5), ("year", 10, 2), ("size", 5, 1)]
)
@pytest.mark.parametrize("exact", [True, False])
async def test_the_best_groups_have_their_best_documents(cluster, token, attribute, k, size, exact):
    """Over all shards, also where a group's further documents are on a shard that has better groups."""
    queries = GENERATOR.normal(size=(5, DIMENSION)).astype(np.float32)
    condition = Range("year", at_least=1995)
    options = {"filter": condition, "group_by": attribute, "group_size": size, "exact": exact}
    async with AsyncClient(cluster.addresses) as client:
        batch = await client.search_batch("docs", queries, k, **options)
        for place, query in enumerate(queries):
            expected = best_groups(query, attribute, k, size, condition)
            for hits in (batch.hits(place), await client.search("docs", query, k, **options)):
                assert [(hit.id, hit.group) for hit in hits] == expected
                assert [type(hit.group) for hit in hits] == [type(value) for _, value in expected]


async def test_the_server_refuses_what_only_it_can_judge(cluster, token):
    """The field is named as the proto names it."""
    async with AsyncClient(cluster.addresses) as client:
        with pytest.raises(
            InvalidArgument, match="options.offset is 995 with a k of 10, must be at most 1000 together"
        ):
            await client.search("docs", VECTORS[0], offset=995)


async def kintsugi(cluster, *arguments) -> tuple[int, str]:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "kintsugi.cli", *arguments), env={**os.environ, "KINTSUGI_ADDRESS": cluster.address},
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip
    out, _ = await asyncio.wait_for(process.communicate(), 60)
    return process.returncode, out.decode()


async def test_the_command_line_filters_and_shows_groups(cluster, token):
    """Groups stand in a column of their own, each named once; a mistake in the expression is told in one line."""
    code, shown = await kintsugi(
        cluster, "search", "docs", "--like", "1", "-k", "3", "--filter", "year >= 1995 and exists(lang)",
        "--group-by", "year", "--group-size", "2", "--no-attributes",
    )  # fmt: skip
    assert code == 0, shown
    expected = best_groups(VECTORS[1], "year", 3, 2, AllOf((Range("year", at_least=1995), Exists("lang"))))
    lines = [line.split() for line in shown.splitlines()[3:] if line.strip()]
    assert [line[-1] for line in lines] == [repr(doc_id) for doc_id, _ in expected]
    assert [line[0] for line in lines if len(line) == 3] == list(dict.fromkeys(f"{year:.0f}" for _, year in expected))
    code, shown = await kintsugi(cluster, "search", "docs", "--like", "1", "--filter", "year >=")
    assert (code, shown.count("\n")) == (1, 1)
    assert "filter ends at character 8, expected a number or a string in quotes" in shown
