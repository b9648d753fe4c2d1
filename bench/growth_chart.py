"""Draws growth as SVG: p50 over the size of one shard, and over the number of shards with what the model says."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import log10

from bench.chart import INK, OURS, RAW, page, text
from bench.growth_results import Grown, GrowthReport, Model
from bench.statistics import Spread

_WIDTH, _HEIGHT = 980, 500
_TOP, _PANEL_WIDTH, _PANEL_HEIGHT = 84, 380, 280
_LEFTS = (70, 560)

Points = Sequence[tuple[float, float]]


@dataclass(frozen=True, slots=True)
class _Panel:
    """Logarithmic axes, so that a power is a straight line, with some room around what is drawn."""

    left: int
    x_range: tuple[float, float]
    y_range: tuple[float, float]

    @classmethod
    def around(cls, left: int, points: Points) -> "_Panel":
        xs, ys = [x for x, _ in points], [y for _, y in points]
        return cls(left, (min(xs) / 1.3, max(xs) * 1.3), (min(ys) / 1.3, max(ys) * 1.3))

    def at(self, x: float, y: float) -> tuple[float, float]:
        across = log10(x / self.x_range[0]) / log10(self.x_range[1] / self.x_range[0])
        up = log10(y / self.y_range[0]) / log10(self.y_range[1] / self.y_range[0])
        return self.left + across * _PANEL_WIDTH, _TOP + (1 - up) * _PANEL_HEIGHT

    def frame(self, title: str, x_ticks: Sequence[float]) -> list[str]:
        border = f'width="{_PANEL_WIDTH}" height="{_PANEL_HEIGHT}" fill="none" stroke="{RAW}"'
        return [
            f'<rect x="{self.left}" y="{_TOP}" {border}/>',
            text(self.left, _TOP - 10, title),
            *(self._tick(self.at(tick, self.y_range[0]), f"{tick:,.0f}", (0, 16), "middle") for tick in x_ticks),
            *(self._tick(self.at(self.x_range[0], y), f"{y:g}", (-6, 4), "end") for y in _ticks(*self.y_range)),
        ]

    @staticmethod
    def _tick(place: tuple[float, float], told: str, away: tuple[int, int], anchor: str) -> str:
        return text(round(place[0] + away[0], 1), round(place[1] + away[1], 1), told, size=10, anchor=anchor)

    def line(self, points: Points, colour: str, dash: str = "") -> str:
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y in (self.at(*point) for point in points))
        return f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="2" stroke-dasharray="{dash}"/>'

    def measured(self, x: float, value: Spread) -> list[str]:
        (across, low), (_, high) = self.at(x, value.low), self.at(x, value.high)
        middle = self.at(x, value.median)[1]
        return [
            f'<line x1="{across:.1f}" x2="{across:.1f}" y1="{low:.1f}" y2="{high:.1f}" stroke="{INK}"/>',
            f'<circle cx="{across:.1f}" cy="{middle:.1f}" r="4" fill="{OURS}"/>',
        ]


def svg(report: GrowthReport) -> str:
    """Points are medians, their lines the lowest and highest rounds."""
    plan = report.plan
    title = f"p50 of one caller in ms, {plan.dimension} dimensions, recall@{plan.k} >= 0.99"
    note = f"commit {report.origin.commit}, {report.origin.date[:10]}, {report.origin.machine['cores']} cores"
    parts = _sizes(report.sizes, report.p50_exponent)
    if report.model is not None:
        parts += _shards(report.fan_out, report.model)
    return page(_WIDTH, _HEIGHT, title, note, parts)


def _sizes(sizes: Sequence[Grown], exponent: float) -> list[str]:
    p50 = [(one.vectors_per_shard, one.of("p50_ms")) for one in sizes]
    panel = _Panel.around(_LEFTS[0], [(count, end) for count, value in p50 for end in (value.low, value.high)])
    # The fitted power through the middle of all points.
    logs = [log10(value.median) - exponent * log10(count) for count, value in p50]
    scale = 10 ** (sum(logs) / len(logs))
    parts = panel.frame(f"over vectors of one shard: to the power of {exponent:.3f}", [count for count, _ in p50])
    parts.append(panel.line([(count, scale * count**exponent) for count, _ in p50], RAW))
    for count, value in p50:
        parts += panel.measured(count, value)
    return parts


def _shards(fan_out: Sequence[Grown], model: Model) -> list[str]:
    measured = [(one.shards, one.of("p50_ms")) for one in fan_out]
    here = [(one.shards, one.p50_ms) for one in model.here]
    apart = [(one.shards, one.p50_ms) for one in model.apart]
    ends = [(count, end) for count, value in measured for end in (value.low, value.high)]
    panel = _Panel.around(_LEFTS[1], [*ends, *here, *apart])
    parts = panel.frame(f"over shards of {fan_out[0].vectors_per_shard:,} vectors", [count for count, _ in apart])
    parts += [panel.line(here, OURS), panel.line(apart, RAW, "6 4")]
    for count, value in measured:
        parts += panel.measured(count, value)
    legend = [
        f"line: model, fitted on 1 and 2 shards, on {model.cores} shared cores; dashed: a core for each shard; points: measured",
        f"p50 = {model.fixed_ms:.2f} ms + {model.per_shard_ms:.3f} ms x shards + median of the slowest core's searches",
        "assumed: equal shards, independent times in the shards of one search, scatter of one shard's latencies is the shard's,",
        "client and coordinator idle while shards search, shards of one core one after the other",
    ]
    bottom = _TOP + _PANEL_HEIGHT + 44
    return parts + [text(_LEFTS[0], bottom + 18 * place, told) for place, told in enumerate(legend)]


def _ticks(low: float, high: float) -> list[float]:
    """1, 2 and 5 times powers of ten."""
    powers = range(int(log10(low)) - 2, int(log10(high)) + 2)
    return [
        tick for power in powers for tick in (1.0 * 10**power, 2.0 * 10**power, 5.0 * 10**power) if low <= tick <= high
    ]
