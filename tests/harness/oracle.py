"""What each document may be, given which writes were acknowledged, refused, or left unknown.

Every write stamps its documents with a serial number, from which vector and text follow, so that a document that mixes
two writes shows. An acknowledged write leaves one possibility; an unknown one adds what it would have made. Writes of
one document must not overlap in time.
"""

import itertools
import zlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from kintsugi import Document, Outcome, WriteResult
from kintsugi.ids import DocId, shard_of

DIMENSION = 8


@dataclass(frozen=True, slots=True)
class State:
    """A document: the serial of its last content write, that of its last attribute write, its version (0: not known)."""

    content: int
    attributes: int
    version: int = 0

    def fits(self, found: "State | None") -> bool:
        if found is None or (self.content, self.attributes) != (found.content, found.attributes):
            return False
        return self.version in (0, found.version)


# What a document is when it is not there.
ABSENT = None
Possible = State | None


@dataclass(frozen=True, slots=True)
class Operation:
    """One write of one kind to several documents, stamped with one serial."""

    kind: str  # "put", "patch" or "delete"
    serial: int
    ids: tuple[DocId, ...]

    def after(self, before: Possible, version: int = 0) -> Possible:
        if self.kind == "put":
            return State(self.serial, self.serial, version)
        if self.kind == "patch" and before is not None:
            return State(before.content, self.serial, before.version)
        return before if self.kind == "patch" else ABSENT

    def happened(self, found: Possible) -> bool:
        """Whether a document that is either as before or as after this operation is as after."""
        if self.kind == "delete":
            return found is ABSENT
        return found is not None and self.serial in (found.content, found.attributes)


def vector_of(doc_id: DocId, serial: int) -> np.ndarray:
    seed = zlib.crc32(f"{type(doc_id).__name__}:{doc_id}:{serial}".encode())
    return np.random.default_rng(seed).normal(size=DIMENSION).astype(np.float32)


def text_of(serial: int) -> str:
    return f"content {serial}"


def attributes_of(serial: int) -> dict[str, int]:
    return {"serial": serial}


def state_of(document: Document) -> State:
    """What a document that was read with everything is. Fails when it is half one write and half another."""
    assert document.text is not None
    assert document.attributes is not None
    content = int(document.text.removeprefix("content "))
    (vector,) = (document.vectors or {}).values()
    assert np.array_equal(vector, vector_of(document.id, content)), f"{document.id} has the vector of another write"
    return State(content, document.attributes["serial"], document.version)


class Oracle:
    def __init__(self) -> None:
        self._possible: dict[DocId, tuple[Possible, ...]] = {}
        self._unknown: list[tuple[Operation, dict[DocId, tuple[Possible, ...]]]] = []
        self._serials = itertools.count(1)
        # How many writes were acknowledged, and of how many nothing is known.
        self.acknowledged = 0
        self.unknown = 0

    def operation(self, kind: str, ids: Sequence[DocId]) -> Operation:
        return Operation(kind, next(self._serials), tuple(ids))

    @property
    def ids(self) -> list[DocId]:
        """Every id that was ever written."""
        return list(self._possible)

    def present(self, ids: Iterable[DocId]) -> list[DocId]:
        """Those that are certainly there."""
        return [doc_id for doc_id in ids if ABSENT not in self._possible.get(doc_id, (ABSENT,))]

    # --- Learning -----------------------------------------------------------------------------------------------------

    def settle(self, operation: Operation, result: WriteResult) -> None:
        """Takes in the answer to an operation."""
        unknown = []
        for place, doc_id in enumerate(operation.ids):
            outcome = result.outcomes[place]
            if outcome is Outcome.APPLIED:
                self._applied(operation, doc_id, int(result.versions[place]))
            elif outcome is Outcome.REFUSED:
                assert operation.kind == "patch", f"{doc_id}: {result.messages[place]}"
                self._refused(doc_id)
            elif outcome is Outcome.UNKNOWN:
                unknown.append(doc_id)
        self.acknowledged += not unknown
        self.lose_track(operation, unknown)

    def lose_track(self, operation: Operation, ids: Sequence[DocId]) -> None:
        """The operation may have happened to these documents, to all that share a shard or to none of them."""
        if not ids:
            return
        self.unknown += 1
        before = {doc_id: self._possible.get(doc_id, (ABSENT,)) for doc_id in ids}
        for doc_id in ids:
            after = tuple(operation.after(state) for state in before[doc_id])
            self._possible[doc_id] = tuple(dict.fromkeys((*before[doc_id], *after)))
        self._unknown.append((operation, {doc_id: self._possible[doc_id] for doc_id in ids}))

    def _applied(self, operation: Operation, doc_id: DocId, version: int) -> None:
        before = self._possible.get(doc_id, (ABSENT,))
        if operation.kind == "patch":
            before = tuple(state for state in before if state is not ABSENT and state.version in (0, version))
            assert before, f"{doc_id}: a patch of version {version} was applied, which cannot have been there"
        self._possible[doc_id] = tuple(dict.fromkeys(operation.after(state, version) for state in before))

    def _refused(self, doc_id: DocId) -> None:
        assert ABSENT in self._possible.get(doc_id, (ABSENT,)), f"{doc_id}: a patch was refused though it is there"
        self._possible[doc_id] = (ABSENT,)

    # --- Judging ------------------------------------------------------------------------------------------------------

    def differences(self, found: Mapping[DocId, State], shards: int) -> list[str]:
        """What is lost, stale, never written, or half there."""
        problems = [f"{doc_id} was never written" for doc_id in found if doc_id not in self._possible]
        for doc_id, possible in self._possible.items():
            there = found.get(doc_id)
            if not any(there is ABSENT if state is ABSENT else state.fits(there) for state in possible):
                problems.append(f"{doc_id} is {there}, must be one of {possible}")
        return problems + self._halves(found, shards)

    def _halves(self, found: Mapping[DocId, State], shards: int) -> list[str]:
        problems = []
        for operation, possible in self._unknown:
            by_shard: dict[int, set[bool]] = {}
            for doc_id, states in possible.items():
                untouched_since = self._possible[doc_id] == states
                tells = operation.kind != "delete" or ABSENT not in states[:-1]
                if untouched_since and tells and len(states) > 1:
                    by_shard.setdefault(shard_of(doc_id, shards), set()).add(operation.happened(found.get(doc_id)))
            problems += [
                f"half of {operation} is in shard {shard}" for shard, seen in by_shard.items() if len(seen) > 1
            ]
        return problems

    def pin(self, found: Mapping[DocId, State]) -> None:
        """Takes what was found, and judged, for what is there from now on."""
        self._possible = {doc_id: (found.get(doc_id, ABSENT),) for doc_id in self._possible}
        self._unknown.clear()
