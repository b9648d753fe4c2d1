"""The encodings and oversamplings that are worth measuring for vectors of some dimension. Pure."""

from kintsugi import limits
from kintsugi.ann.spec import EncodingKind, EncodingSpec, problem_of

REFERENCE = EncodingSpec(EncodingKind.F32)
# Kinds that lose little: a few candidates per hit do, and more of them mostly make up for what the graph loses.
_FINE = (1.0, 2.0, 3.0, 5.0, 10.0, 20.0, 40.0)
_COARSE = (2.0, 5.0, 10.0, 20.0, 30.0, 50.0, 100.0)
_COARSE_KINDS = (EncodingKind.BINARY, EncodingKind.RECURRENT)


def encodings(dimension: int) -> list[EncodingSpec]:
    """The reference first."""
    kind = EncodingKind
    half, quarter = dimension // 2, dimension // 4
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
    return [spec for spec in listed if not _reduced(spec) or problem_of(spec, dimension) is None]


def _reduced(spec: EncodingSpec) -> bool:
    return bool(spec.prefix or spec.pca)


def oversamplings(spec: EncodingSpec, k: int) -> list[float]:
    """Those that a search for k hits may ask for."""
    tried = _COARSE if spec.kind in _COARSE_KINDS or _reduced(spec) else _FINE
    return [one for one in tried if one * k <= limits.MAX_CANDIDATES]
