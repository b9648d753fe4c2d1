"""One encoding over one set, in a process of its own: so that its memory is what the process has more than before."""

import ctypes
import gc
import os
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from bench.embeddings import Embeddings
from bench.processes import memory
from kintsugi.ann.fitting import fit
from kintsugi.ann.spec import EncodingSpec
from kintsugi.tuning.trial import FIT_SAMPLE, Sizes, Trial

_WARM_UP = 2000


@dataclass(frozen=True, slots=True)
class Built:
    """`memory_bytes`: per vector, what the process cannot do without more than before, and extra codes, which lie in a
    mapped file but are read by every search. `oversampling`: the encoding's own."""

    build_s: float
    memory_bytes: float
    sizes: Sizes
    oversampling: float


class EncodingTrial:
    """Lives in a child process."""

    def __init__(self, embeddings: Embeddings, spec: EncodingSpec, seed: int) -> None:
        self._ground = embeddings.ground()
        self._folder = tempfile.TemporaryDirectory(prefix="kintsugi-bench-")
        self._trial = Trial(self._ground, spec, Path(self._folder.name), seed)

    def build(self) -> Built:
        self._warm_up()
        before = _anonymous_bytes()
        seconds = self._trial.build(lambda _done: None)
        grown = _anonymous_bytes() - before
        sizes = self._trial.sizes()
        return Built(seconds, grown / len(self._ground.vectors) + sizes.extra, sizes, self._trial.oversampling)

    def _warm_up(self) -> None:
        """Libraries take memory for themselves when they are first used, for a large fit more than for a small one."""
        dimension = self._ground.vectors.shape[1]
        fit(self._trial.spec, self._ground.metric, dimension, np.array(self._ground.vectors[:FIT_SAMPLE]), FIT_SAMPLE)
        ground = self._ground
        few = replace(
            ground, vectors=np.array(ground.vectors[:_WARM_UP]), parts=(np.arange(min(_WARM_UP, len(ground.vectors))),)
        )
        with tempfile.TemporaryDirectory() as folder, Trial(few, self._trial.spec, Path(folder)) as trial:
            trial.build(lambda _done: None)
            trial.recalls(trial.oversampling)

    def recalls(self, oversampling: float, in_order: bool) -> npt.NDArray[np.float64]:
        """Of each query; see Trial.answers."""
        return self._trial.recalls(oversampling, in_order=in_order)

    def queries_per_s(self, seconds: float, oversampling: float) -> float:
        return self._trial.queries_per_s(seconds, oversampling)

    def leave(self) -> None:
        """Removes the files."""
        self._trial.close()
        self._folder.cleanup()


def _anonymous_bytes() -> int:
    """Without what the allocator keeps for later."""
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)
    return memory(os.getpid()).anonymous_bytes
