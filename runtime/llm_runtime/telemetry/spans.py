"""The spans of a run that has ended: one for the run, one per member, and one per attempt. Pure. The names are those of
OpenTelemetry's semantic conventions for generative AI. Names that the conventions lack begin with ``llm_runtime.``.

Only the spans of attempts have tokens and costs, so that a sum over a trace counts nothing twice.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Final, Literal, NamedTuple, TypeAlias

import msgspec

from llm_actors.run import Run
from llm_protocol.content import JsonObject, Text
from llm_protocol.events import Failed
from llm_protocol.requests import AnyRequest, ChatRequest, RequestType
from llm_protocol.response import LLMResponse

Value: TypeAlias = str | int | float | bool | tuple[str, ...]
NameOf: TypeAlias = Callable[[str], str]
"""A function that returns the conventions' name of a provider's vendor."""

OPERATIONS: Final[Mapping[RequestType, str]] = {
    RequestType.CHAT: "chat",
    RequestType.COMPLETION: "text_completion",
    RequestType.CODE_GENERATION: "text_completion",
    RequestType.EMBEDDING: "embeddings",
    RequestType.IMAGE_GENERATION: "generate_content",
}

PARAMETER_ATTRIBUTES: Final[Mapping[str, str]] = {
    "max_output_tokens": "gen_ai.request.max_tokens",
    "temperature": "gen_ai.request.temperature",
    "top_p": "gen_ai.request.top_p",
    "top_k": "gen_ai.request.top_k",
    "seed": "gen_ai.request.seed",
    "frequency_penalty": "gen_ai.request.frequency_penalty",
    "presence_penalty": "gen_ai.request.presence_penalty",
}
"""OpenTelemetry's names of the numeric parameters in its conventions."""

_TOKENS: Final[Mapping[str, str]] = {
    "input_tokens": "gen_ai.usage.input_tokens",
    "output_tokens": "gen_ai.usage.output_tokens",
    "cached_tokens": "gen_ai.usage.cache_read.input_tokens",
    "cache_write_tokens": "gen_ai.usage.cache_creation.input_tokens",
    "reasoning_tokens": "gen_ai.usage.reasoning.output_tokens",
}


class SpanData(NamedTuple):
    """One span. Times are seconds since the epoch. ``error`` is the kind of the failure, empty without one. ``inner``
    are the child spans.
    """

    name: str
    kind: Literal["server", "internal", "client"]
    began_at: float
    ended_at: float
    attributes: dict[str, Value]
    error: str
    inner: tuple[SpanData, ...] = ()


def spans_of(run: Run, name_of: NameOf, *, content: bool = False) -> SpanData | None:
    """Return the spans of a run that has ended; ``None`` for a run without a response. ``content``: include the texts
    of request and response.
    """
    end, request = run.log.end, run.request
    if end is None or end.response is None:
        return None
    response, operation = end.response, OPERATIONS[request.request_type]
    decision = response.decision
    ended_at, seconds = run.timed or (response.timestamp, response.processing_time_ms / 1000)
    attributes: dict[str, Value] = {
        "llm_runtime.request.id": request.request_id,
        "llm_runtime.response.id": run.response_id,
        "llm_runtime.model": request.model,
        "llm_runtime.stream": run.stream,
    }
    for name in ("strategy", "cache"):
        if name in decision:
            attributes[f"llm_runtime.{name}"] = str(decision[name])
    if request.caller:
        attributes["llm_runtime.caller"] = request.caller
    if content:
        attributes |= _content(request, response)
    # If the response is from the cache, the record describes how it was made for an earlier request.
    made = decision if decision.get("cache") not in ("hit", "coalesced") else {}
    own = [*_calls(made.get("attempts", ()), request, operation, name_of)]
    members = [_member(each, request, operation, name_of) for each in made.get("members", ())]
    if not isinstance(end, Failed) and own:
        _answered(own[-1], response)
    error = end.failure.kind.value if isinstance(end, Failed) else ""
    inner = (*members, *own)
    began_at = min([ended_at - seconds, *(each.began_at for each in inner)])
    return _encodable(SpanData(f"run {request.model}", "server", began_at, ended_at, attributes, error, inner))


def _encodable(span: SpanData) -> SpanData:
    """Return the span with ``?`` in place of each lone surrogate. A lone surrogate would make the SDK lose a whole
    batch of spans, and all measurements from then on.
    """
    for name, value in span.attributes.items():
        if isinstance(value, str) and not value.isascii():
            span.attributes[name] = value.encode(errors="replace").decode()
    name = span.name.encode(errors="replace").decode()
    return span._replace(name=name, inner=tuple(map(_encodable, span.inner)))


def calls_of(span: SpanData) -> Iterator[SpanData]:
    """Return the spans of all attempts in ``span``."""
    for each in span.inner:
        yield from (each,) if each.kind == "client" else calls_of(each)


def _member(told: JsonObject, request: AnyRequest, operation: str, name_of: NameOf) -> SpanData:
    began_at = told["began_at"]
    attributes: dict[str, Value] = {"llm_runtime.member": told["member"], "llm_runtime.round": told["round"]}
    error = "" if told["outcome"] == "ok" else told["outcome"]
    inner = tuple(_calls(told["attempts"], request, operation, name_of))
    ended_at = began_at + told["duration_ms"] / 1000
    return SpanData(f"member {told['member']}", "internal", began_at, ended_at, attributes, error, inner)


def _calls(attempts: list[JsonObject], request: AnyRequest, operation: str, name_of: NameOf) -> Iterator[SpanData]:
    for each in attempts:
        if not each.get("asked", True):
            continue
        attributes: dict[str, Value] = {
            "gen_ai.operation.name": operation,
            "gen_ai.provider.name": name_of(each["provider"]),
            "gen_ai.request.model": each["model"],
            "llm_runtime.provider": each["provider"],
            "llm_runtime.outcome": each["outcome"],
        }
        for name, said in PARAMETER_ATTRIBUTES.items():
            value = getattr(request.parameters, name, None)
            if value is not None:
                attributes[said] = value
        for name, said in _TOKENS.items():
            if count := (each.get("usage") or {}).get(name):
                attributes[said] = count
        if each.get("cost") is not None:
            attributes["llm_runtime.cost_usd"] = each["cost"]
        if each.get("first_token_ms") is not None:
            attributes["gen_ai.response.time_to_first_chunk"] = each["first_token_ms"] / 1000
        if each.get("waited_ms"):
            attributes["llm_runtime.waited_s"] = each["waited_ms"] / 1000
        if each.get("hedge"):
            attributes["llm_runtime.hedge"] = True
        error = "" if each["outcome"] == "ok" else each["outcome"]
        began_at = each["began_at"]
        name = f"{operation} {each['model']}"
        yield SpanData(name, "client", began_at, began_at + each["duration_ms"] / 1000, attributes, error)


def _answered(call: SpanData, response: LLMResponse) -> None:
    """Add the facts about the response to the span of the attempt that returned it."""
    if call.error:
        return
    call.attributes["gen_ai.response.model"] = response.model
    if response.upstream_id:
        call.attributes["gen_ai.response.id"] = response.upstream_id
    if response.finish_reason is not None:
        call.attributes["gen_ai.response.finish_reasons"] = (response.finish_reason.value,)


def _content(request: AnyRequest, response: LLMResponse) -> dict[str, Value]:
    found: dict[str, Value] = {}
    if isinstance(request, ChatRequest):
        said = [{"role": str(each.role), "parts": [_part(part) for part in each.content]} for each in request.messages]
        found["gen_ai.input.messages"] = _json(said)
    reason = "" if response.finish_reason is None else response.finish_reason.value
    answer = {"role": "assistant", "parts": [_part(part) for part in response.output], "finish_reason": reason}
    return found | {"gen_ai.output.messages": _json([answer])}


def _part(part: object) -> JsonObject:
    if isinstance(part, Text):
        return {"type": "text", "content": part.text}
    return msgspec.to_builtins(part) if isinstance(part, msgspec.Struct) else {"type": "unknown"}


def _json(value: object) -> str:
    try:
        return msgspec.json.encode(value).decode()
    except (TypeError, ValueError):  # it holds what JSON cannot say: a lone surrogate
        return ""
