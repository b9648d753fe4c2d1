"""Vectors that are like embeddings, and what is found of their true neighbours."""

import numpy as np

from kintsugi.metrics import scores


def bent(count, dimension, seed=0, *, mean=0.3, intrinsic=12):
    """Unit vectors around a subspace bent away from the origin. Whatever the seed, they are of one distribution."""
    shape = np.random.default_rng(77)
    directions = shape.standard_normal((intrinsic, dimension)) / np.sqrt(np.arange(1, intrinsic + 1))[:, np.newaxis]
    middle = mean * np.sqrt(intrinsic) * shape.standard_normal(dimension)
    random = np.random.default_rng(seed)
    inside = random.standard_normal((count, intrinsic)) @ directions
    made = inside + middle + 0.3 * random.standard_normal((count, dimension))
    return (made / np.linalg.norm(made, axis=1, keepdims=True)).astype(np.float32)


def truth(metric, vectors, queries, k=10):
    """The rows of the k best of each query."""
    return [set(np.argsort(-scores(metric, query, vectors), kind="stable")[:k].tolist()) for query in queries]


def recall_at_10(expected, found):
    """The part of the true best that is among the rows found."""
    return float(
        np.mean([len(best & {int(row) for row in rows}) / 10 for best, rows in zip(expected, found, strict=True)])
    )
