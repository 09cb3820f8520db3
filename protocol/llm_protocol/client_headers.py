"""Header fields of a client's request: the trace that it belongs to (W3C trace context), and the fields that are
forwarded to the provider. Keys, cookies and fields of the connection are never forwarded. Pure.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
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
    span_id = draw(64) or 1
    found = _FORM.fullmatch(header) if header else None
    if found is not None and found[1] != "ff" and (found[1] != "00" or found[5] is None):
        trace_id, parent_id = int(found[2], 16), int(found[3], 16)
        if trace_id and parent_id:
            return TraceContext(trace_id, parent_id, span_id, int(found[4], 16) & _SAMPLED)
    return TraceContext(draw(128) or 1, 0, span_id)


# ---------------------------------------------------------------- fields that are forwarded

OF_WIRE: Final[Mapping[str, tuple[str, ...]]] = {
    "anthropic": ("anthropic-beta", "anthropic-user-profile-id", "anthropic-version"),
    "openai_chat": ("openai-beta",),
    "openai_responses": ("openai-beta",),
}
"""By wire: the header fields that change the meaning of the body."""

BETAS: Final = frozenset(("anthropic-beta", "openai-beta"))
TOLD: Final = BETAS | {"anthropic-user-profile-id"}
"""Fields whose omission is reported to the client."""

IDEMPOTENCY: Final = "idempotency-key"
FORWARDED: Final = ("traceparent", "tracestate", "x-request-id", IDEMPOTENCY)
"""Fields that are forwarded and do not affect the response."""


SENT_ON: Final = frozenset((*FORWARDED, *(name for names in OF_WIRE.values() for name in names)))
"""All header fields of a client that may reach a provider."""

_OF_CONNECTION: Final = "responses_websockets="
"""The beginning of the name of a beta feature that concerns the WebSocket between client and server. Codex sends such a
name.
"""


def meaning_of(headers: Mapping[str, str], wire: str | None) -> dict[str, str]:
    """Return the fields of a client's ``headers`` that are part of the meaning of its request on ``wire``."""
    found = {name: headers[name] for name in OF_WIRE.get(wire or "", ()) if name in headers}
    for name in BETAS & found.keys():
        if _OF_CONNECTION in found[name]:
            betas = [beta.strip() for beta in found.pop(name).split(",")]
            if kept := [beta for beta in betas if not beta.startswith(_OF_CONNECTION)]:
                found[name] = ",".join(kept)
    return found


def without_idempotency(headers: Mapping[str, str]) -> dict[str, str]:
    """Return the ``headers`` of a connection without the idempotency key: its requests cannot all have the same key."""
    return {name: value for name, value in headers.items() if name != IDEMPOTENCY}


def forwarded(headers: Mapping[str, str]) -> dict[str, str]:
    """Return the fields of ``headers`` that are in `FORWARDED`."""
    return {name: headers[name] for name in FORWARDED if name in headers}
