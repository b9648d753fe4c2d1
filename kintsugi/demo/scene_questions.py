"""Scene: questions in plain words are answered one by one, then all at once, and the answers are judged."""

import time

import numpy as np
from rich.markup import escape

from kintsugi.demo import answers
from kintsugi.demo.answers import K
from kintsugi.demo.checks import Promise
from kintsugi.demo.stage import COLLECTION, Stage
from kintsugi.sdk.types import SearchResult

_SHOWN = 3


def play(stage: Stage) -> None:
    questions, vectors = stage.material.questions, stage.material.question_vectors
    documents = len(stage.material.entries)
    latencies_ms, complete = [], []
    with stage.client() as client:
        for question, vector in zip(questions, vectors, strict=True):
            started = time.perf_counter()
            found = client.search(COLLECTION, vector, _SHOWN, attributes=True, at_least=stage.token)
            latencies_ms.append((time.perf_counter() - started) * 1e3)
            _show(stage, question, found, latencies_ms[-1])
            complete.append(answers.is_complete(found, documents))
        exact = client.search_batch(COLLECTION, vectors, K, exact=True)
        indexed = client.search_batch(COLLECTION, vectors, K)
    stage.say(f"\nmedian latency {np.median(latencies_ms):.1f} ms")
    recall = answers.recall(exact, indexed)
    stage.exact = exact
    stage.checks.add(Promise.ANSWERED, all(complete), f"{sum(complete)} of {len(questions)}")
    stage.checks.add(Promise.EXACT, answers.agrees_with_numpy(stage.material, exact), f"the best {K}")
    stage.checks.add(Promise.FOUND, recall >= answers.MIN_RECALL, f"recall@{K} {recall:.3f}")


def _show(stage: Stage, question: str, found: SearchResult, latency_ms: float) -> None:
    coverage = found.coverage
    stage.say(
        f"\n[cyan]{escape(question)}[/cyan]  ({latency_ms:.1f} ms; {coverage.shards_answered}/{coverage.shards_total} "
        f"shards, {coverage.documents_covered:,}/{coverage.documents_total:,} documents)"
    )
    for hit in found:
        first_line = str((hit.attributes or {}).get("first_line", ""))
        stage.say(f"  {hit.score:.3f}  [bold]{escape(f'{hit.id!s:<42}')}[/bold]  {escape(first_line[:70])}")
