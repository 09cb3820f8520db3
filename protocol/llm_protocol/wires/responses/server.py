"""The server side of the Responses API, over SSE and WebSocket.

A request is the body of ``POST /responses`` or a ``response.create`` frame. Fields that only OpenAI understands are
kept in ``parameters.extra``; fields for this server become `ResponseOptions`.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple, final

import msgspec

from llm_protocol.codec.body import Body
from llm_protocol.codec.json import encode_json
from llm_protocol.content import HostedTool, JsonObject, Message, ResponseFormat, Tool, ToolChoice
from llm_protocol.dialect import ClientRequest, ModelInfo, WireResponse
from llm_protocol.events import Event, Failed
from llm_protocol.failures import Failure, FailureKind
from llm_protocol.fold import unfold
from llm_protocol.requests import ChatRequest, Parameters
from llm_protocol.response import LLMResponse
from llm_protocol.wires.openai_chat.errors import encode_error, error_body
from llm_protocol.wires.openai_chat.models import encode_models
from llm_protocol.wires.responses.content import decode_input, extra_of
from llm_protocol.wires.responses.errors import ending_of
from llm_protocol.wires.responses.server_stream import OpenAIResponsesEncoder
from llm_protocol.wires.responses.shapes import NAME, ResourceEncoder, ResponseOptions

NO_OPTIONS = ResponseOptions()


@final
class OpenAIResponsesServer:
    """Speaks to clients of the Responses API; see `llm_protocol.dialect.ServerDialect`."""

    name = NAME

    def decode_create(self, data: bytes | str) -> Create:
        """Decode a request with its options, from an HTTP body or a ``response.create`` frame. Raises
        `BadRequestError` or `UnsupportedError`, which names the field at fault.
        """
        return decode_create(data)

    def decode_request(self, path: str, body: bytes) -> ClientRequest:  # noqa: ARG002
        """Decode the request without its options."""
        return decode_create(body).inbound

    def response_encoder(
        self,
        inbound: ClientRequest,
        response_id: str,
        options: ResponseOptions = NO_OPTIONS,
        *,
        stream_id: str | None = None,
        starting_after: int = -1,
    ) -> OpenAIResponsesEncoder:
        """An encoder for one streamed response, from its beginning, or after the sequence number ``starting_after``
        that the client has.
        """
        return OpenAIResponsesEncoder(inbound, response_id, options, stream_id=stream_id, starting_after=starting_after)

    def encode_response(
        self,
        inbound: ClientRequest,
        response: LLMResponse,
        options: ResponseOptions = NO_OPTIONS,
        *,
        failure: Failure | None = None,
    ) -> bytes:
        """Return the complete response; with ``failure``, the response as far as it was received."""
        events = list(unfold(response))
        if failure is not None:
            events[-1] = Failed(failure=failure, response=response)
        return self.encode_log(inbound, response.response_id, options, events)

    def encode_log(
        self, inbound: ClientRequest, response_id: str, options: ResponseOptions, events: Iterable[Event]
    ) -> bytes:
        """Return the response as in the last event of the stream of ``events``; the last of ``events`` must be
        ``Finished`` or ``Failed``.
        """
        return encode_json(_read(inbound, response_id, options, events).resource)

    def last_number(
        self, inbound: ClientRequest, response_id: str, options: ResponseOptions, events: Iterable[Event]
    ) -> int:
        """The sequence number of the last event of the stream of ``events``."""
        return _read(inbound, response_id, options, events).number

    def encode_pending(
        self,
        inbound: ClientRequest,
        response_id: str,
        options: ResponseOptions = NO_OPTIONS,
        *,
        status: str = "in_progress",
    ) -> bytes:
        """The object of a response that is being made (``"in_progress"``) or waits (``"queued"``)."""
        return encode_json(ResourceEncoder(inbound, response_id, options).body(status))

    def queued_event(
        self, inbound: ClientRequest, response_id: str, options: ResponseOptions, *, stream_id: str | None = None
    ) -> bytes:
        """The event for a response that waits for its turn. It is not part of the response's stream, so its sequence
        number is the one before the first.
        """
        return _frame("response.queued", -1, ResourceEncoder(inbound, response_id, options).body("queued"), stream_id)

    def withdrawn(self, inbound: ClientRequest, response_id: str, options: ResponseOptions) -> JsonObject:
        """Return the object of a response that was cancelled before it began."""
        ending = ending_of(None, Failure(kind=FailureKind.CANCELLED, message="cancelled"), refused=False)
        return ResourceEncoder(inbound, response_id, options).body(ending.status, ending=ending)

    def withdrawn_event(
        self, inbound: ClientRequest, response_id: str, options: ResponseOptions, *, stream_id: str | None = None
    ) -> bytes:
        """Return the only event, besides `queued_event`, of a response that was cancelled before it began."""
        return _frame("response.incomplete", 0, self.withdrawn(inbound, response_id, options), stream_id)

    def encode_error(self, failure: Failure) -> WireResponse:
        """Status, headers and body for a rejected request."""
        return encode_error(failure)

    def error_event(self, failure: Failure, *, stream_id: str | None = None, event_id: str | None = None) -> bytes:
        """The WebSocket frame for a request that was refused before ``response.created``, or failed before any output.
        Clients decide by its status whether to retry: see `_frame_status`.
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
"""Statuses of an ``error`` frame after which Codex does not reconnect and retry."""


def _frame_status(failure: Failure) -> int:
    """Return the status in an ``error`` frame. If a retry cannot help, it is one that Codex treats as final."""
    status = failure.rule.status
    return status if failure.client_retry or status in _FINAL_TO_CODEX else 400


def _frame(kind: str, number: int, response: JsonObject, stream_id: str | None) -> bytes:
    lane = {} if stream_id is None else {"stream_id": stream_id}
    return encode_json({"type": kind, "sequence_number": number, "response": response} | lane)


_NOTHING_NEW = 2**62
"""A sequence number after which no frames are collected: only the final object of the stream is needed."""


def _read(
    inbound: ClientRequest, response_id: str, options: ResponseOptions, events: Iterable[Event]
) -> OpenAIResponsesEncoder:
    encoder = OpenAIResponsesEncoder(inbound, response_id, options, starting_after=_NOTHING_NEW)
    encoder.start()
    encoder.encode(events)
    return encoder


_FRAME_FIELDS = frozenset(("type", "stream_id", "event_id", "generate"))
"""Fields of the frame itself, which are not part of the request to a model."""

_CHOICES = {"auto": ToolChoice("auto"), "none": ToolChoice("none"), "required": ToolChoice("required")}


class Create(NamedTuple):
    """A decoded request with its `ResponseOptions`."""

    inbound: ClientRequest
    options: ResponseOptions

    @property
    def input(self) -> tuple[Message, ...]:
        """The messages without the instructions, which a following response does not inherit."""
        messages = _chat(self.inbound).messages
        return messages if self.options.instructions is None else messages[1:]

    def after(self, history: Sequence[Message]) -> ClientRequest:
        """The request with ``history`` before its own input, for a request with ``previous_response_id``."""
        request = _chat(self.inbound)
        head = request.messages[: len(request.messages) - len(self.input)]
        longer = msgspec.structs.replace(request, messages=(*head, *history, *self.input))
        return self.inbound._replace(request=longer)


def _chat(inbound: ClientRequest) -> ChatRequest:
    assert isinstance(inbound.request, ChatRequest)
    return inbound.request


def decode_create(data: bytes | str) -> Create:
    """The request in a body or frame. Raises `BadRequestError` or `UnsupportedError` naming the field at fault."""
    body = Body.parse(data)
    for name in _FRAME_FIELDS:
        body.take(name)
    if body.take("conversation") is not None:
        raise body.cannot(
            "conversation", "conversation: conversations are not stored here; send the items, or previous_response_id"
        )
    if body.take("prompt") is not None:
        raise body.cannot("prompt", "prompt: templates are not stored here; send instructions and input")
    options = ResponseOptions(
        previous_response_id=body.string("previous_response_id"),
        store=body.boolean("store") is not False,
        background=bool(body.boolean("background")),
        generate=body.boolean("generate") is not False,
        instructions=body.string("instructions"),
    )
    if not body.take("input") and options.previous_response_id is None and options.generate:
        problem = "missing" if body.take("input") is None else "empty"
        raise body.wrong("input", f"a string or a list of items; it is {problem}")
    stream = bool(body.boolean("stream"))
    return Create(ClientRequest(_request(body, options.instructions), stream=stream, policy=body.policy()), options)


def _request(body: Body, instructions: str | None) -> ChatRequest:
    system = () if instructions is None else (Message.of("system", instructions),)
    tools, tool_choice, extra = _tools(body)
    return ChatRequest(
        model=body.model(),
        messages=system + decode_input(body),
        tools=tools,
        tool_choice=tool_choice,
        response_format=_response_format(body, extra),
        metadata=body.json_object("metadata") or {},  # not sent to the vendor, where nothing is stored
        parameters=_parameters(body, extra),
    )


def _parameters(body: Body, extra: JsonObject) -> Parameters:
    """Return the parameters. Call this last: fields that no reader has read are added to ``extra``, for the vendor."""
    reasoning = body.object("reasoning") or Body({}, "reasoning")
    summary, older = reasoning.string("summary"), reasoning.string("generate_summary")
    safety, user = body.string("safety_identifier"), body.string("user")
    parameters: JsonObject = {
        "temperature": body.number("temperature"),
        "top_p": body.number("top_p"),
        "max_output_tokens": body.integer("max_output_tokens"),
        "parallel_tool_calls": body.boolean("parallel_tool_calls"),
        "reasoning_effort": reasoning.string("effort"),
        "reasoning_summary": summary or older,
        "user": safety or user,
    }
    if safety is not None and user is not None:
        extra["user"] = user
    if rest := reasoning.rest():
        extra["reasoning"] = rest
    extra = {name: value for name, value in {**body.rest(), **extra}.items() if value != {}}
    return Parameters(wire=NAME, extra={NAME: extra} if extra else {}, **parameters)


def _tools(body: Body) -> tuple[tuple[Tool | HostedTool, ...], ToolChoice | None, JsonObject]:
    """The tools that may be called, the tool choice, and a tool choice that only the vendor understands."""
    tools = tuple(map(_decode_tool, body.objects("tools")))
    if body.take("tool_choice") is None:
        return tools, None, {}
    if isinstance(body.take("tool_choice"), str):
        return tools, _CHOICES[body.required_word("tool_choice", _CHOICES)], {}
    choice = body.required_object("tool_choice")
    match choice.string("type"):
        case "function":
            return tools, ToolChoice("named", choice.required_string("name")), {}
        case "allowed_tools":
            allowed = [(tool.string("type"), tool.string("name")) for tool in choice.objects("tools")]
            mode = choice.word("mode", _CHOICES) or "auto"
            return tuple(tool for tool in tools if _named(tool) in allowed), _CHOICES[mode], {}
        case _:
            return tools, None, {"tool_choice": choice.raw}


def _named(tool: Tool | HostedTool) -> tuple[str | None, str | None]:
    if isinstance(tool, Tool):
        return "function", tool.name
    return tool.value.get("type"), tool.value.get("name")


def _decode_tool(tool: Body) -> Tool | HostedTool:
    if tool.kind() != "function":
        return HostedTool(dialect=NAME, value=tool.raw)
    return Tool(
        name=tool.required_string("name"),
        description=tool.string("description"),
        parameters=tool.json_object("parameters") or {},
        strict=tool.boolean("strict"),
        extra=extra_of(tool),
    )


def _response_format(body: Body, extra: JsonObject) -> ResponseFormat | None:
    """The text format; the other fields of ``text`` are added to ``extra``."""
    text = body.object("text")
    if text is None:
        return None
    format_ = text.object("format")
    if rest := text.rest():
        extra["text"] = rest
    if format_ is None:
        return None
    match format_.required_word("type", ("text", "json_object", "json_schema")):
        case "text":
            return ResponseFormat(type="text")
        case "json_object":
            return ResponseFormat(type="json")
        case _:
            return ResponseFormat(
                type="json_schema",
                name=format_.required_string("name"),
                schema=format_.required_object("schema").raw,
                strict=format_.boolean("strict"),
                description=format_.string("description"),
            )
