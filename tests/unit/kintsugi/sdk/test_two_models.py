"""Searches of a collection that is being upgraded: query vectors of two models, and hits that say where their scores are from."""

import asyncio

import numpy as np
import pytest

from kintsugi import columns
from kintsugi.errors import InvalidArgument
from kintsugi.sdk import answers
from kintsugi.sdk.aio import AsyncClient
from kintsugi.v1 import search_pb2, types_pb2

OLD, NEW = np.array([1.0, 2.0, 3.0]), np.array([1.0, 0.5])


@pytest.fixture
async def client(address):
    async with AsyncClient(address, timeout_s=5) as client:
        yield client


def given(request):
    return {one.model: np.frombuffer(one.data, "<f4").tolist() for one in request.vectors}


async def test_a_search_carries_the_vectors_of_both_models(client, fake):
    """A dict by model name goes out as one vector each, whatever their dimensions."""
    await client.search("docs", {"m1": OLD, "m2": NEW}, tell_unmigrated=True)
    (request,) = fake.requests["Search"]
    assert given(request) == {"m1": [1.0, 2.0, 3.0], "m2": [1.0, 0.5]}
    assert request.options.tell_unmigrated


async def test_searches_with_both_vectors_share_a_call(client, fake):
    """Those that start together go out as two blocks of the same queries; one that wants candidates told goes alone."""
    calls = [client.search("docs", {"m1": OLD * n, "m2": NEW * n}) for n in (1, 2)]
    alone = client.search("docs", {"m1": OLD, "m2": NEW}, tell_unmigrated=True)
    await asyncio.gather(*calls, alone)
    (request,) = fake.requests["SearchBatch"]
    blocks = {one.model: np.frombuffer(one.block.data, "<f4").reshape(one.block.count, -1) for one in request.vectors}
    assert blocks["m1"].tolist() == [OLD.tolist(), (2 * OLD).tolist()]
    assert blocks["m2"].tolist() == [NEW.tolist(), (2 * NEW).tolist()]
    assert len(fake.requests["Search"]) == 1


async def test_a_batch_carries_the_matrices_of_both_models(client, fake):
    """One matrix per model name, as many rows of each."""
    await client.search_batch("docs", {"m1": np.ones((2, 3)), "m2": np.ones((2, 2))})
    (request,) = fake.requests["SearchBatch"]
    assert [(one.model, one.block.count, one.block.dimension) for one in request.vectors] == [
        ("m1", 2, 3),
        ("m2", 2, 2),
    ]


@pytest.mark.parametrize(
    ("vectors", "model", "message"),
    [
        ({"m1": [[1.0]]}, "m1", "must be left out"),
        ({}, "", "has no entry"),
        ({"a": [[1.0]], "b": [[1.0], [2.0]]}, "", "rows"),
    ],
)
async def test_contradictory_queries_are_refused(client, vectors, model, message):
    """A model beside a dict, no model at all, and unequal numbers of queries."""
    with pytest.raises(InvalidArgument, match=message):
        await client.search_batch("docs", vectors, model=model)


def test_hits_say_their_model_and_whether_they_are_projected():
    """In results of one query and in columns; what lacks a vector is listed."""
    unmigrated = columns.pack_ids([3, "x"])
    hit = search_pb2.Hit(id=columns.pack_id(3), score=0.5, version=1, model="m1", projected=True)
    response = search_pb2.SearchResponse(hits=[hit], unmigrated=unmigrated)
    found = answers.unpack_search(response, types_pb2.DocumentFields())
    assert (found.hits[0].model, found.hits[0].projected, found.unmigrated) == ("m1", True, (3, "x"))
    batch = answers.unpack_batch(
        search_pb2.SearchBatchResponse(
            counts=[2, 1],
            ids=columns.pack_ids([1, 2, 3]),
            scores=columns.pack_f64([3.0, 2.0, 1.0]),
            versions=columns.pack_u64([1, 1, 1]),
            model="m2",
            projected=b"\0\1\1",
            projected_model="m1",
            unmigrated=unmigrated,
        ),
        types_pb2.DocumentFields(),
    )
    assert batch.projected.tolist() == [[False, True], [True, False]]
    assert [(one.model, one.projected) for query in (0, 1) for one in batch.hits(query)] == [
        ("m2", False),
        ("m1", True),
        ("m1", True),
    ]
    assert batch.unmigrated == (3, "x")


def test_without_projected_hits_there_are_no_flags():
    """An empty column means that no hit is projected."""
    response = search_pb2.SearchBatchResponse(
        counts=[1],
        ids=columns.pack_ids([1]),
        scores=columns.pack_f64([3.0]),
        versions=columns.pack_u64([1]),
        model="m2",
    )
    batch = answers.unpack_batch(response, types_pb2.DocumentFields())
    assert batch.projected.tolist() == [[False]]
    assert (batch.hits(0)[0].model, batch.projected_model, batch.unmigrated) == ("m2", "", ())
