"""Draws the throughput of each workload beside the raw engine's as SVG. Pure text: a plot is no reason for a
dependency."""

from collections.abc import Sequence
from html import escape

from bench.results import Report, SearchResult
from bench.statistics import Spread

_WIDTH, _LEFT, _RIGHT, _TOP = 860, 110, 170, 64
_BAR, _GROUP = 14, 46
_OURS, _RAW, _INK = "#b8860b", "#9aa5b1", "#222"
_FONT = f'font-family="sans-serif" font-size="12" fill="{_INK}"'


def svg(report: Report) -> str:
    """Bars are medians, their lines the lowest and highest rounds; beside them the ratio and p50."""
    searches = report.searches
    height = _TOP + _GROUP * len(searches) + 30
    most = max((side.queries_per_s.high for one in searches for side in (one.cluster, one.raw)), default=1.0)
    scale = (_WIDTH - _LEFT - _RIGHT) / most
    data = report.dataset
    title = f"{data['name']}: queries per second, cluster beside the raw engine with the same calls"
    note = f"commit {report.commit}, {report.date[:10]}, {report.machine['cores']} cores shared by all processes"
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{_WIDTH}" height="{height}" {_FONT}>',
        f'<rect width="{_WIDTH}" height="{height}" fill="white"/>',
        _text(12, 22, title, size=15),
        _text(12, 42, note),
    ]
    for place, one in enumerate(searches):
        lines += _group(one, _TOP + place * _GROUP, scale)
    lines += [*_legend(height - 14), "</svg>"]
    return "\n".join(lines) + "\n"


def _group(one: SearchResult, top: int, scale: float) -> Sequence[str]:
    p50 = one.cluster.latency_ms["p50"].median
    end = _WIDTH - _RIGHT + 10
    return [
        _text(_LEFT - 8, top + _BAR + 4, one.name, anchor="end"),
        *_bar(one.cluster.queries_per_s, top, scale, _OURS),
        *_bar(one.raw.queries_per_s, top + _BAR + 2, scale, _RAW),
        _text(end, top + _BAR - 2, f"{one.of_raw.median:.2f} of raw, p50 {p50:.2f} ms"),
        _text(end, top + 2 * _BAR, f"recall {one.cluster.recall:.4f}"),
    ]


def _bar(value: Spread, top: int, scale: float, colour: str) -> Sequence[str]:
    middle = top + _BAR / 2
    low, high = _LEFT + value.low * scale, _LEFT + value.high * scale
    return [
        f'<rect x="{_LEFT}" y="{top}" width="{value.median * scale:.1f}" height="{_BAR}" fill="{colour}"/>',
        f'<line x1="{low:.1f}" x2="{high:.1f}" y1="{middle}" y2="{middle}" stroke="{_INK}"/>',
        _text(_LEFT + 4, top + _BAR - 3, f"{value.median:,.0f}", size=10),
    ]


def _legend(y: int) -> Sequence[str]:
    return [
        f'<rect x="{_LEFT}" y="{y - 10}" width="12" height="12" fill="{_OURS}"/>',
        _text(_LEFT + 18, y, "cluster"),
        f'<rect x="{_LEFT + 90}" y="{y - 10}" width="12" height="12" fill="{_RAW}"/>',
        _text(_LEFT + 108, y, "raw engine in-process"),
    ]


def _text(x: float, y: float, text: str, *, size: int = 12, anchor: str = "start") -> str:
    return f'<text x="{x}" y="{y}" font-size="{size}" text-anchor="{anchor}">{escape(text)}</text>'
