"""What an examination finds. Pure."""

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum


class Severity(StrEnum):
    # Something is not answered, or will be lost or refused: mend it.
    PROBLEM = "problem"
    # It works, and the next fault or some growth makes it a problem.
    WARNING = "warning"


@dataclass(frozen=True, slots=True)
class Finding:
    """`subject` is what it is about, such as "redis", "books/0" or a member's id; `advice` what to do."""

    severity: Severity
    subject: str
    message: str
    advice: str


def problem(subject: str, message: str, advice: str) -> Finding:
    return Finding(Severity.PROBLEM, subject, message, advice)


def warning(subject: str, message: str, advice: str) -> Finding:
    return Finding(Severity.WARNING, subject, message, advice)


@dataclass(frozen=True, slots=True)
class Check:
    """One kind of thing that was looked at. `skipped` says why it could not be, or is ''."""

    name: str
    findings: tuple[Finding, ...] = ()
    skipped: str = ""

    @property
    def state(self) -> str:
        """The worst of its findings: ok, warning, problem; or skipped."""
        if self.skipped:
            return "skipped"
        return min((finding.severity.value for finding in self.findings), default="ok")


def check(name: str, findings: Iterable[Finding]) -> Check:
    """The problems stand before the warnings."""
    return Check(name, tuple(sorted(findings, key=lambda finding: finding.severity is Severity.WARNING)))


@dataclass(frozen=True, slots=True)
class Report:
    checks: tuple[Check, ...]

    @property
    def findings(self) -> tuple[Finding, ...]:
        return tuple(finding for one in self.checks for finding in one.findings)

    @property
    def problems(self) -> int:
        return sum(finding.severity is Severity.PROBLEM for finding in self.findings)
