"""How reasoning crosses this wire and comes back whole.

The wire has a readable summary, an id, and one opaque string, ``encrypted_content``. OpenAI's own payloads pass as
they are. What other vendors need back (a signature, an encrypted block without an id) is put together in an envelope
that a client carries like any other payload.
"""

from __future__ import annotations

import base64
from typing import Any

import msgspec

from llm_protocol.content import JsonObject, Reasoning
from llm_protocol.wire import WireError, encode_json, unbase64

_MARK = "llmrt."
_VENDOR_PAYLOAD = "gAAAA"  # how OpenAI's encrypted payloads begin
JOINT = "\n\n"
"""Stands between the parts of one summary."""


class _Envelope(msgspec.Struct, frozen=True, omit_defaults=True):
    signature: str | None = None
    encrypted: str | None = None
    id: str | None = None


_ENVELOPE = msgspec.json.Decoder(_Envelope)


def is_native(part: Reasoning) -> bool:
    """Whether the payload is one of this wire's vendor, which refuses all others."""
    if part.encrypted is None or part.signature is not None:
        return False
    return part.encrypted.startswith(_VENDOR_PAYLOAD) or (part.id or "").startswith("rs_")


def seal(part: Reasoning) -> str | None:
    """The ``encrypted_content`` for ``part``."""
    if part.signature is None and (part.encrypted is None or is_native(part)):
        return part.encrypted
    envelope = _Envelope(part.signature, part.encrypted, part.id)
    return _MARK + base64.urlsafe_b64encode(encode_json(envelope)).decode()


def unseal(text: str, item_id: str | None, payload: str | None) -> Reasoning:
    """The part that was sealed."""
    if payload is not None and payload.startswith(_MARK):
        try:
            found = _ENVELOPE.decode(unbase64(payload.removeprefix(_MARK)))
            return Reasoning(text=text, signature=found.signature, encrypted=found.encrypted, id=found.id)
        except (WireError, msgspec.DecodeError):
            pass  # somebody else's payload that begins like ours
    return Reasoning(text=text, encrypted=payload, id=item_id)


def reasoning_text(item: JsonObject) -> str:
    """The readable text of a reasoning item: its summary, else its content."""
    return JOINT.join(_texts(item.get("summary"))) or JOINT.join(_texts(item.get("content")))


def _texts(parts: Any) -> list[str]:
    if not isinstance(parts, list):
        return []
    texts = (part.get("text") for part in parts if isinstance(part, dict))
    return [text for text in texts if isinstance(text, str) and text]
