"""Anthropic's streamed answers as events.

A stream is ``message_start``, then block after block (start, deltas, stop), ``message_delta`` with the stop reason and
the usage, ``message_stop``. Only ``message_stop`` is evidence of a whole answer.

A tool call in which the answer hit its token limit looks whole on the wire (its block is closed, its input may even be
valid JSON), so the last tool call is held back until the stop reason is known.
"""

from __future__ import annotations

from typing import Any

import msgspec

from llm_protocol.content import JsonObject, Part, ToolCall
from llm_protocol.dialects.anthropic.answer import REASONS, decode_usage, finished, refusal_of, text_of
from llm_protocol.dialects.anthropic.blocks import decode_answer_block
from llm_protocol.dialects.anthropic.errors import failure_of
from llm_protocol.events import (
    Event,
    Failed,
    ItemDone,
    ItemKind,
    ItemStarted,
    ReasoningDelta,
    Started,
    TextDelta,
    ToolCallDelta,
    UsageReported,
)
from llm_protocol.failures import Failure, FailureKind
from llm_protocol.fold import item_events
from llm_protocol.response import FinishReason
from llm_protocol.sse import ServerSentEvent, SseDecoder, SseOverflowError
from llm_protocol.wire import JsonDecoder, WireError, decode_object, encode_json

KINDS: dict[Any, ItemKind] = {
    "text": "text",
    "thinking": "reasoning",
    "redacted_thinking": "reasoning",
    "tool_use": "tool_call",
    "image": "image",
}


class _Delta(msgspec.Struct):
    type: str = ""
    text: str | None = None
    partial_json: str | None = None
    thinking: str | None = None
    signature: str | None = None
    citation: Any = None
    stop_reason: str | None = None
    stop_details: JsonObject | None = None


class _Event(msgspec.Struct):
    """Any event of a stream, wide instead of tagged: an unknown type must not be an error."""

    type: str
    index: int | None = None
    delta: _Delta | None = None
    content_block: JsonObject | None = None
    message: JsonObject | None = None
    usage: JsonObject | None = None
    error: JsonObject | None = None


_EVENTS = JsonDecoder(_Event)
_EVENT_NAMES = frozenset(
    (
        "",
        "message_start",
        "content_block_start",
        "content_block_delta",
        "content_block_stop",
        "message_delta",
        "message_stop",
        "error",
    )
)
_PIECE_FIELDS = {"text": "text", "thinking": "thinking"}


class _Block:
    """A block that has started. ``item`` is its place among the items."""

    __slots__ = ("citations", "item", "kind", "pieces", "signature", "start")

    def __init__(self, item: int, start: JsonObject) -> None:
        self.item = item
        self.start = start
        self.kind: ItemKind = KINDS.get(start.get("type"), "opaque")
        self.pieces: list[str] = []
        self.signature: list[str] = []
        self.citations: list[Any] = []

    def part(self) -> Part:
        """The whole part. Raises `WireError`."""
        block, joined = dict(self.start), "".join(self.pieces)
        field = _PIECE_FIELDS.get(block["type"])
        if field is not None:
            block[field] = text_of(block, field) + joined
        if self.signature:
            block["signature"] = text_of(block, "signature") + "".join(self.signature)
        if self.citations:
            given = block.get("citations")
            block["citations"] = [*(given if isinstance(given, list) else ()), *self.citations]
        if self.kind == "opaque" and joined:
            block["input"] = decode_object(joined)
        part = decode_answer_block(block)
        if isinstance(part, ToolCall) and joined:
            return msgspec.structs.replace(part, arguments=joined)
        return part


class MessageStream:
    """Decodes one streamed answer."""

    def __init__(self) -> None:
        self._sse = SseDecoder()
        self._blocks: dict[int, _Block] = {}
        self._items = 0
        self._held: _Block | None = None  # the last call, ended
        self._usage: JsonObject = {}
        self._started = False
        self._stop_reason: str | None = None
        self._ended = False
        self._out: list[Event] = []

    def feed(self, data: bytes) -> list[Event]:
        """The events that ``data`` completes."""
        if self._ended:
            return []
        try:
            frames = self._sse.feed(data)
        except SseOverflowError as exc:
            self._fail(FailureKind.PROTOCOL, str(exc))
            return self._taken()
        return self._take_all(frames)

    def end(self) -> list[Event]:
        """The body has ended."""
        if self._ended:
            return []
        found = self._take_all(self._sse.end())
        if self._ended:
            return found
        self._fail_at_end()
        return found + self._taken()

    def _take_all(self, frames: list[ServerSentEvent]) -> list[Event]:
        for frame in frames:
            if self._ended:
                break
            try:
                self._take(frame)
            except WireError as exc:
                self._fail(FailureKind.PROTOCOL, f"a stream event could not be understood: {exc}")
        return self._taken()

    def _taken(self) -> list[Event]:
        out, self._out = self._out, []
        return out

    def _take(self, frame: ServerSentEvent) -> None:
        if frame.event not in _EVENT_NAMES or frame.data == "[DONE]":
            return
        event = _EVENTS.decode(frame.data)
        match event.type:
            case "content_block_delta":
                self._take_delta(self._block(event), _there(event.delta, "delta"))
            case "content_block_start":
                self._start_block(event)
            case "content_block_stop":
                self._stop_block(event)
            case "message_start":
                self._start(_there(event.message, "message"))
            case "message_delta":
                self._take_message_delta(event)
            case "message_stop":
                self._finish()
            case "error":
                self._end_with(failure_of(event.error, status=None))

    def _start(self, message: JsonObject) -> None:
        if self._started:
            raise WireError("a second message_start")
        self._started = True
        self._out.append(Started(model=text_of(message, "model"), upstream_id=text_of(message, "id") or None))
        self._report_usage(message.get("usage"))

    def _start_block(self, event: _Event) -> None:
        start = _there(event.content_block, "content_block")
        if (
            not self._started
            or event.index is None
            or event.index in self._blocks
            or not isinstance(start.get("type"), str)
        ):
            raise WireError("content_block_start out of order or without index or type")
        self._release()
        block = self._blocks[event.index] = _Block(self._items, start)
        self._items += 1
        is_call = block.kind == "tool_call"
        call_id, name = (text_of(start, "id"), text_of(start, "name")) if is_call else (None, None)
        self._out.append(ItemStarted(index=block.item, kind=block.kind, id=call_id, name=name))
        if block.kind == "text" and start.get("text"):
            self._out.append(TextDelta(block.item, text_of(start, "text")))
        elif block.kind == "reasoning" and start.get("thinking"):
            self._out.append(ReasoningDelta(block.item, text_of(start, "thinking")))

    def _block(self, event: _Event) -> _Block:
        block = self._blocks.get(-1 if event.index is None else event.index)
        if block is None:
            raise WireError(f"{event.type} for a block that is not open")
        return block

    def _take_delta(self, block: _Block, delta: _Delta) -> None:
        match delta.type, block.kind:
            case "text_delta", "text":
                self._add(block, delta.text, TextDelta)
            case "thinking_delta", "reasoning":
                self._add(block, delta.thinking, ReasoningDelta)
            case "input_json_delta", "tool_call":
                self._add(block, delta.partial_json, ToolCallDelta)
            case "input_json_delta", "opaque":
                block.pieces.append(delta.partial_json or "")
            case "signature_delta", _:
                block.signature.append(delta.signature or "")
            case "citations_delta", _:
                block.citations.append(delta.citation)
            case (("text_delta" | "thinking_delta" | "input_json_delta"), _):
                raise WireError(f"{delta.type} in a block of type {block.start['type']!r}")

    def _add(self, block: _Block, piece: str | None, delta: type[TextDelta | ReasoningDelta | ToolCallDelta]) -> None:
        if piece is None:
            raise WireError("a delta without its text")
        if piece:
            block.pieces.append(piece)
            self._out.append(delta(block.item, piece))

    def _stop_block(self, event: _Event) -> None:
        block = self._block(event)
        self._blocks.pop(-1 if event.index is None else event.index)
        if block.kind == "tool_call" and not block.pieces:  # no fragments mean "{}"; the deltas must add up to that
            self._out.append(ToolCallDelta(block.item, encode_json(block.start.get("input") or {}).decode()))
        if block.kind == "tool_call" or (block.kind == "opaque" and block.pieces):
            self._release()
            self._held = block
        else:
            self._done(block)

    def _done(self, block: _Block) -> None:
        self._out.append(ItemDone(index=block.item, part=block.part()))

    def _release(self) -> None:
        held, self._held = self._held, None
        if held is not None:
            self._done(held)

    def _take_message_delta(self, event: _Event) -> None:
        self._report_usage(event.usage)
        if event.delta is None or event.delta.stop_reason is None:
            return
        self._stop_reason = event.delta.stop_reason
        if REASONS.get(self._stop_reason) == FinishReason.LENGTH:
            self._held = None
        self._release()
        refusal = refusal_of(event.delta.stop_details)
        if refusal is not None:
            self._out += item_events(self._items, refusal)
            self._items += 1

    def _report_usage(self, usage: Any) -> None:
        if isinstance(usage, dict):
            # Cumulative, and some reports leave out what has not changed.
            self._usage |= {key: value for key, value in usage.items() if value is not None}
            self._out.append(UsageReported(decode_usage(self._usage)))

    def _finish(self) -> None:
        if not self._started:
            raise WireError("message_stop before message_start")
        for block in self._blocks.values():
            if block.kind == "tool_call":
                raise WireError("message_stop in the middle of a tool call")
            self._done(block)
        self._release()
        self._ended = True
        self._out.append(finished(self._stop_reason))

    def _fail_at_end(self) -> None:
        stray = self._sse.stray.strip()
        if stray:
            error = _error_in(stray)
            if error is not None:
                return self._end_with(failure_of(error, status=None))
            return self._fail(FailureKind.PROTOCOL, "the answer is not an event stream")
        return self._fail(FailureKind.TRUNCATED, "the stream ended without message_stop")

    def _fail(self, kind: FailureKind, message: str) -> None:
        self._end_with(Failure(kind=kind, message=message))

    def _end_with(self, failure: Failure) -> None:
        self._ended = True
        self._out.append(Failed(failure=msgspec.structs.replace(failure, partial=self._items > 0)))


def _error_in(stray: bytes) -> Any:
    try:
        return decode_object(stray).get("error")
    except WireError:
        return None


def _there(value: Any, name: str) -> Any:
    if value is None:
        raise WireError(f"{name}: missing")
    return value
