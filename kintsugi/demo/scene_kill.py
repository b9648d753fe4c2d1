"""Scene: a shard server is killed in the middle of searches, misses writes, comes back and catches up with them.

The searchers neither pause nor retry. SIGKILL leaves the server no chance to say goodbye; the writes that it misses
show that being back means being in sync.
"""

import asyncio
import time

from kintsugi.demo.checks import Promise
from kintsugi.demo.stage import COLLECTION, Stage, since
from kintsugi.demo.traffic import Asked, Traffic
from kintsugi.errors import KintsugiError
from kintsugi.sdk.aio import AsyncClient
from kintsugi.sdk.status import ClusterStatus

VICTIM = "shard-1"
_SEARCHES_BETWEEN = 200
_MISSED_WRITES = 100
_POLL_S = 0.1


def play(stage: Stage) -> None:
    asyncio.run(_play(stage))


async def _play(stage: Stage) -> None:
    cast, checks = stage.cast, stage.checks
    clients = [cast.searcher(stage.cluster.addresses) for _ in range(cast.searchers)]
    async with Traffic(COLLECTION, _questions(stage), clients) as traffic:
        await traffic.more(_SEARCHES_BETWEEN, cast.patience_s)
        stage.say(f"{cast.searchers} searchers ask without pause: {traffic.answered:,} searches answered")

        await asyncio.to_thread(stage.cluster.kill, VICTIM)
        killed_at = time.monotonic()
        stage.say(f"[red]killed {VICTIM}[/red] (SIGKILL) in the middle of them")
        written = await _write_meanwhile(stage)
        await traffic.more(_SEARCHES_BETWEEN, cast.patience_s)
        stage.say(
            f"without it: {traffic.ended:,} searches, {len(traffic.failures)} failed; {written} documents changed"
        )

        await asyncio.to_thread(stage.cluster.start_process, VICTIM)
        what_lacks = await _wait_for_sync(stage)
        stage.say(what_lacks or f"[green]{VICTIM} is back in sync[/green] {since(killed_at)} after the kill")
        await traffic.more(_SEARCHES_BETWEEN, cast.patience_s)
    stage.say(f"{traffic.ended:,} searches, {len(traffic.failures)} failed, slowest {traffic.slowest_s * 1e3:.0f} ms")

    failed = f"{len(traffic.failures)} of {traffic.ended:,} failed"
    checks.add(Promise.NO_FAILURE, traffic.answered > 0 and not traffic.failures, _with_first(failed, traffic.failures))
    right = traffic.answered > 0 and not traffic.wrong
    checks.add(Promise.RIGHT_THROUGHOUT, right, f"{traffic.answered - traffic.wrong:,} of {traffic.answered:,} answers")
    checks.add(Promise.WRITABLE, written == len(_changed(stage)), f"{written} documents changed")
    checks.add(Promise.BACK_IN_SYNC, not what_lacks, what_lacks)


def _questions(stage: Stage) -> list[Asked]:
    assert stage.exact is not None  # the questions were answered in the scene before
    documents = len(stage.material.entries)
    pairs = zip(stage.material.question_vectors, stage.exact.ids, strict=True)
    return [Asked(vector, list(ids), documents) for vector, ids in pairs]


def _changed(stage: Stage) -> list[str]:
    return stage.material.ids[:_MISSED_WRITES]


async def _write_meanwhile(stage: Stage) -> int:
    """Changes attributes, and remembers what was acknowledged. Returns of how many documents."""
    ids = _changed(stage)
    attributes = [{**stage.attributes[doc_id], "changed": f"while {VICTIM} was down"} for doc_id in ids]
    with stage.client() as client:
        try:
            result = await asyncio.to_thread(client.update_attributes, COLLECTION, ids, attributes)
        except KintsugiError as error:
            stage.console.print(f"  the write failed: {error}", markup=False)
            return 0
    for doc_id, changed, outcome in zip(ids, attributes, result.outcomes, strict=True):
        if outcome == "applied":
            stage.attributes[doc_id] = changed
    return result.applied


async def _wait_for_sync(stage: Stage) -> str:
    """Waits until every replica on the victim holds and serves all of its log; what still lacks, or ''."""
    deadline = time.monotonic() + stage.cast.patience_s
    address = stage.cluster.address_of(VICTIM)
    async with AsyncClient(stage.cluster.addresses) as client:
        while True:
            try:
                lacks = what_lacks(await client.status(COLLECTION), address)
            except KintsugiError as error:
                lacks = str(error)
            if not lacks or time.monotonic() >= deadline:
                return lacks
            await asyncio.sleep(_POLL_S)


def what_lacks(status: ClusterStatus, address: str) -> str:
    """Why the shard server at an address is not in sync, or ''."""
    member = next((member for member in status.members if member.address == address), None)
    if member is None or not member.alive or member.lifecycle != "SERVING":
        return f"{VICTIM} does not serve"
    shards = [shard for collection in status.collections for shard in collection.shards]
    held = [(shard, replica) for shard in shards for replica in shard.replicas if replica.member == member.id]
    for shard, replica in held:
        if not replica.reachable or replica.state != "in-sync" or replica.phase != "serving":
            return f"its replica of shard {shard.shard} is {replica.state}, {replica.phase or 'unreachable'}"
        if min(replica.durable_seq, replica.searchable_seq) < shard.log_seq:
            return f"its replica of shard {shard.shard} is behind the log"
    return "" if held else f"{VICTIM} has no replica"


def _with_first(text: str, failures: list[str]) -> str:
    return f"{text}, the first: {failures[0]}" if failures else text
