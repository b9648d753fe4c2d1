"""What `python -m bench growth` leaves behind, and its tables. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from bench.fan_out import FanOut, exponent, service_times_ms
from bench.origin import Origin, columns
from bench.statistics import Spread, spread

# As good as the targets ask.
GOOD_RECALL = 0.99
PREDICTED = (8, 16, 64)
ERROR_TARGET = 0.25


@dataclass(frozen=True, slots=True)
class Plan:
    """The command line documents each of these."""

    dimension: int
    sizes: tuple[int, ...]
    shards: tuple[int, ...]
    per_shard: int
    k: int
    rounds: int
    seconds: float
    warmup_s: float
    seed: int


@dataclass(frozen=True, slots=True)
class Window:
    """One round of one collection. CPU is per query, that of shard servers their mean; `search_ms` is what a shard's
    search thread takes of a query."""

    p50_ms: float
    p99_ms: float
    recall: float
    shard_cpu_ms: float
    coordinator_cpu_ms: float
    search_ms: float
    cores_elsewhere: float
    errors: int


@dataclass(frozen=True, slots=True)
class Grown:
    """A collection with its rounds. `oversampling` None: that of the encoding was good enough."""

    vectors_per_shard: int
    shards: int
    oversampling: float | None
    windows: list[Window]

    def of(self, name: str) -> Spread:
        return spread([getattr(one, name) for one in self.windows])


@dataclass(frozen=True, slots=True)
class Prediction:
    shards: int
    cores: int
    p50_ms: float


@dataclass(frozen=True, slots=True)
class Model:
    """Fitted on one and two shards. `error` is what it predicts for the most shards measured, per what was measured, less
    one: round by round, fitted on the same round."""

    cores: int
    fixed_ms: float
    per_shard_ms: float
    service_ms: Spread
    here: list[Prediction]
    apart: list[Prediction]
    error: Spread | None


@dataclass(slots=True)
class GrowthReport:
    origin: Origin
    plan: Plan
    sizes: list[Grown] = field(default_factory=list)
    fan_out: list[Grown] = field(default_factory=list)
    p50_exponent: float = 0.0
    search_exponent: float = 0.0
    model: Model | None = None


def exponents(sizes: Sequence[Grown]) -> tuple[float, float]:
    """Of the whole p50, and of the time in the shard's search thread."""
    counts = [one.vectors_per_shard for one in sizes]
    p50, search = ([one.of(name).median for one in sizes] for name in ("p50_ms", "search_ms"))
    return exponent(counts, p50), exponent(counts, search)


def fitted(fan_out: Sequence[Grown], latencies_ms: Sequence[np.ndarray], cores: int) -> Model:
    """`latencies_ms`: of the searches of one shard, round by round."""
    by_shards = {one.shards: one for one in fan_out}
    one, two, most = by_shards[1], by_shards[2], by_shards[max(by_shards)]

    def fit(rounds: slice) -> FanOut:
        cpu_ms, first, second = (
            float(np.median([getattr(window, name) for window in grown.windows[rounds]]))
            for grown, name in ((one, "shard_cpu_ms"), (one, "p50_ms"), (two, "p50_ms"))
        )
        return FanOut.fit(first, second, service_times_ms(np.concatenate(latencies_ms[rounds]), cpu_ms), cores)

    model = fit(slice(None))
    errors = [
        fit(slice(number, number + 1)).latency_ms(most.shards, cores) / window.p50_ms - 1
        for number, window in enumerate(most.windows)
    ]
    services = model.services_ms
    return Model(
        cores=cores,
        fixed_ms=model.fixed_ms,
        per_shard_ms=model.per_shard_ms,
        service_ms=Spread(float(np.median(services)), *(float(np.percentile(services, part)) for part in (5, 95))),
        here=[Prediction(shards, cores, model.latency_ms(shards, cores)) for shards in sorted(by_shards)],
        apart=[
            Prediction(shards, shards, model.latency_ms(shards, shards)) for shards in (*sorted(by_shards), *PREDICTED)
        ],
        error=spread(errors) if most.shards > 2 else None,
    )


def markdown(report: GrowthReport) -> str:
    plan = report.plan
    parts = [
        (
            f"{report.origin.heading}\n\n"
            f"Generated vectors of {plan.dimension} dimensions, cosine, k {plan.k}, one caller, {plan.rounds} rounds in turns: "
            "medians (lowest..highest)."
        ),
        "## Size of one shard",
        _measured(report.sizes),
        (
            f"p50 grows with the size to the power of **{report.p50_exponent:.3f}**, the time in the shard's search thread to "
            f"that of {report.search_exponent:.3f}."
        ),
        "## Number of shards",
        _measured(report.fan_out),
    ]
    if report.model is not None:
        parts += _model(report.model, report.fan_out)
    return "\n\n".join(parts)


def _measured(grown: Sequence[Grown]) -> str:
    head = ["vectors per shard", "shards", "p50 ms", "p99 ms", "recall", "oversampling", "search ms", "CPU ms: a shard",
            "coordinator", "errors", "others' cores"]  # fmt: skip
    rows = [
        [f"{one.vectors_per_shard:,}", str(one.shards), _told(one.of("p50_ms")), _told(one.of("p99_ms")),
         f"{one.of('recall').median:.4f}", "default" if one.oversampling is None else f"{one.oversampling:g}",
         f"{one.of('search_ms').median:.3f}", f"{one.of('shard_cpu_ms').median:.3f}",
         f"{one.of('coordinator_cpu_ms').median:.3f}", str(sum(window.errors for window in one.windows)),
         f"{one.of('cores_elsewhere').median:.2f}"]
        for one in grown
    ]  # fmt: skip
    return columns(head, rows)


def _model(model: Model, fan_out: Sequence[Grown]) -> list[str]:
    measured = {one.shards: one.of("p50_ms") for one in fan_out}
    here = {one.shards: one.p50_ms for one in model.here}
    rows = [
        [str(one.shards), f"{here[one.shards]:.2f}" if one.shards in here else "",
         _told(measured[one.shards]) if one.shards in measured else "", f"{one.p50_ms:.2f}"]
        for one in model.apart
    ]  # fmt: skip
    parts = [
        (
            f"Fitted on 1 and 2 shards: p50 = {model.fixed_ms:.2f} ms + {model.per_shard_ms:.3f} ms x shards + the slowest "
            f"core's searches, of\n{model.service_ms.median:.2f} ms each ({model.service_ms.low:.2f} to "
            f"{model.service_ms.high:.2f} for 90 %). bench/fan_out.py tells the assumptions."
        ),
        columns(["shards", f"model on {model.cores} cores", "measured p50 ms", "model, a core for each"], rows),
    ]
    if model.error is not None:
        error, shards = model.error, max(here)
        verdict = "met" if abs(error.median) <= ERROR_TARGET else "NOT MET"
        parts.append(
            f"It predicts {shards} shards with an error of {error.median:+.1%} ({error.low:+.1%}..{error.high:+.1%}); "
            f"wanted within {ERROR_TARGET:.0%}: {verdict}."
        )
    return parts


def _told(value: Spread) -> str:
    return f"{value.median:.2f} ({value.low:.2f}..{value.high:.2f})"
