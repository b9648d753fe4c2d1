"""A model of what a search costs one caller when it must ask more shards, and of growth as a power of size. Pure.

    latency(n) = fixed + n x per shard + searching(n)

`fixed`: the client, the network and what the coordinator does once. `per shard`: what the coordinator does for each
shard it asks. `searching(n)`: until the slowest core has answered, of so many cores over which n shards are spread; the
shards of one core search one after the other, so that a core takes the sum of their times. The first two are solved
from the latencies with one and two shards.

Assumptions: shards hold equally many vectors; the times of one search in different shards are independent, and are
distributed as measured with one shard; whatever varies between searches of one shard is that shard's; while shards
search, client and coordinator wait. With shards on cores of their own, what they wait for each other on shared cores
would vanish; what of it is inside `per shard` stays there, so that predictions are rather too high.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

F64 = npt.NDArray[np.float64]

_DRAWS = 20_000
_SEED = 1


def service_times_ms(latencies_ms: F64, cpu_ms: float) -> F64:
    """Of the searches of one shard, from whole latencies with one shard: what a shard server's CPU takes of a search, and
    around it the scatter of the latencies."""
    return np.maximum(0.0, latencies_ms - np.median(latencies_ms) + cpu_ms)


def searching_ms(services_ms: F64, shards: int, cores: int) -> float:
    """The median time until the last of so many cores is done, when shard n searches on core n modulo cores."""
    drawn = np.random.default_rng(_SEED).choice(services_ms, (_DRAWS, shards))
    of_core = [drawn[:, core::cores].sum(axis=1) for core in range(min(cores, shards))]
    return float(np.median(np.max(of_core, axis=0)))


@dataclass(frozen=True, slots=True)
class FanOut:
    """The fitted model."""

    fixed_ms: float
    per_shard_ms: float
    services_ms: F64

    @classmethod
    def fit(cls, one_ms: float, two_ms: float, services_ms: F64, cores: int) -> "FanOut":
        """From the median latencies with one and two shards. A second shard that seems to cost nothing costs nothing:
        else many shards would seem faster than one."""
        alone, both = one_ms - searching_ms(services_ms, 1, cores), two_ms - searching_ms(services_ms, 2, cores)
        per_shard = max(0.0, both - alone)
        return cls(alone - per_shard, per_shard, services_ms)

    def latency_ms(self, shards: int, cores: int) -> float:
        return self.fixed_ms + shards * self.per_shard_ms + searching_ms(self.services_ms, shards, cores)


def exponent(sizes: Sequence[float], values: Sequence[float]) -> float:
    """b of a x size^b, by least squares over logarithms. Raises ValueError for fewer than two sizes."""
    if len(set(sizes)) < 2:
        raise ValueError(f"sizes has {len(set(sizes))} different sizes, must have at least 2")
    return float(np.polyfit(np.log(sizes), np.log(values), 1)[0])
