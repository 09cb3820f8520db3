"""The data of the Responses API: the vendor's events and responses, and the response object that the runtime sends.

Vendor data is decoded into typed structs for speed; anything that does not fit is decoded again by a tolerant
decoder. The same response object is used for the whole response and for every snapshot in a stream. It has all fields
of the Open Responses schema, because strict clients require them; the runtime's own fields are under ``llm_runtime``.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import msgspec

from llm_protocol.codec.fields import own_fields
from llm_protocol.codec.json import JsonDecoder
from llm_protocol.codec.lenient import read
from llm_protocol.codec.response_encoding import runtime_object
from llm_protocol.content import (
    Audio,
    Document,
    HostedTool,
    JsonObject,
    Refusal,
    ResponseFormat,
    Text,
    Tool,
    ToolCall,
    ToolChoice,
)
from llm_protocol.dialect import ClientRequest
from llm_protocol.extra_fields import filled, shape_of
from llm_protocol.requests import ChatRequest
from llm_protocol.response import LLMResponse, Usage
from llm_protocol.wires.openai_chat.shapes import InputDetails, OutputDetails, long_writes

NAME = "openai_responses"
"""The dialect's name."""


class ResponsesUsage(msgspec.Struct):
    """Token counts."""

    input_tokens: int = 0
    output_tokens: int = 0
    input_tokens_details: InputDetails | None = None
    output_tokens_details: OutputDetails | None = None


class Incomplete(msgspec.Struct):
    """Why a response is incomplete."""

    reason: str | None = None


class ResponsesResource(msgspec.Struct):
    """A response, whole or as a snapshot in a stream."""

    id: str | None = None
    model: str | None = None
    status: str | None = None
    output: list[JsonObject] | None = None
    usage: ResponsesUsage | None = None
    error: Any = None
    incomplete_details: Incomplete | None = None
    service_tier: Any = None


class ResponsesStreamEvent(msgspec.Struct):
    """One event of a stream, of any type, with the fields that the decoder reads."""

    type: str = ""
    output_index: int = 0
    content_index: int = 0
    summary_index: int = 0
    delta: str = ""
    item: JsonObject | None = None
    part: JsonObject | None = None
    response: ResponsesResource | None = None


_EVENT = JsonDecoder(ResponsesStreamEvent)
_RESPONSE = JsonDecoder(ResponsesResource)


_ESSENTIAL = frozenset(("type", "delta", "item", "response", "output"))
"""The fields that hold content. Any other field may have any type."""


READ_TYPES = frozenset(
    (
        "response.output_text.delta",
        "response.refusal.delta",
        "response.function_call_arguments.delta",
        "response.output_item.added",
        "response.output_item.done",
        "response.completed",
        "response.incomplete",
        "response.failed",
    )
)
"""The events that carry a response's content."""


def read_event(text: str, ignored: set[str]) -> ResponsesStreamEvent:
    """Decode one event. Raises `WireError`; see `lenient.fit`."""
    return read(_EVENT, ResponsesStreamEvent, text, _ESSENTIAL, ignored, types=READ_TYPES)


def read_response(body: bytes, ignored: set[str]) -> ResponsesResource:
    """Decode a complete response. Raises `WireError`; see `lenient.fit`."""
    return read(_RESPONSE, ResponsesResource, body, _ESSENTIAL, ignored)


def read_usage(usage: ResponsesUsage) -> Usage | None:
    """The canonical usage; ``None`` if all counts are zero, as the vendor sends them for truncated streams."""
    if not (usage.input_tokens or usage.output_tokens):
        return None
    inside, outside = usage.input_tokens_details, usage.output_tokens_details
    return Usage(
        input_tokens=usage.input_tokens,
        output_tokens=usage.output_tokens,
        cached_tokens=(inside and inside.cached_tokens) or 0,
        cache_write_tokens=(inside and inside.cache_write_tokens) or 0,
        long_cache_write_tokens=long_writes(inside),
        reasoning_tokens=(outside and outside.reasoning_tokens) or 0,
    )


_DEFAULTS: JsonObject = {
    "truncation": "disabled",
    "top_logprobs": 0,
    "service_tier": "default",
    "max_tool_calls": None,
    "prompt_cache_key": None,
}


OTHER_INCOMPLETE = ("steered", "max_messages")
"""The reasons for an incomplete response that no other wire has."""

USAGE_SHAPE = shape_of(
    "input_tokens",
    "output_tokens",
    "total_tokens",
    input_tokens_details=("cached_tokens", "cache_write_tokens"),
    output_tokens_details=("reasoning_tokens",),
)
RESOURCE_FIELDS = frozenset(
    (
        "id",
        "object",
        "created_at",
        "completed_at",
        "status",
        "error",
        "incomplete_details",
        "model",
        "output",
        "output_text",
        "usage",
        "llm_runtime",
        # The client receives the parameters that it sent, not those that were sent to the vendor.
        "instructions",
        "previous_response_id",
        "conversation",
        "store",
        "background",
        "tools",
        "tool_choice",
        "parallel_tool_calls",
        "text",
        "reasoning",
        "temperature",
        "top_p",
        "presence_penalty",
        "frequency_penalty",
        "max_output_tokens",
        "user",
        "safety_identifier",
        "metadata",
        "truncation",
        "top_logprobs",
        "max_tool_calls",
        "prompt",
        "prompt_cache_key",
        "prompt_cache_options",
        "prompt_cache_retention",
    )
)
"""The fields that are read of usage and of a response, or that repeat the request. All others are kept."""


class ResponseEnding(NamedTuple):
    """The end of a response: the ``type`` of the last event, the fields with the reason, and details for which only
    the ``llm_runtime`` object has a field.
    """

    event: str
    status: str
    incomplete: JsonObject | None = None
    error: JsonObject | None = None
    own: JsonObject | None = None


def own(part: Text | Document | Audio | Refusal | ToolCall | Tool) -> JsonObject:
    """The fields of ``part`` that only this dialect understands."""
    return {} if isinstance(part, Refusal) else own_fields(part.extra, NAME)


class ResourceEncoder:
    """Makes the snapshots of one response: the response object at the times when the stream shows it."""

    def __init__(self, inbound: ClientRequest, response_id: str, options: ResponseOptions) -> None:
        request = inbound.request
        assert isinstance(request, ChatRequest)
        self._model = request.model
        self._head: JsonObject = {"id": response_id, "object": "response", "created_at": int(request.timestamp)}
        self._echo = _echo(request, options)

    def body(
        self,
        status: str,
        output: list[JsonObject] | None = None,
        *,
        ending: ResponseEnding | None = None,
        response: LLMResponse | None = None,
        usage: Usage | None = None,
    ) -> JsonObject:
        """Return the response object at one time: with the ``output`` items and the ``usage`` that are known by then,
        with the ``ending`` if it has ended, and with fields of ``response`` once that is complete.
        """
        kept = {} if response is None else response.extra.get(NAME, {})
        done = status == "completed" and response is not None
        body = self._head | {
            "status": status,
            "completed_at": int(response.timestamp) if done and response else None,
            "error": ending.error if ending else None,
            "incomplete_details": ending.incomplete if ending else None,
            "model": response.model if response and response.model else self._model,
            "output": output or [],
            **self._echo,
            "usage": None if usage is None else filled(usage_object(usage), kept.get("usage")),
            **kept.get("body", {}),
        }
        own_fields = {} if response is None else runtime_object(response, answers=True)
        own_fields |= (ending and ending.own) or {}
        return body | {"llm_runtime": own_fields} if own_fields else body


def _echo(request: ChatRequest, options: ResponseOptions) -> JsonObject:
    """Return the request's parameters, which the API repeats in the response."""
    given = request.parameters
    extra = given.extra.get(NAME, {})
    return {
        "instructions": options.instructions,
        "previous_response_id": options.previous_response_id,
        "store": options.store,
        "background": options.background,
        "tools": [tool_object(tool) for tool in request.tools],
        "tool_choice": extra.get("tool_choice") or choice_object(request.tool_choice),
        "parallel_tool_calls": given.parallel_tool_calls is not False,
        "text": {"format": _echoed_format(request.response_format), **extra.get("text", {})},
        "reasoning": {
            "effort": given.reasoning_effort,
            "summary": given.reasoning_summary,
            **extra.get("reasoning", {}),
        },
        "temperature": 1.0 if given.temperature is None else given.temperature,
        "top_p": 1.0 if given.top_p is None else given.top_p,
        "presence_penalty": given.presence_penalty or 0.0,
        "frequency_penalty": given.frequency_penalty or 0.0,
        "max_output_tokens": given.max_output_tokens,
        "user": None,
        "safety_identifier": given.user,
        "metadata": request.metadata,
        **{name: extra.get(name, default) for name, default in _DEFAULTS.items()},
    }


def tool_object(tool: Tool | HostedTool) -> JsonObject:
    """A tool as this API writes it: flat."""
    if isinstance(tool, HostedTool):
        return tool.value
    return own(tool) | {
        "type": "function",
        "name": tool.name,
        "description": tool.description,
        "parameters": tool.parameters,
        "strict": tool.strict,
    }


def choice_object(choice: ToolChoice | None) -> Any:
    """A tool choice as this API writes it."""
    if choice is None:
        return "auto"
    return {"type": "function", "name": choice.name} if choice.mode == "named" else choice.mode


def format_object(wanted: ResponseFormat | None) -> JsonObject:
    """A text format as this API writes it."""
    if wanted is None or wanted.type == "text":
        return {"type": "text"}
    if wanted.type == "json":
        return {"type": "json_object"}
    found: JsonObject = {"type": "json_schema", "name": wanted.name, "schema": wanted.schema or {}}
    optional = {"strict": wanted.strict, "description": wanted.description}
    return found | {key: value for key, value in optional.items() if value is not None}


def _echoed_format(wanted: ResponseFormat | None) -> JsonObject:
    """Return a text format with all fields that the schema of Open Responses requires in a response."""
    found = format_object(wanted)
    return found if "schema" not in found else {"description": None, "strict": False, **found}


def usage_object(usage: Usage) -> JsonObject:
    """Token counts. Strict clients require all of them."""
    return {
        "input_tokens": usage.input_tokens,
        "input_tokens_details": {
            "cached_tokens": usage.cached_tokens,
            "cache_write_tokens": usage.cache_write_tokens,
        },
        "output_tokens": usage.output_tokens,
        "output_tokens_details": {"reasoning_tokens": usage.reasoning_tokens},
        "total_tokens": usage.total_tokens,
    }


class ResponseOptions(msgspec.Struct, frozen=True, kw_only=True):
    """The fields of a request that this server acts on itself. ``generate`` is false for a warm-up, which makes no
    response.
    """

    previous_response_id: str | None = None
    store: bool = True
    background: bool = False
    generate: bool = True
    instructions: str | None = None
