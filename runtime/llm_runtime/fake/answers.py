"""The default responses of the fake provider. The same request always gets the same response.

The response to a chat is the text of its last message (``You said: …``); if that message is a tool's result, the text
of the result. If the request requires a tool call, the response calls the tool. JSON fits its schema. A token is four
characters, so that ``max_output_tokens`` and usage can be checked by hand.
"""

from __future__ import annotations

import hashlib
import math
import struct
import zlib
from collections.abc import Iterator

import msgspec

from llm_protocol.codec.json import json_text
from llm_protocol.codec.media import content_base64, unbase64
from llm_protocol.content import (
    Audio,
    Document,
    Image,
    JsonObject,
    Part,
    Reasoning,
    Refusal,
    Text,
    Tool,
    ToolCall,
    ToolResult,
)
from llm_protocol.embedding import Embedding
from llm_protocol.requests import AnyRequest, ChatRequest, CodeRequest, EmbeddingInput, EmbeddingRequest, ImageRequest
from llm_protocol.response import FinishReason, LLMResponse, Usage
from llm_runtime.fake.sample import sample
from llm_runtime.fake.script import FakeToolCall, ScriptRule, asked, follows_tool, last_said

TOKEN_CHARACTERS = 4
IMAGE_TOKENS = 100
DIMENSIONS = 16
"""The length of an embedding, if the request does not set it."""
MAX_DIMENSIONS = 8_192
MAX_IMAGES = 10


def answer(request: AnyRequest, rule: ScriptRule, number: int, dialect: str) -> LLMResponse:
    """Return the response to request ``number``, which came over ``dialect``."""
    response = LLMResponse(
        request_id=request.request_id, provider="fake", model=request.model, response_id=f"fake-{number}"
    )
    if isinstance(request, EmbeddingRequest):
        return _embedded(response, request, rule)
    whole = list(_parts(request, rule, response.response_id, dialect))
    parts, reason = _cut(whole, request.parameters.max_output_tokens)
    choice = msgspec.structs.replace(
        response,
        content="".join(part.text for part in parts if isinstance(part, Text)),
        output=tuple(parts),
        finish_reason=rule.finish_reason or reason,
    )
    choices = request.n if isinstance(request, ChatRequest) else 1
    usage = rule.usage or _usage(request, parts * choices)
    return msgspec.structs.replace(choice, usage=usage, choices=(choice,) * (choices - 1))


def _input_tokens(each: EmbeddingInput) -> int:
    return tokens(each) if isinstance(each, str) else len(each)


def _embedded(response: LLMResponse, request: EmbeddingRequest, rule: ScriptRule) -> LLMResponse:
    size = max(1, min(request.dimensions or DIMENSIONS, MAX_DIMENSIONS))
    return msgspec.structs.replace(
        response,
        embeddings=tuple(vector(str(each), size) for each in request.inputs),
        usage=rule.usage or Usage(input_tokens=sum(map(_input_tokens, request.inputs))),
        finish_reason=FinishReason.STOP,
    )


def _parts(request: AnyRequest, rule: ScriptRule, ident: str, dialect: str) -> Iterator[Part]:
    if rule.reasoning is not None:
        yield Reasoning(text=rule.reasoning, signature="ZmFrZQ==", dialect=dialect)
    if isinstance(request, ImageRequest):
        for at in range(min(request.n, MAX_IMAGES)):
            yield Image(data=picture(f"{request.prompt}{at}{_shown(request)}"), media_type="image/png")
    elif rule.refusal is not None:
        yield Refusal(rule.refusal)
    elif calls := rule.tool_calls or _forced(request):
        if rule.text:
            yield Text(rule.text)
        for at, call in enumerate(calls):
            yield ToolCall(id=f"call_{ident}_{at}", name=call.name, arguments=_arguments(call, request))
    else:
        yield Text(rule.text if rule.text is not None else _words(request))


def _shown(request: ImageRequest) -> str:
    """Describe the images in a request, so that different images get different responses."""
    shown = [*request.images, *([] if request.mask is None else [request.mask])]
    return "".join(hashlib.sha256(each.data or b"").hexdigest() for each in shown)


def _forced(request: AnyRequest) -> tuple[FakeToolCall, ...]:
    """Return the tool call that the request requires, if it requires one."""
    if not isinstance(request, ChatRequest) or request.tool_choice is None or follows_tool(request):
        return ()
    names = [tool.name for tool in request.tools if isinstance(tool, Tool)]
    match request.tool_choice.mode:
        case "required" if names:
            return (FakeToolCall(name=names[0]),)
        case "named" if request.tool_choice.name in names:
            return (FakeToolCall(name=request.tool_choice.name),)
    return ()


def _arguments(call: FakeToolCall, request: AnyRequest) -> str:
    if call.arguments is not None:
        return json_text(call.arguments)
    tools = request.tools if isinstance(request, ChatRequest) else ()
    schema = next((tool.parameters for tool in tools if isinstance(tool, Tool) and tool.name == call.name), {})
    made = sample({"type": "object", **schema}, asked(request))
    return json_text(made)


def _words(request: AnyRequest) -> str:
    response = asked(request)
    if not isinstance(request, ChatRequest):
        return f"You wrote: {response}"
    form = request.response_format
    if form is not None and form.type != "text":
        schema: JsonObject = form.schema or {"properties": {"you_said": {}}}
        return json_text(sample(schema, response))
    media = [part for part in last_said(request) if isinstance(part, Image | Document | Audio)]
    seen = "".join(f" [{part.media_type or type(part).__name__.lower()}, {_bytes_in(part)} bytes]" for part in media)
    return f"The tool said: {response}" if follows_tool(request) else f"You said: {response}{seen}"


def _bytes_in(part: Image | Document | Audio) -> int:
    if isinstance(part, Image):
        return len(part.data or b"")
    content = content_base64(part)
    return len(unbase64(content) if isinstance(content, str) else content)


def _cut(parts: list[Part], limit: int | None) -> tuple[list[Part], FinishReason]:
    """Return the parts within ``limit`` tokens, and the finish reason. Tool calls are never cut."""
    if any(isinstance(part, ToolCall) for part in parts):
        return parts, FinishReason.TOOL_CALLS
    if any(isinstance(part, Refusal) for part in parts):
        return parts, FinishReason.CONTENT_FILTER
    last = parts[-1]
    if limit is not None and isinstance(last, Text) and tokens(last.text) > limit:
        return [*parts[:-1], Text(last.text[: max(0, limit) * TOKEN_CHARACTERS])], FinishReason.LENGTH
    return parts, FinishReason.STOP


def tokens(text: str) -> int:
    """Return how many tokens ``text`` has for the fake."""
    return math.ceil(len(text) / TOKEN_CHARACTERS)


def _usage(request: AnyRequest, parts: list[Part]) -> Usage:
    thought = sum(tokens(part.text) for part in parts if isinstance(part, Reasoning))
    drawn = sum(IMAGE_TOKENS for part in parts if isinstance(part, Image))
    written = sum(_size(part) for part in parts)
    return Usage(
        input_tokens=_asked_tokens(request),
        output_tokens=written + drawn,
        reasoning_tokens=thought,
        image_tokens=drawn,
    )


def _asked_tokens(request: AnyRequest) -> int:
    if isinstance(request, ChatRequest):
        return sum(_size(part) for message in request.messages for part in message.content)
    text = request.instruction if isinstance(request, CodeRequest) else asked(request)
    return tokens(text)


def _size(part: Part) -> int:
    match part:
        case Text() | Reasoning() | Refusal() | ToolResult():
            return tokens(part.text)
        case ToolCall():
            return tokens(part.arguments)
        case _:
            return 0


def vector(text: str, size: int) -> Embedding:
    """Return a unit vector that depends only on ``text``, with numbers that float32 represents exactly."""
    raw = hashlib.shake_256(text.encode("utf-8", "surrogatepass")).digest(2 * size)
    values = [value / 32768 for (value,) in struct.iter_unpack("<h", raw)]
    norm = math.sqrt(sum(value * value for value in values)) or 1.0
    return Embedding(struct.pack(f"<{size}f", *(value / norm for value in values)))


def picture(text: str) -> bytes:
    """Return a valid PNG of one pixel whose colour depends on ``text``."""
    colour = hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()[:3]
    return b"".join((
        b"\x89PNG\r\n\x1a\n",
        _chunk(b"IHDR", struct.pack(">IIBBBBB", 1, 1, 8, 2, 0, 0, 0)),
        _chunk(b"IDAT", zlib.compress(b"\0" + colour)),
        _chunk(b"IEND", b""),
    ))  # fmt: skip


def _chunk(name: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
