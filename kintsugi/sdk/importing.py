"""Resumable bulk import: a source goes into a collection part by part, and a state file says how far it is.

1. A part is saved as done only after each of its items is applied or refused for good. After an interruption, however
   hard, the next run begins with the first part that is not saved.
2. A part has the same items and request ids in every run, so that a part which was written and not saved is not written
   again within the ten minutes that the cluster remembers request ids; later it would replace documents by themselves.
3. The file of rejects is cut back to what the state knows before a run goes on: each reject stands there once.
4. The next part is read while one is written.
"""

import asyncio
import os
import time
import uuid
from collections.abc import AsyncGenerator, Callable, Iterator, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import msgspec

from kintsugi import tokens
from kintsugi.errors import FailedPrecondition, InvalidArgument, Unavailable
from kintsugi.sdk import state_file
from kintsugi.sdk.bulk import DEFAULT_BATCH
from kintsugi.sdk.files.source import Cursor, ImportBatch, ImportSource, Rejected
from kintsugi.sdk.types import BulkResult, Collection, ImportResult, Outcome, UnappliedItem

# Chunks per part: enough to keep the window full for most of the time.
PART_CHUNKS = 20
DEFAULT_MAX_REFUSED = 1000


class ImportState(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What the state file holds. What comes before `place` is the identity of the import, and stays."""

    source: str
    fingerprint: str
    collection: str
    collection_uid: str
    model: str
    batch: int
    request_id: str
    place: int = 0
    offset: int = 0
    applied: int = 0
    refused: int = 0
    rejects_bytes: int = 0
    token: str = ""
    format_version: int = 1


class Upsert(Protocol):
    """AsyncClient.bulk_upsert for one part: all that an import needs of a cluster."""

    async def __call__(self, batch: ImportBatch, state: ImportState) -> BulkResult: ...


@dataclass(frozen=True, slots=True)
class ImportPlan:
    """`state` and `rejects` are the files beside the source, `restart` forgets an earlier run."""

    state: Path
    rejects: Path
    model: str = ""
    batch: int = DEFAULT_BATCH
    restart: bool = False
    max_refused: int = DEFAULT_MAX_REFUSED


class Import:
    """One import, from its beginning or from where an earlier run stopped. Use once. `advance` is called with the
    cursor and the number of documents settled."""

    def __init__(
        self,
        source: ImportSource,
        collection: Collection,
        plan: ImportPlan,
        upsert: Upsert,
        advance: Callable[[Cursor, int], None],
    ) -> None:
        self._source = source
        self._collection = collection
        self._plan = plan
        self._upsert = upsert
        self._advance = advance
        self._model = plan.model or collection.serving_model

    async def run(self) -> ImportResult:
        """Raises what cannot be overcome; what is done until then is saved."""
        started = time.monotonic()
        state = await asyncio.to_thread(self._begin)
        resumed_at = state.place
        self._advance(Cursor(state.place, state.offset), state.applied + state.refused)
        async with aclosing(self._parts(state)) as parts:
            async for part in parts:
                result = await self._upsert(part, state) if len(part.ids) else None
                state = await asyncio.to_thread(self._settle, state, part, result)
                self._advance(part.next, state.applied + state.refused)
                if state.refused > self._plan.max_refused:
                    raise FailedPrecondition(
                        f"{state.refused} items were refused, max_refused is {self._plan.max_refused}; they stand in "
                        f"{self._plan.rejects}, and the import goes on from {self._source.where(state.place)} when it "
                        "is repeated with a higher bound",
                        reason="TOO_MANY_REFUSED",
                    )
        self._plan.state.unlink(missing_ok=True)
        return ImportResult(
            items=state.applied + state.refused,
            applied=state.applied,
            refused=state.refused,
            resumed_at=resumed_at,
            rejects=self._plan.rejects if state.refused else None,
            token=bytes.fromhex(state.token),
            elapsed_s=time.monotonic() - started,
        )

    def _begin(self) -> ImportState:
        fresh = ImportState(
            source=self._source.name,
            fingerprint=self._source.fingerprint,
            collection=self._collection.name,
            collection_uid=self._collection.uid,
            model=self._model,
            batch=self._plan.batch,
            request_id=uuid.uuid4().hex[:24],
        )
        state = None if self._plan.restart else state_file.load(self._plan.state, ImportState)
        if state is None:
            state = fresh
            self._plan.rejects.unlink(missing_ok=True)
            state_file.save(self._plan.state, state)
        self._check(state, fresh)
        if self._plan.rejects.exists():
            os.truncate(self._plan.rejects, state.rejects_bytes)
        return state

    def _check(self, state: ImportState, fresh: ImportState) -> None:
        for field in ("fingerprint", "collection_uid", "model"):
            if getattr(state, field) != getattr(fresh, field):
                what = {"fingerprint": "source", "collection_uid": "collection"}.get(field, field)
                raise FailedPrecondition(
                    f"state file {self._plan.state} is of an import of {state.source} into {state.collection}, since "
                    f"then the {what} has changed; restart the import, or name another state file",
                    reason="STATE_OF_ANOTHER",
                )

    async def _parts(self, state: ImportState) -> AsyncGenerator[ImportBatch, None]:
        dimension = dimension_of(self._collection, self._model)
        # The cut of an earlier run is kept, whatever the plan says now.
        parts = self._source.read(Cursor(state.place, state.offset), state.batch * PART_CHUNKS, dimension)
        ahead = asyncio.ensure_future(asyncio.to_thread(_next, parts))
        try:
            while (part := await ahead) is not None:
                ahead = asyncio.ensure_future(asyncio.to_thread(_next, parts))
                yield part
        finally:
            ahead.cancel()
            await asyncio.gather(ahead, return_exceptions=True)

    def _settle(self, state: ImportState, part: ImportBatch, result: BulkResult | None) -> ImportState:
        """Keeps what became of a part: first the rejects, then the state that counts them."""
        refused = self._refused(part, result.unapplied) if result else []
        rejected = sorted([*part.rejected, *refused], key=lambda item: item.place)
        after = msgspec.structs.replace(
            state,
            place=part.next.place,
            offset=part.next.offset,
            applied=state.applied + (result.applied if result else 0),
            refused=state.refused + len(rejected),
            rejects_bytes=_append(self._plan.rejects, rejected) if rejected else state.rejects_bytes,
            token=_merge(state.token, result.token if result else b""),
        )
        state_file.save(self._plan.state, after)
        return after

    def _refused(self, part: ImportBatch, unapplied: Sequence[UnappliedItem]) -> list[Rejected]:
        for item in unapplied:
            if item.outcome is not Outcome.REFUSED:
                where = self._source.where(part.places[item.index])
                raise Unavailable(f"{where} of {self._source.name} is {item.outcome.value}: {item.message}")
        places = [part.places[item.index] for item in unapplied]
        return [
            Rejected(place, self._source.where(place), item.id, item.message)
            for place, item in zip(places, unapplied, strict=True)
        ]


def dimension_of(collection: Collection, model: str) -> int:
    for known in collection.models:
        if known.name == model:
            return known.dimension
    names = ", ".join(known.name for known in collection.models)
    raise InvalidArgument("model", f"is {model!r}", f"must be one of {collection.name}: {names}")


def _append(path: Path, rejected: Sequence[Rejected]) -> int:
    """Adds the lines durably, and returns the size of the file."""
    with path.open("ab") as stream:
        stream.writelines(msgspec.json.encode(item) + b"\n" for item in rejected)
        stream.flush()
        os.fsync(stream.fileno())
        return stream.tell()


def _next(parts: Iterator[ImportBatch]) -> ImportBatch | None:
    return next(parts, None)


def _merge(token: str, newer: bytes) -> str:
    """Both writes' token, as hex."""
    if not token or not newer:
        return token or newer.hex()
    return tokens.decode(bytes.fromhex(token)).merge(tokens.decode(newer)).encode().hex()
