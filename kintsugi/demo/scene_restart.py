"""Scenes: the whole cluster drains and starts again, then every document and every answer is compared with before."""

import time

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
    entries, vectors = stage.material.entries, stage.material.vectors
    with stage.client() as client:
        read = client.get(COLLECTION, stage.material.ids, attributes=True, text=True, vectors=True)
        count = client.count(COLLECTION)
        exact = client.search_batch(COLLECTION, stage.material.question_vectors, K, exact=True)
        indexed = client.search_batch(COLLECTION, stage.material.question_vectors, K)
    by_id = {document.id: document for document in read}
    different = [
        entry.id
        for entry, vector in zip(entries, vectors, strict=True)
        if not _is_as_written(stage, entry, vector, by_id.get(entry.id))
    ]
    stage.say(f"read and compared {len(read):,} documents in {since(started)}")
    measured = f"{len(entries) - len(different):,} of {len(entries):,}"
    if different:
        measured += f", not {', '.join(different[:3])}"
    recall = answers.recall(exact, indexed)
    stage.checks.add(Promise.SAME_DOCUMENTS, not different, measured)
    stage.checks.add(Promise.SAME_COUNT, count == len(entries), f"{count:,}")
    stage.checks.add(Promise.SAME_ANSWERS, stage.exact is not None and answers.are_the_same(stage.exact, exact))
    stage.checks.add(Promise.STILL_FOUND, recall >= answers.MIN_RECALL, f"recall@{K} {recall:.3f}")


def _is_as_written(stage: Stage, entry: Entry, vector: Vectors, document: Document | None) -> bool:
    """Whether a document holds what was acknowledged last."""
    return (
        document is not None
        and document.text == entry.text
        and document.attributes == stage.attributes[entry.id]
        and document.version == stage.versions[entry.id]
        and np.array_equal((document.vectors or {}).get(embed.MODEL.name, ()), vector)
    )
