"""One writer and reader of one collection, which compares every answer with its oracle.

It is the only one to write the collection and gives every read the token of its last write, so that each answer has
exactly one right form, whatever is killed meanwhile. Which operations it does depends on the seed alone.
"""

import json
import random
import time
import uuid
from collections import defaultdict
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Any

import numpy as np

from harness.model.content import Content, Shape
from harness.model.oracle import Condition, Difference, Item, Kind, Oracle, Outcome
from harness.model.ranking import Judge, Question
from kintsugi import AsyncClient, Model, columns, tokens
from kintsugi.ann.spec import AUTOMATIC
from kintsugi.errors import DeadlineExceeded, Unavailable
from kintsugi.filters.tree import Filter
from kintsugi.sdk import answers, convert
from kintsugi.sdk.connection import Clock, Connection
from kintsugi.sdk.retry import RetryPolicy
from kintsugi.sdk.types import DeletedByFilter
from kintsugi.v1 import documents_pb2, types_pb2

# A whole cluster restarts well within it.
PATIENCE_S = 90.0
_CONDITIONS = {
    Condition.ALWAYS: documents_pb2.WRITE_CONDITION_UNSPECIFIED,
    Condition.INSERT: documents_pb2.WRITE_CONDITION_INSERT_ONLY,
    Condition.UPDATE: documents_pb2.WRITE_CONDITION_UPDATE_ONLY,
    Condition.VERSION: documents_pb2.WRITE_CONDITION_IF_VERSION,
}


class Worker:
    """`done` is told of operations; `is_calm`: nothing is killed any more. `recalls`: of approximate searches, by the encoding
    that was wanted."""

    def __init__(
        self, shape: Shape, addresses: list[str], seed: str, done: Callable[[int], None], is_calm: Callable[[], bool]
    ) -> None:
        self.shape = shape
        self.oracle = Oracle(shape.name, shape.metric, shape.shards, shape.dimension)
        self.recalls: dict[str, list[float]] = defaultdict(list)
        self._client = AsyncClient(addresses, timeout_s=PATIENCE_S)
        self._connection = Connection(addresses, RetryPolicy(), Clock())
        self._random = random.Random(f"{seed} {shape.name}")
        self._content = Content(shape, self.oracle, self._random)
        self._done = done
        self._is_calm = is_calm
        self._encoding = AUTOMATIC.name
        self._token = b""
        self._step = 0

    async def run(self, operations: int) -> None:
        """Does `operations` operations; one operation is one item of a write or read, one query, one count or page. Ends with
        a purge of most documents, after which large indexes must be built anew."""
        model = Model("m", self.shape.dimension)
        options = {"shards": self.shape.shards, "replicas": self.shape.replicas, "stored": self.shape.stored}
        await self._client.create_collection(self.shape.name, model, self.shape.metric, **options)
        choices = {
            self._write: 40,
            self._delete: 9,
            self._delete_by_filter: 4,
            self._bulk: 2,
            self._get: 18,
            self._count: 5,
            self._count_by_filter: 6,
            self._scroll: 2,
            self._search: 24,
            self._search_batch: 8,
            self._encode: 0.5,
        }
        try:
            left = operations - await self._seed()
            while left > 0:
                (operation,) = self._random.choices(list(choices), list(choices.values()))
                self._step += 1
                count = await operation()
                self._done(count)
                left -= count
            self._step += 1
            await self._delete_all(self._content.purge())
        finally:
            await self._client.close()
            await self._connection.close()

    async def check_everything(self) -> None:
        """Compares every document, the count and some searches. With a client of its own: run() closed the first."""
        self._client = AsyncClient(self._client.addresses, timeout_s=PATIENCE_S)
        try:
            self._step += 1
            await self._walk(1000)
            await self._count()
            for _ in range(5):
                await self._search_batch()
        finally:
            await self._client.close()

    async def _seed(self) -> int:
        if not self.shape.seeded:
            return 0
        return await self._upload(self._content.ids[: self.shape.seeded])

    # --- Writes

    async def _write(self) -> int:
        """One unary request of puts, conditional puts and attributes-only updates."""
        level = self._random.choices(["logged", "durable", "searchable"], [2, 6, 2])[0]
        ids = self._content.pick(self._random.randint(1, 15))
        await self._learn_versions(ids)
        kinds = [Kind.PUT if level == "logged" or self._random.random() < 0.75 else Kind.PATCH for _ in ids]
        items = [
            self._content.item(one, kind, self._step, plain=level == "logged")
            for one, kind in zip(ids, kinds, strict=True)
        ]
        request = documents_pb2.UpsertRequest(
            collection=self.shape.name,
            documents=[_document(item) for item in items],
            acknowledgement=convert.acknowledgement(level),
            request_id=uuid.uuid4().hex,
        )
        owners = [index for index, item in enumerate(items) if item.vector is not None]
        if owners:
            block = columns.pack_vectors(np.stack([items[owner].vector for owner in owners]))
            given = owners if len(owners) < len(items) or self._random.random() < 0.5 else []
            request.vectors.append(types_pb2.ModelVectors(model="m", block=block, documents=given))
        response = await self._settled(
            lambda timeout_s: self._connection.call(
                lambda stubs, left_s: stubs.documents.Upsert(request, timeout=left_s), timeout_s, answers.is_settled
            )
        )
        self._take(items, response, told=level != "logged")
        return len(items)

    async def _delete(self) -> int:
        level = self._random.choices(["logged", "durable", "searchable"], [1, 6, 2])[0]
        ids = self._content.pick(self._random.randint(1, 6))
        await self._learn_versions(ids)
        items = [self._content.item(doc_id, Kind.DELETE, self._step, plain=level == "logged") for doc_id in ids]
        request = documents_pb2.DeleteRequest(
            collection=self.shape.name,
            ids=convert.pack_ids(ids),
            expected_versions=[item.expected_version for item in items] if any(i.condition for i in items) else [],
            acknowledgement=convert.acknowledgement(level),
            request_id=uuid.uuid4().hex,
        )
        response = await self._settled(
            lambda timeout_s: self._connection.call(
                lambda stubs, left_s: stubs.documents.Delete(request, timeout=left_s), timeout_s, answers.is_settled
            )
        )
        self._take(items, response, told=level != "logged")
        return len(items)

    async def _delete_by_filter(self) -> int:
        return await self._delete_all(self._content.doomed(), limited=self._random.random() < 0.3)

    async def _delete_all(self, condition: Filter, *, limited: bool = False) -> int:
        doomed = self.oracle.ids_fulfilling(condition)
        calm = self._is_calm()
        # A limited call that is repeated after a fault deletes more: what is left then depends on the moment.
        limit = self._random.randint(1, len(doomed) + 1) if calm and limited else None
        told = await self._deleted(condition, limit)
        if limit is not None and limit < len(doomed):
            left = await self._client.get(self.shape.name, doomed, at_least=self._token)
            doomed = list(left.missing)
            if told.deleted != limit or not told.more:
                raise Difference(f"{self.shape.name} step {self._step}: {told} with limit {limit} by {condition}")
        # The answer of a call that a fault cut off is lost, and what it told with it.
        if told.deleted > len(doomed) or (calm and (told.deleted, told.changed) != (len(doomed), 0)):
            raise Difference(f"{self.shape.name} step {self._step}: {told}, must be {len(doomed)} by {condition}")
        self.oracle.delete_all(self._step, doomed, f"deleted by {condition}")
        return max(1, len(doomed))

    async def _deleted(self, condition: Filter, limit: int | None) -> DeletedByFilter:
        """Repeats the call until it gets through, and adds up what its attempts told."""
        level: Any = self._random.choice(["durable", "durable", "searchable"])
        before, deadline = 0, time.monotonic() + PATIENCE_S
        while True:
            try:
                told = await self._client.delete_by_filter(
                    self.shape.name, condition, limit=limit, acknowledgement=level, at_least=self._token
                )
            except (DeadlineExceeded, Unavailable) as error:
                before += int(error.metadata.get("deleted", 0))
                if time.monotonic() >= deadline:
                    raise
            else:
                self._saw(told.token)
                return replace(told, deleted=before + told.deleted)

    async def _bulk(self) -> int:
        return await self._upload(self._content.pick(self._random.randint(20, 100)))

    async def _upload(self, ids: list[int | str]) -> int:
        """One bulk call of plain puts."""
        items = [self._content.item(doc_id, Kind.PUT, self._step, plain=True) for doc_id in ids]
        result = await self._client.bulk_upsert(
            self.shape.name,
            ids,
            np.stack([item.vector for item in items]),
            attributes=[None if item.attributes is None else json.loads(item.attributes) for item in items],
            texts=[item.text or None for item in items],
            batch=self._random.choice([7, 50, 500]),
        )
        if result.unapplied:
            raise Difference(f"{self.shape.name}: bulk left {result.unapplied[:3]}")
        outcomes = [Outcome(applied=True, found=True, version=int(version)) for version in result.versions]
        # Chunks that are sent again after a fault may overtake others.
        self.oracle.write(self._step, items, outcomes, told=True, ordered=False)
        self._saw(result.token)
        return len(items)

    async def _encode(self) -> int:
        """Has the collection encoded anew; everything else goes on meanwhile."""
        self._encoding = self._random.choice(self.shape.encodings)
        await self._client.encode_collection(self.shape.name, self._encoding)
        return 1

    async def _settled(
        self, send: Callable[[float], Awaitable[documents_pb2.WriteResponse]]
    ) -> documents_pb2.WriteResponse:
        """Sends the same request again until each item is applied or refused. Some attempts are cut short, so that
        outcomes are unknown also when nothing is killed."""
        timeout_s = self._random.uniform(0.001, 0.03) if self._random.random() < 0.15 else PATIENCE_S
        deadline = time.monotonic() + PATIENCE_S
        while True:
            try:
                response = await send(timeout_s)
            except (DeadlineExceeded, Unavailable):
                if time.monotonic() >= deadline:
                    raise
            else:
                if answers.is_settled(response):
                    return response
                if time.monotonic() >= deadline:
                    raise Difference(f"{self.shape.name}: never settled: {response}")
            timeout_s = PATIENCE_S

    def _take(self, items: list[Item], response: documents_pb2.WriteResponse, *, told: bool) -> None:
        outcomes = [
            Outcome(one.outcome == documents_pb2.WRITE_OUTCOME_APPLIED, one.found, one.version)
            for one in response.results
        ]
        self.oracle.write(self._step, items, outcomes, told=told, ordered=True)
        self._saw(response.token)

    def _saw(self, token: bytes) -> None:
        known = tokens.decode(token)
        self._token = (tokens.decode(self._token).merge(known) if self._token else known).encode()

    # --- Reads

    async def _learn_versions(self, ids: list[int | str]) -> None:
        """Asks for the versions that LOGGED writes did not tell."""
        unknown = [one for one in ids if one in self.oracle.documents and not self.oracle.documents[one].version]
        if unknown:
            await self._read(unknown, {})

    async def _get(self) -> int:
        ids = self._content.pick(self._random.randint(1, 15))
        return await self._read(ids, self._fields("attributes", "text", "vectors"))

    async def _read(self, ids: list[int | str], fields: dict[str, bool]) -> int:
        result = await self._client.get(self.shape.name, ids, at_least=self._token, **fields)
        wanted = [doc_id for doc_id in ids if doc_id in self.oracle.documents]
        self._check_documents(result.documents, wanted)
        for doc_id in result.missing:
            self.oracle.same(doc_id, "missing", True, doc_id not in self.oracle.documents)
        return len(ids)

    def _check_documents(self, documents: Any, wanted: list[int | str]) -> None:
        for document in documents:
            vector = document.vectors["m"] if document.vectors is not None else None
            self.oracle.check_document(document.id, document.version, document.attributes, document.text, vector)
        found = [document.id for document in documents]
        if found != wanted:
            odd = next((one for one in wanted if one not in found), None)
            if odd is not None:
                self.oracle.differ(odd, "is missing in an answer")
            raise Difference(f"{self.shape.name}: documents out of order or twice: {found[:20]}")

    async def _count(self) -> int:
        count = await self._client.count(self.shape.name, at_least=self._token)
        if count != len(self.oracle.documents):
            raise Difference(
                f"{self.shape.name} step {self._step}: count {count}, must be {len(self.oracle.documents)}"
            )
        return 1

    async def _count_by_filter(self) -> int:
        condition = self._content.filter()
        count = await self._client.count(self.shape.name, filter=condition, at_least=self._token)
        wanted = int(self.oracle.columns.fulfilling(condition).sum())
        if count != wanted:
            raise Difference(f"{self.shape.name} step {self._step}: count {count}, must be {wanted} of {condition}")
        return 1

    async def _scroll(self) -> int:
        return await self._walk(self._random.choice([50, 137, 1000]))

    async def _walk(self, limit: int) -> int:
        fields = self._fields("attributes", "text", "vectors")
        walk = self._client.scroll(self.shape.name, limit, at_least=self._token, **fields)
        documents = [document async for document in walk]
        self._check_documents(documents, self.oracle.columns.ids)
        return len(documents) // limit + 1

    async def _search(self) -> int:
        query, fields = self._content.query(), self._fields("attributes", "text")
        question = self._content.question(query)
        model = self._random.choice(["", "m"])
        result = await self._client.search(
            self.shape.name, query, at_least=self._token, model=model, **question.options(), **fields
        )
        self._check_coverage(result.coverage)
        for hit in result.hits:
            self.oracle.check_document(hit.id, hit.version, hit.attributes, hit.text, None)
        self._judge(query, question, result.hits)
        return 1

    async def _search_batch(self) -> int:
        queries = np.stack([self._content.query() for _ in range(self._random.randint(1, 16))])
        question = self._content.question(queries[0])
        result = await self._client.search_batch(self.shape.name, queries, at_least=self._token, **question.options())
        self._check_coverage(result.coverage)
        for place, query in enumerate(queries):
            self._judge(query, question, result.hits(place))
        return len(queries)

    def _judge(self, query: Any, question: Question, hits: Any) -> None:
        recall = Judge(self.oracle, query, question).check(hits)
        if not question.exact:
            self.recalls[self._encoding].append(recall)

    def _check_coverage(self, coverage: Any) -> None:
        found = (coverage.shards_answered, coverage.documents_total, coverage.documents_covered)
        wanted = (self.shape.shards, len(self.oracle.documents), len(self.oracle.documents))
        if found != wanted:
            raise Difference(f"{self.shape.name} step {self._step}: coverage {found}, must be {wanted}")

    def _fields(self, *names: str) -> dict[str, bool]:
        return {name: self._random.random() < 0.4 for name in names}


def _document(item: Item) -> documents_pb2.DocumentWrite:
    document = documents_pb2.DocumentWrite(
        id=columns.pack_id(item.id), condition=_CONDITIONS[item.condition], expected_version=item.expected_version
    )
    if item.attributes is not None:
        document.attributes = item.attributes
    if item.text:
        document.text = item.text
    return document
