"""W3C trace context: the header `traceparent`, which names the trace of a request. Pure."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Final, NamedTuple

TRACEPARENT: Final = "traceparent"

_FORM: Final = re.compile(r"([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-.*)?")
_SAMPLED: Final = 1


class TraceContext(NamedTuple):
    """The place of a run in a trace. ``span_id`` is the id of the run's own span; ``parent_id`` is the id of the
    client's span, or 0.
    """

    trace_id: int
    parent_id: int
    span_id: int
    flags: int = _SAMPLED

    @property
    def traceparent(self) -> str:
        """The value of the header ``traceparent`` for requests that the run makes."""
        return f"00-{self.trace_id:032x}-{self.span_id:016x}-{self.flags:02x}"


def trace_context(header: str | None, draw: Callable[[int], int]) -> TraceContext:
    """Return the place of a run whose request has ``header``: in the trace of the client, or in a new one if the
    header is missing or invalid. ``draw`` returns a random number of the given number of bits.
    """
    found = _FORM.fullmatch(header or "")
    span_id = draw(64) or 1
    if found is not None and found[1] != "ff" and (found[1] != "00" or found[5] is None):
        trace_id, parent_id = int(found[2], 16), int(found[3], 16)
        if trace_id and parent_id:
            return TraceContext(trace_id, parent_id, span_id, int(found[4], 16) & _SAMPLED)
    return TraceContext(draw(128) or 1, 0, span_id)
