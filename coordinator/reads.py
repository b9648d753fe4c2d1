"""Reads documents back: by id, counted, and in id order over all shards.

All of these need every shard they ask: a missing one is an error that names it. Pages end before they outgrow a message.
"""

import heapq
from collections import deque
from collections.abc import Awaitable, Callable, Container, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

from coordinator import coverage, pages
from coordinator.admission import Admission
from coordinator.deadline import Deadline
from coordinator.fanout import Ask
from coordinator.gathering import Gathering
from coordinator.plan import ReadPlan, ShardPlan, Target, plan_read
from coordinator.shards import ShardCalls, position_message
from coordinator.views import Views
from kintsugi import columns, ids, limits, tokens
from kintsugi.errors import InvalidArgument
from kintsugi.filters.wire import from_message
from kintsugi.internal.v1 import shard_pb2
from kintsugi.rpc.errors import too_large
from kintsugi.tokens import Token
from kintsugi.v1 import documents_pb2, filters_pb2, types_pb2

Answer = TypeVar("Answer")
Call = Callable[[ShardPlan, str, Deadline], Awaitable[Answer]]


class Reads:
    def __init__(self, views: Views, admission: Admission, gathering: Gathering, calls: ShardCalls) -> None:
        self._views = views
        self._admission = admission
        self._gathering = gathering
        self._calls = calls

    async def get(self, request: documents_pb2.GetRequest, deadline: Deadline) -> documents_pb2.GetResponse:
        columns.check_count(len(request.ids), "ids")
        wanted = [ids.encode(columns.unpack_id(doc_id, f"ids[{place}]")) for place, doc_id in enumerate(request.ids)]
        async with self._admission.admit(1, deadline):
            read = await self.begin(request.collection, token_of(request.at_least), deadline)
            by_shard: dict[int, dict[bytes, None]] = {}
            for encoded in wanted:
                shard = ids.shard_of_encoded(encoded, read.plan.collection.shards)
                by_shard.setdefault(shard, {})[encoded] = None

            async def call(shard: ShardPlan, address: str, until: Deadline) -> shard_pb2.GetDocumentsResponse:
                message = shard_pb2.GetDocumentsRequest(
                    replica=read.replica(shard),
                    ids=columns.pack_encoded(by_shard[shard.shard]),
                    fields=request.fields,
                    at_least=position_message(shard.at_least),
                )
                return await self._calls.get(address, message, until)

            answers = await self._gather(read.only(by_shard), call)
        found = {_encoded_id(document): document for answer in answers.values() for document in answer.documents}
        response = documents_pb2.GetResponse(
            documents=[found[encoded] for encoded in wanted if encoded in found],
            missing=[doc_id for doc_id, encoded in zip(request.ids, wanted, strict=True) if encoded not in found],
        )
        if response.ByteSize() > limits.MAX_MESSAGE_BYTES:
            raise too_large(f"{response.ByteSize()} bytes")
        return response

    async def count(self, request: documents_pb2.CountRequest, deadline: Deadline) -> documents_pb2.CountResponse:
        condition = request.filter if request.HasField("filter") else None
        if condition is not None:
            from_message(condition)
        async with self._admission.admit(1, deadline):
            read = await self.begin(request.collection, token_of(request.at_least), deadline)

            async def call(shard: ShardPlan, address: str, until: Deadline) -> shard_pb2.CountDocumentsResponse:
                message = shard_pb2.CountDocumentsRequest(
                    replica=read.replica(shard), at_least=position_message(shard.at_least), filter=condition
                )
                return await self._calls.count(address, message, until)

            answers = await self._gather(read, call)
        if condition is None:
            for shard, answer in answers.items():
                self._views.note_documents(read.plan.collection.uid, shard, answer.count)
        return documents_pb2.CountResponse(count=sum(answer.count for answer in answers.values()))

    async def scroll(self, request: documents_pb2.ScrollRequest, deadline: Deadline) -> documents_pb2.ScrollResponse:
        limit = request.limit or limits.DEFAULT_SCROLL_LIMIT
        if limit > limits.MAX_SCROLL_LIMIT:
            raise InvalidArgument("limit", f"is {limit}", f"must be 1 to {limits.MAX_SCROLL_LIMIT}")
        async with self._admission.admit(1, deadline):
            read = await self.begin(request.collection, token_of(request.at_least), deadline)
            uid = read.plan.collection.uid
            after = pages.decode(request.page_token, read.plan.collection)
            walk = _Walk([_ShardWalk(shard.shard, after) for shard in read.plan.shards])

            async def call(shard: ShardPlan, address: str, until: Deadline) -> shard_pb2.ScrollDocumentsResponse:
                message = shard_pb2.ScrollDocumentsRequest(
                    replica=read.replica(shard),
                    after=walk.shards[shard.shard].after,
                    # Ids spread evenly over shards: a little more than a fair share fills a page, mostly in one round.
                    limit=min(limit, limit // read.plan.collection.shards * 5 // 4 + 8),
                    fields=request.fields,
                    at_least=position_message(shard.at_least),
                )
                return await self._calls.scroll(address, message, until)

            while len(walk.page) < limit and not walk.page_is_full:
                starved = walk.starved()
                if starved:
                    for shard, answer in (await self._gather(read.only(starved), call)).items():
                        walk.shards[shard].refill(answer)
                if not walk.step(limit):
                    break
        last = _encoded_id(walk.page[-1]) if walk.page and walk.has_more else b""
        return documents_pb2.ScrollResponse(
            documents=walk.page, next_page_token=pages.encode(uid, last) if last else b""
        )

    async def match(
        self, read: "Read", condition: filters_pb2.Filter, behind: Mapping[int, int], limit: int
    ) -> dict[int, shard_pb2.MatchDocumentsResponse]:
        """At most `limit` documents that fulfil a filter, of each shard in `behind`, from the row given there on."""

        async def call(shard: ShardPlan, address: str, until: Deadline) -> shard_pb2.MatchDocumentsResponse:
            message = shard_pb2.MatchDocumentsRequest(
                replica=read.replica(shard),
                filter=condition,
                after_row=behind[shard.shard],
                limit=limit,
                at_least=position_message(shard.at_least),
            )
            return await self._calls.match(address, message, until)

        async with self._admission.admit(1, read.deadline):
            return await self._gather(read.only(behind), call)

    async def begin(self, collection_name: str, token: Token | None, deadline: Deadline) -> "Read":
        """What a read of the whole collection asks of whom, who must have seen the token's writes."""
        view, collection = await self._views.collection(collection_name, deadline)
        return Read(plan_read(view, collection, token), token, deadline)

    async def _gather(self, read: "Read", call: Call[Answer]) -> dict[int, Answer]:
        """The answers of all shards of the plan; raises when one is missing."""

        def ask_for(_: ReadPlan) -> Ask[Answer]:
            async def ask(shard: ShardPlan, target: Target, until: Deadline) -> Answer:
                return await call(shard, target.address, until)

            return ask

        gathered = await self._gathering.run(read.plan, read.token, ask_for, read.deadline)
        coverage.require(read.plan.collection, len(read.plan.shards), gathered.failures)
        return gathered.answers


def token_of(at_least: bytes) -> Token | None:
    return tokens.decode(at_least) if at_least else None


@dataclass(frozen=True, slots=True)
class Read:
    """One read under way: whom to ask, what must be seen, and until when."""

    plan: ReadPlan
    token: Token | None
    deadline: Deadline

    def replica(self, shard: ShardPlan) -> shard_pb2.ReplicaRef:
        return shard_pb2.ReplicaRef(collection_uid=self.plan.collection.uid, shard=shard.shard)

    def only(self, shards: Container[int]) -> "Read":
        kept = tuple(shard for shard in self.plan.shards if shard.shard in shards)
        return Read(ReadPlan(self.plan.collection, self.plan.revision, kept), self.token, self.deadline)


@dataclass(slots=True)
class _ShardWalk:
    """How far a scroll is on one shard. `after` is the last id fetched, `waiting` what is fetched and not yet given."""

    shard: int
    after: bytes
    more: bool = True
    waiting: deque[tuple[bytes, types_pb2.Document]] = field(default_factory=deque)

    def refill(self, answer: shard_pb2.ScrollDocumentsResponse) -> None:
        self.waiting.extend((_encoded_id(document), document) for document in answer.documents)
        self.more = answer.more and bool(answer.documents)
        if self.waiting:
            self.after = self.waiting[-1][0]


class _Walk:
    """Merges shards in id order into one page."""

    def __init__(self, shards: Sequence[_ShardWalk]) -> None:
        self.shards = {shard.shard: shard for shard in shards}
        self.page: list[types_pb2.Document] = []
        self.page_is_full = False
        self._bytes = 0

    @property
    def has_more(self) -> bool:
        return any(shard.waiting or shard.more for shard in self.shards.values())

    def starved(self) -> list[int]:
        """The shards that must be asked before the next id is known."""
        return [shard.shard for shard in self.shards.values() if shard.more and not shard.waiting]

    def step(self, limit: int) -> bool:
        """Gives documents until the page is full or a shard that has more runs dry. False when all is given."""
        heads = [(shard.waiting[0][0], shard.shard) for shard in self.shards.values() if shard.waiting]
        heapq.heapify(heads)
        while heads and len(self.page) < limit:
            _, number = heapq.heappop(heads)
            shard = self.shards[number]
            size = shard.waiting[0][1].ByteSize()
            if self.page and self._bytes + size > limits.MAX_PAGE_BYTES:
                self.page_is_full = True
                return True
            self._bytes += size
            self.page.append(shard.waiting.popleft()[1])
            if shard.waiting:
                heapq.heappush(heads, (shard.waiting[0][0], number))
            elif shard.more:
                return True
        return bool(heads)


def _encoded_id(document: types_pb2.Document) -> bytes:
    return ids.encode(columns.unpack_id(document.id, "document.id"))
