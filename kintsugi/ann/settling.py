"""How many candidates are scored exactly, when they come in the order of their supposed scores. Pure.

Some are scored, then twice as many, for as long as one of the best k, or of the best ten, is in the second half. How far
that order can be trusted is thus seen from itself: if it told nothing, ten hits would all be in the first half once in a
thousand times.
"""

from math import ceil

import numpy as np
import numpy.typing as npt

# Of fewer hits, the places tell too little about the order of all candidates.
_TELLING = 10
_FIRST_PER_HIT = 2.5


def telling(k: int) -> int:
    """Of how many hits the places are looked at."""
    return max(k, _TELLING)


def first_scored(k: int) -> int:
    """How many candidates are scored before their order is judged."""
    return ceil(_FIRST_PER_HIT * telling(k))


def is_unsettled(scores: npt.NDArray[np.float64], k: int) -> bool:
    """Whether one of the telling hits is in the second half of what was scored, in the order of supposed scores."""
    count, hits = len(scores), telling(k)
    if count <= hits:
        return True
    least = np.partition(scores, count - hits)[count - hits]
    return bool(scores[-(count // 2) :].max() >= least)
