"""The encodings and oversamplings that are worth measuring for vectors of some dimension. Pure."""

from kintsugi import limits
from kintsugi.ann.spec import EncodingKind, EncodingSpec, problem_of
from kintsugi.metrics import Metric

REFERENCE = EncodingSpec(EncodingKind.F32)
# A search looks at some candidates anyway, so that only more of them make a difference: in fine codes to what the graph
# loses, in coarse ones to what the codes do.
_FINE = (20.0, 40.0)
_COARSE = (20.0, 30.0, 50.0, 100.0)
_COARSE_KINDS = (EncodingKind.BINARY, EncodingKind.RECURRENT)


def encodings(dimension: int, metric: Metric) -> list[EncodingSpec]:
    """The reference first."""
    kind = EncodingKind
    # Of few dimensions less than the least that may be left is too little, which makes these no encodings of their own.
    half, quarter = max(1, dimension // 2), max(1, dimension // 4)
    listed = [
        REFERENCE,
        *(EncodingSpec(one) for one in (kind.F16, kind.BF16, kind.E4M3, kind.I8)),
        EncodingSpec(kind.I8, prefix=half),
        EncodingSpec(kind.I8, pca=half),
        EncodingSpec(kind.I8, pca=quarter),
        *(EncodingSpec(kind.RECURRENT, bits=bits) for bits in (4, 3, 2)),
        EncodingSpec(kind.RECURRENT, bits=2, pca=half),
        EncodingSpec(kind.BINARY),
        EncodingSpec(kind.BINARY, pca=half),
    ]
    return [spec for spec in listed if problem_of(spec, dimension, metric) is None]


def _reduced(spec: EncodingSpec) -> bool:
    return bool(spec.prefix or spec.pca)


def oversamplings(spec: EncodingSpec, own: float, k: int, breadth: int) -> list[float]:
    """Those worth measuring for k hits: the encoding's own, and those that ask for more candidates than both it and the
    `breadth` of the graph's search do."""
    tried = _COARSE if spec.kind in _COARSE_KINDS or _reduced(spec) else _FINE
    asked_anyway = max(own * k, breadth)
    return [own, *(one for one in tried if asked_anyway < one * k <= limits.MAX_CANDIDATES)]
