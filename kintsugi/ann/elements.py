"""The elements that codes are made of. Pure."""

import numpy as np
import numpy.typing as npt

from kintsugi.metrics import FloatArray, Metric

F32Matrix = npt.NDArray[np.float32]
F32Vector = npt.NDArray[np.float32]


def unit(elements: F32Matrix) -> F32Matrix:
    """Scales each row to length 1; rows of zeros stay."""
    # In float64, since the squares of large f32 elements overflow.
    lengths = np.sqrt(np.einsum("ij,ij->i", elements, elements, dtype=np.float64))
    lengths[lengths == 0.0] = 1.0
    return np.asarray(elements / lengths[:, np.newaxis], dtype=np.float32)


def prepare(metric: Metric, vectors: FloatArray) -> F32Matrix:
    """Stored vectors as f32 in C order: normalised for cosine, as they are otherwise."""
    elements = np.ascontiguousarray(vectors, dtype=np.float32)
    return unit(elements) if metric is Metric.COSINE else elements


def even_queries(prepared: F32Matrix) -> F32Matrix:
    """Scales each query so that its largest element is 1, for measures whose order does not depend on its length: a
    query far shorter or longer than the documents would else be left with a few distinct codes."""
    largest = np.max(np.abs(prepared), axis=1, keepdims=True, initial=0.0).astype(np.float64)
    largest[largest == 0.0] = 1.0
    return np.asarray(prepared / largest, dtype=np.float32)


def relative_errors(elements: F32Matrix, coded: F32Matrix) -> F32Vector:
    """For each row how far what its code stands for is from it, in parts of its length."""
    difference = elements - coded
    squares = np.einsum("ij,ij->i", difference, difference, dtype=np.float64)
    lengths = np.einsum("ij,ij->i", elements, elements, dtype=np.float64)
    lengths[lengths == 0.0] = 1.0
    return np.asarray(np.sqrt(squares / lengths), dtype=np.float32)
