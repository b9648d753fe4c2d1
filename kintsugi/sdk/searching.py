"""Searches: the part of AsyncClient that asks for the nearest documents."""

from typing import NamedTuple, Unpack

import numpy as np

from kintsugi import limits
from kintsugi.sdk import answers, arrays, requests
from kintsugi.sdk.arrays import Vectors
from kintsugi.sdk.coalesce import Coalescer
from kintsugi.sdk.connection import Connection
from kintsugi.sdk.options import SearchOptions, check_options
from kintsugi.sdk.types import BatchResult, FloatArray, SearchResult
from kintsugi.v1 import search_pb2


class Shared(NamedTuple):
    """What searches of one batch have in common."""

    collection: str
    # Name and dimension of each query vector, which stand one behind the other in one array.
    models: tuple[tuple[str, int], ...]
    options: bytes
    timeout_s: float


class AsyncSearches:
    """The part of AsyncClient that searches."""

    _connection: Connection
    _coalescer: Coalescer[Shared]
    _timeout_s: float

    async def search(
        self, collection: str, vector: Vectors, k: int = limits.DEFAULT_K, **options: Unpack[SearchOptions]
    ) -> SearchResult:
        """The k (1 to 1000) best documents for one query vector of the model's dimension, with the coverage. With group_by:
        the best documents of the k best groups. While the collection is upgraded, the vector may be a dict of one vector per
        model name: see Upgrade.query_vectors.

        Searches that start together, such as those of one asyncio.gather, share a call, or two when they are many.
        Raises Unavailable naming a shard that cannot answer, unless min_coverage allows to leave it out."""
        check_options("search", options, SearchOptions)
        named = arrays.query_vectors(vector, options.get("model", ""))
        query = np.concatenate(list(named.values()))
        shared = Shared(
            collection=collection,
            models=tuple((name, len(one)) for name, one in named.items()),
            options=requests.search_options(k, options).SerializeToString(deterministic=True),
            timeout_s=options.get("timeout_s", self._timeout_s),
        )
        if options.get("tell_unmigrated"):
            # A shared answer would not tell whose candidates they were.
            return await self._search_one(shared, query)
        return await self._coalescer.search(shared, query)

    async def search_batch(
        self, collection: str, vectors: Vectors, k: int = limits.DEFAULT_K, **options: Unpack[SearchOptions]
    ) -> BatchResult:
        """The k best documents for each of n (1 to 256) query vectors, n x dimension, in columns: the fastest way. While the
        collection is upgraded, the vectors may be a dict of one such matrix per model name."""
        check_options("search_batch", options, SearchOptions)
        return await self._batch(
            search_pb2.SearchBatchRequest(
                collection=collection,
                vectors=arrays.pack_model_vectors(arrays.query_matrices(vectors, options.get("model", ""))),
                options=requests.search_options(k, options),
            ),
            options.get("timeout_s", self._timeout_s),
        )

    async def _search_one(self, shared: Shared, query: FloatArray) -> SearchResult:
        options = search_pb2.SearchOptions.FromString(shared.options)
        request = search_pb2.SearchRequest(
            collection=shared.collection,
            vectors=[
                search_pb2.QueryVector(model=name, data=one.tobytes())
                for name, one in arrays.apart(shared.models, query).items()
            ],
            options=options,
        )
        response = await self._connection.call(
            lambda stubs, left_s: stubs.search.search(request, left_s), shared.timeout_s
        )
        return answers.unpack_search(response, options.fields)

    async def _search_many(self, shared: Shared, queries: list[FloatArray]) -> BatchResult:
        request = search_pb2.SearchBatchRequest(
            collection=shared.collection,
            vectors=arrays.pack_model_vectors(arrays.apart(shared.models, np.stack(queries))),
            options=search_pb2.SearchOptions.FromString(shared.options),
        )
        return await self._batch(request, shared.timeout_s)

    async def _batch(self, request: search_pb2.SearchBatchRequest, timeout_s: float) -> BatchResult:
        response = await self._connection.call(
            lambda stubs, left_s: stubs.search.search_batch(request, left_s), timeout_s
        )
        grouped = request.options.HasField("group_by")
        return answers.unpack_batch(response, request.options.fields, grouped=grouped)
