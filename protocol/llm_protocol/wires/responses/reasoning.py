"""How reasoning crosses this wire and comes back whole.

The wire has a readable summary, an id, and one opaque string, ``encrypted_content``. OpenAI's own payloads pass as
they are. What other vendors need back (a signature, a payload, whose it is) is put together in an envelope that a
client carries like any other payload.
"""

from __future__ import annotations

import base64
from typing import Any

import msgspec

from llm_protocol.codec.json import WireError, encode_json
from llm_protocol.codec.media import unbase64
from llm_protocol.content import JsonObject, Reasoning

NAME = "openai_responses"
"""The dialect's name."""

JOINT = "\n\n"
"""Stands between the parts of one summary."""

_MARK = "llmrt."


class _Envelope(msgspec.Struct, frozen=True, omit_defaults=True):
    signature: str | None = None
    encrypted: str | None = None
    id: str | None = None
    dialect: str | None = None
    extra: dict[str, JsonObject] | None = None


_ENVELOPE = msgspec.json.Decoder(_Envelope)


def is_native(part: Reasoning) -> bool:
    """Whether there is a payload, and it is of this wire's vendor, which refuses all others."""
    return part.encrypted is not None and part.dialect == NAME


def seal(part: Reasoning, item_id: str) -> str | None:
    """The ``encrypted_content`` for ``part`` in an item that is called ``item_id``; the vendor ties the two."""
    if is_native(part) and part.id == item_id:
        return part.encrypted
    if part.signature is None and part.encrypted is None and part.extra is None:
        return None
    envelope = _Envelope(part.signature, part.encrypted, part.id, part.dialect, part.extra)
    return _MARK + base64.urlsafe_b64encode(encode_json(envelope)).decode()


def unseal(text: str, item_id: str | None, payload: str | None) -> Reasoning:
    """The part that was sealed."""
    if payload is None:
        return Reasoning(text=text, id=item_id)
    if payload.startswith(_MARK):
        try:
            found = _ENVELOPE.decode(unbase64(payload.removeprefix(_MARK)))
        except (WireError, msgspec.DecodeError):
            return Reasoning(text=text)  # ours once, but damaged: worth nothing to anyone
        return Reasoning(text=text, **msgspec.structs.asdict(found))
    return Reasoning(text=text, encrypted=payload, id=item_id, dialect=NAME)


def reasoning_text(item: JsonObject) -> str:
    """The readable text of a reasoning item: its summary, else its content."""
    return JOINT.join(_texts(item.get("summary"))) or JOINT.join(_texts(item.get("content")))


def _texts(parts: Any) -> list[str]:
    if not isinstance(parts, list):
        return []
    texts = (part.get("text") for part in parts if isinstance(part, dict))
    return [text for text in texts if isinstance(text, str) and text]
