"""The story of a delete by filter: check, read a page of every shard, delete what it names, and so on to the limit.

1. Nothing is deleted before every shard has answered, and nothing on a page that lacks one: a failure ends the call.
2. The filter is evaluated where the log stood when the call began, or later: what was acknowledged before is seen.
3. A document is deleted only in the version in which its shard found that it fulfils the filter, which replay decides
   (IF_VERSION): one that is rewritten meanwhile stays, and counts as changed. An update of attributes leaves the version,
   so one that meets the delete loses against it.
4. Pages follow the rows, which are never given twice: what is deleted meanwhile moves no document to another page.
5. Repeating a call is harmless. An error tells how many documents were deleted before it, in words and in its metadata.
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterator, Mapping
from dataclasses import dataclass

from coordinator import validate
from coordinator.answers import PartOutcome
from coordinator.deadline import Deadline
from coordinator.operations import Level, Operation, Write
from coordinator.reads import Read, Reads, token_of
from coordinator.views import Views
from coordinator.writes import Writes
from kintsugi import columns, failpoints, ids, limits, tokens
from kintsugi.errors import InvalidArgument, KintsugiError, Unavailable
from kintsugi.filters.wire import from_message
from kintsugi.internal.v1 import shard_pb2
from kintsugi.log import records
from kintsugi.log.append import OUTCOME_UNKNOWN
from kintsugi.log.read import Head
from kintsugi.position import Position
from kintsugi.registry.records import Shard
from kintsugi.tokens import Token
from kintsugi.v1 import documents_pb2

ReadHead = Callable[[str, int], Awaitable[Head | None]]

# Of the time that the slowest page took, must be left for another one.
_PATIENCE = 2.0
_CHANGED = (
    shard_pb2.RECORD_OUTCOME_NOT_THERE,
    shard_pb2.RECORD_OUTCOME_MISSING,
    shard_pb2.RECORD_OUTCOME_VERSION_DIFFERS,
)


@dataclass(frozen=True, slots=True)
class _Match:
    """A document that fulfils the filter. `id` in its ordered encoding."""

    shard: int
    id: bytes
    version: int


class _Tally:
    """What became of the documents so far."""

    def __init__(self, uid: str) -> None:
        self.deleted = 0
        self.changed = 0
        self._token = Token(uid, ())

    def add(self, outcome: PartOutcome) -> None:
        """Counts a part; raises what it failed with."""
        if outcome.error is not None:
            raise outcome.error
        assert outcome.position is not None
        self._token = self._token.merge(Token.of(self._token.collection_uid, [(outcome.part.shard, outcome.position)]))
        told = [record.outcome for record in outcome.records]
        self.deleted += told.count(shard_pb2.RECORD_OUTCOME_APPLIED)
        self.changed += sum(one in _CHANGED for one in told)
        if shard_pb2.RECORD_OUTCOME_FORGOTTEN in told:
            raise Unavailable(
                f"shard {outcome.part.shard} no longer remembers what became of the deletes", reason=OUTCOME_UNKNOWN
            )

    def response(self, *, more: bool) -> documents_pb2.DeleteByFilterResponse:
        return documents_pb2.DeleteByFilterResponse(
            deleted=self.deleted, changed=self.changed, more=more, token=self._token.encode()
        )

    def told_by(self, error: KintsugiError) -> KintsugiError:
        """The error with what was done before it."""
        if not self.deleted and not self.changed:
            return error
        told = error.saying(f"{error.message}; {self.deleted} documents were deleted before")
        told.metadata = {**error.metadata, "deleted": str(self.deleted), "changed": str(self.changed)}
        return told


class DeleteByFilter:
    """`head` reads the head of a log."""

    def __init__(self, views: Views, reads: Reads, writes: Writes, head: ReadHead) -> None:
        self._views = views
        self._reads = reads
        self._writes = writes
        self._head = head

    async def run(
        self, request: documents_pb2.DeleteByFilterRequest, deadline: Deadline
    ) -> documents_pb2.DeleteByFilterResponse:
        limit = _check(request)
        token = await self._all_acknowledged(request.collection, token_of(request.at_least), deadline)
        read = await self._reads.begin(request.collection, token, deadline)
        tally = _Tally(read.plan.collection.uid)
        behind = {shard.shard: 0 for shard in read.plan.shards}
        slowest_s = 0.0
        try:
            while behind:
                began_s = deadline.remaining_s
                if tally.deleted >= limit or began_s < _PATIENCE * slowest_s:
                    return tally.response(more=True)
                left = limit - tally.deleted
                pages = await self._reads.match(read, request.filter, behind, _page_size(behind, left))
                found = list(_matches(pages))
                await self._delete(read, request, found[:left], tally, deadline)
                if len(found) > left:
                    return tally.response(more=True)
                behind = {shard: page.last_row for shard, page in pages.items() if page.more}
                slowest_s = max(slowest_s, began_s - deadline.remaining_s)
        except KintsugiError as error:
            raise tally.told_by(error) from error
        return tally.response(more=False)

    async def _all_acknowledged(self, name: str, given: Token | None, deadline: Deadline) -> Token:
        """A token of every write that is in the logs now, and of the given one's."""
        view, collection = await self._views.collection(name, deadline)
        shards = view.shards_of(collection)
        if given is not None:
            for shard in shards:
                tokens.required(given, collection, shard, "at_least")
        heads = await asyncio.gather(*(self._head(collection.uid, shard.shard) for shard in shards))
        positions = [(shard.shard, _position(shard, head)) for shard, head in zip(shards, heads, strict=True)]
        token = Token.of(collection.uid, [(shard, position) for shard, position in positions if position.seq])
        return token if given is None else given.merge(token)

    async def _delete(
        self,
        read: Read,
        request: documents_pb2.DeleteByFilterRequest,
        found: list[_Match],
        tally: _Tally,
        deadline: Deadline,
    ) -> None:
        """Deletes documents in the versions found, all shards at once. Raises what a shard's part failed with, after
        the others are counted."""
        if not found:
            return
        await asyncio.to_thread(failpoints.hit, "delete_by_filter.after_match")
        options = validate.write_options(request.acknowledgement, request.durable_replicas, "")
        operations = [
            Operation(
                index, match.shard, records.delete(ids.decode(match.id), expected_version=match.version), is_delete=True
            )
            for index, match in enumerate(found)
        ]
        write = Write(read.plan.collection, options, len(found), operations, {})
        failed: KintsugiError | None = None
        for outcome in await self._writes.write(write, deadline):
            try:
                tally.add(outcome)
            except KintsugiError as error:
                failed = failed or error
        if failed is not None:
            raise failed


def _check(request: documents_pb2.DeleteByFilterRequest) -> int:
    """The limit of a request within bounds."""
    from_message(request.filter)
    options = validate.write_options(request.acknowledgement, request.durable_replicas, "")
    if options.level is Level.LOGGED:
        raise InvalidArgument("acknowledgement", "is LOGGED", "must be DURABLE or above: every delete has a condition")
    limit = request.limit or limits.DEFAULT_DELETE_LIMIT
    if limit > limits.MAX_DELETE_LIMIT:
        raise InvalidArgument("limit", f"is {limit}", f"must be 1 to {limits.MAX_DELETE_LIMIT}")
    return limit


def _position(shard: Shard, head: Head | None) -> Position:
    """Where a log ends, as replicas of any epoch know it that hold its last record."""
    if head is None:
        raise Unavailable(f"the log of shard {shard.shard} is missing, nothing is deleted", reason="LOG_MISSING")
    seq = head.position.seq
    # Recovery appends records again under its own epoch, which whoever holds them already does not follow for them.
    epoch = min(
        (start.epoch for start in shard.epochs if shard.survived(start.epoch, seq)), default=head.position.epoch
    )
    return Position(epoch, seq, head.position.digest)


def _page_size(shards: Mapping[int, int], wanted: int) -> int:
    """Of each shard, so that together they fill a batch."""
    return max(1, min(limits.MAX_BATCH_ITEMS, wanted) // len(shards))


def _matches(pages: Mapping[int, shard_pb2.MatchDocumentsResponse]) -> Iterator[_Match]:
    for shard, page in sorted(pages.items()):
        found = columns.unpack_encoded(page.ids, "ids")
        for encoded, version in zip(found, columns.unpack_u64(page.versions, "versions").tolist(), strict=True):
            yield _Match(shard, encoded, version)
