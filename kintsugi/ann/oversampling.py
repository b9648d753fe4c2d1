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
# What a part of the elements tells loses more than in proportion to what is left out. Prefixes lose more than components,
# except of models that were trained for them.
_PREFIX, _COMPONENTS, _STEEPNESS = 2.0, 1.25, 1.5
_MOST = 60.0


def usual_oversampling(spec: EncodingSpec, dimension: int) -> float:
    of_kind = _BY_KIND[spec.kind]
    if not spec.prefix and not spec.pca:
        return of_kind
    factor = _PREFIX if spec.prefix else _COMPONENTS
    left_out: float = (dimension / (spec.prefix or spec.pca)) ** _STEEPNESS
    return min(_MOST, round(of_kind * factor * left_out, 1))
