"""How many candidates per hit make up for what an encoding loses: the defaults, from measured recall. Pure.

What was measured, with exact rescoring and without a graph, stands in decision 20.
"""

from kintsugi.ann.encoding import OVERSAMPLING_F32
from kintsugi.ann.spec import EncodingKind, EncodingSpec

_BY_KIND = {
    EncodingKind.F32: OVERSAMPLING_F32,
    EncodingKind.F16: 2.0,
    EncodingKind.BF16: 2.0,
    EncodingKind.E4M3: 3.0,
    EncodingKind.I8: 3.0,
    EncodingKind.BINARY: 50.0,
    # After the extra codes have chosen among eight times as many.
    EncodingKind.RECURRENT: 6.0,
}
_MOST = 60.0


def usual_oversampling(spec: EncodingSpec, dimension: int) -> float:
    of_kind = _BY_KIND[spec.kind]
    if spec.prefix:
        return min(_MOST, of_kind * 2.0 * dimension / spec.prefix)
    if spec.pca:
        return min(_MOST, of_kind * 1.5 * dimension / spec.pca)
    return of_kind
