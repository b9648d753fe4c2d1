"""The asynchronous client: every call of the public surface, written once.

Arrays and plain values go in, frozen values and arrays come out. Failures are the classes of `kintsugi.errors`: the
class is the status, which `status` names, `field` what was at fault, `retry_delay_s` how long the cluster asked to wait.
`UNAVAILABLE` and `RESOURCE_EXHAUSTED` are retried within the time of the call, over all coordinators.
"""

from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self, Unpack

import grpc.aio
import numpy as np
import numpy.typing as npt
from opentelemetry.trace import TracerProvider

from kintsugi import limits
from kintsugi.ann.spec import EncodingSpec
from kintsugi.errors import NotFound
from kintsugi.ids import DocId
from kintsugi.rpc.errors import from_rpc_error
from kintsugi.sdk import answers, arrays, bounds, convert, progress, requests, transfer
from kintsugi.sdk.arrays import Vectors
from kintsugi.sdk.bulk import DEFAULT_BATCH, DEFAULT_STALL_S, DEFAULT_WINDOW, BulkPlan, BulkUpload
from kintsugi.sdk.coalesce import Coalescer
from kintsugi.sdk.connection import Clock, Connection, Stubs
from kintsugi.sdk.convert import Ids, Items
from kintsugi.sdk.deleting import Deleting
from kintsugi.sdk.files.source import ImportSource
from kintsugi.sdk.filtering import FilterLike
from kintsugi.sdk.options import (
    BulkOptions,
    CallOptions,
    CollectionOptions,
    CountOptions,
    DeleteByFilterOptions,
    ExportOptions,
    FieldOptions,
    ImportOptions,
    UpdateOptions,
    UpsertOptions,
    WriteOptions,
    check_options,
)
from kintsugi.sdk.retry import RetryPolicy
from kintsugi.sdk.searching import AsyncSearches
from kintsugi.sdk.status import ClusterStatus, cluster_status
from kintsugi.sdk.types import (
    AcceptedLoss,
    Attributes,
    BulkResult,
    Collection,
    DeletedByFilter,
    Document,
    ExportResult,
    GetResult,
    ImportResult,
    MetricName,
    Model,
    Page,
    WriteResult,
)
from kintsugi.sdk.upgrades import AsyncUpgrades
from kintsugi.sdk.verifying import ReplicaCheck, replica_check
from kintsugi.v1 import cluster_pb2, collections_pb2, documents_pb2

DEFAULT_ADDRESS = "127.0.0.1:7700"
# Creating a collection waits until each of its replicas serves.
CREATE_TIMEOUT_S = 60.0


class AsyncClient(AsyncSearches, AsyncUpgrades):
    """A client of one cluster, for one event loop.

    addresses: one or more coordinators as host:port; the first is used until it is unavailable, then the next.
    timeout_s: the time for a call with all its retries, unless the call names its own.
    retry: how long to wait between attempts.
    tracer_provider: where the client's spans go; OpenTelemetry's global one by default, if the application set one.
    """

    def __init__(
        self,
        addresses: str | Sequence[str] = DEFAULT_ADDRESS,
        *,
        timeout_s: float = limits.DEFAULT_DEADLINE_S,
        retry: RetryPolicy | None = None,
        clock: Clock | None = None,
        tracer_provider: TracerProvider | None = None,
    ) -> None:
        listed = (addresses,) if isinstance(addresses, str) else tuple(addresses)
        self._connection = Connection(listed, retry or RetryPolicy(), clock or Clock(), tracer_provider)
        self._timeout_s = timeout_s
        self._coalescer = Coalescer(self._search_one, self._search_many)

    @property
    def addresses(self) -> tuple[str, ...]:
        """The coordinators, as given."""
        return self._connection.addresses

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Closes the connections; calls in flight are cancelled. Closing again does nothing."""
        await self._connection.close()

    # --- Collections ------------------------------------------------------------------------------------------------

    async def create_collection(
        self, name: str, model: Model, metric: MetricName = "cosine", **options: Unpack[CollectionOptions]
    ) -> Collection:
        """Creates a collection and returns once every replica of it serves; the same call again returns it.

        Raises AlreadyExists when the name stands for another specification, FailedPrecondition when there are fewer
        live shard servers than replicas."""
        check_options("create_collection", options, CollectionOptions)
        request = requests.create(name, model, metric, options)
        response = await self._connection.call(
            lambda stubs, left_s: stubs.collections.Create(request, timeout=left_s),
            options.get("timeout_s", max(CREATE_TIMEOUT_S, self._timeout_s)),
            changes=True,
        )
        return convert.unpack_collection(response.collection)

    async def collection(self, name: str, **options: Unpack[CallOptions]) -> Collection:
        """Describes one collection. Raises NotFound."""
        check_options("collection", options, CallOptions)
        request = collections_pb2.GetCollectionRequest(name=name)
        response = await self._connection.call(
            lambda stubs, left_s: stubs.collections.Get(request, timeout=left_s), self._time(options)
        )
        return convert.unpack_collection(response.collection)

    async def collections(self, **options: Unpack[CallOptions]) -> list[Collection]:
        """All collections in the order of their names."""
        check_options("collections", options, CallOptions)
        request = collections_pb2.ListCollectionsRequest()
        response = await self._connection.call(
            lambda stubs, left_s: stubs.collections.List(request, timeout=left_s), self._time(options)
        )
        return [convert.unpack_collection(collection) for collection in response.collections]

    async def encode_collection(
        self,
        name: str,
        encoding: str | EncodingSpec,
        oversampling: float | None = None,
        **options: Unpack[CallOptions],
    ) -> Collection:
        """Changes how the vectors of a collection are held in memory: see CollectionOptions. Returns at once; the replicas
        build, check and swap one after the other while searches go on, which `status` shows. Raises NotFound."""
        check_options("encode_collection", options, CallOptions)
        request = collections_pb2.EncodeCollectionRequest(
            name=name, encoding=convert.pack_encoding(encoding, oversampling)
        )
        response = await self._connection.call(
            lambda stubs, left_s: stubs.collections.Encode(request, timeout=left_s), self._time(options), changes=True
        )
        return convert.unpack_collection(response.collection)

    async def delete_collection(self, name: str, **options: Unpack[CallOptions]) -> None:
        """Deletes a collection and all its documents, for good. Raises NotFound when there is none."""
        check_options("delete_collection", options, CallOptions)
        request = collections_pb2.DeleteCollectionRequest(name=name)
        attempts = 0

        async def delete(stubs: Stubs, left_s: float) -> None:
            nonlocal attempts
            attempts += 1
            try:
                await stubs.collections.Delete(request, timeout=left_s)
            except grpc.aio.AioRpcError as error:
                # An attempt whose answer was lost may have deleted it.
                if attempts == 1 or not isinstance(from_rpc_error(error), NotFound):
                    raise

        await self._connection.call(delete, self._time(options), changes=True)

    # --- Writes -----------------------------------------------------------------------------------------------------

    async def upsert(
        self,
        collection: str,
        ids: Ids,
        vectors: Vectors,
        *,
        attributes: Sequence[Attributes | None] | None = None,
        texts: Sequence[str | None] | None = None,
        **options: Unpack[UpsertOptions],
    ) -> WriteResult:
        """Inserts or replaces n documents, 1 to 1000 and at most 16 MiB: see bulk_upsert for more.

        ids: n integers (0 to 2**64 - 1) or strings (1 to 512 bytes), none twice. vectors: n x dimension, f32 or f16
        (other numbers become f32), or one such matrix per model name. attributes: per document a JSON object or None.
        texts: per document the source text or None.

        Items whose condition does not hold are refused in the result, not by an error. Items left unsettled
        (not written, unknown) are sent again within the time of the call."""
        check_options("upsert", options, UpsertOptions)
        items = Items(ids, attributes, texts, options.get("condition"))
        items.check()
        named = arrays.by_model(vectors, options.get("model", ""), len(ids))
        request = requests.upsert(collection, items, options)
        request.vectors.extend(arrays.pack_model_vectors(named))
        return await self._upsert(request, options)

    async def update_attributes(
        self,
        collection: str,
        ids: Ids,
        attributes: Sequence[Attributes],
        **options: Unpack[UpdateOptions],
    ) -> WriteResult:
        """Replaces the attributes of n existing documents; text, vectors and document version stay. Documents that do
        not exist are refused in the result."""
        check_options("update_attributes", options, UpdateOptions)
        items = Items(ids, attributes, None, options.get("condition"))
        items.check()
        return await self._upsert(requests.upsert(collection, items, options), options)

    async def _upsert(self, request: documents_pb2.UpsertRequest, options: CallOptions) -> WriteResult:
        response = await self._connection.call(
            lambda stubs, left_s: stubs.documents.Upsert(request, timeout=left_s),
            self._time(options),
            answers.is_settled,
            changes=True,
        )
        return answers.unpack_write(response)

    async def bulk_upsert(
        self,
        collection: str,
        ids: Ids,
        vectors: Vectors,
        *,
        attributes: Sequence[Attributes | None] | None = None,
        texts: Sequence[str | None] | None = None,
        **options: Unpack[BulkOptions],
    ) -> BulkResult:
        """Inserts or replaces any number of documents; the columns are those of upsert, a memory map will do.

        Streams chunks with a bounded number in flight, draws a progress bar on a terminal, and goes on with the
        unanswered chunks after a broken stream or at another coordinator, without writing anything twice. Items that
        are malformed or refused stand in the result. Raises what cannot be overcome; what was answered is written.
        An id must not stand in `ids` twice: after a repetition, the earlier one could win."""
        check_options("bulk_upsert", options, BulkOptions)
        items = Items(ids, attributes, texts, options.get("condition"))
        items.check()
        named = arrays.by_model(vectors, options.get("model", ""), len(ids))
        plan = BulkPlan(
            collection=collection,
            acknowledgement=convert.acknowledgement(options.get("acknowledgement", "durable")),
            durable_replicas=requests.durable_replicas(options),
            request_id=requests.request_id(options),
            batch=bounds.bounded(options.get("batch", DEFAULT_BATCH), "batch", limits.MAX_BATCH_ITEMS),
            window=bounds.bounded(options.get("window", DEFAULT_WINDOW), "window", 1024),
            stall_s=options.get("timeout_s", DEFAULT_STALL_S),
        )
        with progress.bar(f"upserting into {collection}", len(ids), options.get("progress")) as advance:
            return await BulkUpload(self._connection, items, named, plan, advance).run()

    async def delete(
        self,
        collection: str,
        ids: Ids,
        versions: Sequence[int] | npt.NDArray[np.integer] | None = None,
        **options: Unpack[WriteOptions],
    ) -> WriteResult:
        """Deletes 1 to 1000 documents; `found` of the result says which were there. versions: per id the version that
        the document must have to be deleted, 0 for any."""
        check_options("delete", options, WriteOptions)
        request = requests.delete(collection, ids, versions, options)
        response = await self._connection.call(
            lambda stubs, left_s: stubs.documents.Delete(request, timeout=left_s),
            self._time(options),
            answers.is_settled,
            changes=True,
        )
        return answers.unpack_write(response)

    async def delete_by_filter(
        self,
        collection: str,
        filter: FilterLike,  # noqa: A002 -- the word of the whole surface
        **options: Unpack[DeleteByFilterOptions],
    ) -> DeletedByFilter:
        """Deletes all documents that fulfil the filter, in as many calls as that takes; those acknowledged before it
        begins are seen. Each is deleted only in the version that was found to fulfil the filter. Never acts on a part of
        the shards. An error tells how many were deleted before it; repeating is harmless."""
        check_options("delete_by_filter", options, DeleteByFilterOptions)
        limit = options.get("limit")
        if limit is not None:
            bounds.bounded(limit, "limit", 2**63)
        request = requests.delete_by_filter(collection, filter, options)
        advance = options.get("on_deleted", lambda _count: None)
        return await Deleting(self._connection, request, self._time(options), advance).run(limit)

    # --- Reads ------------------------------------------------------------------------------------------------------

    async def get(self, collection: str, ids: Ids, **options: Unpack[FieldOptions]) -> GetResult:
        """Reads documents by id, any number of them, in the order of the ids; those that do not exist are `missing`."""
        check_options("get", options, FieldOptions)
        Items(ids).check()
        fields = requests.fields(options)
        documents: list[Document] = []
        missing: list[DocId] = []
        # An empty call still goes to the server, which knows whether the collection exists.
        for first in range(0, max(1, len(ids)), limits.MAX_BATCH_ITEMS):
            request = documents_pb2.GetRequest(
                collection=collection,
                ids=convert.pack_ids(ids[first : first + limits.MAX_BATCH_ITEMS], first),
                fields=fields,
                at_least=options.get("at_least", b""),
            )
            response = await self._get(request, options)
            documents.extend(answers.unpack_document(document, fields) for document in response.documents)
            missing.extend(answers.unpack_id(doc_id) for doc_id in response.missing)
        return GetResult(tuple(documents), tuple(missing))

    async def _get(self, request: documents_pb2.GetRequest, options: CallOptions) -> documents_pb2.GetResponse:
        return await self._connection.call(
            lambda stubs, left_s: stubs.documents.Get(request, timeout=left_s), self._time(options)
        )

    async def count(self, collection: str, **options: Unpack[CountOptions]) -> int:
        """The exact number of documents of the collection, or of those that fulfil the filter."""
        check_options("count", options, CountOptions)
        request = requests.count(collection, options)
        response = await self._connection.call(
            lambda stubs, left_s: stubs.documents.Count(request, timeout=left_s), self._time(options)
        )
        return response.count

    async def scroll_page(
        self,
        collection: str,
        page_token: bytes = b"",
        limit: int = limits.DEFAULT_SCROLL_LIMIT,
        **options: Unpack[FieldOptions],
    ) -> Page:
        """The next documents in the order of their ids, after the page that gave `page_token`. limit: 1 to 1000; a
        page of large documents may hold fewer."""
        check_options("scroll_page", options, FieldOptions)
        fields = requests.fields(options)
        request = documents_pb2.ScrollRequest(
            collection=collection,
            page_token=page_token,
            limit=bounds.bounded(limit, "limit", limits.MAX_SCROLL_LIMIT),
            fields=fields,
            at_least=options.get("at_least", b""),
        )
        response = await self._connection.call(
            lambda stubs, left_s: stubs.documents.Scroll(request, timeout=left_s), self._time(options)
        )
        documents = tuple(answers.unpack_document(document, fields) for document in response.documents)
        return Page(documents, response.next_page_token)

    async def scroll(
        self, collection: str, limit: int = limits.DEFAULT_SCROLL_LIMIT, **options: Unpack[FieldOptions]
    ) -> AsyncIterator[Document]:
        """Walks all documents in the order of their ids, `limit` of them per call."""
        page = await self.scroll_page(collection, b"", limit, **options)
        while True:
            for document in page.documents:
                yield document
            if not page.next_token:
                return
            page = await self.scroll_page(collection, page.next_token, limit, **options)

    # --- Files ---------------------------------------------------------------------------------------------------

    async def bulk_import(
        self, collection: str, source: str | Path | ImportSource, **options: Unpack[ImportOptions]
    ) -> ImportResult:
        """Imports a file of documents (.npy, .npz, .jsonl, .parquet), or any other ImportSource, into a collection.

        Existing documents are replaced. A state file beside the source says how far the import is: when it was
        interrupted, by whatever, the same call goes on and writes nothing twice. Items that are refused go to a file of
        rejects. Raises InvalidArgument for what is wrong with the source as a whole, FailedPrecondition when the state
        file is of another import or too many items are refused."""
        return await transfer.import_into(self, collection, source, options)

    async def bulk_export(self, collection: str, path: str | Path, **options: Unpack[ExportOptions]) -> ExportResult:
        """Exports all documents in the order of their ids to a file that bulk_import reads: .npy, .npz, .jsonl or
        .parquet. The file appears when it is complete; an interrupted export goes on when the call is repeated. It is
        no snapshot: writes meanwhile may be in it or not."""
        return await transfer.export_from(self, collection, path, options)

    # --- Cluster ----------------------------------------------------------------------------------------------------

    async def status(self, collection: str = "", **options: Unpack[CallOptions]) -> ClusterStatus:
        """The whole cluster as the coordinator in use knows it; with `collection`, only this one of the collections."""
        check_options("status", options, CallOptions)
        request = cluster_pb2.GetStatusRequest(collection=collection)
        response = await self._connection.call(
            lambda stubs, left_s: stubs.cluster.GetStatus(request, timeout=left_s), self._time(options)
        )
        return cluster_status(response)

    async def accept_loss(self, collection: str, shard: int, **options: Unpack[CallOptions]) -> AcceptedLoss:
        """Lets the recovery of a shard go on without the replicas that cannot be reached, giving up what only they hold.
        Raises FailedPrecondition when the shard does not wait for recovery."""
        check_options("accept_loss", options, CallOptions)
        request = cluster_pb2.AcceptLossRequest(collection=collection, shard=bounds.unsigned(shard, "shard"))
        response = await self._connection.call(
            lambda stubs, left_s: stubs.cluster.AcceptLoss(request, timeout=left_s),
            self._time(options),
            changes=True,
        )
        return AcceptedLoss(tuple(response.given_up_members), response.kept_seq, response.message)

    async def verify(
        self,
        collection: str,
        queries: int = limits.DEFAULT_VERIFY_QUERIES,
        k: int = limits.DEFAULT_VERIFY_K,
        **options: Unpack[CallOptions],
    ) -> AsyncIterator[ReplicaCheck]:
        """Checks every replica of a collection and gives each one's findings as it finishes; `kintsugi.verdicts` says what
        they mean. A replica digests all that it holds, and searches for `queries` (1 to 1000) of its own vectors, with
        its index and exactly, for the `k` (1 to 100) best. Read-only and heavy. timeout_s is 600 unless it is given.

        A replica that cannot be checked is given with its failure. Raises NotFound, and Unavailable when the coordinator
        goes away in the middle."""
        check_options("verify", options, CallOptions)
        request = cluster_pb2.VerifyRequest(
            collection=collection,
            queries=bounds.bounded(queries, "queries", limits.MAX_VERIFY_QUERIES),
            k=bounds.bounded(k, "k", limits.MAX_VERIFY_K),
        )
        answers = self._connection.stream(
            lambda stubs, left_s: stubs.cluster.Verify(request, timeout=left_s),
            options.get("timeout_s", limits.DEFAULT_VERIFY_DEADLINE_S),
        )
        async for response in answers:
            yield replica_check(response)

    def _time(self, options: CallOptions) -> float:
        return options.get("timeout_s", self._timeout_s)
