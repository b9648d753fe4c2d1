"""Fits an encoding to a sample of the vectors that it will encode. Pure; equal inputs give equal encodings."""

import numpy as np

from kintsugi.ann.binary import Binary
from kintsugi.ann.casts import CastType, fit_cast
from kintsugi.ann.elements import F32Matrix, F32Vector, prepare
from kintsugi.ann.encoding import Coder, Encoding, Fitted, reduced, reduction_errors
from kintsugi.ann.int8 import calibrate, evened
from kintsugi.ann.oversampling import usual_oversampling
from kintsugi.ann.recurrent import Recurrent
from kintsugi.ann.reduction import Prefix, Reduction, fit_components
from kintsugi.ann.sign_space import fit_sign_space
from kintsugi.ann.spec import EncodingKind, EncodingSpec, problem_of
from kintsugi.metrics import FloatArray, Metric

_FIT_QUANTILE = 0.99
# New vectors are a little further away than those that the fit saw.
_FIT_SLACK = 1.1
_CASTS: dict[EncodingKind, CastType] = {
    EncodingKind.F32: "f32",
    EncodingKind.F16: "f16",
    EncodingKind.BF16: "bf16",
    EncodingKind.E4M3: "e4m3",
}


def fit(spec: EncodingSpec, metric: Metric, dimension: int, sample: FloatArray, total: int, seed: int = 0) -> Encoding:
    """An encoding for an index of about `total` vectors. ValueError for a specification that cannot be used for this
    metric or dimension, or leaves the choice open."""
    if problem := problem_of(spec, dimension, metric):
        raise ValueError(f"encoding {spec.name}: {problem[0]} {problem[1]}, {problem[2]}")
    if sample.ndim != 2 or sample.shape[1] != dimension:
        raise ValueError(f"sample has shape {sample.shape}, expected n x {dimension}")
    random = np.random.default_rng(seed)
    prepared = prepare(metric, sample)
    centre = _centre(metric, prepared)
    centred = prepared if centre is None else prepared - centre
    scan = calibrate(metric, centred)
    reduction = _reduction(spec, centred, random)
    elements = reduced(metric, reduction, centred)
    is_scan = spec.kind is EncodingKind.I8 and reduction is None
    coder = evened(metric, scan, elements) if is_scan else _coder(spec, metric, elements, random)
    return Encoding(
        spec=EncodingSpec(spec.kind, spec.bits, spec.prefix, spec.pca),
        metric=metric,
        dimension=dimension,
        coder=coder,
        oversampling=usual_oversampling(spec, dimension),
        reduction=reduction,
        centre=centre,
        scan_coder=scan,
        fitted=Fitted(
            vectors=max(total, len(sample)),
            sample_vectors=len(sample),
            reduction_error=_usual(reduction_errors(centred, reduced(Metric.DOT, reduction, centred))),
            coding_error=_usual(coder.errors(elements)),
            scan_error=_usual(scan.errors(centred)),
        ),
    )


def _centre(metric: Metric, prepared: F32Matrix) -> F32Vector | None:
    """Distances do not depend on where the origin is, but codes are finest around it."""
    if metric is not Metric.L2 or not len(prepared):
        return None
    return np.asarray(np.mean(prepared, axis=0, dtype=np.float64), dtype=np.float32)


def _reduction(spec: EncodingSpec, elements: F32Matrix, random: np.random.Generator) -> Reduction | None:
    if spec.pca:
        return fit_components(elements, spec.pca, random)
    return Prefix(spec.prefix) if spec.prefix else None


def _coder(spec: EncodingSpec, metric: Metric, elements: F32Matrix, random: np.random.Generator) -> Coder:
    match spec.kind:
        case EncodingKind.I8:
            return evened(metric, calibrate(metric, elements), elements)
        case EncodingKind.BINARY:
            return Binary(fit_sign_space(metric, elements, random))
        case EncodingKind.RECURRENT:
            return Recurrent(fit_sign_space(metric, elements, random), spec.bits)
        case EncodingKind.F32 | EncodingKind.F16 | EncodingKind.BF16 | EncodingKind.E4M3:
            return fit_cast(_CASTS[spec.kind], metric, elements)
        case EncodingKind.AUTOMATIC:
            raise ValueError("encoding auto must be decided before it is fitted")


def _usual(errors: F32Vector) -> float:
    return _FIT_SLACK * float(np.quantile(errors, _FIT_QUANTILE)) if len(errors) else float(np.finfo(np.float32).max)
