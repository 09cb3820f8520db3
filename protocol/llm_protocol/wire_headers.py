"""Header fields of a client's request that are forwarded to the provider if both use the same wire. Keys, cookies and
fields of the connection are never forwarded.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

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
