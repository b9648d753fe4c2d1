"""One writer and reader of one collection, which compares every answer with its oracle.

It is the only one to write the collection and gives every read the token of its last write, so that each answer has
exactly one right form, whatever is killed meanwhile. Which operations it does depends on the seed alone.
"""

import json
import random
import time
import uuid
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from harness.model.oracle import Condition, Difference, Item, Kind, Oracle, Outcome
from kintsugi import AsyncClient, Model, columns, tokens
from kintsugi.errors import DeadlineExceeded, Unavailable
from kintsugi.sdk import convert
from kintsugi.sdk.connection import Clock, Connection
from kintsugi.sdk.retry import RetryPolicy
from kintsugi.v1 import documents_pb2, types_pb2

# A whole cluster restarts well within it.
PATIENCE_S = 90.0
_CONDITIONS = {
    Condition.ALWAYS: documents_pb2.WRITE_CONDITION_UNSPECIFIED,
    Condition.INSERT: documents_pb2.WRITE_CONDITION_INSERT_ONLY,
    Condition.UPDATE: documents_pb2.WRITE_CONDITION_UPDATE_ONLY,
    Condition.VERSION: documents_pb2.WRITE_CONDITION_IF_VERSION,
}


@dataclass(frozen=True, slots=True)
class Shape:
    """A collection of the test. `pool` ids are written; `seeded` of them in one bulk call at the start."""

    name: str
    metric: str
    stored: str
    dimension: int
    shards: int
    replicas: int
    pool: int
    seeded: int
    share: float


class Worker:
    def __init__(self, shape: Shape, addresses: list[str], seed: str, done: Callable[[int], None]) -> None:
        self.shape = shape
        self.oracle = Oracle(shape.name, shape.metric, shape.shards)
        self.recalls: list[float] = []
        self._client = AsyncClient(addresses, timeout_s=PATIENCE_S)
        self._connection = Connection(addresses, RetryPolicy(), Clock())
        self._random = random.Random(f"{seed} {shape.name}")
        self._numbers = np.random.default_rng(self._random.getrandbits(64))
        self._done = done
        self._ids = [self._new_id(number) for number in range(shape.pool)]
        self._base = self._numbers.standard_normal((8, shape.dimension))
        self._twins = [self._new_vector() for _ in range(12)]
        self._token = b""
        self._step = 0

    async def run(self, operations: int) -> None:
        """Does `operations` operations; one operation is one item of a write or read, one query, one count or page."""
        model = Model("m", self.shape.dimension)
        options = {"shards": self.shape.shards, "replicas": self.shape.replicas, "stored": self.shape.stored}
        await self._client.create_collection(self.shape.name, model, self.shape.metric, **options)
        choices = {
            self._write: 40,
            self._delete: 9,
            self._bulk: 2,
            self._get: 18,
            self._count: 5,
            self._scroll: 2,
            self._search: 12,
            self._search_batch: 6,
        }
        try:
            left = operations - await self._seed()
            while left > 0:
                (operation,) = self._random.choices(list(choices), list(choices.values()))
                self._step += 1
                count = await operation()
                self._done(count)
                left -= count
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

    # --- What is written

    def _new_id(self, number: int) -> int | str:
        match self._random.randrange(6):
            case 0:
                return 2**64 - 1 - number
            case 1:
                return str(number)  # another document than the integer
            case 2:
                return f"héllo/{number} \N{SNOWMAN}"
            case 3:
                return f"{number}:".ljust(512, "x")
            case _:
                return number

    def _pick(self, count: int) -> list[int | str]:
        """Different ids, half of them of existing documents."""
        existing = self.oracle.sorted_ids()
        picked = [
            self._random.choice(existing)
            if existing and self._random.random() < 0.5
            else self._random.choice(self._ids)
            for _ in range(count)
        ]
        return list(dict.fromkeys(picked))

    def _new_vector(self) -> Any:
        mixed = self._numbers.standard_normal(8) @ self._base + 0.1 * self._numbers.standard_normal(
            self.shape.dimension
        )
        return mixed.astype(np.float32)

    def _vector(self) -> Any:
        """A vector as it is sent. Some are twins of others, so that scores tie."""
        vector = self._random.choice(self._twins) if self._random.random() < 0.15 else self._new_vector()
        return vector.astype(np.float16) if self._random.random() < 0.2 else vector

    def _stored(self, vector: Any) -> Any:
        return vector.astype("<f2" if self.shape.stored == "f16" else "<f4")

    def _attributes(self) -> str:
        return json.dumps({"n": self._random.randrange(1000), "täg": ["a", {"b": None}]}, ensure_ascii=False)

    def _item(self, doc_id: int | str, kind: Kind, *, plain: bool) -> Item:
        condition, version = (Condition.ALWAYS, 0) if plain else self._condition(doc_id, kind)
        if kind is Kind.DELETE:
            return Item(doc_id, kind, condition, version)
        attributes = self._attributes() if kind is Kind.PATCH or self._random.random() < 0.7 else None
        if kind is Kind.PATCH:
            return Item(doc_id, kind, condition, version, attributes=attributes)
        text = f"text {self._step}" if self._random.random() < 0.5 else ""
        return Item(doc_id, kind, condition, version, self._stored(self._vector()), attributes, text)

    def _condition(self, doc_id: int | str, kind: Kind) -> tuple[Condition, int]:
        wanted = self._random.choices(list(Condition), [5, 2, 2, 3])[0]
        if kind is Kind.DELETE and wanted is not Condition.VERSION:
            return Condition.ALWAYS, 0
        if wanted is not Condition.VERSION:
            return wanted, 0
        known = self.oracle.documents.get(doc_id)
        right = known.version if known is not None else 0
        version = right if right and self._random.random() < 0.7 else max(1, right + self._random.choice([-1, 1, 7]))
        return wanted, version

    async def _seed(self) -> int:
        if not self.shape.seeded:
            return 0
        return await self._upload(self._ids[: self.shape.seeded])

    # --- Writes

    async def _write(self) -> int:
        """One unary request of puts, conditional puts and attributes-only updates."""
        level = self._random.choices(["logged", "durable", "searchable"], [2, 6, 2])[0]
        ids = self._pick(self._random.randint(1, 15))
        await self._learn_versions(ids)
        kinds = [Kind.PUT if level == "logged" or self._random.random() < 0.75 else Kind.PATCH for _ in ids]
        items = [self._item(one, kind, plain=level == "logged") for one, kind in zip(ids, kinds, strict=True)]
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
                lambda stubs, left_s: stubs.documents.Upsert(request, timeout=left_s), timeout_s, convert.is_settled
            )
        )
        self._take(items, response, told=level != "logged")
        return len(items)

    async def _delete(self) -> int:
        level = self._random.choices(["logged", "durable", "searchable"], [1, 6, 2])[0]
        ids = self._pick(self._random.randint(1, 6))
        await self._learn_versions(ids)
        items = [self._item(doc_id, Kind.DELETE, plain=level == "logged") for doc_id in ids]
        request = documents_pb2.DeleteRequest(
            collection=self.shape.name,
            ids=convert.pack_ids(ids),
            expected_versions=[item.expected_version for item in items] if any(i.condition for i in items) else [],
            acknowledgement=convert.acknowledgement(level),
            request_id=uuid.uuid4().hex,
        )
        response = await self._settled(
            lambda timeout_s: self._connection.call(
                lambda stubs, left_s: stubs.documents.Delete(request, timeout=left_s), timeout_s, convert.is_settled
            )
        )
        self._take(items, response, told=level != "logged")
        return len(items)

    async def _bulk(self) -> int:
        return await self._upload(self._pick(self._random.randint(20, 100)))

    async def _upload(self, ids: list[int | str]) -> int:
        """One bulk call of plain puts."""
        items = [self._item(doc_id, Kind.PUT, plain=True) for doc_id in ids]
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
                if convert.is_settled(response):
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
        ids = self._pick(self._random.randint(1, 15))
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

    async def _scroll(self) -> int:
        return await self._walk(self._random.choice([50, 137, 1000]))

    async def _walk(self, limit: int) -> int:
        fields = self._fields("attributes", "text", "vectors")
        walk = self._client.scroll(self.shape.name, limit, at_least=self._token, **fields)
        documents = [document async for document in walk]
        self._check_documents(documents, self.oracle.sorted_ids())
        return len(documents) // limit + 1

    def _query(self) -> Any:
        return self._random.choice(self._twins) if self._random.random() < 0.2 else self._new_vector()

    async def _search(self) -> int:
        exact, k = self._random.random() < 0.5, self._k()
        query, fields = self._query(), self._fields("attributes", "text")
        result = await self._client.search(
            self.shape.name, query, k, exact=exact, at_least=self._token, model=self._random.choice(["", "m"]), **fields
        )
        self._check_coverage(result.coverage)
        for hit in result.hits:
            self.oracle.check_document(hit.id, hit.version, hit.attributes, hit.text, None)
        self._judge(query, k, result.hits, exact=exact)
        return 1

    async def _search_batch(self) -> int:
        exact, k = self._random.random() < 0.5, self._k()
        queries = np.stack([self._query() for _ in range(self._random.randint(1, 16))])
        result = await self._client.search_batch(self.shape.name, queries, k, exact=exact, at_least=self._token)
        self._check_coverage(result.coverage)
        for place, query in enumerate(queries):
            self._judge(query, k, result.hits(place), exact=exact)
        return len(queries)

    def _judge(self, query: Any, k: int, hits: Any, *, exact: bool) -> None:
        recall = self.oracle.check_hits(query, k, hits, exact=exact)
        if not exact:
            self.recalls.append(recall)

    def _check_coverage(self, coverage: Any) -> None:
        found = (coverage.shards_answered, coverage.documents_total, coverage.documents_covered)
        wanted = (self.shape.shards, len(self.oracle.documents), len(self.oracle.documents))
        if found != wanted:
            raise Difference(f"{self.shape.name} step {self._step}: coverage {found}, must be {wanted}")

    def _k(self) -> int:
        return self._random.choice([1, 3, 10, 10, 10, 30, 100, 1000])

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
