"""The server side of the Responses API, over SSE and WebSocket.

A request is the body of ``POST /responses`` or a ``response.create`` frame. Known fields are checked against `_Body`;
errors name the path of the field. Fields that only OpenAI understands are kept in ``parameters.extra``; fields for this
server become `ResponseOptions`.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple, final

import msgspec

from llm_protocol.codec.fields import bad_request, json_body, leftovers, typed, undecoded, unsupported
from llm_protocol.codec.json import encode_json
from llm_protocol.content import HostedTool, JsonObject, Message, ResponseFormat, Tool, ToolChoice
from llm_protocol.dialect import Inbound, ModelInfo, WireResponse
from llm_protocol.events import Event, Failed
from llm_protocol.failures import Failure, FailureKind
from llm_protocol.fold import unfold
from llm_protocol.requests import AUTO, ChatRequest, Parameters
from llm_protocol.response import LLMResponse
from llm_protocol.wires.openai_chat.errors import encode_error, error_body
from llm_protocol.wires.openai_chat.models import encode_models
from llm_protocol.wires.responses.content import decode_input, own_fields
from llm_protocol.wires.responses.errors import ending_of
from llm_protocol.wires.responses.server_stream import OpenAIResponsesEncoder
from llm_protocol.wires.responses.shapes import NAME, ResourceEncoder, ResponseOptions

NO_OPTIONS = ResponseOptions()


@final
class OpenAIResponsesServer:
    """Speaks to clients of the Responses API; see `llm_protocol.dialect.ServerDialect`."""

    name = NAME

    def decode_create(self, data: bytes | str) -> Create:
        """A request with its options, from an HTTP body or a ``response.create`` frame."""
        return decode_create(data)

    def decode_request(self, path: str, body: bytes) -> Inbound:  # noqa: ARG002
        """The request alone."""
        return decode_create(body).inbound

    def response_encoder(
        self,
        inbound: Inbound,
        response_id: str,
        options: ResponseOptions = NO_OPTIONS,
        *,
        stream_id: str | None = None,
        starting_after: int = -1,
    ) -> OpenAIResponsesEncoder:
        """An encoder for one streamed response, from its beginning or from after a number the reader has seen."""
        return OpenAIResponsesEncoder(inbound, response_id, options, stream_id=stream_id, starting_after=starting_after)

    def encode_response(
        self,
        inbound: Inbound,
        response: LLMResponse,
        options: ResponseOptions = NO_OPTIONS,
        *,
        failure: Failure | None = None,
    ) -> bytes:
        """The whole response; with ``failure`` what there was of it."""
        events = list(unfold(response))
        if failure is not None:
            events[-1] = Failed(failure=failure, response=response)
        return self.encode_log(inbound, response.response_id, options, events)

    def encode_log(
        self, inbound: Inbound, response_id: str, options: ResponseOptions, events: Iterable[Event]
    ) -> bytes:
        """The whole response as the stream of ``events``, which have an end, tells it with its last one."""
        return encode_json(_read(inbound, response_id, options, events).resource)

    def last_number(self, inbound: Inbound, response_id: str, options: ResponseOptions, events: Iterable[Event]) -> int:
        """The sequence number of the last event of the stream of ``events``."""
        return _read(inbound, response_id, options, events).number

    def encode_pending(
        self, inbound: Inbound, response_id: str, options: ResponseOptions = NO_OPTIONS, *, status: str = "in_progress"
    ) -> bytes:
        """A response that is still being made (``"in_progress"``) or waits (``"queued"``)."""
        return encode_json(ResourceEncoder(inbound, response_id, options).body(status))

    def queued_event(
        self, inbound: Inbound, response_id: str, options: ResponseOptions, *, stream_id: str | None = None
    ) -> bytes:
        """A response waits for its turn. The event is no part of its stream, so it has the number before the first."""
        return _frame("response.queued", -1, ResourceEncoder(inbound, response_id, options).body("queued"), stream_id)

    def withdrawn(self, inbound: Inbound, response_id: str, options: ResponseOptions) -> JsonObject:
        """A response that was cancelled before it was begun."""
        ending = ending_of(None, Failure(kind=FailureKind.CANCELLED, message="cancelled"), refused=False)
        return ResourceEncoder(inbound, response_id, options).body(ending.status, ending=ending)

    def withdrawn_event(
        self, inbound: Inbound, response_id: str, options: ResponseOptions, *, stream_id: str | None = None
    ) -> bytes:
        """The only event of such a response after `queued_event`."""
        return _frame("response.incomplete", 0, self.withdrawn(inbound, response_id, options), stream_id)

    def encode_error(self, failure: Failure) -> WireResponse:
        """Status, headers and body for a rejected request."""
        return encode_error(failure)

    def error_event(self, failure: Failure, *, stream_id: str | None = None, event_id: str | None = None) -> bytes:
        """The WebSocket frame for a request that was refused before ``response.created``, or failed before anything was
        answered. Clients tell by the status whether to ask again: see `_frame_status`.
        """
        refused = encode_error(failure)
        error: JsonObject = error_body(failure)["error"]
        hints = {name: value for name, value in refused.headers if name != "content-type"}
        if hints:
            error["headers"] = hints
        event: JsonObject = {"type": "error", "status": _frame_status(failure), "error": error}
        optional = {"stream_id": stream_id, "event_id": event_id}
        return encode_json(event | {name: value for name, value in optional.items() if value is not None})

    def encode_models(self, models: Sequence[ModelInfo]) -> bytes:
        """The model list."""
        return encode_models(models)


_FINAL_TO_CODEX = (400, 404, 429)
"""Statuses of an ``error`` frame after which Codex does not connect and ask again."""


def _frame_status(failure: Failure) -> int:
    """The status in an ``error`` frame. Where asking again cannot help, one that Codex takes for final."""
    status = failure.rule.status
    return status if failure.client_retry or status in _FINAL_TO_CODEX else 400


def _frame(kind: str, number: int, response: JsonObject, stream_id: str | None) -> bytes:
    lane = {} if stream_id is None else {"stream_id": stream_id}
    return encode_json({"type": kind, "sequence_number": number, "response": response} | lane)


_NOTHING_NEW = 2**62
"""Of the stream nothing is wanted but what it comes to."""


def _read(
    inbound: Inbound, response_id: str, options: ResponseOptions, events: Iterable[Event]
) -> OpenAIResponsesEncoder:
    encoder = OpenAIResponsesEncoder(inbound, response_id, options, starting_after=_NOTHING_NEW)
    encoder.start()
    encoder.encode(events)
    return encoder


_FRAME_FIELDS = frozenset(("type", "stream_id", "event_id", "generate", "client_metadata"))
"""Fields of the frame, or of the client itself: nothing to be asked of a model."""

_FUNCTION_FIELDS = frozenset(("type", "name", "description", "parameters", "strict"))
_CHOICES = {"auto": ToolChoice("auto"), "none": ToolChoice("none"), "required": ToolChoice("required")}


class Create(NamedTuple):
    """A decoded request with its options."""

    inbound: Inbound
    options: ResponseOptions

    @property
    def input(self) -> tuple[Message, ...]:
        """The messages without the instructions, which are never handed on to a following response."""
        messages = _chat(self.inbound).messages
        return messages if self.options.instructions is None else messages[1:]

    def after(self, history: Sequence[Message]) -> Inbound:
        """The request with ``history`` before its own input: how ``previous_response_id`` is resolved."""
        request = _chat(self.inbound)
        head = request.messages[: len(request.messages) - len(self.input)]
        longer = msgspec.structs.replace(request, messages=(*head, *history, *self.input))
        return self.inbound._replace(request=longer)


def _chat(inbound: Inbound) -> ChatRequest:
    assert isinstance(inbound.request, ChatRequest)
    return inbound.request


class _TextConfig(msgspec.Struct):
    format: JsonObject | None = None


class _ReasoningConfig(msgspec.Struct):
    effort: str | None = None
    summary: str | None = None
    generate_summary: str | None = None


class _Body(msgspec.Struct, kw_only=True):
    model: str | None = None
    input: str | list[JsonObject] | None = None
    instructions: str | None = None
    stream: bool | None = None
    temperature: float | None = None
    top_p: float | None = None
    max_output_tokens: int | None = None
    parallel_tool_calls: bool | None = None
    tools: list[JsonObject] | None = None
    tool_choice: str | JsonObject | None = None
    text: _TextConfig | None = None
    reasoning: _ReasoningConfig | None = None
    metadata: JsonObject | None = None
    user: str | None = None
    safety_identifier: str | None = None
    previous_response_id: str | None = None
    store: bool | None = None
    background: bool | None = None
    conversation: Any = None
    prompt: Any = None
    llm_runtime: Any = None


class _Frame(msgspec.Struct):
    generate: bool | None = None


class _Function(msgspec.Struct):
    name: str
    description: str | None = None
    parameters: JsonObject | None = None
    strict: bool | None = None


class _SchemaFormat(msgspec.Struct):
    name: str
    schema: JsonObject
    strict: bool | None = None
    description: str | None = None


_KNOWN = frozenset(_Body.__struct_fields__) | _FRAME_FIELDS


def decode_create(data: bytes | str) -> Create:
    """The request in a body or frame. Raises `BadRequestError` or `UnsupportedError` naming the field at fault."""
    raw = json_body(data)
    body = typed(raw, _Body)
    if body.conversation is not None:
        raise unsupported("conversation", "conversation: not kept here; send the items, or previous_response_id")
    if body.prompt is not None:
        raise unsupported("prompt", "prompt: templates are not kept here; send instructions and input")
    if not body.input and body.previous_response_id is None and raw.get("generate") is not False:
        problem = "missing" if body.input is None else "empty"
        raise bad_request("input", f"input is {problem}: it is a text, or a list of items")
    inbound = Inbound(_request(raw, body), stream=bool(body.stream), policy=undecoded(body.llm_runtime))
    return Create(inbound, _options(raw, body))


def _options(raw: JsonObject, body: _Body) -> ResponseOptions:
    return ResponseOptions(
        previous_response_id=body.previous_response_id,
        store=body.store is not False,
        background=bool(body.background),
        generate=typed(raw, _Frame).generate is not False,
        instructions=body.instructions,
    )


def _request(raw: JsonObject, body: _Body) -> ChatRequest:
    extra = _extra(raw)
    tools, tool_choice = _tools(body), None
    if isinstance(body.tool_choice, str):
        tool_choice = _choice_by_word(body.tool_choice)
    elif body.tool_choice is not None:
        tools, tool_choice = _choice_by_object(body.tool_choice, tools)
        if tool_choice is None:
            extra["tool_choice"] = body.tool_choice
    instructions = () if body.instructions is None else (Message.of("system", body.instructions),)
    reasoning = body.reasoning or _ReasoningConfig()
    parameters = Parameters(
        wire=NAME,
        temperature=body.temperature,
        top_p=body.top_p,
        max_output_tokens=body.max_output_tokens,
        parallel_tool_calls=body.parallel_tool_calls,
        reasoning_effort=reasoning.effort,
        reasoning_summary=reasoning.summary or reasoning.generate_summary,
        user=body.safety_identifier or body.user,
        extra={NAME: extra} if extra else {},
    )
    return ChatRequest(
        model=body.model or AUTO,
        messages=instructions + decode_input(body.input or []),
        tools=tools,
        tool_choice=tool_choice,
        response_format=_decode_format(body.text.format if body.text else None),
        parameters=parameters,
        metadata=body.metadata or {},  # not for the vendor, which stores nothing
    )


def _extra(raw: JsonObject) -> JsonObject:
    """The fields that only the vendor understands."""
    extra = leftovers(raw, _KNOWN)
    extra["text"] = leftovers(raw.get("text") or {}, _TextConfig.__struct_fields__)
    extra["reasoning"] = leftovers(raw.get("reasoning") or {}, _ReasoningConfig.__struct_fields__)
    return {name: value for name, value in extra.items() if value is not None and value != {}}


def _tools(body: _Body) -> tuple[Tool | HostedTool, ...]:
    return tuple(_decode_tool(tool, f"tools[{at}]") for at, tool in enumerate(body.tools or ()))


def _decode_tool(tool: JsonObject, where: str) -> Tool | HostedTool:
    if not isinstance(tool.get("type"), str):
        raise bad_request(f"{where}.type", f'{where}.type is missing: "function", or the name of a hosted tool')
    if tool["type"] != "function":
        return HostedTool(dialect=NAME, value=tool)
    function = typed(tool, _Function, where)
    return Tool(
        name=function.name,
        description=function.description,
        parameters=function.parameters or {},
        strict=function.strict,
        extra=own_fields(tool, _FUNCTION_FIELDS),
    )


def _choice_by_word(word: str, where: str = "tool_choice") -> ToolChoice:
    if (choice := _CHOICES.get(word)) is None:
        raise bad_request(where, f'{where}: expected "auto", "none", "required" or an object')
    return choice


def _choice_by_object(
    choice: JsonObject, tools: tuple[Tool | HostedTool, ...]
) -> tuple[tuple[Tool | HostedTool, ...], ToolChoice | None]:
    """The tools that are left and the choice among them; no choice where only the vendor understands it."""
    if choice.get("type") == "function":
        return tools, ToolChoice("named", typed(choice, _Function, "tool_choice").name)
    if choice.get("type") != "allowed_tools":
        return tools, None
    listed = typed(choice.get("tools"), list[JsonObject], "tool_choice.tools")
    allowed = [(tool.get("type"), tool.get("name")) for tool in listed]
    kept = tuple(tool for tool in tools if _named(tool) in allowed)
    mode = typed(choice.get("mode", "auto"), str, "tool_choice.mode")
    return kept, _choice_by_word(mode, "tool_choice.mode")


def _named(tool: Tool | HostedTool) -> tuple[str | None, str | None]:
    if isinstance(tool, Tool):
        return "function", tool.name
    return tool.value.get("type"), tool.value.get("name")


def _decode_format(value: JsonObject | None) -> ResponseFormat | None:
    where = "text.format"
    match value:
        case None:
            return None
        case {"type": "text"}:
            return ResponseFormat(type="text")
        case {"type": "json_object"}:
            return ResponseFormat(type="json")
        case {"type": "json_schema"}:
            found = typed(value, _SchemaFormat, where)
            return ResponseFormat(
                type="json_schema",
                name=found.name,
                schema=found.schema,
                strict=found.strict,
                description=found.description,
            )
        case _:
            raise unsupported(where, f'{where}.type: expected "text", "json_object" or "json_schema"')
