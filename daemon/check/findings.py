"""What a check finds, and in which words."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum


class Status(StrEnum):
    """The worst of several is the last in this order."""

    OK = "ok"
    WARNING = "warning"
    FAILURE = "failure"


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at. `check` is its stable name, `subject` which one where there are several."""

    check: str
    status: Status
    found: str
    remedy: str | None = None
    subject: str | None = None


def ok(check: str, found: str, *, subject: str | None = None) -> Finding:
    """Nothing to do."""
    return Finding(check, Status.OK, found, None, subject)


def warning(check: str, found: str, remedy: str, *, subject: str | None = None) -> Finding:
    """The relay runs, but something is not as it should be."""
    return Finding(check, Status.WARNING, found, remedy, subject)


def failure(check: str, found: str, remedy: str, *, subject: str | None = None) -> Finding:
    """The relay cannot run so, or events do not arrive."""
    return Finding(check, Status.FAILURE, found, remedy, subject)


def worst(findings: Iterable[Finding]) -> Status:
    """The status of the whole."""
    order = list(Status)
    return max((finding.status for finding in findings), key=order.index, default=Status.OK)


def for_long(seconds: float) -> str:
    """A length of time in the unit that a person would choose."""
    for unit, length in (("days", 86400), ("hours", 3600), ("minutes", 60)):
        if seconds >= 2 * length:
            return f"{seconds / length:.1f} {unit}".replace(".0 ", " ")
    return f"{seconds:.0f} seconds"


def in_bytes(size: float) -> str:
    """A size in decimal units."""
    for unit, length in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if size >= length:
            return f"{size / length:.1f} {unit}"
    return f"{size:.0f} bytes"


def names(values: Iterable[object]) -> str:
    """Sorted and separated by commas."""
    return ", ".join(sorted(str(value) for value in values))
