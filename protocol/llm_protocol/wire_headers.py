"""Header fields of a client's request that go on to the provider, where both speak the same wire.

Keys, cookies and fields of the connection are not among them, whatever a client sends.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

OF_WIRE: Final[Mapping[str, tuple[str, ...]]] = {
    "anthropic": ("anthropic-beta", "anthropic-version"),
    "openai_chat": ("openai-beta",),
    "openai_responses": ("openai-beta",),
}
"""Fields that change what the request means, by wire: what they unlock stands in the body."""

BETAS: Final = frozenset(("anthropic-beta", "openai-beta"))
"""Those that are told when they are left out."""

IDEMPOTENCY: Final = "idempotency-key"
FORWARDED: Final = ("traceparent", "tracestate", IDEMPOTENCY)
"""Fields that say nothing of the answer."""


def meaning_of(headers: Mapping[str, str], wire: str | None) -> dict[str, str]:
    """The fields of a client's ``headers`` that belong to what it asks for."""
    return {name: headers[name] for name in OF_WIRE.get(wire or "", ()) if name in headers}


def forwarded(headers: Mapping[str, str]) -> dict[str, str]:
    """The fields of ``headers`` that accompany the request."""
    return {name: headers[name] for name in FORWARDED if name in headers}
