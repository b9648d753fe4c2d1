"""What a worker needs of whatever turns documents into vectors, and how that fails."""

from collections.abc import Sequence
from typing import Protocol

import numpy as np
import numpy.typing as npt

from kintsugi.errors import FailedPrecondition, Unavailable
from kintsugi.sdk.upgrade_types import DocumentToEmbed

F32Matrix = npt.NDArray[np.float32]


class EmbedFailed(Unavailable):
    """It may work when tried again."""

    reason = "EMBEDDER_FAILED"


class EmbedRefused(FailedPrecondition):
    """What was asked or answered is wrong: trying again changes nothing."""

    reason = "EMBEDDER_REFUSED"


class Embedder(Protocol):
    """`needs_text`: it can do nothing with a document that has no text."""

    @property
    def needs_text(self) -> bool: ...

    def embed(self, documents: Sequence[DocumentToEmbed]) -> F32Matrix:
        """A line per document, in their order. Raises EmbedFailed or EmbedRefused, nothing else. Blocks."""
        ...

    def close(self) -> None: ...


def matrix_of(vectors: object, documents: int, source: str) -> F32Matrix:
    """What an embedder gave, as a matrix of finite numbers with a line per document."""
    try:
        matrix = np.asarray(vectors, dtype=np.float32)
    except (TypeError, ValueError) as error:
        raise EmbedRefused(f"{source} gave something that is no matrix of numbers: {error}") from error
    if matrix.ndim != 2 or len(matrix) != documents:
        shape = " x ".join(map(str, matrix.shape)) or "a single number"
        raise EmbedRefused(f"{source} gave {shape}, must be a vector for each of {documents} documents")
    if not np.isfinite(matrix).all():
        raise EmbedRefused(f"{source} gave a vector with an element that is not finite")
    return matrix
