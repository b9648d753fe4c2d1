"""What the film is about: documents with their vectors, questions with theirs, and the model that comes after.

By default the documentation of Python's standard library, embedded here. Knows nothing of the cluster.
"""

import importlib
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
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
# Documents that only clients of the new model write.
NEWCOMERS = ("kintsugi.ids", "kintsugi.tokens", "kintsugi.keys", "kintsugi.errors", "kintsugi.metrics")
PROBES = 200
_PROBE_WORDS = 4
_SEED = 5


@dataclass(frozen=True, slots=True)
class Successor:
    """What the upgrade needs. Row i of `vectors` is entry i's under the new model. The planner measures with `samples`, quality
    is measured with `probes`: both are queries, embedded by the old and the new model. `newcomers` come while the upgrade is
    under way, with a new vector only. `embed` is the new model: of ids and texts it makes vectors."""

    vectors: Vectors
    samples: tuple[Vectors, Vectors]
    probes: tuple[Vectors, Vectors]
    newcomers: Sequence[Entry]
    embed: Callable[[Sequence[str], Sequence[str]], Vectors]
    question_vectors: Vectors


@dataclass(frozen=True, slots=True)
class Material:
    """Row i of `vectors` is entry i's; the same for the questions. `successor`: of the model to upgrade to."""

    entries: Sequence[Entry]
    vectors: Vectors
    questions: Sequence[str]
    question_vectors: Vectors
    successor: Successor

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
    old = embed.train(texts, letters=False)
    # In half the rounds it is as good here, and much sooner there.
    new = embed.train(texts, embed.NEW_MODEL.dimension, rounds=2)
    first_lines = _first_lines(entries)
    asked = old.embed(first_lines), new.embed(first_lines)
    successor = Successor(
        vectors=new.embed(texts),
        samples=(asked[0][PROBES:], asked[1][PROBES:]),
        probes=(asked[0][:PROBES], asked[1][:PROBES]),
        newcomers=[_own(name) for name in NEWCOMERS],
        embed=lambda ids, texts: new.embed([embed.text_of(*one) for one in zip(ids, texts, strict=True)]),
        question_vectors=new.embed(questions),
    )
    material = Material(entries, old.embed(texts), questions, old.embed(questions), successor)
    console.print(
        f"embedded them with two models of TF-IDF and SVD, {embed.MODEL.name} and {embed.NEW_MODEL.name}, in "
        f"{time.monotonic() - started:.1f} s"
    )
    return material


def _first_lines(entries: Sequence[Entry]) -> list[str]:
    """What documents say of themselves stands for what users ask."""
    fit = sorted({entry.first_line for entry in entries if len(entry.first_line.split()) >= _PROBE_WORDS})
    chosen = np.random.default_rng(_SEED).permutation(len(fit))[: 2 * PROBES]
    return [fit[at] for at in chosen]


def _own(name: str) -> Entry:
    """A module of this package as a document."""
    text = importlib.import_module(name).__doc__ or name
    return Entry(name, "kintsugi", "module", name, text.splitlines()[0], text)
