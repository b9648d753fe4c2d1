"""The demo's embedding models: TF-IDF over words, and character n-grams or not, reduced by truncated SVD.

Trained on the corpus itself in seconds, deterministic, with no weights to download. Needs scikit-learn, which the extra
`demo` installs. Vectors are f32 of unit length. Knows nothing of the cluster.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from kintsugi.demo.corpus import Entry
from kintsugi.sdk.types import Model

Vectors: TypeAlias = npt.NDArray[np.float32]

DIMENSION = 128
MODEL = Model("words-128", DIMENSION, revision="1", normalised=True, pooling="sum")
# What the collection is upgraded to: a model of words and letters.
NEW_MODEL = Model("words-letters-256", 2 * DIMENSION, revision="1", normalised=True, pooling="sum")

_SEED = 7
_HUMP = re.compile(r"([a-z])([A-Z])")


class EmbeddingUnavailable(Exception):
    """scikit-learn is not installed; the message says how to get it."""


@dataclass(frozen=True, slots=True)
class Embedder:
    """A trained model: see train()."""

    features: Any
    reduction: Any

    def embed(self, texts: Sequence[str]) -> Vectors:
        """N texts to unit vectors. A text without any known word or letter sequence becomes the first axis."""
        reduced: Vectors = np.asarray(self.reduction.transform(self.features.transform(texts)), dtype=np.float32)
        # Damps the first axes, which hold what most docstrings share ("return", "object"): questions are short.
        reduced /= np.sqrt(self.reduction.singular_values_, dtype=np.float32)
        lengths = np.linalg.norm(reduced, axis=1, keepdims=True)
        unknown = lengths[:, 0] < 1e-6
        reduced[unknown, 0], lengths[unknown] = 1.0, 1.0
        reduced /= lengths
        return reduced


def train(texts: Sequence[str], dimension: int = DIMENSION, *, letters: bool = True, rounds: int = 4) -> Embedder:
    """Fits a model to the texts, of words and `letters`: character n-grams. `rounds` of the reduction: fewer are faster and
    less exact. Raises EmbeddingUnavailable without scikit-learn."""
    try:
        from sklearn.decomposition import TruncatedSVD  # noqa: PLC0415  (optional: the extra `demo`)
        from sklearn.feature_extraction.text import TfidfVectorizer  # noqa: PLC0415
        from sklearn.pipeline import FeatureUnion  # noqa: PLC0415
    except ImportError as error:
        raise EmbeddingUnavailable(
            "the demo embeds its documents with scikit-learn, which is not installed: "
            "pip install 'kintsugi-search[demo]'"
        ) from error
    words = TfidfVectorizer(stop_words="english", sublinear_tf=True, min_df=2, max_df=0.3, max_features=40_000)
    parts: list[tuple[str, Any]] = [("words", words)]
    if letters:
        ngrams = TfidfVectorizer(
            analyzer="char_wb", sublinear_tf=True, min_df=3, ngram_range=(3, 5), max_features=40_000
        )
        parts.append(("letters", ngrams))
    features = FeatureUnion(parts, transformer_weights={"letters": 0.25} if letters else None)
    reduction = TruncatedSVD(n_components=dimension, n_iter=rounds, random_state=_SEED)
    matrix = features.fit_transform(texts)
    reduction.fit(matrix)
    return Embedder(features, reduction)


def document_text(entry: Entry) -> str:
    """What is embedded of a document."""
    return text_of(entry.id, entry.text)


def text_of(doc_id: str, text: str) -> str:
    """The name, split into words, and the docstring."""
    words = _HUMP.sub(r"\1 \2", doc_id.replace(".", " ").replace("_", " "))
    return f"{words}\n{text}"
