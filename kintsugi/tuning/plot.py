"""Draws memory against recall: every setting a point, the front a line, what is recommended a star.

Needs matplotlib, which the extra `plots` installs; nothing else of Kintsugi does.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from kintsugi.errors import FailedPrecondition, InvalidArgument
from kintsugi.tuning.front import Setting
from kintsugi.tuning.result import Tuning

if TYPE_CHECKING:
    from matplotlib.axes import Axes

SUFFIXES = (".svg", ".png", ".pdf")
_GOLD, _GREY, _INK = "#b8860b", "#9aa5b1", "#222222"
# The scale of losses reaches down to here; below it, recall is as good as 1.
_LEAST_LOSS = 1e-4


def check(path: Path) -> None:
    """Raises before hours are spent when the plot could not be drawn."""
    if path.suffix not in SUFFIXES:
        raise InvalidArgument("plot", f"is {path}", f"must end in {', '.join(SUFFIXES)}")
    try:
        import matplotlib  # noqa: F401, ICN001, PLC0415 -- only whether it is there
    except ImportError as error:
        raise FailedPrecondition("plots need matplotlib: pip install 'kintsugi-search[plots]'") from error


def draw(tuning: Tuning, path: Path) -> None:
    # Not pyplot: it would look for a display.
    from matplotlib import rc_context  # noqa: PLC0415
    from matplotlib.figure import Figure  # noqa: PLC0415

    figure = Figure(figsize=(10, 6), layout="constrained")
    axes = figure.add_subplot()
    _points(axes, tuning.settings)
    best = stairs(tuning.settings)
    axes.plot([one.memory_bytes for one in best], [_loss(one.recall) for one in best], color=_GOLD, lw=1.5,
              drawstyle="steps-post", zorder=2, label="front: less memory has less recall")  # fmt: skip
    if (chosen := tuning.advice.chosen) is not None:
        axes.plot(chosen.memory_bytes, _loss(chosen.recall), "*", ms=14, color=_GOLD, mec=_INK, zorder=4,
                  label=f"recommended: {chosen.name}")  # fmt: skip
    axes.axhline(_loss(tuning.need.recall), color=_INK, lw=0.8, ls=":", label=f"recall {tuning.need.recall:g} wanted")
    if tuning.need.memory_bytes is not None:
        axes.axvline(tuning.need.memory_bytes, color=_INK, lw=0.8, ls="--", label="memory given")
    _dress(axes, tuning)
    # Without a salt of ours, an SVG is another one each time.
    with rc_context({"svg.hashsalt": tuning.subject.collection}):
        figure.savefig(path, metadata={"Date": None} if path.suffix == ".svg" else None)


def _points(axes: "Axes", settings: Sequence[Setting]) -> None:
    """The oversamplings of an encoding are a column; its name stands at the top one."""
    columns: dict[str, list[Setting]] = {}
    for setting in settings:
        columns.setdefault(setting.encoding.name, []).append(setting)
    for name, column in columns.items():
        losses = [_loss(one.recall) for one in column]
        axes.plot([one.memory_bytes for one in column], losses, "o-", ms=4, lw=0.6, color=_GREY, zorder=1)
        axes.annotate(name, (column[0].memory_bytes, min(losses)), xytext=(3, 3), textcoords="offset points",
                      fontsize=7, rotation=45, color=_INK)  # fmt: skip


def _dress(axes: "Axes", tuning: Tuning) -> None:
    from matplotlib.ticker import FuncFormatter, NullFormatter  # noqa: PLC0415

    subject = tuning.subject
    axes.set_xscale("log")
    # Of losses, upside down: what matters lies between 0.9 and 1.
    axes.set_yscale("log")
    axes.invert_yaxis()
    axes.yaxis.set_major_formatter(FuncFormatter(lambda loss, _place: f"{1 - loss:g}"))
    axes.yaxis.set_minor_formatter(NullFormatter())
    for formatter in (axes.xaxis.set_major_formatter, axes.xaxis.set_minor_formatter):
        formatter(FuncFormatter(lambda amount, _place: f"{amount:g}"))
    axes.tick_params(axis="x", which="both", labelsize=7, rotation=45)
    axes.grid(visible=True, which="both", lw=0.3)
    axes.set_xlabel("memory per vector in bytes, graph included")
    axes.set_ylabel(f"recall@{subject.k} after rescoring" + (", extrapolated" if subject.extrapolated else ""))
    axes.set_title(f"{subject.collection}: {subject.vectors:,} vectors of {subject.dimension} dimensions, "
                   f"{subject.metric}; measured on {subject.sampled:,}", fontsize=10)  # fmt: skip
    axes.legend(fontsize=8, loc="lower right")


def _loss(recall: float) -> float:
    return max(1 - recall, _LEAST_LOSS)


def stairs(settings: Sequence[Setting]) -> list[Setting]:
    """Those for which more recall takes more memory, whatever their throughput."""
    kept: list[Setting] = []
    for setting in sorted(settings, key=lambda one: (one.memory_bytes, -one.recall)):
        if not kept or setting.recall > kept[-1].recall:
            kept.append(setting)
    return kept
