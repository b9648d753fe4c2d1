"""What the film is about: documents with their vectors, and questions with theirs.

By default the documentation of Python's standard library, embedded here. Knows nothing of the cluster.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass

from rich.console import Console

from kintsugi.demo import corpus, embed
from kintsugi.demo.corpus import Entry
from kintsugi.demo.embed import Vectors

QUESTIONS = (
    "match a regular expression against a string",
    "compress data with gzip",
    "how to send an email over SMTP",
    "secure hash digest of a message",
    "schedule a coroutine on the event loop",
    "random number from a normal distribution",
    "parse an XML document",
    "terminate a child process",
    "trace memory allocations",
    "set a breakpoint in the debugger",
)


@dataclass(frozen=True, slots=True)
class Material:
    """Row i of `vectors` is entry i's; the same for the questions."""

    entries: Sequence[Entry]
    vectors: Vectors
    questions: Sequence[str]
    question_vectors: Vectors

    @property
    def ids(self) -> list[str]:
        return [entry.id for entry in self.entries]


def read_standard_library(console: Console, questions: Sequence[str]) -> Material:
    """Reads and embeds. Raises CorpusUnavailable or EmbeddingUnavailable."""
    started = time.monotonic()
    entries = corpus.load()
    read_s = time.monotonic() - started
    console.print(f"read {len(entries):,} documents from the Python standard library in {read_s:.1f} s")
    started = time.monotonic()
    texts = [embed.document_text(entry) for entry in entries]
    embedder = embed.train(texts)
    material = Material(entries, embedder.embed(texts), questions, embedder.embed(questions))
    embedded_s = time.monotonic() - started
    console.print(f"embedded them with TF-IDF and SVD to {embed.DIMENSION} dimensions in {embedded_s:.1f} s")
    return material
