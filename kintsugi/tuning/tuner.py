"""THE STORY OF A TUNING: build, measure, compare, extrapolate, advise.

1. f32 is built first and kept: every other encoding is compared with it, side by side, in turns, so that whatever else
   the machine does slows both.
2. Each encoding is built once; only its oversampling varies. Its recall is that of the hits after exact rescoring.
3. When the sample is a part of the collection, each encoding is built again on a quarter of the sample: from how recall
   falls between the two, that of the whole collection is estimated.
4. The cheapest setting that meets the need is advised; when there is none, what comes nearest.

Equal inputs and seeds give equal recalls; times are those of this machine.
"""

import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from kintsugi.ann.spec import EncodingSpec
from kintsugi.tuning.extrapolation import Measured, estimate
from kintsugi.tuning.front import Setting
from kintsugi.tuning.grid import REFERENCE, oversamplings
from kintsugi.tuning.ground import Ground
from kintsugi.tuning.trial import Trial
from kintsugi.tuning.truth import Scores

REDUCED_SHARE = 0.25

_ROUNDS = 3
_ROUND_S = 0.15

_TERMINATED = "Operation has been terminated"

# Told what is being done, and how many of all the vectors that are to be indexed are.
Watch = Callable[[str, int], None]


@dataclass(frozen=True, slots=True)
class Recalls:
    """Of each query, by oversampling, on a ground of some size."""

    vectors: int
    by_oversampling: dict[float, Scores]

    def at(self, oversampling: float) -> Measured:
        return Measured.of(self.vectors, self.by_oversampling[oversampling])


def steps(ground: Ground, specs: Sequence[EncodingSpec]) -> int:
    """The vectors that a tuning indexes, for a progress bar."""
    share = 1.0 if ground.is_whole else 1.0 + REDUCED_SHARE
    return round(len(specs) * share * len(ground.vectors))


def measure(ground: Ground, specs: Sequence[EncodingSpec], seed: int, watch: Watch) -> list[Setting]:
    """Every encoding at every oversampling. The first is f32."""
    if not specs or specs[0] != REFERENCE:
        raise ValueError("the first encoding must be f32: the others are compared with it")
    reduced = None if ground.is_whole else ground.reduced(REDUCED_SHARE)
    settings: list[Setting] = []
    with interruptible(), tempfile.TemporaryDirectory(prefix="kintsugi-tune-") as name:
        folder = Path(name)
        smaller = [None if reduced is None else _recalls(reduced, spec, folder, seed, watch) for spec in specs]
        with Trial(ground, REFERENCE, folder, seed) as reference:
            seconds = reference.build(partial(watch, REFERENCE.name))
            settings += _settings(reference, reference, ground, smaller[0], seconds)
            for spec, small in zip(specs[1:], smaller[1:], strict=True):
                with Trial(ground, spec, folder, seed) as trial:
                    seconds = trial.build(partial(watch, spec.name))
                    settings += _settings(trial, reference, ground, small, seconds)
    return settings


@contextmanager
def interruptible() -> Iterator[None]:
    """Ctrl-C that ends a call of usearch comes out of it as an error of usearch's."""
    try:
        yield
    except RuntimeError as error:
        if _TERMINATED in str(error):
            raise KeyboardInterrupt from error
        raise


def _recalls(ground: Ground, spec: EncodingSpec, folder: Path, seed: int, watch: Watch) -> Recalls:
    with Trial(ground, spec, folder, seed) as trial:
        trial.build(partial(watch, f"{spec.name}, a part"))
        return _swept(trial, ground)


def _swept(trial: Trial, ground: Ground) -> Recalls:
    tried = oversamplings(trial.spec, trial.oversampling, ground.k, trial.breadth)
    return Recalls(ground.part_vectors, {one: trial.recalls(one) for one in tried})


def _settings(trial: Trial, reference: Trial, ground: Ground, smaller: Recalls | None, build_s: float) -> list[Setting]:
    swept, sizes = _swept(trial, ground), trial.sizes()
    settings = []
    for oversampling in swept.by_oversampling:
        before = None if smaller is None else smaller.at(oversampling)
        total = ground.part_vectors if ground.is_whole else ground.shard_vectors
        expected = estimate(swept.at(oversampling), before, total)
        settings.append(
            Setting(
                encoding=trial.spec,
                oversampling=oversampling,
                code_bytes=sizes.code,
                memory_bytes=sizes.memory,
                mapped_bytes=sizes.mapped,
                recall=expected.expected,
                recall_at_worst=expected.at_worst,
                throughput=_throughput(trial, reference, oversampling),
                build_s=build_s,
            )
        )
    return settings


def _throughput(trial: Trial, reference: Trial, oversampling: float) -> float:
    """Per that of the reference at its own oversampling: the median of rounds of both in turns."""
    ratios = [
        trial.queries_per_s(_ROUND_S, oversampling) / reference.queries_per_s(_ROUND_S, reference.oversampling)
        for _ in range(_ROUNDS)
    ]
    return float(np.median(ratios))
