"""Parse header fields: numbers and waiting times; ``None`` if a field is missing or malformed."""

from __future__ import annotations

import time

from llm_protocol.codec.times import duration, http_date, number, rfc3339
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
