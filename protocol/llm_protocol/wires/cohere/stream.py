"""Decode Cohere's chat responses, streamed or whole, into events.

``message-end`` ends every response, even a failed one: then its reason is ``ERROR`` or ``TIMEOUT``. Content blocks,
tool calls and citations are each counted from 0. A plan has no end event: it ends where anything else begins. If the
token limit cuts a response inside a tool call, the call looks complete, so calls are held back until the reason is
known. Text is held back too, because its citations follow its end.
"""

from __future__ import annotations

from typing import Any, final

from llm_protocol.codec.body import ResponseObject, reading_response
from llm_protocol.codec.decoding import CUTTING, AnswerDecoder
from llm_protocol.codec.error_body import find_error
from llm_protocol.codec.items import OpenItem
from llm_protocol.codec.json import JsonDecoder, WireError
from llm_protocol.codec.lenient import read, read_object
from llm_protocol.codec.sse import ServerSentEvent
from llm_protocol.codec.tool_calls import CallPiece, PendingCall
from llm_protocol.content import JsonObject, ToolCall
from llm_protocol.events import (
    FieldsAdded,
    ItemKind,
    Started,
    UsageReported,
)
from llm_protocol.extra_fields import KeptFields, beyond, rest_of
from llm_protocol.failures import Failure
from llm_protocol.response import FinishReason
from llm_protocol.wires.cohere.content import CALL_FIELDS, TOOL_PLAN, cite, decode_assistant, text_of
from llm_protocol.wires.cohere.errors import in_stream_failure
from llm_protocol.wires.cohere.shapes import (
    ANSWER_FIELDS,
    NAME,
    REASONS,
    USAGE_SHAPE,
    CohereCall,
    CohereContent,
    CohereDelta,
    CohereFunction,
    CohereMessage,
    CohereStreamEvent,
    decode_usage,
)

_EVENTS = JsonDecoder(CohereStreamEvent)
_ESSENTIAL = frozenset(
    ("type", "delta", "message", "content", "text", "thinking", "tool_calls", "function", "arguments")
)
"""The fields that hold content. Any other field may have any type."""
_KNOWN = frozenset(
    f"{thing}-{step}" for thing in ("message", "content", "tool-call", "citation") for step in ("start", "delta", "end")
) | {"tool-plan-delta", ""}


class _Item(OpenItem):
    """An open plan, thought or text; only texts have citations."""

    __slots__ = ("citations",)

    def __init__(self, index: int, kind: ItemKind, id_: str | None = None) -> None:
        super().__init__(index, kind, id_)
        self.citations: list[Any] = []


@final
class CohereDecoder(AnswerDecoder):
    """Decodes one chat response, streamed or whole."""

    def __init__(self) -> None:
        super().__init__()
        self._plan: _Item | None = None
        self._contents: dict[int, _Item] = {}  # open items, by their number on the wire
        self._made = self._tool_calls("call", NAME)
        self._open_calls: dict[int, PendingCall] = {}
        self._held: PendingCall | None = None
        self._texts: dict[int, _Item] = {}  # ended, waiting for citations
        self._started = False
        self._id: str | None = None
        self._kept = KeptFields(NAME)

    def take(self, piece: ServerSentEvent) -> None:
        """Process the next event; unknown types are ignored."""
        if piece.event not in _KNOWN or piece.data == "[DONE]":
            return
        event = self._read(piece)
        match event.type:
            case "message-start":
                self._start(event)
            case "content-delta":
                self._take_content(event)
            case "tool-call-delta":
                self._take_arguments(event)
            case "tool-plan-delta":
                self._take_plan(event)
            case "content-start":
                self._start_content(event)
            case "content-end":
                self._end_content(event.index)
            case "tool-call-start":
                self._start_call(event, read_object(piece.data))
            case "tool-call-end":
                self._end_call(event.index)
            case "citation-start":
                self._take_citation(_message(event).citations)
            case "message-end":
                self._finish(event.delta or CohereDelta())

    def _read(self, piece: ServerSentEvent) -> CohereStreamEvent:
        event = read(_EVENTS, CohereStreamEvent, piece.data, _ESSENTIAL, self.ignored, types=_KNOWN)
        if not self._started and event.type in _KNOWN and event.type != "message-start":
            raise WireError(f"{event.type} before message-start")
        return event

    def _start(self, event: CohereStreamEvent) -> None:
        if self._started:
            if event.id != self._id:
                raise WireError("a second message-start")
            return
        self._started, self._id = True, event.id
        self._out.append(Started(upstream_id=event.id))

    def _open(self, kind: ItemKind, item_id: str | None = None) -> _Item:
        return _Item(self._begin(kind, item_id), kind, item_id)

    # -------------------------------------------------------- plan and content

    def _take_plan(self, event: CohereStreamEvent) -> None:
        piece = _message(event).tool_plan
        if piece:
            if self._plan is None:
                self._plan = self._open("reasoning", TOOL_PLAN)
            self._add(self._plan, piece)

    def _start_content(self, event: CohereStreamEvent) -> None:
        content = _message(event).content
        if not isinstance(content, CohereContent) or event.index in self._contents:
            raise WireError("content-start without content, or a second content-start for one index")
        self._settle()
        item = self._contents[event.index] = self._open("reasoning" if content.type == "thinking" else "text")
        self._add(item, _piece(item, content) or "")

    def _take_content(self, event: CohereStreamEvent) -> None:
        content = _message(event).content
        item = self._contents.get(event.index)
        if item is None or not isinstance(content, CohereContent):
            raise WireError("content-delta without content, or for a block that is not open")
        piece = _piece(item, content)
        if piece is None:
            raise WireError("content-delta without its text")
        self._add(item, piece)
        if event.logprobs is not None:
            self._out.append(FieldsAdded(NAME, {"body": {"logprobs": [event.logprobs]}}))

    def _end_content(self, index: int) -> None:
        item = self._contents.pop(index, None)
        if item is None:
            raise WireError("content-end for a block that is not open")
        if item.kind == "text":
            self._texts[index] = item
        else:
            self._done(item)

    def _take_citation(self, citation: Any) -> None:
        texts = {**self._texts, **{at: item for at, item in self._contents.items() if item.kind == "text"}}
        about = citation.get("content_index") if isinstance(citation, dict) else None
        item = texts.get(about) if isinstance(about, int) else None
        if item is None and texts:
            item = next(iter(texts.values()))
        if item is not None:
            item.citations.append(citation)

    # -------------------------------------------------------- tool calls

    def _start_call(self, event: CohereStreamEvent, raw: JsonObject) -> None:
        call = _message(event).tool_calls
        if not isinstance(call, CohereCall) or call.function is None:
            raise WireError("tool-call-start without a function")
        if event.index in self._open_calls:
            raise WireError("tool-call-start for a call that is already open")
        self._settle()
        message = (raw.get("delta") or {}).get("message") or {}
        extra = rest_of(message.get("tool_calls"), CALL_FIELDS)
        self._open_calls[event.index] = self._add_piece(event.index, call, extra)

    def _take_arguments(self, event: CohereStreamEvent) -> None:
        call = _message(event).tool_calls
        if event.index not in self._open_calls or not isinstance(call, CohereCall) or call.function is None:
            raise WireError("tool-call-delta without a function, or for a call that is not open")
        self._add_piece(event.index, call)

    def _add_piece(self, index: int, call: CohereCall, extra: JsonObject | None = None) -> PendingCall:
        function = call.function or CohereFunction()
        piece = CallPiece(index=index, id=call.id or "", name=function.name or "", text=function.arguments or "")
        return self._made.add(piece, extra=extra)

    def _end_call(self, index: int) -> None:
        if index not in self._open_calls:
            raise WireError("tool-call-end for a call that is not open")
        self._release()
        self._held = self._open_calls.pop(index)

    # -------------------------------------------------------- ends

    def _done(self, item: _Item) -> None:
        self._end(item, cite(item.part(dialect=NAME), item.citations))

    def _settle(self) -> None:
        """Release the items that were held back: the next item begins, so they are complete."""
        if self._plan is not None:
            self._done(self._plan)
            self._plan = None
        for text in self._texts.values():
            self._done(text)
        self._texts.clear()
        self._release()

    def _release(self) -> None:
        if self._held is not None:
            self._made.end(self._held, _call_part)
            self._held = None

    def _finish(self, delta: CohereDelta) -> None:
        reason = _reason_of(delta.finish_reason)
        if reason == FinishReason.ERROR or delta.error is not None:
            self._report_usage(delta.usage)
            self.fail(in_stream_failure(delta.error, delta.error_type, delta.finish_reason or "an error"))
            return
        self._texts |= self._contents
        last_is_call = self._held is not None
        if reason in CUTTING:
            self._held = None
        self._settle()
        self._made.close(_call_part, cut=reason in CUTTING, drop_last=last_is_call)
        self._report_usage(delta.usage)
        self._finished(reason, delta.finish_reason, has_calls=bool(self._made))

    def take_whole(self, body: bytes) -> None:
        """Process a complete response. Raises `WireError`."""
        answer = read_object(body)
        message, raw = answer.get("message"), text_of(answer, "finish_reason") or None
        if not isinstance(message, dict):
            raise WireError("message: expected an object")
        reason = _reason_of(raw)
        with reading_response():
            parts = decode_assistant(ResponseObject(message, "message"))
        self._out.append(Started(upstream_id=text_of(answer, "id") or None))
        for at, part in enumerate(parts, 1):
            cut = reason == FinishReason.LENGTH and at == len(parts) and isinstance(part, ToolCall)
            self._tell(part, cut=cut)
        self._kept.keep("body", answer, ANSWER_FIELDS)
        self._report_usage(answer.get("usage"))
        if reason == FinishReason.ERROR:
            error, type_ = text_of(answer, "error"), text_of(answer, "error_type")
            self.fail(in_stream_failure(error or None, type_ or None, raw or ""))
            return
        self._finished(reason, raw, has_calls=any(isinstance(part, ToolCall) for part in parts))

    def failure_in(self, body: Any) -> Failure:
        """Decode an error body into a failure."""
        error = find_error(body) or {}
        message, type_ = error.get("message"), error.get("error_type")
        return in_stream_failure(str(message) if message else None, str(type_) if type_ else None, "an error")

    def _report_usage(self, given: object) -> None:
        self._kept.keep("usage", beyond(given, USAGE_SHAPE))
        self._out += self._kept.take_events()
        usage = decode_usage(given)
        if usage is not None:
            self._out.append(UsageReported(usage))

    def end(self, surplus: bytes) -> None:
        """End the response as failed: the body has ended without ``message-end``. ``surplus`` is the part of the body
        that was not SSE.
        """
        if surplus:
            self.misread("it is not an event stream")
        else:
            self.truncated("message-end")


def _reason_of(word: str | None) -> FinishReason:
    return REASONS.get(word, FinishReason.UNKNOWN) if word else FinishReason.STOP


def _call_part(call: PendingCall, text: str) -> ToolCall:
    return ToolCall(id=call.id, name=call.name, arguments=text, extra=call.extra)


def _message(event: CohereStreamEvent) -> CohereMessage:
    if event.delta is None or event.delta.message is None:
        raise WireError(f"{event.type} without a message")
    return event.delta.message


def _piece(item: _Item, content: CohereContent) -> str | None:
    return content.text if item.kind == "text" else content.thinking
