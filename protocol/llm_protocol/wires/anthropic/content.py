"""Encode and decode content blocks, the parts of a message on Anthropic's wire.

A block of an unknown type becomes an `Opaque` part and is sent back unchanged. Unknown fields of a known block (cache
marks, citations, the caller of a tool) are kept in the part's ``extra``.

Claude cannot read another vendor's reasoning, but a client of this wire must be able to return it with its next turn.
Clients keep one token, the signature: `seal` packs the reasoning into it.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Iterable
from typing import Any

import msgspec

from llm_protocol.codec.citations import UNSEALED, from_anthropic
from llm_protocol.codec.fields import bad_request, unsupported
from llm_protocol.codec.json import WireError, decode_object, encode_json
from llm_protocol.codec.media import image_from_url, sniff_media_type, unbase64
from llm_protocol.codec.request_encoding import own_fields, own_value
from llm_protocol.content import Image, JsonObject, Opaque, Part, Reasoning, Refusal, Text, ToolCall, ToolResult
from llm_protocol.wires.anthropic.shapes import NAME

SEAL = "llm-runtime:"

_BAD_ID = re.compile(r"[^A-Za-z0-9_-]")


# ---------------------------------------------------------------- to the wire


def encode_parts(parts: Iterable[Part], where: str) -> list[JsonObject]:
    """The blocks for ``parts``. What Claude must not see (empty texts, foreign reasoning) is left out."""
    blocks = (encode_part(part, f"{where}[{at}]") for at, part in enumerate(parts))
    return [block for block in blocks if block is not None]


def encode_part(part: Part, where: str) -> JsonObject | None:
    """One part as a block, or ``None`` where there is nothing to send."""
    match part:
        case Text():
            # The vendor refuses empty text blocks.
            return {"type": "text", "text": part.text, **own_fields(part.extra, NAME)} if part.text else None
        case Image():
            return {"type": "image", "source": _image_source(part, where), **own_fields(part.extra, NAME)}
        case Reasoning():
            return _encode_own_reasoning(part)
        case ToolCall():
            return encode_tool_call(part, where)
        case ToolResult():
            return _encode_tool_result(part, where)
        case Refusal():
            return {"type": "text", "text": part.text} if part.text else None
        case Opaque():
            return own_value(part, where, NAME, "Anthropic")


def encode_tool_call(call: ToolCall, where: str) -> JsonObject:
    """A ``tool_use`` block. Its input goes out as the model wrote it, so no number changes its form."""
    try:
        given = call.parsed()
    except (ValueError, msgspec.DecodeError):
        message = f"the arguments of tool call {call.name!r} are not a JSON object, which Anthropic demands"
        raise unsupported(f"{where}.arguments", message) from None
    value = msgspec.Raw(call.arguments.strip().encode("utf-8", "replace")) if given else {}
    return {
        "type": "tool_use",
        "id": safe_id(call.id),
        "name": call.name,
        "input": value,
        **own_fields(call.extra, NAME),
    }


def safe_id(call_id: str) -> str:
    """``call_id`` in the letters that Anthropic allows; other vendors' ids have dots, colons and the like."""
    return _BAD_ID.sub("_", call_id) or "_"


def _encode_tool_result(result: ToolResult, where: str) -> JsonObject:
    block: JsonObject = {"type": "tool_result", "tool_use_id": safe_id(result.call_id)}
    content = encode_parts(result.content, f"{where}.content")
    if content:
        block["content"] = plain_text(content) or content
    if result.is_error:
        block["is_error"] = True
    return {**block, **own_fields(result.extra, NAME)}


def plain_text(blocks: list[JsonObject]) -> str | None:
    """The text, when ``blocks`` is one text block without anything else: the wire has a short form for it."""
    if len(blocks) == 1 and blocks[0].keys() == {"type", "text"} and blocks[0]["type"] == "text":
        text: str = blocks[0]["text"]
        return text
    return None


def _image_source(image: Image, where: str) -> JsonObject:
    if image.url is not None:
        try:
            image = image_from_url(image.url)
        except WireError as exc:
            raise bad_request(where, f"{where}: the image's URL is {exc}") from None
    if image.url is not None:
        return {"type": "url", "url": image.url}
    media_type, data = image.media_type, image.data or b""
    encoded = base64.b64encode(data).decode()
    return {"type": "base64", "media_type": media_type or sniff_media_type(data), "data": encoded}


def _encode_own_reasoning(part: Reasoning) -> JsonObject | None:
    # Only signed thoughts may be sent, and only Claude's own: others' signatures are refused as forged.
    if part.dialect not in (None, NAME) or part.id is not None:
        return None
    if part.encrypted is not None:
        return {"type": "redacted_thinking", "data": part.encrypted}
    if part.signature is not None:
        return {"type": "thinking", "thinking": part.text, "signature": part.signature}
    return None


# ---------------------------------------------------------------- from the wire


def decode_block(block: JsonObject) -> Part:
    """The part that ``block`` is. Raises `WireError`, saying which field is at fault."""
    match block.get("type"):
        case "text":
            return Text(text_field(block, "text"), extra=_rest(_without_ours(block), "text"))
        case "image":
            return _decode_image(block)
        case "thinking":
            return unseal(text_field(block, "thinking"), block.get("signature"))
        case "redacted_thinking":
            return Reasoning(encrypted=text_field(block, "data"), dialect=NAME)
        case "tool_use":
            return _decode_tool_call(block)
        case "tool_result":
            return _decode_tool_result(block)
        case str():
            return Opaque(dialect=NAME, value=block)
        case _:
            raise WireError("type: a content block needs one, for example 'text'")


def decode_answer_block(block: JsonObject) -> Part:
    """As `decode_block`, for a block of a response: a tool's result there is the vendor's own affair."""
    if block.get("type") == "tool_result":
        return Opaque(dialect=NAME, value=block)
    part = decode_block(block)
    if isinstance(part, Text) and block.get("citations"):
        return msgspec.structs.replace(part, citations=from_anthropic(block["citations"]))
    return part


def _without_ours(block: JsonObject) -> JsonObject:
    """A text block without the citations that we made of another provider's: Anthropic refuses them."""
    citations = block.get("citations")
    if not isinstance(citations, list):
        return block
    own = [each for each in citations if not (isinstance(each, dict) and UNSEALED.items() <= each.items())]
    return block if len(own) == len(citations) else {**block, "citations": own or None}


def decode_blocks(value: Any, where: str) -> tuple[Part, ...]:
    """A text or a list of blocks. Raises `WireError` naming the field below ``where``."""
    if isinstance(value, str):
        return (Text(value),)
    if not isinstance(value, list):
        raise WireError(f"{where}: expected a text or a list of content blocks")
    parts: list[Part] = []
    for at, block in enumerate(value):
        if not isinstance(block, dict):
            raise WireError(f"{where}.{at}: expected a content block")
        try:
            parts.append(decode_block(block))
        except WireError as exc:
            raise WireError(f"{where}.{at}.{exc}") from None
    return tuple(parts)


def text_field(block: JsonObject, name: str) -> str:
    """A field that must be a text. Raises `WireError`."""
    value = block.get(name)
    if not isinstance(value, str):
        raise WireError(f"{name}: expected a text")
    return value


def _decode_tool_call(block: JsonObject) -> ToolCall:
    given = block.get("input")
    if not isinstance(given, dict):
        raise WireError("input: expected an object")
    return ToolCall(
        id=text_field(block, "id"),
        name=text_field(block, "name"),
        arguments=encode_json(given).decode(),
        extra=_rest(block, "id", "name", "input"),
    )


def _decode_tool_result(block: JsonObject) -> ToolResult | Opaque:
    content = decode_blocks(block.get("content") or [], "content")
    plain = tuple(part for part in content if isinstance(part, Text | Image))
    if len(plain) != len(content):
        return Opaque(dialect=NAME, value=block)  # documents and the like: only the vendor can read it
    return ToolResult(
        call_id=text_field(block, "tool_use_id"),
        content=plain,
        is_error=block.get("is_error") is True,
        extra=_rest(block, "tool_use_id", "content", "is_error"),
    )


def _decode_image(block: JsonObject) -> Image | Opaque:
    source = block.get("source")
    if not isinstance(source, dict):
        raise WireError("source: expected an object")
    match source.get("type"):
        case "url":
            return Image(url=text_field(source, "url"), extra=_rest(block, "source"))
        case "base64":
            data = unbase64(text_field(source, "data"))
            return Image(data=data, media_type=text_field(source, "media_type"), extra=_rest(block, "source"))
        case _:
            return Opaque(dialect=NAME, value=block)  # a file uploaded to the vendor


def _rest(block: JsonObject, *known: str) -> dict[str, JsonObject] | None:
    rest = {key: value for key, value in block.items() if key != "type" and key not in known and value is not None}
    return {NAME: rest} if rest else None


# ---------------------------------------------------------------- reasoning of others


def seal(part: Reasoning) -> str:
    """The signature under which a client of this wire keeps ``part``: Claude's own, or all of a foreign one."""
    if part.dialect in (None, NAME) and part.id is None and part.encrypted is None and part.extra is None:
        return part.signature or ""
    kept = {name: getattr(part, name) for name in ("signature", "encrypted", "id", "dialect", "extra")}
    return SEAL + base64.b64encode(encode_json(kept)).decode()


def unseal(text: str, signature: Any) -> Reasoning:
    """The reasoning of a ``thinking`` block, ours or sealed. Raises `WireError`."""
    if signature is not None and not isinstance(signature, str):
        raise WireError("signature: expected a text")
    if not signature or not signature.startswith(SEAL):
        return Reasoning(text=text, signature=signature or None, dialect=NAME)
    kept = decode_object(unbase64(signature.removeprefix(SEAL)))
    try:
        return msgspec.convert({"text": text, **kept}, Reasoning)
    except (msgspec.ValidationError, TypeError):
        raise WireError("signature: not one that this service made") from None
