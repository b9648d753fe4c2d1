"""Names an encoding with its parameters: what a collection asks for, what an index version says it is. Pure.

The written form is the kind, then its parameters: `i8`, `recurrent-2`, `binary+prefix-256`, `i8+pca-96`. Oversampling is
no part of it: it changes how an index is searched, not how it is built.
"""

import re
from enum import StrEnum

import msgspec

from kintsugi.metrics import Metric

MIN_BITS, MAX_BITS = 2, 4
MIN_REDUCED = 8
# Of the matrix of principal components: 24 MiB of the 32 that an encoding may take.
MAX_COMPONENT_ELEMENTS = 12 * 2**20

_NAME = re.compile(r"(?P<kind>[a-z0-9]+?)(?:-(?P<bits>\d+))?(?:\+prefix-(?P<prefix>\d+)|\+pca-(?P<pca>\d+))?")


class EncodingKind(StrEnum):
    # Chosen by the size of the index: f32 when small, else i8.
    AUTOMATIC = "auto"
    F32 = "f32"
    F16 = "f16"
    BF16 = "bf16"
    E4M3 = "e4m3"
    I8 = "i8"
    BINARY = "binary"
    RECURRENT = "recurrent"


# Kinds that keep directions only.
SIGNS = frozenset({EncodingKind.BINARY, EncodingKind.RECURRENT})


class EncodingSpec(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`bits` per element, with RECURRENT only. `prefix`: the first elements that are encoded; `pca`: the principal components
    that are; 0 for all elements as they are. `oversampling`: default candidates per hit, 0 for the encoding's own."""

    kind: EncodingKind = EncodingKind.AUTOMATIC
    bits: int = 0
    prefix: int = 0
    pca: int = 0
    oversampling: float = 0.0

    @property
    def name(self) -> str:
        """The written form, without the oversampling."""
        bits = f"-{self.bits}" if self.bits else ""
        reduction = f"+prefix-{self.prefix}" if self.prefix else f"+pca-{self.pca}" if self.pca else ""
        return f"{self.kind}{bits}{reduction}"

    @property
    def is_automatic(self) -> bool:
        return self.kind is EncodingKind.AUTOMATIC


AUTOMATIC = EncodingSpec()


def parse_name(name: str) -> EncodingSpec:
    """Inverts EncodingSpec.name; `recurrent` alone means two bits. Raises ValueError that says what is wrong with it."""
    match = _NAME.fullmatch(name)
    if match is None or match["kind"] not in list(EncodingKind):
        kinds = ", ".join(EncodingKind)
        raise ValueError(f"encoding {name!r} is not one of {kinds}, with +prefix-N or +pca-N behind it if wanted")
    kind = EncodingKind(match["kind"])
    bits = int(match["bits"] or (MIN_BITS if kind is EncodingKind.RECURRENT else 0))
    spec = EncodingSpec(kind, bits, int(match["prefix"] or 0), int(match["pca"] or 0))
    if problem := problem_of(spec):
        raise ValueError(f"encoding {name!r}: {problem[0]} {problem[1]}, {problem[2]}")
    return spec


def problem_of(
    spec: EncodingSpec, dimension: int | None = None, metric: Metric | None = None
) -> tuple[str, str, str] | None:
    """What is wrong with a specification, as (field, what it is, what it must be); None when nothing is."""
    if spec.is_automatic:
        given = spec.bits or spec.prefix or spec.pca or spec.oversampling
        return ("kind", "is not set", "must be set when another field is") if given else None
    if metric is Metric.L2 and spec.kind in SIGNS:
        return "kind", f"is {spec.kind}", f"must be another one with metric {metric}"
    return _problem_of_bits(spec) or _problem_of_reduction(spec, dimension)


def _problem_of_bits(spec: EncodingSpec) -> tuple[str, str, str] | None:
    if spec.kind is EncodingKind.RECURRENT:
        if not MIN_BITS <= spec.bits <= MAX_BITS:
            return "bits", f"is {spec.bits}", f"must be {MIN_BITS} to {MAX_BITS}"
    elif spec.bits:
        return "bits", f"is {spec.bits}", f"must be 0 with encoding {spec.kind}"
    return None


def _problem_of_reduction(spec: EncodingSpec, dimension: int | None) -> tuple[str, str, str] | None:
    if spec.prefix and spec.pca:
        return "pca", f"is {spec.pca}", "must be 0 when prefix is set"
    most = dimension
    if spec.pca and dimension is not None:
        most = min(dimension, MAX_COMPONENT_ELEMENTS // dimension)
    for field, value in (("prefix", spec.prefix), ("pca", spec.pca)):
        if value and (value < MIN_REDUCED or (most is not None and value > most)):
            bound = f" to {most}" if most is not None else " or more"
            return field, f"is {value}", f"must be {MIN_REDUCED}{bound}"
    return None
