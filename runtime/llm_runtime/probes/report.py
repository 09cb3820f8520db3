"""The result of a check, as data. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from enum import StrEnum

import msgspec

NAMES_SHOWN = 5
"""The most names in one line."""

DETAIL_CHARACTERS = 400
"""The most characters of the text of one check: a vendor's message can be long."""


class CheckStatus(StrEnum):
    """The outcome of a check. A warning does not fail the report, but a person should look at it."""

    OK = "ok"
    WARNING = "warning"
    FAILED = "failed"


class Check(msgspec.Struct, frozen=True):
    """One check. ``detail`` is one printable line. ``seconds``: how long it took; 0 if nothing had to be called."""

    what: str
    name: str
    status: CheckStatus
    detail: str
    seconds: float = 0.0

    def __post_init__(self) -> None:
        msgspec.structs.force_setattr(self, "detail", _one_line(self.detail))


class Validation(msgspec.Struct, frozen=True):
    """All checks, as a part of the report."""

    checks: tuple[Check, ...]


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """The report, as ``--json`` prints it. ``timestamp`` is RFC 3339; ``error`` says in one line what failed."""

    success: bool
    id: str
    timestamp: str
    validation: Validation
    error: str | None

    def lines(self) -> list[str]:
        """Return the report as text: a line for each check, in columns, and a summary."""
        checks = self.validation.checks
        rows = [(each.status.value, each.what, _one_line(each.name), _time(each.seconds)) for each in checks]
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        heads = ["  ".join(map(str.ljust, row, widths)) for row in rows]
        lines = [f"{head}  {each.detail}".rstrip() for head, each in zip(heads, checks, strict=True)]
        return [*lines, _summary(checks)]


def report(checks: Sequence[Check], *, id: str, timestamp: str) -> Report:  # noqa: A002 - the field's name
    """Return the report on these checks."""
    failed = [f"{each.what} {each.name}" for each in checks if each.status is CheckStatus.FAILED]
    error = f"failed: {', '.join(failed)}" if failed else None
    return Report(success=not failed, id=id, timestamp=timestamp, validation=Validation(tuple(checks)), error=error)


def refused(problem: str, source: str, *, id: str, timestamp: str) -> Report:  # noqa: A002 - the field's name
    """Return the report on a configuration that is invalid, so that nothing else was checked. ``problem`` says why."""
    check = Check("configuration", source, CheckStatus.FAILED, problem)
    return Report(success=False, id=id, timestamp=timestamp, validation=Validation((check,)), error=problem)


def _summary(checks: Sequence[Check]) -> str:
    count = Counter(each.status for each in checks)
    parts = [f"{count[status]} {status.value}" for status in CheckStatus if count[status]]
    return f"{counted(len(checks), 'check')}: {', '.join(parts)}"


def counted(number: int, thing: str) -> str:
    """Return a number with its noun: ``1 route``, ``2 routes``."""
    return f"{number} {thing}{'s' * (number != 1)}"


def some(names: Sequence[str]) -> str:
    """Return the first of several names, and the number of the others."""
    more = len(names) - NAMES_SHOWN
    return ", ".join(names[:NAMES_SHOWN]) + (f" and {more} more" if more > 0 else "")


def _time(seconds: float) -> str:
    return f"{seconds:.2f} s" if seconds else ""


def _one_line(text: str) -> str:
    line = " ".join("".join(char if char.isprintable() else " " for char in text).split())
    return line if len(line) <= DETAIL_CHARACTERS else line[: DETAIL_CHARACTERS - 1] + "…"
