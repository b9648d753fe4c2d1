"""The story of new vectors for documents: validate, log, wait, count.

1. A vector counts only for the version of the document that it was computed from: replay drops the others.
2. An answer counts every vector. If any part of a request may not be written, the answer is that error: the request can
   be repeated, with its request id or without, and writes nothing twice.
"""

from collections import Counter
from collections.abc import Sequence

from coordinator import validate
from coordinator.answers import PartOutcome
from coordinator.deadline import Deadline
from coordinator.operations import Write
from coordinator.writes import Writes
from kintsugi.errors import KintsugiError, Unavailable
from kintsugi.internal.v1 import shard_pb2
from kintsugi.log.append import OUTCOME_UNKNOWN
from kintsugi.tokens import Token
from kintsugi.v1 import upgrades_pb2


class PutVectors:
    def __init__(self, writes: Writes) -> None:
        self._writes = writes

    async def put(self, request: upgrades_pb2.PutVectorsRequest, deadline: Deadline) -> upgrades_pb2.PutVectorsResponse:
        return counted(*await self._writes.run(validate.put_vectors, request, deadline))


def counted(write: Write, outcomes: Sequence[PartOutcome]) -> upgrades_pb2.PutVectorsResponse:
    """The answer, or the error that a part ended with; an unknown outcome first, for a repetition tells what became of it."""
    errors = sorted((one.error for one in outcomes if one.error is not None), key=_is_known)
    if errors:
        raise _repeatable(errors[0], write)
    counts = Counter(record.outcome for outcome in outcomes for record in outcome.records)
    forgotten = counts[shard_pb2.RECORD_OUTCOME_FORGOTTEN]
    if forgotten:
        raise Unavailable(
            f"what became of {forgotten} vectors of request_id {write.options.request_id!r} is no longer remembered, "
            "repeat the call with another one"
        )
    positions = [(outcome.part.shard, outcome.position) for outcome in outcomes if outcome.position is not None]
    return upgrades_pb2.PutVectorsResponse(
        written=counts[shard_pb2.RECORD_OUTCOME_APPLIED],
        stale=counts[shard_pb2.RECORD_OUTCOME_VERSION_DIFFERS],
        missing=counts[shard_pb2.RECORD_OUTCOME_MISSING],
        token=Token.of(write.collection.uid, positions).encode(),
        request_id=write.options.request_id,
    )


def _is_known(error: KintsugiError) -> bool:
    return error.reason != OUTCOME_UNKNOWN


def _repeatable(error: KintsugiError, write: Write) -> KintsugiError:
    if _is_known(error):
        return error
    return error.saying(
        f"{error.message}; the outcome is unknown, repeat the call with request_id {write.options.request_id!r}"
    )
