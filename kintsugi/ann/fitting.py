"""Fits an encoding to a sample of the vectors that it will encode. Pure; equal inputs give equal encodings."""

import numpy as np

from kintsugi.ann.casts import Cast
from kintsugi.ann.elements import F32Matrix, F32Vector, prepare
from kintsugi.ann.encoding import Coder, Encoding, Fitted
from kintsugi.ann.int8 import Int8, calibrate
from kintsugi.ann.spec import EncodingKind, EncodingSpec, problem_of
from kintsugi.metrics import FloatArray, Metric

_FIT_QUANTILE = 0.99
# New vectors are a little further away than those that the fit saw.
_FIT_SLACK = 1.1


def fit(spec: EncodingSpec, metric: Metric, dimension: int, sample: FloatArray, total: int, seed: int = 0) -> Encoding:
    """An encoding for an index of about `total` vectors. ValueError for a specification that cannot be used for this
    metric or dimension, or leaves the choice open."""
    if problem := problem_of(spec, dimension):
        raise ValueError(f"encoding {spec.name}: {problem[0]} {problem[1]}, {problem[2]}")
    if spec.is_automatic:
        raise ValueError("encoding auto must be decided before it is fitted")
    if sample.ndim != 2 or sample.shape[1] != dimension:
        raise ValueError(f"sample has shape {sample.shape}, expected n x {dimension}")
    prepared = prepare(metric, sample)
    centre = _centre(metric, prepared)
    elements = prepared if centre is None else prepared - centre
    scan = calibrate(elements)
    coder = _coder(spec, elements, scan)
    return Encoding(
        spec=EncodingSpec(spec.kind, spec.bits, spec.prefix, spec.pca),
        metric=metric,
        dimension=dimension,
        coder=coder,
        oversampling=3.0,
        centre=centre,
        scan_coder=scan,
        fitted=Fitted(
            max(total, len(sample)), len(sample), _usual_error(coder, elements), _usual_error(scan, elements)
        ),
    )


def _centre(metric: Metric, prepared: F32Matrix) -> F32Vector | None:
    """Distances do not depend on where the origin is, but codes are finest around it."""
    if metric is not Metric.L2 or not len(prepared):
        return None
    return np.asarray(np.mean(prepared, axis=0, dtype=np.float64), dtype=np.float32)


def _coder(spec: EncodingSpec, elements: F32Matrix, scan: Int8) -> Coder:
    if spec.kind is EncodingKind.F32:
        return Cast("f32", elements.shape[1])
    return scan


def _usual_error(coder: Coder, elements: F32Matrix) -> float:
    if not len(elements):
        return float(np.finfo(np.float32).max)
    return _FIT_SLACK * float(np.quantile(coder.errors(elements), _FIT_QUANTILE))
