"""The response resource: what every snapshot in a stream and every whole answer consists of.

All fields of the Open Responses schema are there, because strict clients demand them; what the runtime adds of its own
is under ``llm_runtime``.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from llm_protocol.codec.media import sniff_media_type
from llm_protocol.content import (
    HostedTool,
    Image,
    JsonObject,
    Opaque,
    Part,
    Reasoning,
    Refusal,
    ResponseFormat,
    Text,
    Tool,
    ToolCall,
    ToolChoice,
)
from llm_protocol.dialect import Inbound
from llm_protocol.events import ItemKind
from llm_protocol.failures import Failure, FailureKind
from llm_protocol.requests import ChatRequest
from llm_protocol.response import FinishReason, LLMResponse, Usage
from llm_protocol.runtime_fields import runtime_object
from llm_protocol.wires.responses.inbound import ResponseOptions
from llm_protocol.wires.responses.reasoning import NAME, is_native, seal

_PREFIXES: dict[ItemKind, str] = {"reasoning": "rs", "tool_call": "fc", "image": "img"}
_KIND_OF: dict[type, ItemKind] = {Reasoning: "reasoning", ToolCall: "tool_call", Image: "image"}
_DEFAULTS: JsonObject = {
    "truncation": "disabled",
    "top_logprobs": 0,
    "service_tier": "default",
    "max_tool_calls": None,
    "prompt_cache_key": None,
}


class ResponseEnding(NamedTuple):
    """How a response ended: the ``type`` of the last event, and the fields that say why."""

    event: str
    status: str
    incomplete: JsonObject | None = None
    error: JsonObject | None = None


def item_id(kind: ItemKind, response_id: str, output_index: int) -> str:
    """The id of an item: always the same for the same place in the same response."""
    return f"{_PREFIXES.get(kind, 'msg')}_{response_id.removeprefix('resp_')}_{output_index}"


def part_id(part: Part, response_id: str, output_index: int) -> str:
    """The id of the item for a whole part."""
    if isinstance(part, Reasoning) and is_native(part) and part.id:
        return part.id
    return item_id(_KIND_OF.get(type(part), "text"), response_id, output_index)


def output_item(part: Part, ident: str, status: str = "completed") -> JsonObject | None:
    """The item for a part of an answer; ``None`` for a block that clients of this API could not understand."""
    match part:
        case Text() | Refusal():
            item = {"id": ident, "type": "message", "status": status, "role": "assistant", "content": [content(part)]}
            phase = own(part).get("phase")
            return item if phase is None else item | {"phase": phase}
        case Reasoning():
            return _reasoning_item(part, ident, status)
        case ToolCall():
            item = {"id": ident, "type": "function_call", "status": status, "call_id": part.id, "name": part.name}
            return own(part) | item | {"arguments": part.arguments}
        case Image():
            return _image_item(part, ident, status)
        case Opaque() if part.dialect == NAME:
            return part.value
        case _:
            return None


def content(part: Text | Refusal) -> JsonObject:
    """The content part of a message."""
    if isinstance(part, Refusal):
        return {"type": "refusal", "refusal": part.text}
    return {"type": "output_text", "text": part.text, "annotations": own(part).get("annotations", []), "logprobs": []}


def own(part: Text | Refusal | ToolCall | Tool) -> JsonObject:
    """The fields of ``part`` that only this dialect understands."""
    extra = None if isinstance(part, Refusal) else part.extra
    return (extra or {}).get(NAME, {})


def summary(text: str) -> JsonObject:
    """The summary part of a reasoning item."""
    return {"type": "summary_text", "text": text}


def _reasoning_item(part: Reasoning, ident: str, status: str) -> JsonObject:
    item: JsonObject = {"id": ident, "type": "reasoning", "status": status}
    item["summary"] = [summary(part.text)] if part.text else []
    if (payload := seal(part, ident)) is not None:
        item["encrypted_content"] = payload
    return item


def _image_item(part: Image, ident: str, status: str) -> JsonObject:
    """Said as the API's own picture tool says it; `items` knows by the id that it is ours."""
    item: JsonObject = {"id": ident, "type": "image_generation_call", "status": status}
    if part.data is None:
        return item | {"result": None, "url": part.url}
    media_type = part.media_type or sniff_media_type(part.data)
    return item | {"result": part.data, "output_format": media_type.removeprefix("image/")}  # bytes become base64


class ResourceEncoder:
    """Makes the snapshots of one response."""

    def __init__(self, inbound: Inbound, response_id: str, options: ResponseOptions) -> None:
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
        """One snapshot."""
        done = status == "completed" and response is not None
        body = self._head | {
            "status": status,
            "completed_at": int(response.timestamp) if done and response else None,
            "error": ending.error if ending else None,
            "incomplete_details": ending.incomplete if ending else None,
            "model": response.model if response and response.model else self._model,
            "output": output or [],
            **self._echo,
            "usage": None if usage is None else usage_object(usage),
        }
        return body if response is None else body | {"llm_runtime": runtime_object(response, answers=True)}


def _echo(request: ChatRequest, options: ResponseOptions) -> JsonObject:
    """What the client asked for, as the API repeats it."""
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
        "text": {"format": format_object(request.response_format), **extra.get("text", {})},
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


def usage_object(usage: Usage) -> JsonObject:
    """Token counts; strict clients want every one of them to be there."""
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


def ending_of(reason: FinishReason | None, failure: Failure | None, *, refused: bool) -> ResponseEnding:
    """How a finish reason or a failure is told. A refusal in the model's own words is an ordinary, whole answer."""
    if failure is not None:
        return _failed(failure)
    if reason is FinishReason.LENGTH:
        return ResponseEnding("response.incomplete", "incomplete", {"reason": "max_output_tokens"})
    if reason is FinishReason.CONTENT_FILTER and not refused:
        return ResponseEnding("response.incomplete", "incomplete", {"reason": "content_filter"})
    if reason in (None, FinishReason.ERROR):
        error = {"code": "server_error", "message": "the model ended its answer with an error"}
        return ResponseEnding("response.failed", "failed", error=error)
    return ResponseEnding("response.completed", "completed")


def _failed(failure: Failure) -> ResponseEnding:
    if failure.kind is FailureKind.CANCELLED:
        return ResponseEnding("response.incomplete", "cancelled", {"reason": "cancelled"})
    error = {"code": failure.rule.code, "message": message_with_wait(failure)}
    return ResponseEnding("response.failed", "failed", error=error)


def message_with_wait(failure: Failure) -> str:
    """The failure in words. Clients read the wait out of exactly this phrase."""
    if failure.told_retry_after is None or "try again in" in failure.message:
        return failure.message
    return f"{failure.message.rstrip('. ')}. Please try again in {failure.told_retry_after:.3g}s."
