"""What the vendor sends: typed for speed, with a second, tolerant look at what is shaped a little differently."""

from __future__ import annotations

from typing import Any

import msgspec

from llm_protocol.codec.json import JsonDecoder
from llm_protocol.codec.lenient import read
from llm_protocol.content import JsonObject
from llm_protocol.failures import Failure, FailureKind
from llm_protocol.response import Usage
from llm_protocol.wires.openai_chat.errors import failure_of
from llm_protocol.wires.openai_chat.shapes import InputDetails, OutputDetails


class ResponsesUsage(msgspec.Struct):
    """Token counts."""

    input_tokens: int = 0
    output_tokens: int = 0
    input_tokens_details: InputDetails | None = None
    output_tokens_details: OutputDetails | None = None


class Incomplete(msgspec.Struct):
    """Why a response did not come to its end."""

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
    """One event of a stream: the fields of all types that are read."""

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
"""What an answer is made of; every other field may be of any type."""


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
"""The events that an answer's content comes in."""


def read_event(text: str, ignored: set[str]) -> ResponsesStreamEvent:
    """One event. Raises `WireError`; see `lenient.fit`."""
    return read(_EVENT, ResponsesStreamEvent, text, _ESSENTIAL, ignored, types=READ_TYPES)


def read_response(body: bytes, ignored: set[str]) -> ResponsesResource:
    """A whole response. Raises `WireError`; see `lenient.fit`."""
    return read(_RESPONSE, ResponsesResource, body, _ESSENTIAL, ignored)


def read_usage(usage: ResponsesUsage) -> Usage | None:
    """The canonical usage. All zeros, as the vendor has written under cut streams, are no count at all."""
    if not (usage.input_tokens or usage.output_tokens):
        return None
    inside, outside = usage.input_tokens_details, usage.output_tokens_details
    return Usage(
        input_tokens=usage.input_tokens,
        output_tokens=usage.output_tokens,
        cached_tokens=(inside and inside.cached_tokens) or 0,
        cache_write_tokens=(inside and inside.cache_write_tokens) or 0,
        reasoning_tokens=(outside and outside.reasoning_tokens) or 0,
    )


def read_failure_in(value: Any) -> Failure:
    """What an error inside a 2xx answer means, wrapped or flat: there is no status to go by."""
    failure = failure_of(value)
    if failure.kind is not FailureKind.SERVER_ERROR:
        return failure
    error = value.get("error") if isinstance(value, dict) else None
    type_ = error.get("type") if isinstance(error, dict) else None
    kind = _kind_of(failure.upstream_code or "", type_)
    return failure if kind is None else msgspec.structs.replace(failure, kind=kind)


def _kind_of(code: str, type_: Any) -> FailureKind | None:
    """What a code of this API means that the other OpenAI endpoints do not know."""
    if "policy" in code or code == "invalid_prompt":
        return FailureKind.CONTENT_FILTER
    if code.startswith("invalid_") or "image" in code or type_ == "invalid_request_error":
        return FailureKind.BAD_REQUEST
    return None
