"""Scenes: the whole cluster drains and starts again, then every document and every answer is compared with before."""

import time
from collections.abc import Iterable

import numpy as np

from kintsugi.demo import answers, embed
from kintsugi.demo.answers import K
from kintsugi.demo.checks import Promise
from kintsugi.demo.corpus import Entry
from kintsugi.demo.embed import Vectors
from kintsugi.demo.stage import COLLECTION, Stage, since
from kintsugi.sdk.types import Document


def play(stage: Stage) -> None:
    started = time.monotonic()
    codes = stage.cluster.stop()
    unclean = ", ".join(f"{name} ended with {code}" for name, code in codes.items() if code)
    stage.checks.add(Promise.DRAINED, not unclean, unclean or f"{len(codes)} processes")
    stage.say(f"stopped the cluster in {since(started)}")
    stage.start()


def verify(stage: Stage) -> None:
    started = time.monotonic()
    entries = stage.material.entries
    with stage.client() as client:
        read = client.get(COLLECTION, stage.material.ids, attributes=True, text=True, vectors=True)
        count = client.count(COLLECTION)
        exact = client.search_batch(COLLECTION, stage.material.question_vectors, K, exact=True)
        indexed = client.search_batch(COLLECTION, stage.material.question_vectors, K)
    different = differing(stage, read.documents)
    stage.say(f"read and compared {len(read):,} documents in {since(started)}")
    recall = answers.recall(exact, indexed)
    stage.checks.add(Promise.SAME_DOCUMENTS, not different, how_many(stage, different))
    stage.checks.add(Promise.SAME_COUNT, count == len(entries), f"{count:,}")
    stage.checks.add(Promise.SAME_ANSWERS, stage.exact is not None and answers.are_the_same(stage.exact, exact))
    stage.checks.add(Promise.STILL_FOUND, recall >= answers.MIN_RECALL, f"recall@{K} {recall:.3f}")


def differing(stage: Stage, read: Iterable[Document]) -> list[str]:
    """The documents that were imported and are not, or not as they were acknowledged last, among those read."""
    by_id = {document.id: document for document in read}
    return [
        entry.id
        for entry, vector in zip(stage.material.entries, stage.material.vectors, strict=True)
        if not _is_as_written(stage, entry, vector, by_id.get(entry.id))
    ]


def how_many(stage: Stage, different: list[str]) -> str:
    documents = len(stage.material.entries)
    measured = f"{documents - len(different):,} of {documents:,}"
    return f"{measured}, not {', '.join(different[:3])}" if different else measured


def _is_as_written(stage: Stage, entry: Entry, vector: Vectors, document: Document | None) -> bool:
    """Whether a document holds what was acknowledged last."""
    return (
        document is not None
        and document.text == entry.text
        and document.attributes == stage.attributes[entry.id]
        and document.version == stage.versions[entry.id]
        and np.array_equal((document.vectors or {}).get(embed.MODEL.name, ()), vector)
    )
