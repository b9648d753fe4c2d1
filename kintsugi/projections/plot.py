"""Draws what a planner found: the rows of the report as bars, the way through the upgrade as a curve.

Needs matplotlib, which the extra `plots` installs; nothing else of Kintsugi's projections does.
"""

from pathlib import Path
from typing import TYPE_CHECKING

from kintsugi.projections.findings import Findings
from kintsugi.projections.measures import Interval
from kintsugi.projections.report import K, Row
from kintsugi.tuning.plot import check

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["check", "draw"]

_GOLD, _GREY, _INK = "#b8860b", "#9aa5b1", "#222222"


def draw(findings: Findings, path: Path) -> None:
    # Not pyplot: it would look for a display.
    from matplotlib import rc_context  # noqa: PLC0415
    from matplotlib.figure import Figure  # noqa: PLC0415

    figure = Figure(figsize=(11, 5), layout="constrained")
    rows, curve = figure.subplots(1, 2, sharey=True)
    _rows(rows, findings)
    _curve(curve, findings)
    verdict = "refused" if findings.refused else f"recommended: {findings.strategy}"
    report = findings.report
    figure.suptitle(
        f"{report.old_dimension} to {report.new_dimension} dimensions, {report.held_out:,} held-out documents, "
        f"{report.queries:,} queries; {verdict}",
        fontsize=10,
    )
    # Without a salt of ours, an SVG is another one each time.
    with rc_context({"svg.hashsalt": "kintsugi"}):
        figure.savefig(path, metadata={"Date": None} if path.suffix == ".svg" else None)


def _rows(axes: "Axes", findings: Findings) -> None:
    values = [one.ndcg or one.recall for one in findings.report.rows]
    names = [f"{one.row}\n{one.kind or ''}" for one in findings.report.rows]
    colours = [_GREY if one.row in {Row.OLD_ALONE, Row.REEMBEDDED} else _GOLD for one in findings.report.rows]
    axes.bar(names, [one.mean for one in values], yerr=_errors(values), color=colours, ecolor=_INK, capsize=3)
    axes.tick_params(axis="x", labelsize=7)
    axes.set_ylabel(f"nDCG@{K}" if findings.report.judged else f"recall@{K}")
    axes.set_title("before any document is re-embedded; the last: after all are", fontsize=9)


def _curve(axes: "Axes", findings: Findings) -> None:
    values = [point.ndcg or point.recall for point in findings.curve]
    old = findings.report.rows[0]
    fractions = [100 * point.fraction for point in findings.curve]
    axes.errorbar(fractions, [one.mean for one in values], yerr=_errors(values), color=_GOLD, ecolor=_INK, capsize=3,
                  label=f"{findings.strategy}, {findings.calibration}")  # fmt: skip
    axes.axhline((old.ndcg or old.recall).mean, color=_INK, lw=0.8, ls=":", label=str(old.row))
    axes.set_xlabel("documents re-embedded, %")
    axes.set_title("on the way", fontsize=9)
    axes.grid(visible=True, lw=0.3)
    axes.legend(fontsize=8, loc="lower right")


def _errors(values: list[Interval]) -> list[list[float]]:
    """As matplotlib wants them: below and above the means."""
    return [[one.mean - one.low for one in values], [one.high - one.mean for one in values]]
