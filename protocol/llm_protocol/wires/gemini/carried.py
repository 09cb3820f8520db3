"""Other vendors' reasoning, carried by Gemini's clients.

A client of this wire sends back what it got as ``thoughtSignature``, and nothing else of a thought but its text. So
what another vendor wants back (its signature, its encrypted payload, its id, or only the text, as its own) travels
inside one that we make, and is unpacked when it returns.
"""

from __future__ import annotations

import base64

import msgspec

from llm_protocol.codec.json import JsonDecoder, WireError, encode_json
from llm_protocol.codec.media import unbase64
from llm_protocol.content import Reasoning
from llm_protocol.wires.gemini.tables import NAME

_MARK = b"llm-runtime:"
_MARKED = base64.b64encode(_MARK).decode()  # 12 bytes, so that what follows does not change it
_REASONING = JsonDecoder(Reasoning)


def pack(part: Reasoning) -> str | None:
    """The ``thoughtSignature`` for a client: Gemini's own as it is, another vendor's reasoning packed up."""
    if part.dialect in (NAME, None) and part.extra is None:
        return part.signature
    return base64.b64encode(_MARK + encode_json(msgspec.structs.replace(part, text=""))).decode()


def unpack(text: str, signature: str | None) -> Reasoning:
    """The thought that a client sends back."""
    if signature is not None and signature.startswith(_MARKED):
        try:
            found = _REASONING.decode(unbase64(signature)[len(_MARK) :])
        except WireError:
            return Reasoning(text=text, dialect=NAME)
        return msgspec.structs.replace(found, text=text)
    return Reasoning(text=text, signature=signature, dialect=NAME)
