"""Parse header fields, and numbers, durations and times as vendors write them; ``None`` for anything else."""

from __future__ import annotations

import math
import re
import time
from datetime import UTC, date, datetime

from llm_protocol.dialect import Headers


def header(headers: Headers, name: str) -> str | None:
    """The first field called ``name`` (lower case); ``None`` if there is none."""
    return next((value for key, value in headers if key == name), None)


def int_header(headers: Headers, name: str) -> int | None:
    """A field as a whole number; ``None`` if it is not one. Negative counts, which some vendors send, become 0."""
    value = number(header(headers, name))
    return None if value is None else max(0, int(value))


def wall_clock(headers: Headers) -> float:
    """Return the current time in seconds since the epoch, from the peer's ``date`` field if the peer sent one. A
    difference between the clocks then has no effect.
    """
    stamp = http_date(header(headers, "date"))
    return time.time() if stamp is None else stamp


def retry_after(headers: Headers, *, now: float | None = None) -> float | None:
    """Seconds to wait by ``retry-after-ms`` or ``retry-after`` (a number, a duration, or a date), never negative;
    ``None`` without them. ``now``, in seconds since the epoch, is by default the time of `wall_clock`.
    """
    ms = number(header(headers, "retry-after-ms"))
    if ms is not None:
        return max(0.0, ms / 1000)
    value = header(headers, "retry-after")
    seconds = duration(value)
    if seconds is not None:
        return seconds
    stamp = http_date(value)
    if stamp is None:
        return None
    return max(0.0, stamp - (wall_clock(headers) if now is None else now))


def seconds_until(stamp: str | None, headers: Headers, *, now: float | None = None) -> float | None:
    """Seconds from ``now`` to the RFC 3339 time ``stamp``, never negative; ``None`` if ``stamp`` is not such a time.
    ``now`` is as in `retry_after`.
    """
    at = rfc3339(stamp)
    if at is None:
        return None
    return max(0.0, at - (wall_clock(headers) if now is None else now))


# ---------------------------------------------------------------- numbers, durations and times

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
