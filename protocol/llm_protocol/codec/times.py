"""Parse durations and times as vendors write them; ``None`` for anything else."""

from __future__ import annotations

import math
import re
from datetime import UTC, date, datetime

_UNITS = {"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_DURATION_PART = re.compile(r"(\d+(?:\.\d+)?)(ns|us|µs|ms|s|m|h|d)", re.ASCII)


def number(text: str | None) -> float | None:
    """A finite number in decimal; ``None`` for anything else."""
    if text is None or len(text) > 32:
        return None
    try:
        value = float(text)
    except ValueError:
        return None
    return value if math.isfinite(value) else None


def duration(text: str | None) -> float | None:
    """Seconds in a duration such as ``"12ms"``, ``"6m0s"``, ``"1m26.4s"``, ``"34.4s"``, or ``"4.69"`` (seconds);
    ``None`` for anything else.
    """
    plain = number(text)
    if plain is not None:
        return max(0.0, plain)
    if text is None or len(text) > 64:
        return None
    text = text.strip().lower()
    total, at = 0.0, 0
    for part in _DURATION_PART.finditer(text):
        if part.start() != at:
            return None
        total, at = total + float(part[1]) * _UNITS[part[2]], part.end()
    return total if text and at == len(text) else None


def http_date(text: str | None) -> float | None:
    """An HTTP date as seconds since the epoch; ``None`` for anything else."""
    if text is None or len(text) > 64:
        return None
    from email.utils import parsedate_to_datetime  # takes long to import, and is rarely needed

    try:
        moment = parsedate_to_datetime(text)
        return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
    except (ValueError, TypeError, OverflowError, IndexError):
        return None


def rfc3339(text: str | None) -> float | None:
    """A date or time in ISO 8601, of which RFC 3339 is a part, as seconds since the epoch; ``None`` for anything else,
    and for more than 64 characters. Without a zone it is taken as UTC.
    """
    if text is None or len(text) > 64:
        return None
    try:
        moment = datetime.fromisoformat(text)
        return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
    except (ValueError, OverflowError):
        return None


def day(text: object) -> date | None:
    """The day, in UTC, of a date or time that `rfc3339` reads; ``None`` for anything else."""
    seconds = rfc3339(text) if isinstance(text, str) else None
    try:
        return None if seconds is None else datetime.fromtimestamp(seconds, UTC).date()
    except (ValueError, OverflowError, OSError):  # in UTC, the year may be out of range
        return None
