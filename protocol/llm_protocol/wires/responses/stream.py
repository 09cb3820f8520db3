"""Decode the vendor's events, or its whole response, into canonical events.

Only ``response.completed`` and ``response.incomplete`` mean success. ``response.output_item.done`` contains the final
state of an item; if a server leaves it out, the final snapshot has it.
"""

from __future__ import annotations

from typing import Any, final

import msgspec

from llm_protocol.codec.body import ResponseObject, reading_response
from llm_protocol.codec.decoding import AnswerDecoder
from llm_protocol.codec.error_body import find_error
from llm_protocol.codec.items import OpenItem
from llm_protocol.codec.json import WireError, json_text
from llm_protocol.codec.lenient import read_object
from llm_protocol.codec.sse import ServerSentEvent
from llm_protocol.codec.tool_calls import checked_call
from llm_protocol.content import JsonObject, Part, Refusal, ToolCall
from llm_protocol.events import (
    ItemKind,
    Started,
    UsageReported,
)
from llm_protocol.extra_fields import KeptFields, beyond
from llm_protocol.failures import Failure, FailureKind
from llm_protocol.fold import item_events
from llm_protocol.model_rules import CHAT_COMPLETION
from llm_protocol.response import FinishReason
from llm_protocol.wires.openai_chat.shapes import service_of
from llm_protocol.wires.responses.content import JOINT, decode_item
from llm_protocol.wires.responses.errors import read_failure_in
from llm_protocol.wires.responses.shapes import (
    NAME,
    OTHER_INCOMPLETE,
    RESOURCE_FIELDS,
    USAGE_SHAPE,
    ResponsesResource,
    ResponsesStreamEvent,
    read_event,
    read_response,
    read_usage,
)

_DELTA_KINDS: dict[str, ItemKind] = {
    "response.output_text.delta": "text",
    "response.refusal.delta": "refusal",
    "response.function_call_arguments.delta": "tool_call",
    "response.reasoning_summary_text.delta": "reasoning",
    "response.reasoning_text.delta": "reasoning",
    "response.reasoning.delta": "reasoning",
}
_PART_KINDS: dict[str, ItemKind] = {"output_text": "text", "refusal": "refusal"}
_TERMINAL = frozenset(("response.completed", "response.incomplete", "response.failed", "response.cancelled"))
_INCOMPLETE = {
    "max_output_tokens": FinishReason.LENGTH,
    "max_tokens": FinishReason.LENGTH,
    "content_filter": FinishReason.CONTENT_FILTER,
    **dict.fromkeys(OTHER_INCOMPLETE, FinishReason.UNKNOWN),
}


class _Item(OpenItem):
    """One canonical item: a content part of a vendor's message, or another item of the vendor."""

    __slots__ = ("section",)

    def __init__(self, index: int, kind: ItemKind, id_: str | None, name: str | None) -> None:
        super().__init__(index, kind, id_, name)
        self.section = 0  # index of a part of the summary or of the reasoning text


@final
class OpenAIResponsesDecoder(AnswerDecoder):
    """Decodes one response, streamed or whole."""

    def __init__(self) -> None:
        super().__init__()
        self._started = False
        self._open: dict[tuple[int, int], _Item] = {}  # by the vendor's output and content index
        self._done: set[int] = set()  # the vendor's output indices
        self._calls: list[ToolCall] = []
        """The items that were reported completely."""
        self._refused = False
        self._seen = False
        self._kept = KeptFields(NAME)

    def take(self, piece: ServerSentEvent) -> None:
        """Process the next event; unknown types are ignored. Raises `WireError`."""
        self._seen = True
        text = piece.data
        if text.startswith("[DONE]"):
            return  # does not show how the response ended
        event = read_event(text, self.ignored)
        event.type = event.type or piece.event
        if not event.type and not self._started:
            _refuse_chat(read_object(text))
        if event.type == "error" or (not event.type and '"error"' in text):
            self.fail(read_failure_in(read_object(text)))
        else:
            if event.type in _TERMINAL:
                self._keep(read_object(text).get("response"))
            self._take_event(event)

    def take_whole(self, body: bytes) -> None:
        """Process a complete response, or an error in its place. Raises `WireError`."""
        response = read_response(body, self.ignored)
        if response.error and response.status is None:
            self.fail(read_failure_in(read_object(body)))
        else:
            whole = read_object(body)
            _refuse_chat(whole)
            self._keep(whole)
            self._finish(response)

    def _keep(self, response: Any) -> None:
        """Keep the other fields of a response at its end."""
        if isinstance(response, dict):
            usual = () if service_of(response.get("service_tier")) else ("service_tier",)
            self._kept.keep("body", response, RESOURCE_FIELDS.union(usual))
            self._kept.keep("usage", beyond(response.get("usage"), USAGE_SHAPE))

    def failure_in(self, body: Any) -> Failure:
        """Decode an error body into a failure."""
        return read_failure_in(find_error(body))

    def end(self, surplus: bytes) -> None:
        """End the response: the body has ended without a terminal event. It was truncated, or was JSON instead of a
        stream.
        """
        if surplus.startswith(b"{") and not self._seen:
            self.take_whole(surplus)
        else:
            self.truncated("response.completed, .incomplete or .failed")

    def _take_event(self, event: ResponsesStreamEvent) -> None:
        kind = _DELTA_KINDS.get(event.type)
        if kind is not None:
            self._delta(kind, event)
        elif event.type == "response.output_item.added" and event.item:
            self._item_added(event.output_index, event.item)
        elif event.type == "response.content_part.added" and event.part:
            if (part_kind := _PART_KINDS.get(str(event.part.get("type")))) is not None:
                self._item((event.output_index, event.content_index), part_kind)
        elif event.type == "response.output_item.done" and event.item:
            self._item_done(event.output_index, event.item)
        elif event.response is not None:
            self._snapshot(event.type, event.response)

    def _snapshot(self, kind: str, response: ResponsesResource) -> None:
        if kind not in _TERMINAL:
            self._start(response)
            return
        response.status = response.status or kind.removeprefix("response.")
        self._finish(response)

    def _start(self, response: ResponsesResource) -> None:
        if not self._started:
            self._started = True
            self._out.append(Started(model=response.model or "", upstream_id=response.id))

    def _delta(self, kind: ItemKind, event: ResponsesStreamEvent) -> None:
        is_reasoning = kind == "reasoning"
        inner = 0 if is_reasoning else event.content_index
        item = self._open.get((event.output_index, inner))
        if item is None:
            if kind == "tool_call" or event.output_index in self._done:
                return  # the item of these arguments is unknown so far; the complete item has them too
            item = self._item((event.output_index, inner), kind)
        if not event.delta:
            return
        if is_reasoning and (section := event.summary_index or event.content_index) != item.section:
            item.section = section
            self._add(item, JOINT)
        self._add(item, event.delta)

    def _item_added(self, place: int, item: JsonObject) -> None:
        call_id, name = item.get("call_id"), item.get("name")
        if item.get("type") == "function_call" and isinstance(call_id, str) and isinstance(name, str):
            self._item((place, 0), "tool_call", id_=call_id, name=name)
        elif item.get("type") == "reasoning":
            ident = item.get("id")
            self._item((place, 0), "reasoning", id_=ident if isinstance(ident, str) else None)

    def _item(self, key: tuple[int, int], kind: ItemKind, *, id_: str | None = None, name: str | None = None) -> _Item:
        if (known := self._open.get(key)) is not None:
            return known
        self._start(ResponsesResource())
        item = self._open[key] = _Item(self._begin(kind, id_, name), kind, id_, name)
        return item

    def _item_done(self, place: int, item: JsonObject) -> None:
        if place in self._done:
            return  # repeated
        if item.get("type") == "function_call" and item.get("status") == "incomplete":
            return  # an incomplete call is never reported as a call
        with reading_response():
            _, parts = decode_item(ResponseObject(_straightened(item), f"output[{place}]"))
        self._done.add(place)
        for at, part in enumerate(parts):
            self._close((place, at), part)
        if any(key[0] == place and open_item.pieces for key, open_item in self._open.items()):
            raise WireError(f"output[{place}] is complete, but a part of it that was streamed is missing")

    def _close(self, key: tuple[int, int], part: Part) -> None:
        if isinstance(part, ToolCall):
            part = checked_call(part)
            if part.id and part in self._calls:
                return  # the same call at another index
            self._calls.append(part)
            key = next((at for at, item in self._open.items() if item.id == part.id), key)
        self._refused |= isinstance(part, Refusal)
        self._start(ResponsesResource())
        item = self._open.pop(key, None)
        if item is None:
            self._tell(part)
        elif not item.pieces:  # report the text of an item that was not streamed
            self._out += list(item_events(item.index, part))[1:]
        else:
            self._end(item, part)

    def _finish(self, response: ResponsesResource) -> None:
        self._start(response)
        match response.status:
            case "completed" | "incomplete":
                self._close_all(response)
                self._out += self._kept.take_events()
                self._tell_usage(response)
                reason, raw = self._reason(response)
                self._finished(reason, raw, has_calls=bool(self._calls))
            case "failed" | "cancelled":
                self._tell_usage(response)
                self.fail(_why(response))
            case status:
                raise WireError(f"it has not ended (status {status or 'missing'})")

    def _close_all(self, response: ResponsesResource) -> None:
        for place, item in enumerate(response.output or ()):
            if place not in self._done:
                self._item_done(place, item)
        for key, open_item in list(self._open.items()):
            part = open_item.part()
            if key[0] in self._done:
                continue
            if response.output and not 0 <= key[0] < len(response.output):
                raise WireError(f"output[{key[0]}] was streamed but is missing from the complete response")
            if isinstance(part, ToolCall) and response.status != "completed":
                continue  # cut, perhaps in the middle of its arguments
            self._close(key, part)

    def _reason(self, response: ResponsesResource) -> tuple[FinishReason, str]:
        if response.status == "incomplete":
            raw = (response.incomplete_details and response.incomplete_details.reason) or "incomplete"
            return _INCOMPLETE.get(raw, FinishReason.UNKNOWN), raw
        return FinishReason.CONTENT_FILTER if self._refused else FinishReason.STOP, "completed"

    def _tell_usage(self, response: ResponsesResource) -> None:
        if response.usage is not None and (usage := read_usage(response.usage)) is not None:
            searches = sum(item.get("type") == "web_search_call" for item in response.output or ())
            if (services := service_of(response.service_tier)) or searches:
                usage = msgspec.structs.replace(usage, services=services, web_searches=searches)
            self._out.append(UsageReported(usage))


def _refuse_chat(answer: JsonObject) -> None:
    """Raise `WireError` for a chat completion: some servers treat every path as their chat API."""
    if "choices" in answer and "output" not in answer:
        raise WireError(CHAT_COMPLETION)


def _straightened(item: JsonObject) -> JsonObject:
    """Return the item, with fields added or corrected that some servers omit or write differently."""
    match item.get("type"):
        case "message":
            content = item.get("content")
            return item | {"role": item.get("role") or "assistant", "content": [] if content is None else content}
        case "function_call":
            written = item.get("arguments")
            arguments = json_text(written) if isinstance(written, dict) else "" if written is None else written
            return item | {"call_id": item.get("call_id") or item.get("id"), "arguments": arguments}
        case _:
            return item


def _why(response: ResponsesResource) -> Failure:
    if response.status == "cancelled":
        return Failure(kind=FailureKind.CANCELLED, message="the response was cancelled at the vendor")
    return read_failure_in({"error": response.error or {"message": "the vendor failed without giving a reason"}})
