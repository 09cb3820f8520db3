"""The client side of the Responses API. Embeddings and images use OpenAI's other endpoints."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import final

import msgspec

from llm_protocol.codec.decoding import BodyDecoder, read_whole
from llm_protocol.codec.fields import add_extra, bad_request, only_result, own_value, set_parameters, typed, unsupported
from llm_protocol.codec.json import encode_json
from llm_protocol.codec.media import image_url
from llm_protocol.codec.whole import counted_fields, decoded_count
from llm_protocol.content import (
    Audio,
    Document,
    HostedTool,
    Image,
    JsonObject,
    Message,
    Opaque,
    Part,
    Reasoning,
    Refusal,
    Text,
    Tool,
    ToolCall,
    ToolResult,
)
from llm_protocol.dialect import Headers, ModelPage, RateLimits, StreamDecoder, WireRequest, WireResponse, post
from llm_protocol.events import Event
from llm_protocol.failures import Failure
from llm_protocol.model_facts import ModelRule
from llm_protocol.model_rules import ModelRules
from llm_protocol.parameters import Adapted, adapt
from llm_protocol.requests import AnyRequest, ChatRequest, RequestType
from llm_protocol.vendor_profile import OPENAI, VendorProfile
from llm_protocol.wires.openai_chat.client import OpenAIChat
from llm_protocol.wires.responses.content import is_native, summary
from llm_protocol.wires.responses.media import encode_audio, encode_file
from llm_protocol.wires.responses.shapes import NAME, choice_object, format_object, own, tool_object
from llm_protocol.wires.responses.stream import OpenAIResponsesDecoder

_COUNTED = ("model", "input", "instructions", "tools", "tool_choice", "text", "reasoning", "parallel_tool_calls")
"""The fields that the vendor's token count accepts."""


@final
class OpenAIResponses:
    """Speaks to OpenAI, or a compatible server; see `ClientDialect`. Requests other than chat use the endpoints
    beside ``/responses``.
    """

    name = NAME
    version = 1

    def __init__(self, profile: VendorProfile = OPENAI, rules: ModelRules | None = None) -> None:
        self._neighbours = OpenAIChat(profile, rules)
        self._target = profile.responses_target
        self.rules = self._neighbours.rules

    @property
    def request_types(self) -> frozenset[RequestType]:
        """The request types that this vendor supports."""
        return self._neighbours.request_types

    def auth_headers(self, key: str) -> tuple[tuple[str, str], ...]:
        """The header that carries the API key."""
        return self._neighbours.auth_headers(key)

    def adapt(self, request: AnyRequest) -> Adapted:
        """The request, adapted to what the vendor accepts."""
        if not isinstance(request, ChatRequest):
            return self._neighbours.adapt(request)
        return adapt(request, self._target, self.rules.of(request.model))

    def encode_request(self, request: AnyRequest, *, stream: bool) -> WireRequest:
        """The HTTP request."""
        if isinstance(request, ChatRequest):
            return post("/responses", response_body(request, self.rules.of(request.model), stream=stream))
        return self._neighbours.encode_request(request, stream=stream)

    def count_request(self, request: AnyRequest) -> WireRequest:
        """See `TokenCounter`."""
        wire = self.encode_request(request, stream=False)
        return wire._replace(path="/responses/input_tokens", body=encode_json(counted_fields(wire, _COUNTED)))

    def decode_count(self, body: bytes) -> int:
        """See `TokenCounter`."""
        return decoded_count(body, "input_tokens")

    def stream_decoder(self, request: AnyRequest) -> StreamDecoder:
        """A decoder for the streamed response."""
        if isinstance(request, ChatRequest):
            return BodyDecoder(OpenAIResponsesDecoder())
        return self._neighbours.stream_decoder(request)

    def decode_response(
        self, request: AnyRequest, response: WireResponse, ignored: set[str] | None = None
    ) -> list[Event]:
        """The events of a complete 2xx response."""
        if isinstance(request, ChatRequest):
            return read_whole(OpenAIResponsesDecoder(), response.body, ignored)
        return self._neighbours.decode_response(request, response)

    def decode_error(self, response: WireResponse) -> Failure:
        """The failure for a response with an error status."""
        return self._neighbours.decode_error(response)

    def rate_limits(self, headers: Headers) -> RateLimits | None:
        """The limits that the headers report; ``None`` if they report none."""
        return self._neighbours.rate_limits(headers)

    def models_request(self, page: str | None) -> WireRequest:
        """The request for the model list."""
        return self._neighbours.models_request(page)

    def decode_models(self, body: bytes) -> ModelPage:
        """The model list. Raises `ProtocolError`."""
        return self._neighbours.decode_models(body)


_WHO = "OpenAI's Responses API"
_ENCRYPTED = "reasoning.encrypted_content"
_DIRECT = ("temperature", "top_p", "max_output_tokens", "parallel_tool_calls")
_FIELDS = {**dict(zip(_DIRECT, _DIRECT, strict=True)), "user": "safety_identifier"}
"""The fields of `Parameters`, and the wire's names for them."""
_CONTENT_TYPES = ("input_", "output_")


class _Extra(msgspec.Struct):
    """Fields of ``extra`` that belong into objects which the runtime also writes."""

    reasoning: JsonObject = {}
    text: JsonObject = {}
    include: list[str] = []


def response_body(request: ChatRequest, rule: ModelRule, *, stream: bool) -> JsonObject:
    """The body of ``POST /responses``. Raises `UnsupportedError` or `BadRequestError` naming the field at fault."""
    given = request.parameters
    instructions, rest = _split(request.messages)
    body: JsonObject = {"model": request.model, "input": encode_input(rest, len(request.messages) - len(rest))}
    body["store"] = False
    if instructions is not None:
        body["instructions"] = instructions
    if stream:
        body["stream"] = True
    if request.tools:
        body["tools"] = [_encode_tool(tool, f"tools[{at}]") for at, tool in enumerate(request.tools)]
    if request.tool_choice is not None:
        body["tool_choice"] = choice_object(request.tool_choice)
    body |= set_parameters(given, _FIELDS)
    _add_nested(body, request, rule)
    add_extra(body, given, NAME)
    if not stream:
        body.pop("stream_options", None)  # refused unless the response is streamed
    return body


def _add_nested(body: JsonObject, request: ChatRequest, rule: ModelRule) -> None:
    """Merge objects that hold both settings of the runtime and fields that only the vendor knows. The runtime's
    settings win.
    """
    given = request.parameters
    extra = typed(given.extra.get(NAME, {}), _Extra, f"parameters.extra.{NAME}")
    reasoning = {"effort": given.reasoning_effort, "summary": given.reasoning_summary}
    reasoning = extra.reasoning | {k: v for k, v in reasoning.items() if v is not None}
    text = dict(extra.text)
    if request.response_format is not None:
        text["format"] = format_object(request.response_format)
    include = list(extra.include)
    # Models that do not reason refuse a request for it.
    if _ENCRYPTED not in include and (rule.thinking or reasoning or _thought(body["input"])):
        include.append(_ENCRYPTED)
    body.update({k: v for k, v in (("reasoning", reasoning), ("text", text), ("include", include)) if v})


def _thought(items: list[JsonObject]) -> bool:
    return any(item.get("type") == "reasoning" for item in items)


def _split(messages: tuple[Message, ...]) -> tuple[str | None, tuple[Message, ...]]:
    """The first system message as ``instructions``, if it is a single text."""
    match messages:
        case (Message("system", (Text(text, extra=None),)), *rest):
            return text, tuple(rest)
        case _:
            return None, messages


def encode_input(messages: Sequence[Message], first: int) -> list[JsonObject]:
    """The items of ``messages``. ``first`` is the index of the first one in the request."""
    items: list[JsonObject] = []
    for at, message in enumerate(messages, first):
        found = list(_encode_items(message, f"messages[{at}]"))
        while found and found[-1].get("type") == "reasoning":
            found.pop()  # refused without the item that follows it
        items += found
    return items


def _encode_items(message: Message, where: str) -> Iterator[JsonObject]:
    """The items of one message: adjacent content becomes a message item, everything else is a separate item."""
    content: list[JsonObject] = []
    phase: str | None = None
    for part in message.content:
        if message.role == "tool" and not isinstance(part, Opaque):
            only_result(part, where)
        if (found := _encode_content(part, message, where)) is None:
            yield from _flush(message, content, phase)
            yield from _encode_item(part, where)
            continue
        next_phase = own(part).get("phase") if isinstance(part, Text) else phase
        if content and next_phase != phase:
            yield from _flush(message, content, phase)
        content.append(found)
        phase = next_phase
    yield from _flush(message, content, phase)


def _flush(message: Message, content: list[JsonObject], phase: str | None) -> Iterator[JsonObject]:
    if not content:
        return
    item: JsonObject = {"type": "message", "role": message.role, "content": _shortest(content)}
    yield item if phase is None else item | {"phase": phase}
    content.clear()


def _shortest(content: list[JsonObject]) -> str | list[JsonObject]:
    """Return a single text without further fields as a string, other content unchanged."""
    text = content[0].get("text")
    return text if len(content) == 1 and len(content[0]) == 2 and isinstance(text, str) else list(content)


def _encode_content(part: Part, message: Message, where: str) -> JsonObject | None:
    """Encode ``part`` as content of a message; ``None`` if it has to be a separate item."""
    assistant = message.role == "assistant"
    match part:
        case Text():
            extra = {name: value for name, value in own(part).items() if name != "phase"}
            return extra | {"type": "output_text" if assistant else "input_text", "text": part.text}
        case Image() | Document() | Audio() if not assistant:
            return _encode_media(part)
        case Refusal() if assistant:
            return {"type": "refusal", "refusal": part.text}
        case Opaque() if part.dialect == NAME and str(part.value.get("type")).startswith(_CONTENT_TYPES):
            return part.value
        case Image() | Document() | Audio() | Refusal():
            name = type(part).__name__
            raise unsupported(where, f"{where}: {_WHO} does not accept {name} in a message of role {message.role}")
        case _:
            return None


def _encode_media(part: Image | Document | Audio) -> JsonObject:
    match part:
        case Image():
            return _encode_image(part)
        case Document():
            return encode_file(part)
        case Audio():
            return encode_audio(part)


def _encode_image(image: Image) -> JsonObject:
    found: JsonObject = {"type": "input_image", "image_url": image_url(image)}
    return found if image.detail is None else found | {"detail": image.detail}


def _encode_item(part: Part, where: str) -> Iterator[JsonObject]:
    match part:
        case ToolCall():
            call = {"type": "function_call", "call_id": part.id, "name": part.name, "arguments": part.arguments or "{}"}
            yield own(part) | call
        case ToolResult():
            yield {"type": "function_call_output", "call_id": part.call_id, "output": _encode_output(part)}
        case Reasoning():
            if is_native(part):  # the vendor could not use anything else
                yield _encode_reasoning(part)
        case Opaque():
            yield own_value(part, where, NAME, _WHO)
        case _:
            raise bad_request(where, f"{where}: {type(part).__name__} is not allowed here")


def _encode_output(result: ToolResult) -> str | list[JsonObject]:
    if not result.content:
        return ""
    return _shortest([_encode_result_part(part) for part in result.content])


def _encode_result_part(part: Text | Image | Document | Audio) -> JsonObject:
    return {"type": "input_text", "text": part.text} if isinstance(part, Text) else _encode_media(part)


def _encode_reasoning(part: Reasoning) -> JsonObject:
    item: JsonObject = {"type": "reasoning", "summary": [summary(text) for text in [part.text] if text]}
    if part.id is not None:
        item["id"] = part.id
    return item | {"encrypted_content": part.encrypted}


def _encode_tool(tool: Tool | HostedTool, where: str) -> JsonObject:
    if isinstance(tool, HostedTool):
        return own_value(tool, where, NAME, _WHO)
    found = tool_object(tool)
    found = {name: value for name, value in found.items() if value is not None}
    return found | {"parameters": tool.parameters or None}  # required, but an empty schema is refused
