"""Decode Anthropic's responses, streamed or whole, into events.

A stream is ``message_start``, then block after block (start, deltas, stop), ``message_delta`` with the stop reason and
the usage, ``message_stop``. Only ``message_stop`` proves that the response is complete.

If the token limit cuts a response inside a tool call, the call looks complete on the wire: its block is closed, and its
input may even be valid JSON. The last tool call is therefore held back until the stop reason is known.
"""

from __future__ import annotations

from typing import Any, final

import msgspec

from llm_protocol.codec.decoding import CUTTING, AnswerDecoder
from llm_protocol.codec.error_body import find_error
from llm_protocol.codec.items import OpenItem, TextBuffer
from llm_protocol.codec.json import JsonDecoder, WireError, decode_object, encode_json
from llm_protocol.codec.lenient import read, read_object
from llm_protocol.codec.sse import ServerSentEvent
from llm_protocol.codec.tool_calls import CallPiece, PendingCall
from llm_protocol.content import JsonObject, Opaque, Part, ToolCall
from llm_protocol.events import (
    ItemKind,
    ReasoningDelta,
    Started,
    TextDelta,
    UsageReported,
)
from llm_protocol.extra_fields import KeptFields, rest_of
from llm_protocol.failures import Failure
from llm_protocol.response import FinishReason
from llm_protocol.wires.anthropic.content import decode_response_block
from llm_protocol.wires.anthropic.errors import failure_of
from llm_protocol.wires.anthropic.shapes import (
    DELTA_FIELDS,
    MESSAGE_FIELDS,
    NAME,
    REASONS,
    REFUSAL_FIELDS,
    USAGE_FIELDS,
    AnthropicDelta,
    AnthropicStreamEvent,
    decode_usage,
    reason_of,
    refusal_of,
    text_of,
)

KINDS: dict[Any, ItemKind] = {
    "text": "text",
    "thinking": "reasoning",
    "redacted_thinking": "reasoning",
    "tool_use": "tool_call",
    "image": "image",
}


_EVENTS = JsonDecoder(AnthropicStreamEvent)
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
_ESSENTIAL = frozenset(("type", "delta", "content_block", "message", "text", "partial_json", "thinking"))
"""The fields that hold content. Any other field may have any type."""
_CALL_FIELDS = frozenset(("type", "id", "name", "input"))
_PIECE_FIELDS = {"text": "text", "thinking": "thinking"}


class _Block(OpenItem):
    """A block that has started."""

    __slots__ = ("call", "citations", "signature", "start")

    def __init__(self, index: int, start: JsonObject) -> None:
        super().__init__(index, KINDS.get(start.get("type"), "opaque"))
        self.start = start
        self.call: PendingCall | None = None
        self.signature = TextBuffer()
        self.citations: list[Any] = []

    def add_compaction(self, delta: AnthropicDelta) -> None:
        """Add compacted content. It arrives in one delta, as documented, or in several pieces of text."""
        for name, piece in (("content", delta.content), ("encrypted_content", delta.encrypted_content)):
            known = self.start.get(name)
            if piece is not None:
                self.start[name] = known + piece if isinstance(known, str) and isinstance(piece, str) else piece

    def whole(self) -> Part:
        """The whole part. Raises `WireError`."""
        block, joined = dict(self.start), self.pieces.text()
        field = _PIECE_FIELDS.get(block["type"])
        if field is not None:
            block[field] = text_of(block, field) + joined
        if self.signature:
            block["signature"] = text_of(block, "signature") + self.signature.text()
        if self.citations:
            given = block.get("citations")
            block["citations"] = [*(given if isinstance(given, list) else ()), *self.citations]
        if self.kind == "opaque" and joined:
            block["input"] = decode_object(joined)
        return decode_response_block(block)


@final
class AnthropicDecoder(AnswerDecoder):
    """Decodes one response, streamed or whole."""

    def __init__(self) -> None:
        super().__init__()
        self._blocks: dict[int, _Block] = {}
        self._made = self._tool_calls("toolu", NAME)
        self._call_blocks: dict[PendingCall, _Block] = {}
        self._latest: _Block | None = None
        self._held: _Block | None = None  # the last call, ended
        self._usage: JsonObject = {}
        self._kept = KeptFields(NAME)
        self._started = False
        self._id: str | None = None
        self._stop_reason: str | None = None
        self._has_calls = False
        """Whether a call has arrived completely."""

    def take(self, piece: ServerSentEvent) -> None:
        """Process the next event; unknown types are ignored."""
        if piece.event not in _EVENT_NAMES or piece.data == "[DONE]":
            return
        event = read(_EVENTS, AnthropicStreamEvent, piece.data, _ESSENTIAL, self.ignored, types=_EVENT_NAMES)
        match event.type:
            case "content_block_delta":
                self._take_delta(event.index, self._block(event), _there(event.delta, "delta"))
            case "content_block_start":
                self._start_block(event)
            case "content_block_stop":
                self._stop_block(event)
            case "message_start":
                self._start(_there(event.message, "message"))
            case "message_delta":
                self._keep_of_delta(read_object(piece.data))
                self._take_message_delta(event)
            case "message_stop":
                self._finish()
            case "error":
                self.fail(failure_of(event.error, status=None))
            case "" if (error := find_error(read_object(piece.data))) is not None:
                self.fail(failure_of(error, status=None))

    def _start(self, message: JsonObject) -> None:
        started = _started(message)
        if self._started:
            if started.upstream_id != self._id:
                raise WireError("a second message_start")
            return
        self._started, self._id = True, started.upstream_id
        self._keep_of_message(message)
        self._out.append(started)
        self._report_usage(message.get("usage"), final=False)

    def _keep_of_message(self, message: JsonObject) -> None:
        """Emit the fields before the start, so that an encoder can send both together."""
        self._kept.keep("message", message, MESSAGE_FIELDS)
        self._keep_details(message.get("stop_details"))
        self._kept.keep("usage", message.get("usage"), USAGE_FIELDS)
        self._out += self._kept.take_events()

    def _keep_of_delta(self, event: JsonObject) -> None:
        if isinstance(delta := event.get("delta"), dict):
            self._kept.keep("delta", delta, ("stop_reason", "stop_details"))
            self._keep_details(delta.get("stop_details"))
        self._kept.keep("usage", event.get("usage"), USAGE_FIELDS)
        self._kept.keep("event", event, DELTA_FIELDS)
        self._out += self._kept.take_events()

    def _keep_details(self, details: Any) -> None:
        self._kept.keep("stop_details", details, REFUSAL_FIELDS if refusal_of(details) is not None else ())

    def _start_block(self, event: AnthropicStreamEvent) -> None:
        start = _there(event.content_block, "content_block")
        if (
            not self._started
            or event.index is None
            or event.index in self._blocks
            or not isinstance(start.get("type"), str)
            or not start["type"]
        ):
            raise WireError("content_block_start out of order or without index or type")
        self._release()
        block = self._latest = self._blocks[event.index] = _Block(self._items, start)
        if block.kind == "tool_call":
            piece = CallPiece(index=event.index, id=text_of(start, "id"), name=text_of(start, "name"))
            block.call = self._made.add(piece, extra=rest_of(start, _CALL_FIELDS))
            self._call_blocks[block.call] = block
            return
        self._begin(block.kind)
        if block.kind == "text" and start.get("text"):
            self._out.append(TextDelta(block.index, text_of(start, "text")))
        elif block.kind == "reasoning" and start.get("thinking"):
            self._out.append(ReasoningDelta(block.index, text_of(start, "thinking")))

    def _block(self, event: AnthropicStreamEvent) -> _Block:
        block = self._blocks.get(-1 if event.index is None else event.index)
        if block is None:
            raise WireError(f"{event.type} for a block that is not open")
        return block

    def _take_delta(self, event_index: int | None, block: _Block, delta: AnthropicDelta) -> None:
        match delta.type, block.kind:
            case "text_delta", "text":
                self._add(block, _there(delta.text, "text"))
            case "thinking_delta", "reasoning":
                self._add(block, _there(delta.thinking, "thinking"))
            case "input_json_delta", "tool_call":
                self._add_arguments(event_index, block, _there(delta.partial_json, "partial_json"))
            case "input_json_delta", "opaque":
                block.pieces.append(delta.partial_json or "")
            case "signature_delta", _:
                block.signature.append(delta.signature or "")
            case "citations_delta", _:
                block.citations.append(delta.citation)
            case "compaction_delta", _:
                block.add_compaction(delta)
            case (("text_delta" | "thinking_delta" | "input_json_delta"), _):
                raise WireError(f"{delta.type} in a block of type {block.start['type']!r}")

    def _add_arguments(self, index: int | None, block: _Block, piece: str) -> None:
        if piece:
            block.pieces.append(piece)
            self._made.add(CallPiece(index=index, text=piece))

    def _stop_block(self, event: AnthropicStreamEvent) -> None:
        block = self._block(event)
        self._blocks.pop(-1 if event.index is None else event.index)
        if block.kind == "tool_call" and not block.pieces:  # it arrived complete, or has no arguments
            self._add_arguments(event.index, block, encode_json(block.start.get("input") or {}).decode())
        if block.kind == "tool_call" or (block.kind == "opaque" and block.pieces):
            self._release()
            self._held = block
        else:
            self._done(block)

    def _done(self, block: _Block) -> None:
        if block.call is not None:
            self._made.end(block.call, self._call_part)
            return
        self._end(block, block.whole())

    def _release(self) -> None:
        held, self._held = self._held, None
        if held is not None:
            self._done(held)

    def _take_message_delta(self, event: AnthropicStreamEvent) -> None:
        is_last = event.delta is not None and event.delta.stop_reason is not None
        self._report_usage(event.usage, final=is_last)
        if event.delta is None or event.delta.stop_reason is None:
            return
        self._stop_reason = event.delta.stop_reason
        if REASONS.get(self._stop_reason) == FinishReason.LENGTH:
            self._held = None
        self._release()
        refusal = refusal_of(event.delta.stop_details)
        if refusal is not None:
            self._tell(refusal)

    def _report_usage(self, usage: Any, *, final: bool = True) -> None:
        if isinstance(usage, dict):
            # Counts are cumulative, and some reports omit those that have not changed.
            self._usage |= {key: value for key, value in usage.items() if value is not None}
            self._out.append(UsageReported(decode_usage(self._usage), final))

    def _finish(self) -> None:
        if not self._started:
            raise WireError("message_stop before message_start")
        for block in self._blocks.values():
            if block.kind != "tool_call":
                self._done(block)
        self._release()
        self._end_answer(self._latest is not None and self._latest.kind == "tool_call")

    def _end_answer(self, last_is_call: bool) -> None:
        reason = reason_of(self._stop_reason)
        self._made.close(self._call_part, cut=reason in CUTTING, drop_last=last_is_call)
        self._finished(reason, self._stop_reason, has_calls=self._has_calls or bool(self._made))

    def _call_part(self, call: PendingCall, text: str) -> ToolCall | Opaque:
        block = self._call_blocks[call]
        part = decode_response_block({**block.start, "input": {}})
        assert isinstance(part, ToolCall)
        return msgspec.structs.replace(part, id=call.id, name=call.name, arguments=text)

    def take_whole(self, body: bytes) -> None:
        """Process a complete response, or an error in its place. Raises `WireError`."""
        message = read_object(body)
        if message.get("type") == "error":
            self.fail(self.failure_in(message))
            return
        content, self._stop_reason = message.get("content"), _reason_of(message)
        if not isinstance(content, list) or not all(isinstance(block, dict) for block in content):
            raise WireError("content: expected a list of content blocks")
        parts = [decode_response_block(block) for block in content]
        if (refusal := refusal_of(message.get("stop_details"))) is not None:
            parts.append(refusal)
        self._keep_of_message(message)
        self._out.append(_started(message))
        full = REASONS.get(self._stop_reason or "") == FinishReason.LENGTH
        for at, part in enumerate(parts, 1):
            self._tell(part, cut=full and at == len(parts) and _is_call(part))
        self._report_usage(message.get("usage"))
        self._has_calls = any(map(_is_call, parts))
        self._end_answer(last_is_call=False)

    def failure_in(self, body: Any) -> Failure:
        """Decode an error body into a failure."""
        return failure_of(find_error(body), status=None)

    def end(self, surplus: bytes) -> None:
        """End the response: the body has ended without ``message_stop``."""
        if not surplus:
            self.truncated("message_stop")
        elif (error := _error_in(surplus)) is not None:
            self.fail(failure_of(error, status=None))
        else:
            self.misread("it is not an event stream")


def _started(message: JsonObject) -> Started:
    model = message.get("model")
    return Started(model=model if isinstance(model, str) else "", upstream_id=text_of(message, "id") or None)


def _reason_of(message: JsonObject) -> str | None:
    return text_of(message, "stop_reason") or None


def _is_call(part: Part) -> bool:
    return isinstance(part, ToolCall) or (isinstance(part, Opaque) and "input" in part.value)


def _error_in(surplus: bytes) -> Any:
    try:
        return find_error(read_object(surplus))
    except WireError:
        return None


def _there(value: Any, name: str) -> Any:
    if value is None:
        raise WireError(f"{name}: missing")
    return value
