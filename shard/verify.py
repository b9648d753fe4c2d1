"""Verifies a replica on demand: digests all it holds, and measures its index on vectors of its own.

One at a time per server, off the event loop, and slower than it could be: live searches go on.
"""

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np

from kintsugi.errors import ResourceExhausted, Unavailable
from shard.content_digest import Content, digest_content
from shard.engine import Engine
from shard.model_index import ModelIndex
from shard.pace import Pace
from shard.recall import Found, Probe, RecallCheck, run_paced

# Of one core.
_SHARE = 0.5
# No read transaction is kept open for longer: until it ends, the database grows with every write.
_MAX_S = 600.0
_RETRY_DELAY_S = 1.0


@dataclass(frozen=True, slots=True)
class Verified:
    """What the check found. `recall` is 0 without `queries`; all of them were answered by `index_version`, or by those
    before it."""

    content: Content
    index_version: int
    encoding: str
    queries: int
    recall: float


class Verifier:
    """One per server."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._thread = ThreadPoolExecutor(1, "verify")
        self._is_busy = False

    async def verify(self, engine: Engine, queries: int, k: int, timeout_s: float, model: str = "") -> Verified:
        """Measures the index of `model`, or of the serving one. Raises ResourceExhausted while another check runs, StorageCorrupt for a replica that contradicts itself,
        Unavailable when it closes or has no index, DeadlineExceeded."""
        if self._is_busy:
            raise ResourceExhausted(
                "this server verifies a replica already, at most 1 at a time",
                reason="VERIFY_RUNNING",
                retry_delay_s=_RETRY_DELAY_S,
            )
        self._is_busy = True
        try:
            return await self._verify(_index(engine, model), engine, queries, k, self._clock() + min(timeout_s, _MAX_S))
        finally:
            self._is_busy = False

    async def _verify(self, index: ModelIndex, engine: Engine, queries: int, k: int, deadline: float) -> Verified:
        def pace() -> Pace:
            return Pace(_SHARE, engine.closing, deadline)

        content = await run_paced(
            self._thread, lambda pace: digest_content(engine.storage, index.model.number, queries, pace.step), pace()
        )
        check = RecallCheck(index.source, index.indexer, index.searcher, self._thread, pace)
        found = await check.measure([Probe(query, k) for query in content.drawn])
        serving = index.indexer.serving
        return Verified(
            content,
            index_version=max((one.index_version for one in found), default=serving.number if serving else 0),
            encoding=serving.encoding if serving else "",
            queries=len(found),
            recall=_mean(found),
        )


def _mean(found: list[Found]) -> float:
    values = [one.recall for one in found if one.recall is not None]
    return float(np.mean(values)) if values else 0.0


def _index(engine: Engine, model: str) -> ModelIndex:
    index = engine.models.get(model) if model else engine.serving
    if index is None:
        raise Unavailable(f"there is no index of model {model} here", reason="NO_INDEX")
    return index
