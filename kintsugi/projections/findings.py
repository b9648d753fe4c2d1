"""What a planner found out, to be kept with the upgrade: the report, and the evidence for what the kit holds. Pure.

As JSON for machines, as Markdown for people.
"""

from dataclasses import dataclass

import msgspec

from kintsugi.projections.calibration import Calibration
from kintsugi.projections.measures import Interval
from kintsugi.projections.projection import Kind
from kintsugi.projections.report import NEEDS, K, Report
from kintsugi.projections.strategy import Strategy

FORMAT_VERSION = 1


@dataclass(frozen=True, slots=True)
class Tried:
    """A calibration, and its quality at half the documents re-embedded, in the measure that decides."""

    calibration: Calibration
    quality: Interval


@dataclass(frozen=True, slots=True)
class Point:
    """The quality to expect when so many documents are re-embedded, in an order drawn by chance. `gain`: paired difference
    to the old model alone in the measure that decides."""

    fraction: float
    recall: Interval
    ndcg: Interval | None
    gain: Interval


@dataclass(frozen=True, slots=True)
class Findings:
    """`strategy` is what the kit is made for, even when the report refuses it. `reverse_recall`: which part of the old model's
    own neighbours its clients still find when half the documents have a new vector only. `unsure_first_gain`: what recall gains
    on the way when the documents that the map is least sure of are re-embedded first, instead of any."""

    report: Report
    strategy: Strategy
    calibration: Calibration
    calibrations: tuple[Tried, ...]
    curve: tuple[Point, ...]
    reverse_kind: Kind
    reverse_recall: Interval
    unsure_first_gain: Interval
    anchors: int
    refused: bool
    format_version: int = FORMAT_VERSION


# Made once: msgspec crashes when two threads are the first to decode the same type.
_READ = msgspec.json.Decoder(Findings)


def to_json(findings: Findings) -> bytes:
    return msgspec.json.encode(findings)


def from_json(written: bytes) -> Findings:
    """Inverts `to_json`. Raises ValueError for what it did not write."""
    try:
        findings = _READ.decode(written)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"is no report of an upgrade: {error}") from error
    if findings.format_version != FORMAT_VERSION:
        raise ValueError(f"the report has format version {findings.format_version}, must have {FORMAT_VERSION}")
    return findings


def table(findings: Findings) -> str:
    """The report as Markdown: what is recommended and why, the rows, and the way through the upgrade."""
    return "\n".join([*summary(findings), "", *rows_table(findings.report), "", *_curve_table(findings)])


def summary(findings: Findings) -> list[str]:
    """What is recommended, and the reasons."""
    report = findings.report
    verdict = "refused" if findings.refused else f"recommended: {findings.strategy}"
    taken = (
        f"{findings.strategy}{f' by {report.kind}' if report.kind else ''}, scores calibrated by {findings.calibration}, "
        f"needs query vectors of: {NEEDS[findings.strategy]}"
    )
    compatible = "beats" if report.compatible else "does not beat"
    return [
        f"{verdict}",
        f"- {taken if not findings.refused else f'if forced: {taken}'}",
        *(f"- {reason}" for reason in report.reasons),
        (
            f"- {report.documents} documents, {report.held_out} held out, {report.queries} "
            f"{'judged ' if report.judged else ''}queries, {findings.anchors} anchors"
        ),
        (
            f"- the best projection {compatible} the old model alone; it brings {report.update_gain:.0%} of the upgrade's gain "
            "at once"
        ),
        (
            f"- old-model clients keep {findings.reverse_recall} of their neighbours by {findings.reverse_kind} when half the "
            "documents have a new vector only"
        ),
    ]


def rows_table(report: Report) -> list[str]:
    """The rows of the report, before any document is re-embedded; the last is the end of the upgrade."""
    return [
        f"| row | projection | recall@{K} | nDCG@{K} | difference to the old model |",
        "|---|---|---|---|---|",
        *(
            f"| {row.row} | {row.kind or ''} | {row.recall} | {row.ndcg or 'not judged'} | {row.gain} |"
            for row in report.rows
        ),
    ]


def _curve_table(findings: Findings) -> list[str]:
    return [
        f"| re-embedded | recall@{K} | nDCG@{K} | difference to the old model |",
        "|---|---|---|---|",
        *(
            f"| {point.fraction:.0%} | {point.recall} | {point.ndcg or 'not judged'} | {point.gain} |"
            for point in findings.curve
        ),
    ]
