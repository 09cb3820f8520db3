"""One line of the request log. docs/request-log.md describes the format. Later versions may add fields, but do not
change the meaning of a field.

A redacted line has only structure and numbers: roles, kinds and lengths, never a text.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any, Final

import msgspec

from llm_actors.run import Run
from llm_protocol.content import JsonObject
from llm_protocol.events import ANY_DELTAS, Event, Failed, Finished, ItemDone
from llm_protocol.requests import AnyRequest, ChatRequest
from llm_protocol.response import Usage

VERSION: Final = 1

CLIENT_ID: Final = "x-request-id"


class LoggedRequest(msgspec.Struct, kw_only=True, omit_defaults=True):
    """One request. ``ms`` is its duration in milliseconds, ``at`` the time at which its line was written, which
    is shortly after its end. ``cost`` is in US dollars.
    """

    v: int
    """The `VERSION` of the program that wrote the line."""
    id: str
    response_id: str
    client_id: str = ""
    caller: str = ""
    at: str
    ms: float
    outcome: str
    """``ok`` or the kind of the failure."""
    provider: str = ""
    model: str = ""
    usage: Usage | None = None
    cost: float | None = None
    redacted: bool = False
    request: JsonObject
    events: list[JsonObject]
    decision: JsonObject


def logged(run: Run, *, redacted: bool, wall: float) -> LoggedRequest | None:
    """Return the line of a run that has ended; ``None`` for a run without a response. Slow: call this in a thread."""
    end, request = run.log.end, run.request
    if end is None or end.response is None:
        return None
    response = end.response
    return LoggedRequest(
        v=VERSION,
        id=request.request_id,
        response_id=run.response_id,
        client_id=request.forwarded.get(CLIENT_ID, ""),
        caller=request.caller,
        at=datetime.fromtimestamp(wall, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z"),
        ms=round(response.processing_time_ms, 3),
        outcome="ok" if isinstance(end, Finished) else end.failure.kind.value,
        provider=response.provider,
        model=response.model,
        usage=response.usage,
        cost=response.cost,
        redacted=redacted,
        request=request_shape(request)
        if redacted
        else msgspec.to_builtins(msgspec.structs.replace(request, forwarded={})),
        events=[_event(each, redacted=redacted) for each in run.log.events],
        decision=_without_words(response.decision) if redacted else response.decision,
    )


def _event(event: Event, *, redacted: bool) -> JsonObject:
    if isinstance(event, Finished | Failed):  # the response repeats what the events say
        found: JsonObject = {"type": type(event).__name__.lower()}
        if isinstance(event, Finished):
            return found | {"reason": event.reason.value}
        failure = event.failure
        shown: JsonObject = {"kind": failure.kind.value, "upstream_status": failure.upstream_status}
        return found | shown | ({} if redacted else {"message": failure.message})
    if redacted:
        return _event_shape(event)
    if isinstance(event, ANY_DELTAS) and event.lengths:
        event = msgspec.structs.replace(event, lengths=b"")
    fields: JsonObject = msgspec.to_builtins(event)
    fields.pop("lengths", None)
    return fields


def _event_shape(event: Event) -> JsonObject:
    found: JsonObject = {"type": event.__struct_config__.tag}
    if (index := getattr(event, "index", None)) is not None:
        found["index"] = index
    if isinstance(event, ANY_DELTAS):
        found["characters"] = len(event.text)
    elif isinstance(event, ItemDone):
        found["part"] = _part(event.part)
    return found


def request_shape(request: AnyRequest) -> JsonObject:
    """Return a request without its texts. Numeric parameters and the reasoning effort are kept: they
    reveal no content.
    """
    given = request.parameters
    parameters: JsonObject = {
        name: value
        for name in given.__struct_fields__
        if isinstance(value := getattr(given, name), int | float) or (name == "reasoning_effort" and value is not None)
    }
    found: JsonObject = {
        "request_type": request.request_type.value,
        "model": request.model,
        "parameters": parameters,
        "deadline_s": request.deadline_s,
    }
    if isinstance(request, ChatRequest):
        found["messages"] = [
            {"role": each.role, "content": [_part(part) for part in each.content]} for each in request.messages
        ]
        found["tools"] = len(request.tools)
    return found


def _part(part: Any) -> JsonObject:
    text = getattr(part, "text", None)
    if not isinstance(text, str):
        text = getattr(part, "arguments", None)
    shape: JsonObject = {"type": part.__struct_config__.tag}
    return shape | ({"characters": len(text)} if isinstance(text, str) else {})


def _without_words(decision: JsonObject) -> JsonObject:
    """Return a decision record without the vendors' own messages, which may quote the request."""
    kept = ("strategy", "cache", "passed_over", "candidates", "stopped", "limit_owner", "calls", "spent", "budgets")
    found = {name: decision[name] for name in kept if name in decision}
    found["attempts"] = [_without_error(each) for each in decision.get("attempts", ())]
    if members := decision.get("members"):
        found["members"] = [
            _without_error(each) | {"attempts": [_without_error(attempt) for attempt in each.get("attempts", ())]}
            for each in members
        ]
    return found


def _without_error(entry: JsonObject) -> JsonObject:
    return {name: value for name, value in entry.items() if name != "error"}
