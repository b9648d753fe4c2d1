"""Which settings are worth looking at, and which of them to take. Pure.

A setting costs memory and time and gives recall. The front holds those that no other beats: nothing is at least as good
in all three and better in one. Throughput is measured, so it counts only beyond its noise.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from kintsugi.ann.spec import EncodingSpec

# Ratios of throughput closer than this are one and the same, and so are recalls: a handful of neighbours.
_SAME_THROUGHPUT = 0.1
_SAME_RECALL = 0.0005


@dataclass(frozen=True, slots=True)
class Setting:
    """An encoding at one oversampling, as measured. Bytes are per vector: `code_bytes` in memory, `memory_bytes` with the
    graph around them, `mapped_bytes` codes in files that the kernel may drop from memory. `recall` is what the whole
    collection is expected to have, `recall_at_worst` what a setting is judged by; see extrapolation.py. `throughput`
    is per that of f32 at its default oversampling."""

    encoding: EncodingSpec
    oversampling: float
    code_bytes: float
    memory_bytes: float
    mapped_bytes: float
    recall: float
    recall_at_worst: float
    throughput: float
    build_s: float

    @property
    def name(self) -> str:
        return f"{self.encoding.name} x {self.oversampling:g}"


@dataclass(frozen=True, slots=True)
class Need:
    """What is asked for. `memory_bytes` per vector, None for any; `recall` and `throughput` at least."""

    recall: float
    memory_bytes: float | None = None
    throughput: float = 0.0

    def affords(self, setting: Setting) -> bool:
        return self.memory_bytes is None or setting.memory_bytes <= self.memory_bytes

    def is_met_by(self, setting: Setting) -> bool:
        good = setting.recall_at_worst >= self.recall and setting.throughput >= self.throughput
        return good and self.affords(setting)


@dataclass(frozen=True, slots=True)
class Advice:
    """`chosen` is the cheapest setting that meets the need, None when there is none. Then `best_in_memory` is the
    highest recall that the memory affords, and `cheapest_good` the least memory that recall and throughput take; either
    is None when there is none."""

    chosen: Setting | None
    best_in_memory: Setting | None
    cheapest_good: Setting | None


def front(settings: Iterable[Setting]) -> list[Setting]:
    """The settings that no other beats, in the order of their memory."""
    kept: list[Setting] = []
    for setting in sorted(settings, key=lambda one: (one.memory_bytes, -one.recall, -one.throughput)):
        if not any(_beats(other, setting) for other in kept):
            kept.append(setting)
    return kept


def _beats(one: Setting, other: Setting) -> bool:
    """Whether `one`, which needs no more memory, is no worse beyond noise."""
    return (
        one.memory_bytes <= other.memory_bytes
        and one.recall >= other.recall - _SAME_RECALL
        and one.throughput >= other.throughput * (1 - _SAME_THROUGHPUT)
    )


def advise(settings: Sequence[Setting], need: Need) -> Advice:
    meeting = [setting for setting in settings if need.is_met_by(setting)]
    good = Need(need.recall, None, need.throughput)
    return Advice(
        chosen=min(meeting, key=_price, default=None),
        best_in_memory=max(
            filter(need.affords, settings), key=lambda one: (one.recall_at_worst, one.throughput), default=None
        ),
        cheapest_good=min(filter(good.is_met_by, settings), key=_price, default=None),
    )


def _price(setting: Setting) -> tuple[float, float]:
    """Memory first; among oversamplings of one encoding the fastest."""
    return setting.memory_bytes, -setting.throughput
