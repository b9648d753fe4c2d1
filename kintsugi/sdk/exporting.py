"""Resumable bulk export: pages of a collection go into a spool, and when all are there, into the file asked for.

1. The state names a page and a size of the spool that belong together; an interrupted export, however hard, goes on
   from there, and no document is in the file twice.
2. The file appears whole, at the end.
3. Documents come in the order of their ids. It is no snapshot: what is written meanwhile may be in it or not.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

import msgspec

from kintsugi.errors import FailedPrecondition
from kintsugi.sdk import state_file
from kintsugi.sdk.files import targets
from kintsugi.sdk.files.spool import Spool, SpooledDocument, encode_attributes
from kintsugi.sdk.types import Collection, ExportResult, Page

# AsyncClient.scroll_page with everything but the token.
ReadPage: TypeAlias = Callable[[bytes], Awaitable[Page]]


class ExportState(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What the state file holds. What comes before `page_token` is the identity of the export, and stays."""

    collection: str
    collection_uid: str
    model: str
    attributes: bool
    text: bool
    page_token: str = ""
    spool_bytes: int = 0
    documents: int = 0
    skipped: int = 0
    complete: bool = False
    format_version: int = 1


@dataclass(frozen=True, slots=True)
class ExportPlan:
    path: Path
    state: Path
    model: str
    dimension: int
    attributes: bool = True
    text: bool = True
    restart: bool = False
    overwrite: bool = False


class Export:
    """One export, from its beginning or from where an earlier run stopped. Use once. `advance` is called with the number
    of documents."""

    def __init__(
        self, collection: Collection, plan: ExportPlan, read_page: ReadPage, advance: Callable[[int], None]
    ) -> None:
        self._collection = collection
        self._plan = plan
        self._read_page = read_page
        self._advance = advance
        self._spool = Spool(plan.path.with_name(plan.path.name + ".spool"))

    async def run(self) -> ExportResult:
        started = time.monotonic()
        state = await asyncio.to_thread(self._begin)
        resumed_at = state.documents
        self._advance(state.documents)
        while not state.complete:
            page = await self._read_page(bytes.fromhex(state.page_token))
            state = await asyncio.to_thread(self._keep, state, page)
            self._advance(state.documents)
        await asyncio.to_thread(self._finish, state)
        return ExportResult(
            files=targets.outputs(self._plan.path),
            documents=state.documents,
            skipped=state.skipped,
            resumed_at=resumed_at,
            elapsed_s=time.monotonic() - started,
        )

    def _begin(self) -> ExportState:
        plan = self._plan
        targets.check_target(plan.path)
        for file in targets.outputs(plan.path):
            if file.exists() and not plan.overwrite:
                raise FailedPrecondition(f"{file} is there already; overwrite it, or name another file")
        fresh = ExportState(self._collection.name, self._collection.uid, plan.model, plan.attributes, plan.text)
        state = None if plan.restart else state_file.load(plan.state, ExportState)
        if state is None:
            state = fresh
            state_file.save(plan.state, state)
        for field in ("collection_uid", "model", "attributes", "text"):
            if getattr(state, field) != getattr(fresh, field):
                raise FailedPrecondition(
                    f"state file {plan.state} is of an export of {state.collection} with other {field}; restart the "
                    "export, or name another file",
                    reason="STATE_OF_ANOTHER",
                )
        self._spool.cut(state.spool_bytes)
        return state

    def _keep(self, state: ExportState, page: Page) -> ExportState:
        """First the documents, then the state that counts them."""
        documents = [
            SpooledDocument(
                document.id,
                document.vectors[self._plan.model].tobytes(),
                encode_attributes(document.attributes),
                document.text or "",
            )
            for document in page.documents
            if document.vectors and self._plan.model in document.vectors
        ]
        after = msgspec.structs.replace(
            state,
            page_token=page.next_token.hex(),
            spool_bytes=self._spool.append(documents) if documents else state.spool_bytes,
            documents=state.documents + len(documents),
            skipped=state.skipped + len(page.documents) - len(documents),
            complete=not page.next_token,
        )
        state_file.save(self._plan.state, after)
        return after

    def _finish(self, state: ExportState) -> None:
        content = targets.Content(
            spool=self._spool,
            documents=state.documents,
            dimension=self._plan.dimension,
            dtype="<f2" if self._collection.stored == "f16" else "<f4",
            attributes=state.attributes,
            text=state.text,
        )
        targets.write(self._plan.path, content)
        self._spool.path.unlink()
        self._plan.state.unlink()
