"""Draws documents of a collection with their vectors: all of them when there are few, else a fair sample.

The sample is uniform over documents, without replacement: ids alone are walked through first, which is cheap, each gets
a random number, and those with the smallest numbers are read. Pages or a stretch of ids would not do: ids often tell
when, or where from, a document came. The same seed draws the same documents as long as nobody writes.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt

from kintsugi import limits
from kintsugi.ids import DocId
from kintsugi.sdk.types import Document, GetResult, Page

F32Matrix = npt.NDArray[np.float32]
Advance = Callable[[int], None]

_VECTORS_PER_PAGE = 500


class Source(Protocol):
    """The part of kintsugi.Client that is needed."""

    def count(self, collection: str) -> int: ...
    def scroll_page(self, collection: str, page_token: bytes, limit: int, *, vectors: bool = False) -> Page: ...
    def get(self, collection: str, ids: list[DocId], *, vectors: bool = False) -> GetResult: ...


@dataclass(frozen=True, slots=True)
class Sample:
    """Documents in a random order. `collection_vectors` is how many documents there were in all."""

    ids: list[DocId]
    vectors: F32Matrix
    collection_vectors: int

    @property
    def is_whole(self) -> bool:
        return len(self.ids) >= self.collection_vectors


def draw(source: Source, collection: str, model: str, wanted: int, seed: int, advance: Advance) -> Sample:
    """`wanted` documents that have a vector of the model. `advance` is called with the documents that were looked at."""
    random = np.random.default_rng(seed)
    total = source.count(collection)
    if total <= wanted:
        documents = list(_all(source, collection, advance))
        seen = len(documents)
    else:
        chosen, seen = _choose_ids(source, collection, wanted, random, advance)
        documents = list(_read(source, collection, chosen, advance))
    found = [(document.id, vector) for document in documents if (vector := _vector(document, model)) is not None]
    order = random.permutation(len(found))
    vectors = np.array([found[place][1] for place in order], dtype=np.float32)
    # Documents without a vector are in no index; in a sample they are as frequent as elsewhere.
    with_vector = round(seen * len(found) / max(1, len(documents)))
    return Sample([found[place][0] for place in order], vectors, with_vector)


def _vector(document: Document, model: str) -> npt.NDArray[np.floating] | None:
    return None if document.vectors is None else document.vectors.get(model)


def _pages(source: Source, collection: str, limit: int, *, vectors: bool) -> Iterator[tuple[Document, ...]]:
    token = b""
    while True:
        page = source.scroll_page(collection, token, limit, vectors=vectors)
        yield page.documents
        if not (token := page.next_token):
            return


def _all(source: Source, collection: str, advance: Advance) -> Iterator[Document]:
    for documents in _pages(source, collection, _VECTORS_PER_PAGE, vectors=True):
        yield from documents
        advance(len(documents))


def _choose_ids(
    source: Source, collection: str, wanted: int, random: np.random.Generator, advance: Advance
) -> tuple[list[DocId], int]:
    """The ids that drew the smallest numbers, and how many ids there were."""
    kept: list[DocId] = []
    numbers = np.empty(0)
    seen = 0
    for documents in _pages(source, collection, limits.MAX_SCROLL_LIMIT, vectors=False):
        kept += [document.id for document in documents]
        numbers = np.concatenate([numbers, random.random(len(documents))])
        seen += len(documents)
        advance(len(documents))
        if len(kept) > 4 * wanted:
            kept, numbers = _smallest(kept, numbers, wanted)
    return _smallest(kept, numbers, wanted)[0], seen


def _smallest(
    ids: list[DocId], numbers: npt.NDArray[np.float64], count: int
) -> tuple[list[DocId], npt.NDArray[np.float64]]:
    chosen = np.sort(np.argsort(numbers, kind="stable")[:count])
    return [ids[place] for place in chosen], numbers[chosen]


def _read(source: Source, collection: str, ids: list[DocId], advance: Advance) -> Iterator[Document]:
    """Those of the ids that are still there."""
    for start in range(0, len(ids), _VECTORS_PER_PAGE):
        asked = ids[start : start + _VECTORS_PER_PAGE]
        yield from source.get(collection, asked, vectors=True).documents
        advance(len(asked))
