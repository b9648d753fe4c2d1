"""How well codes of signs alone rank documents: every document is compared with the query by its codes, without a graph.

The recall is that of exact rescoring of the best k x oversampling by codes: at one oversampling, all encodings pay for the
same number of exact scores.
"""

import numpy as np
import numpy.typing as npt
from numkong import cdist

from kintsugi.ann.encoding import Encoding
from kintsugi.ann.fitting import fit
from kintsugi.ann.recurrent import Recurrent
from kintsugi.ann.spec import EncodingSpec, parse_name
from kintsugi.tuning.ground import Ground
from kintsugi.tuning.trial import FIT_SAMPLE

SPECS = tuple(parse_name(name) for name in ("binary", "recurrent-2", "recurrent-3", "recurrent-4"))
OVERSAMPLINGS = (1.0, 2.0, 3.0, 5.0, 10.0, 30.0)

_QUERIES = 300
_BLOCK = 20_000


def recalls(ground: Ground, spec: EncodingSpec, seed: int) -> dict[str, float]:
    """By oversampling."""
    count, dimension = ground.vectors.shape
    chosen = np.random.default_rng(seed).permutation(count)[:FIT_SAMPLE]
    encoding = fit(spec, ground.metric, dimension, ground.vectors[chosen], count, seed)
    queries = ground.queries[:_QUERIES]
    nearness = _recurrent_nearness if isinstance(encoding.coder, Recurrent) else _sign_nearness
    values = np.concatenate(
        [
            nearness(encoding, queries, np.asarray(ground.vectors[start : start + _BLOCK]))
            for start in range(0, count, _BLOCK)
        ],
        axis=1,
    )
    most = min(count, round(max(OVERSAMPLINGS) * ground.k))
    found = {f"{tried:g}": 0 for tried in OVERSAMPLINGS}
    for of_query, truth in zip(values, ground.truth.rows, strict=False):
        best = np.argpartition(-of_query, most - 1)[:most]
        ranked = best[np.argsort(-of_query[best], kind="stable")]
        for tried in OVERSAMPLINGS:
            found[f"{tried:g}"] += len(np.intersect1d(ranked[: round(tried * ground.k)], truth))
    return {tried: hits / (len(queries) * ground.k) for tried, hits in found.items()}


def _sign_nearness(
    encoding: Encoding, queries: npt.NDArray[np.float32], vectors: npt.NDArray[np.float32]
) -> npt.NDArray[np.float32]:
    distances = cdist(encoding.encode_queries(queries), encoding.encode(vectors), "hamming", dtype="uint1")
    return -np.asarray(distances, dtype=np.float32)


def _recurrent_nearness(
    encoding: Encoding, queries: npt.NDArray[np.float32], vectors: npt.NDArray[np.float32]
) -> npt.NDArray[np.float32]:
    coder = encoding.coder
    assert isinstance(coder, Recurrent)
    rows = coder.assembled(encoding.encode(vectors), encoding.extra_codes(vectors))
    of_queries = encoding.planes_of_queries(queries)
    nearness = [coder.nearness(of_queries, query, rows, 0, len(vectors)) for query in range(len(queries))]
    return np.asarray(nearness, dtype=np.float32)
