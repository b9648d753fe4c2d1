"""The demo's embedding model."""

import sys

import numpy as np
import pytest

from kintsugi.demo import corpus, embed


@pytest.fixture(scope="module")
def entries():
    return corpus.load()[::4]


@pytest.fixture(scope="module")
def texts(entries):
    return [embed.document_text(entry) for entry in entries]


@pytest.fixture(scope="module")
def embedder(texts):
    return embed.train(texts)


def test_vectors_are_f32_of_unit_length(embedder, texts):
    """Every document gets a vector of the model's dimension and of length one."""
    vectors = embedder.embed(texts)
    assert vectors.dtype == np.float32
    assert vectors.shape == (len(texts), embed.DIMENSION)
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)


def test_training_twice_gives_the_same_vectors(embedder, texts):
    """The model is a function of its texts."""
    np.testing.assert_allclose(embed.train(texts).embed(texts[:50]), embedder.embed(texts[:50]), atol=1e-5)


def test_a_text_without_known_words_still_gets_a_unit_vector(embedder):
    """No vector is zero, which cosine would refuse."""
    assert np.linalg.norm(embedder.embed(["", "☃"]), axis=1) == pytest.approx([1, 1])


def test_a_question_finds_documents_about_it(embedder, entries, texts):
    """The documents nearest to a question about regular expressions are about them."""
    scores = embedder.embed(texts) @ embedder.embed(["match a regular expression against text"])[0]
    best = [entries[i] for i in np.argsort(-scores)[:5]]
    assert any("regular expression" in entry.text or entry.module == "re" for entry in best)


def test_without_scikit_learn_the_error_names_the_extra(monkeypatch):
    """A missing scikit-learn is said in words, with the command that installs it."""
    monkeypatch.setitem(sys.modules, "sklearn.decomposition", None)
    with pytest.raises(embed.EmbeddingUnavailable, match=r"kintsugi-search\[demo\]"):
        embed.train(["a text"])
