"""Scene: the documents are imported, with a progress bar on a terminal, and acknowledged as durable."""

from kintsugi.demo import embed
from kintsugi.demo.checks import Promise
from kintsugi.demo.stage import COLLECTION, Stage
from kintsugi.sdk.types import BulkResult

_SHOWN = 3


def play(stage: Stage) -> None:
    with stage.client() as client:
        collection = client.create_collection(COLLECTION, embed.MODEL, metric="cosine")
        stage.say(f"created collection {COLLECTION}: {collection.shards} shards x {collection.replicas} replicas")
        entries = stage.material.entries
        result = client.bulk_upsert(
            COLLECTION,
            stage.material.ids,
            stage.material.vectors,
            attributes=[entry.attributes for entry in entries],
            texts=[entry.text for entry in entries],
        )
        count = client.count(COLLECTION, at_least=result.token)
    _tell(stage, result)
    stage.token = result.token
    stage.attributes = {entry.id: dict(entry.attributes) for entry in entries}
    stage.versions = dict(zip(stage.material.ids, map(int, result.versions), strict=True))
    stage.checks.add(Promise.IMPORTED, result.applied == len(entries), f"{result.applied:,} of {len(entries):,}")
    stage.checks.add(Promise.COUNTED, count == len(entries), f"{count:,}")


def _tell(stage: Stage, result: BulkResult) -> None:
    rate = result.applied / max(result.elapsed_s, 1e-9)
    seconds = f"{result.elapsed_s:.1f} s"
    stage.say(f"imported {result.applied:,} documents in {seconds} ({rate:,.0f} per second), synced to disk")
    for item in result.unapplied[:_SHOWN]:
        stage.console.print(f"  not applied: {item.id}: {item.message}", markup=False)
