"""What upgrades are played on: documents and queries embedded by two models, of a file or of the demo."""

import json
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from kintsugi.demo import corpus, embed
from kintsugi.demo.corpus import Entry
from kintsugi.metrics import Metric
from kintsugi.projections.sample import PairedSample

# Of the demo's documents, questions that stand for users', each the first line of a docstring.
_QUESTIONS = 500
# As many documents at most may share a first line: "See the documentation" is no question.
_MOST_ANSWERS = 5
_LEAST_WORDS = 4


@dataclass(frozen=True, slots=True, eq=False)
class UpgradeSet:
    """A step from one model to another."""

    name: str
    old: str
    new: str
    sample: PairedSample


def of_file(npz: Path, relevance: Path | None, pairs: Sequence[tuple[str, str]]) -> list[UpgradeSet]:
    """The pairs of models of a file with arrays doc_MODEL and query_MODEL. `relevance`: JSON with `relevant`, rows of
    documents for each query."""
    relevant = json.loads(relevance.read_text())["relevant"] if relevance else []
    with np.load(npz) as arrays:
        return [UpgradeSet(npz.stem, old, new, read_sample(arrays, old, new, relevant)) for old, new in pairs]


def read_sample(
    arrays: Mapping[str, npt.NDArray[np.floating]], old: str, new: str, relevant: list[list[int]]
) -> PairedSample:
    """The sample of two models from the arrays of a file. Raises ValueError for a model that is not there."""
    names = [f"{part}_{model}" for part in ("doc", "query") for model in (old, new)]
    if missing := [name for name in names if name not in arrays]:
        raise ValueError(f"the file has no arrays {', '.join(missing)}, it has {', '.join(sorted(arrays))}")
    old_documents, new_documents, old_queries, new_queries = (np.asarray(arrays[n], dtype=np.float32) for n in names)
    judged = [frozenset(places) for places in relevant]
    return PairedSample(Metric.COSINE, old_documents, new_documents, old_queries, new_queries, relevant=judged)


def of_demo(seed: int) -> UpgradeSet:
    """The standard library's documentation, from 128 dimensions of words to 256 of words and letters. Documents are embedded
    without the first lines of their docstrings; those are the questions, and answered by the documents that they stood
    in. Raises CorpusUnavailable or EmbeddingUnavailable."""
    entries = corpus.load()
    texts = [embed.document_text(entry).replace(entry.first_line, "", 1) for entry in entries]
    asked = _asked(entries, texts, seed)
    questions, relevant = [question for question, _ in asked], [answers for _, answers in asked]
    sides = []
    for dimension, letters in ((embed.DIMENSION, False), (2 * embed.DIMENSION, True)):
        embedder = embed.train(texts, dimension, letters=letters)
        sides.append((embedder.embed(texts), embedder.embed(questions)))
    (old, old_queries), (new, new_queries) = sides
    sample = PairedSample(Metric.COSINE, old, new, old_queries, new_queries, relevant=relevant)
    return UpgradeSet("demo", "words128", "words+letters256", sample)


def _asked(entries: Sequence[Entry], texts: Sequence[str], seed: int) -> list[tuple[str, frozenset[int]]]:
    """First lines of a few words, each with the places of the documents that it stood in and that say more."""
    answers: dict[str, list[int]] = defaultdict(list)
    for place, entry in enumerate(entries):
        answers[entry.first_line].append(place)
    fit = [
        (question, frozenset(places))
        for question, places in sorted(answers.items())
        if len(places) <= _MOST_ANSWERS
        and len(question.split()) >= _LEAST_WORDS
        and all(len(texts[place].split()) >= 2 * _LEAST_WORDS for place in places)
    ]
    chosen = np.random.default_rng(seed).permutation(len(fit))[:_QUESTIONS]
    return [fit[at] for at in chosen]
