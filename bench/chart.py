"""Draws the throughput of each workload beside the raw engine's as SVG. Pure text: a plot is no reason for a
dependency."""

from collections.abc import Sequence
from html import escape

from bench.results import Report, SearchResult
from bench.statistics import Spread

_WIDTH, _LEFT, _RIGHT, _TOP = 860, 110, 170, 64
_BAR, _GROUP = 14, 46
OURS, RAW, INK = "#b8860b", "#9aa5b1", "#222"
FONT = f'font-family="sans-serif" font-size="12" fill="{INK}"'


def svg(report: Report) -> str:
    """Bars are medians, their lines the lowest and highest rounds; beside them the ratio and p50."""
    searches = report.searches
    height = _TOP + _GROUP * len(searches) + 30
    most = max((side.queries_per_s.high for one in searches for side in (one.cluster, one.raw)), default=1.0)
    scale = (_WIDTH - _LEFT - _RIGHT) / most
    data = report.dataset
    title = f"{data['name']}: queries per second, cluster beside the raw engine with the same calls"
    note = f"commit {report.commit}, {report.date[:10]}, {report.machine['cores']} cores shared by all processes"
    parts: list[str] = []
    for place, one in enumerate(searches):
        parts += _group(one, _TOP + place * _GROUP, scale)
    return page(_WIDTH, height, title, note, [*parts, *_legend(height - 14)])


def _group(one: SearchResult, top: int, scale: float) -> Sequence[str]:
    p50 = one.cluster.latency_ms["p50"].median
    end = _WIDTH - _RIGHT + 10
    return [
        text(_LEFT - 8, top + _BAR + 4, one.name, anchor="end"),
        *_bar(one.cluster.queries_per_s, top, scale, OURS),
        *_bar(one.raw.queries_per_s, top + _BAR + 2, scale, RAW),
        text(end, top + _BAR - 2, f"{one.of_raw.median:.2f} of raw, p50 {p50:.2f} ms"),
        text(end, top + 2 * _BAR, f"recall {one.cluster.recall:.4f}"),
    ]


def _bar(value: Spread, top: int, scale: float, colour: str) -> Sequence[str]:
    middle = top + _BAR / 2
    low, high = _LEFT + value.low * scale, _LEFT + value.high * scale
    return [
        f'<rect x="{_LEFT}" y="{top}" width="{value.median * scale:.1f}" height="{_BAR}" fill="{colour}"/>',
        f'<line x1="{low:.1f}" x2="{high:.1f}" y1="{middle}" y2="{middle}" stroke="{INK}"/>',
        text(_LEFT + 4, top + _BAR - 3, f"{value.median:,.0f}", size=10),
    ]


def _legend(y: int) -> Sequence[str]:
    return [
        f'<rect x="{_LEFT}" y="{y - 10}" width="12" height="12" fill="{OURS}"/>',
        text(_LEFT + 18, y, "cluster"),
        f'<rect x="{_LEFT + 90}" y="{y - 10}" width="12" height="12" fill="{RAW}"/>',
        text(_LEFT + 108, y, "raw engine in-process"),
    ]


def page(width: int, height: int, title: str, note: str, parts: Sequence[str]) -> str:
    """A whole drawing under its title."""
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" {FONT}>',
        f'<rect width="{width}" height="{height}" fill="white"/>',
        text(12, 22, title, size=15),
        text(12, 42, note),
        *parts,
        "</svg>",
    ]
    return "\n".join(lines) + "\n"


def text(x: float, y: float, told: str, *, size: int = 12, anchor: str = "start") -> str:
    return f'<text x="{x:g}" y="{y:g}" font-size="{size}" text-anchor="{anchor}">{escape(told)}</text>'
