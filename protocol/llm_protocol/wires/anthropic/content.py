"""Encode and decode content blocks, the parts of a message on Anthropic's wire, and encode a conversation.

A block of an unknown type becomes an `Opaque` part and is sent back unchanged. Unknown fields of a known block (cache
marks, citations, the caller of a tool) are kept in the part's ``extra``.

Claude cannot read another vendor's reasoning, but a client of this wire must be able to return it with its next turn.
Clients keep one token, the signature: `seal` packs the reasoning into it.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Iterable, Sequence
from typing import Any

import msgspec

from llm_protocol.codec.body import Body, ResponseObject, reading_response
from llm_protocol.codec.citations import UNSEALED, from_anthropic
from llm_protocol.codec.fields import bad_request, own_fields, own_value, unsupported
from llm_protocol.codec.json import WireError, decode_object, encode_json
from llm_protocol.codec.media import image_from_url, sniff_media_type, unbase64
from llm_protocol.content import (
    FAILED,
    Audio,
    Document,
    Image,
    JsonObject,
    Message,
    Opaque,
    Part,
    Reasoning,
    Refusal,
    Text,
    ToolCall,
    ToolResult,
)
from llm_protocol.model_facts import ModelRule
from llm_protocol.wires.anthropic.media import decode_document, encode_document
from llm_protocol.wires.anthropic.shapes import NAME

SEAL = "llm-runtime:"

_BAD_ID = re.compile(r"[^A-Za-z0-9_-]")


# ---------------------------------------------------------------- to the wire


def encode_parts(parts: Iterable[Part], where: str) -> list[JsonObject]:
    """Return the blocks for ``parts``. Parts that Claude must not see (empty texts, foreign reasoning) are left out."""
    blocks = (encode_part(part, f"{where}[{at}]") for at, part in enumerate(parts))
    return [block for block in blocks if block is not None]


def encode_part(part: Part, where: str) -> JsonObject | None:
    """One part as a block, or ``None`` if there is nothing to send."""
    match part:
        case Text():
            # The vendor refuses empty text blocks.
            return {"type": "text", "text": part.text, **own_fields(part.extra, NAME)} if part.text else None
        case Image():
            return {"type": "image", "source": _image_source(part, where), **own_fields(part.extra, NAME)}
        case Document():
            return encode_document(part)
        case Audio():
            raise unsupported(where, f"{where}: Anthropic does not accept audio")
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
    """Return a ``tool_use`` block. Its input is sent exactly as the model wrote it, so no number changes its form."""
    try:
        given = call.parsed()
    except (ValueError, msgspec.DecodeError):
        message = f"the arguments of tool call {call.name!r} are not a JSON object, which Anthropic demands"
        raise unsupported(f"{where}.arguments", message) from None
    value = _as_written(call.arguments) if given else None
    return {
        "type": "tool_use",
        "id": safe_id(call.id),
        "name": call.name,
        "input": given if value is None else value,
        **own_fields(call.extra, NAME),
    }


def _as_written(arguments: str) -> msgspec.Raw | None:
    """The text of ``arguments``; ``None`` if they are JSON for a tolerant reader only."""
    text = arguments.strip().encode("utf-8", "replace")
    try:
        msgspec.json.decode(text)
    except msgspec.DecodeError:
        return None
    return msgspec.Raw(text)


def safe_id(call_id: str) -> str:
    """Return ``call_id`` in the characters that Anthropic allows. Ids of other vendors contain dots, colons and the
    like.
    """
    return _BAD_ID.sub("_", call_id) or "_"


def _encode_tool_result(result: ToolResult, where: str) -> JsonObject:
    block: JsonObject = {"type": "tool_result", "tool_use_id": safe_id(result.call_id)}
    content = encode_parts(result.content, f"{where}.content")
    if result.is_error and not result.text.strip() and all(isinstance(part, Text) for part in result.content):
        content = [{"type": "text", "text": FAILED}]  # refused without content
    if content:
        block["content"] = plain_text(content) or content
    if result.is_error:
        block["is_error"] = True
    return {**block, **own_fields(result.extra, NAME)}


def plain_text(blocks: list[JsonObject]) -> str | None:
    """The text if ``blocks`` is a single text block with no other field, for which the wire has a short form; ``None``
    otherwise.
    """
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


# ---------------------------------------------------------------- the conversation


def conversation(messages: Sequence[Message], rule: ModelRule) -> tuple[Any, list[JsonObject]]:
    """The ``system`` field and the turns. On models that accept system messages between turns, these stay in place; on
    others they are moved into the ``system`` field.
    """
    system: list[JsonObject] = []
    turns: list[JsonObject] = []
    joinable = ""  # the role of the turn before
    for at, message in enumerate(messages):
        where = f"messages[{at}].content"
        if message.role in ("system", "developer") and not (turns and rule.mid_system):
            system += encode_parts(message.content, where)
            continue
        if message.role == "assistant" and any(isinstance(part, Image) for part in message.content):
            raise unsupported(where, f"{where}: Anthropic does not accept images in a turn of the assistant")
        blocks = encode_parts(message.content, where)
        if not blocks:
            continue
        # All results of one turn's tool calls must stand in the one user turn that follows it.
        if turns and {joinable, message.role} in ({"tool"}, {"tool", "user"}):
            turns[-1]["content"] += blocks
        else:
            turns.append({"role": _ROLES[message.role], "content": blocks})
        joinable = message.role
    _trim_prefill(turns)
    for turn in turns:
        turn["content"] = plain_text(turn["content"]) or turn["content"]
    return plain_text(system) or system or None, turns


def is_old_style(turns: list[JsonObject]) -> bool:
    """Whether a turn contains something that only `OLD_VERSION` accepts."""
    return any(
        (turn["role"], block.get("type")) == ("assistant", "document")
        or ((turn["role"], block.get("type")) == ("user", "text") and block.get("citations"))
        for turn in turns
        if isinstance(turn["content"], list)
        for block in turn["content"]
    )


_ROLES = {"user": "user", "tool": "user", "assistant": "assistant", "system": "system", "developer": "system"}


def is_begun(turn: JsonObject) -> bool:
    """Whether ``turn``, the last one, is the beginning of a response. A turn with calls of the vendor's own tools does
    not count: the vendor resumes it.
    """
    content = turn["content"]
    is_text = isinstance(content, str) or all(block.get("type") == "text" for block in content)
    return turn["role"] == "assistant" and is_text


def _trim_prefill(turns: list[JsonObject]) -> None:
    """Strip trailing white space, which the vendor refuses in the beginning of a response."""
    if turns and turns[-1]["role"] == "assistant":
        last = turns[-1]["content"][-1]
        if last.get("type") == "text":
            turns[-1]["content"][-1] = {**last, "text": last["text"].rstrip() or last["text"]}


# ---------------------------------------------------------------- from the wire


def decode_blocks(owner: Body, name: str) -> tuple[Part, ...]:
    """The parts in a field that is a string or a list of blocks. Raises `BadRequestError`."""
    given = owner.required_text_or_objects(name)
    return (Text(given),) if isinstance(given, str) else tuple(map(decode_block, given))


def decode_block(block: Body) -> Part:
    """Decode a block into a part. Raises `BadRequestError`."""
    match block.kind():
        case "text":
            _drop_our_citations(block)
            return Text(block.required_string("text"), extra=block.rest_for(NAME))
        case "image":
            return _decode_image(block)
        case "document":
            return decode_document(block)
        case "thinking":
            return _decode_thinking(block)
        case "redacted_thinking":
            return Reasoning(encrypted=block.required_string("data"), dialect=NAME)
        case "tool_use":
            return _decode_tool_call(block)
        case "tool_result":
            return _decode_tool_result(block)
        case _:
            return Opaque(dialect=NAME, value=block.raw)


def decode_response_block(block: JsonObject) -> Part:
    """Decode a block of a response into a part. A tool result or document in a response comes from the vendor's own
    tools. Raises `WireError`.
    """
    if block.get("type") in ("tool_result", "document"):
        return Opaque(dialect=NAME, value=block)
    with reading_response():
        part = decode_block(ResponseObject(block))
    if isinstance(part, Text) and block.get("citations"):
        return msgspec.structs.replace(part, citations=from_anthropic(block["citations"]))
    return part


def _drop_our_citations(block: Body) -> None:
    """Drop the citations that the runtime made from those of another provider: Anthropic refuses them."""
    citations = block.raw.get("citations")
    if isinstance(citations, list):
        own = [each for each in citations if not (isinstance(each, dict) and UNSEALED.items() <= each.items())]
        block.put_back("citations", own)


def _decode_thinking(block: Body) -> Reasoning:
    try:
        return unseal(block.required_string("thinking"), block.string("signature"))
    except WireError as exc:
        raise block.wrong("signature", f"as it was received: {exc}") from None


def _decode_tool_call(block: Body) -> ToolCall:
    arguments = block.required_object("input").raw
    return ToolCall(
        id=block.required_string("id"),
        name=block.required_string("name"),
        arguments=encode_json(arguments).decode(),
        extra=block.rest_for(NAME),
    )


def _decode_tool_result(block: Body) -> ToolResult | Opaque:
    content = decode_blocks(block, "content") if block.take("content") else ()
    plain = tuple(part for part in content if isinstance(part, Text | Image | Document))
    if len(plain) != len(content):
        return Opaque(dialect=NAME, value=block.raw)  # search results and the like: only the vendor can read it
    return ToolResult(
        call_id=block.required_string("tool_use_id"),
        content=plain,
        is_error=block.take("is_error") is True,
        extra=block.rest_for(NAME),
    )


def _decode_image(block: Body) -> Image | Opaque:
    source = block.required_object("source")
    match source.string("type"):
        case "url":
            return Image(url=source.required_string("url"), extra=block.rest_for(NAME))
        case "base64":
            try:
                data = unbase64(source.required_string("data"))
            except WireError:
                raise source.wrong("data", "base64") from None
            return Image(data=data, media_type=source.required_string("media_type"), extra=block.rest_for(NAME))
        case _:
            return Opaque(dialect=NAME, value=block.raw)  # a file uploaded to the vendor


# ---------------------------------------------------------------- reasoning of others


def seal(part: Reasoning) -> str:
    """The signature for ``part`` that a client of this wire gets: Claude's own, or one that contains another vendor's
    reasoning.
    """
    if part.dialect in (None, NAME) and part.id is None and part.encrypted is None and part.extra is None:
        return part.signature or ""
    kept = {name: getattr(part, name) for name in ("signature", "encrypted", "id", "dialect", "extra")}
    return SEAL + base64.b64encode(encode_json(kept)).decode()


def unseal(text: str, signature: str | None) -> Reasoning:
    """The reasoning in a ``thinking`` block: Claude's own, or the reasoning that `seal` packed. Raises `WireError`."""
    if not signature or not signature.startswith(SEAL):
        return Reasoning(text=text, signature=signature or None, dialect=NAME)
    kept = decode_object(unbase64(signature.removeprefix(SEAL)))
    try:
        return msgspec.convert({"text": text, **kept}, Reasoning)
    except (msgspec.ValidationError, TypeError):
        raise WireError("the value was not issued by this server") from None
