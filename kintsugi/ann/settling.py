"""How many candidates are scored exactly, when they come in the order of their supposed scores. Pure.

Some are scored, then twice as many, for as long as the best of them lie too far down in that order. How far it can be trusted
is thus seen from itself. If it told nothing, the ten best of the first twenty would all be among the first twelve once in 2800
times; of more, the fifteen best would be in the first half even more seldom.
"""

from math import ceil

import numpy as np
import numpy.typing as npt

# Of fewer hits, the places tell too little about the order of all candidates.
_TELLING = 10
_FIRST_PER_HIT = 2
# Where the hits must lie: at first, and once the order has turned out to be vague.
_FIRST_PART, _LATER_PART = 0.6, 0.5
_LATER_HITS = 1.5


def telling(k: int) -> int:
    """Of how many hits the places are looked at."""
    return max(k, _TELLING)


def first_scored(k: int) -> int:
    """How many candidates are scored before their order is judged."""
    return _FIRST_PER_HIT * telling(k)


def is_unsettled(scores: npt.NDArray[np.float64], k: int, order: npt.NDArray[np.intp] | None = None) -> bool:
    """Whether hits lie too far down in what was scored, given in the order of supposed scores. `order` is that of the
    scores, best first, when the caller has it."""
    count, hits, part = len(scores), telling(k), _FIRST_PART
    if count > first_scored(k):
        hits, part = ceil(_LATER_HITS * hits), _LATER_PART
    if count <= hits:
        return True
    least = scores[(np.argsort(-scores) if order is None else order)[hits - 1]]
    return bool(scores[int(part * count) :].max() >= least)
