"""Draws the report of a plan: what each way to answer new-model clients is worth at the start, and the way through the upgrade.

Needs matplotlib, which the extra `plots` installs.
"""

from pathlib import Path
from typing import TYPE_CHECKING

from kintsugi.projections.findings import Findings
from kintsugi.projections.measures import Interval
from kintsugi.projections.report import K, Measured, Row

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_GOLD, _GREY, _INK = "#b8860b", "#9aa5b1", "#222222"


def draw(findings: Findings, path: Path) -> None:
    # Not pyplot: it would look for a display.
    from matplotlib import rc_context  # noqa: PLC0415
    from matplotlib.figure import Figure  # noqa: PLC0415

    figure = Figure(figsize=(11, 5), layout="constrained")
    left, right = figure.subplots(1, 2, sharey=True)
    _rows(left, findings)
    _curve(right, findings)
    report = findings.report
    verdict = "refused" if findings.refused else f"recommended: {findings.strategy}"
    figure.suptitle(
        f"{verdict}; {report.old_dimension} -> {report.new_dimension} dimensions, {report.queries} queries, 95% intervals",
        fontsize=10,
    )
    # Without a salt of ours, an SVG is another one each time.
    with rc_context({"svg.hashsalt": "plan"}):
        figure.savefig(path, metadata={"Date": None} if path.suffix == ".svg" else None)


def deciding(findings: Findings) -> tuple[str, list[tuple[str, Interval]], list[tuple[float, Interval]]]:
    """The measure that decides, its value for each row, and along the way."""
    judged = findings.report.judged
    rows = [(_title(row), _value(row, judged=judged)) for row in findings.report.rows]
    way = [(point.fraction, point.ndcg if judged and point.ndcg else point.recall) for point in findings.curve]
    return f"{'nDCG' if judged else 'recall'}@{K}", rows, way


def _rows(axes: "Axes", findings: Findings) -> None:
    measure, rows, _ = deciding(findings)
    for place, (title, value) in enumerate(rows):
        colour = _GREY if title in {Row.OLD_ALONE, Row.REEMBEDDED} else _GOLD
        axes.bar(place, value.mean, color=colour, width=0.6)
        axes.plot([place, place], [value.low, value.high], color=_INK, lw=1.2)
    axes.set_xticks(range(len(rows)), [title for title, _ in rows], fontsize=8, rotation=20, ha="right")
    axes.set_ylabel(measure)
    axes.set_title("before any document is re-embedded", fontsize=9)
    axes.grid(visible=True, axis="y", lw=0.3)


def _curve(axes: "Axes", findings: Findings) -> None:
    _, rows, way = deciding(findings)
    at = [100 * fraction for fraction, _ in way]
    axes.fill_between(
        at, [value.low for _, value in way], [value.high for _, value in way], color=_GOLD, alpha=0.2, lw=0
    )
    axes.plot(
        at,
        [value.mean for _, value in way],
        "o-",
        color=_GOLD,
        ms=4,
        label=f"{findings.strategy}, {findings.calibration}",
    )
    axes.axhline(rows[0][1].mean, color=_GREY, lw=1, ls="--", label=rows[0][0])
    axes.set_xlabel("documents re-embedded, %")
    axes.set_title("through the upgrade", fontsize=9)
    axes.grid(visible=True, lw=0.3)
    axes.legend(fontsize=8, loc="lower right")


def _title(row: Measured) -> str:
    return f"{row.row}\n{row.kind}" if row.kind else row.row.value


def _value(row: Measured, *, judged: bool) -> Interval:
    return row.ndcg if judged and row.ndcg is not None else row.recall
