"""What the vendor sends: typed for speed, with a second, tolerant look at what is shaped a little differently."""

from __future__ import annotations

from typing import Any, TypeVar

import msgspec

from llm_protocol.codec.json import JsonDecoder, WireError, decode_object
from llm_protocol.content import JsonObject
from llm_protocol.failures import Failure, FailureKind
from llm_protocol.response import Usage
from llm_protocol.wires.openai_chat.errors import failure_of
from llm_protocol.wires.openai_chat.shapes import InputDetails, OutputDetails

S = TypeVar("S", bound=msgspec.Struct)


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


def read_event(text: str) -> ResponsesStreamEvent:
    """One event. Raises `WireError`."""
    try:
        return _EVENT.decode(text)
    except WireError:
        return _second_look(decode_object(text), ResponsesStreamEvent)


def read_response(body: bytes) -> ResponsesResource:
    """A whole response. Raises `WireError`."""
    try:
        return _RESPONSE.decode(body)
    except WireError:
        return _second_look(decode_object(body), ResponsesResource)


def _second_look(value: JsonObject, shape: type[S]) -> S:
    """The fields of ``value`` that can be understood; one that cannot is taken as absent."""
    found: dict[str, Any] = {}
    for field in msgspec.structs.fields(shape):
        inner = value.get(field.encode_name)
        if field.name == "response" and isinstance(inner, dict):
            found["response"] = _second_look(inner, ResponsesResource)
        elif inner is not None:
            try:
                found[field.name] = msgspec.convert(inner, field.type, strict=False)
            except msgspec.ValidationError:
                continue
    return shape(**found)


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
