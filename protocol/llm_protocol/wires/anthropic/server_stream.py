"""Encode a response for a client of the Messages API, streamed or whole.

The wire has one open block at a time, but the runtime's items may interleave. An item that starts while another is
open waits for its turn.
"""

from __future__ import annotations

from typing import Any, final

from llm_protocol.codec.citations import to_anthropic
from llm_protocol.codec.fields import own_fields
from llm_protocol.codec.items import text_of
from llm_protocol.codec.json import encode_json
from llm_protocol.codec.response_encoding import StreamEncoder, runtime_fields
from llm_protocol.content import Image, JsonObject, Opaque, Part, Reasoning, Refusal, Text, ToolCall
from llm_protocol.dialect import ClientRequest, Frame
from llm_protocol.events import (
    Delta,
    Failed,
    Finished,
    ItemDone,
    ItemStarted,
    ReasoningDelta,
    RefusalDelta,
    TextDelta,
    ToolCallDelta,
)
from llm_protocol.extra_fields import filled, merge, rest_of
from llm_protocol.response import FinishReason, LLMResponse, Usage
from llm_protocol.wires.anthropic.content import encode_part, seal
from llm_protocol.wires.anthropic.errors import error_object
from llm_protocol.wires.anthropic.shapes import NAME, REASONS

_STOP_REASONS = {
    FinishReason.STOP: "end_turn",
    FinishReason.LENGTH: "max_tokens",
    FinishReason.TOOL_CALLS: "tool_use",
    FinishReason.CONTENT_FILTER: "refusal",
    FinishReason.UNKNOWN: "end_turn",  # clients know no other values
    FinishReason.ERROR: "end_turn",
}

_NO_ARGUMENTS = ("", "null", "{}")
"""For a call with these arguments, no argument deltas are streamed."""

_SAID_AT_THE_END = ("stop_sequence",)

_ItemEvent = ItemStarted | Delta | ItemDone


@final
class AnthropicEncoder(StreamEncoder):
    """Encodes one streamed response."""

    def __init__(self, inbound: ClientRequest, response_id: str) -> None:
        super().__init__(inbound, response_id)
        self._told_start = False
        self._item: ItemStarted | None = None  # the item that is being sent
        self._waiting: dict[int, list[_ItemEvent]] = {}
        self._block = -1  # the number of the last block on the wire
        self._in_block = False
        self._refusal = ""
        self._kept: dict[str, JsonObject] = {}
        """Fields that only this wire has, by the object they belong to."""
        self._kept_told: JsonObject = {}
        """The fields among these that were sent with the opening event."""

    def _fields_added(self, dialect: str, fields: dict[str, JsonObject]) -> None:
        if dialect == NAME:
            merge(self._kept, fields)

    def _item_started(self, event: ItemStarted) -> None:
        self._queue(event)

    def _delta(self, event: Delta, count: int) -> None:  # noqa: ARG002
        self._queue(event)

    def _item_done(self, event: ItemDone) -> None:
        self._queue(event)

    def _failed(self, event: Failed) -> None:
        self._emit("error", error_object(event.failure))

    def _whole_text(self, part: Part) -> str:
        has_no_deltas = _is_redacted(part) or (isinstance(part, ToolCall) and part.arguments.strip() in _NO_ARGUMENTS)
        return "" if has_no_deltas else text_of(part)

    # -------------------------------------------------------- whose turn it is

    def _queue(self, event: _ItemEvent) -> None:
        if self._item is None or event.index == self._item.index:
            self._write(event)
            while self._item is None and self._waiting:
                self._next()
        else:
            self._waiting.setdefault(event.index, []).append(event)

    def _next(self) -> None:
        for event in self._waiting.pop(next(iter(self._waiting))):
            self._write(event)

    def _finished(self, event: Finished) -> None:
        while self._item is not None:
            self._close_block()  # a tool call that was cut stays as it is
            self._item = None
            if self._waiting:
                self._next()
        self._tell_start()
        late = rest_of(self._kept.get("message"), self._kept_told)
        stop = stop_fields(event.reason, event.raw_reason, self._refusal, self._kept.get("stop_details"))
        delta = {**stop, **late, **self._kept.get("delta", {})}
        usage = filled(encode_usage(self._usage), self._kept.get("usage"))
        last = encode_json({"type": "message_delta", "delta": delta, "usage": usage, **self._kept.get("event", {})})
        self._frames.append(
            Frame("message_delta", runtime_fields(last, event.response, wanted=self._wants_runtime_fields))
        )
        self._emit("message_stop", {"type": "message_stop"})

    # -------------------------------------------------------- one item

    def _write(self, event: _ItemEvent) -> None:
        match event:
            case ItemStarted():
                self._item = event
                if event.kind == "text":
                    self._open_block({"type": "text", "text": ""})
                elif event.kind == "tool_call":
                    own = own_fields(event.extra, NAME)
                    call = {"type": "tool_use", "id": event.id or "", "name": event.name or "", "input": {}, **own}
                    self._open_block(call)
            case TextDelta():
                self._add_text(b'"text_delta","text":', event.text)
            case ToolCallDelta():
                self._add_text(b'"input_json_delta","partial_json":', event.text)
            case ReasoningDelta():
                self._open_thinking()
                self._add_text(b'"thinking_delta","thinking":', event.text)
            case RefusalDelta():
                self._refusal += event.text
            case ItemDone():
                self._write_done(event.part)
                self._close_block()
                self._item = None

    def _write_done(self, part: Part) -> None:
        """Send the fields that are known only once the item is complete."""
        match part:
            case Text():
                for citation in _citations(part):
                    self._tell_delta({"type": "citations_delta", "citation": citation})
            case Reasoning() if _is_redacted(part):
                self._open_block({"type": "redacted_thinking", "data": part.encrypted})
            case Reasoning():
                self._open_thinking()
                if signature := seal(part):
                    self._tell_delta({"type": "signature_delta", "signature": signature})
            case Refusal():
                self._refusal = part.text
            case Opaque() | Image():
                if (block := encode_answer_part(part)) is not None:
                    self._open_block(block)
            case _:
                pass

    def _open_thinking(self) -> None:
        if not self._in_block:
            self._open_block({"type": "thinking", "thinking": "", "signature": ""})

    # -------------------------------------------------------- frames

    def _open_block(self, block: JsonObject) -> None:
        self._tell_start()
        self._block += 1
        self._in_block = True
        start = {"type": "content_block_start", "index": self._block, "content_block": block}
        self._emit("content_block_start", start)

    def _close_block(self) -> None:
        if self._in_block:
            self._in_block = False
            self._emit("content_block_stop", {"type": "content_block_stop", "index": self._block})

    def _add_text(self, head: bytes, text: str) -> None:
        # This frame is sent thousands of times per response, so it is formatted by hand.
        data = b'{"type":"content_block_delta","index":%d,"delta":{"type":%b%b}}'
        self._frames.append(Frame("content_block_delta", data % (self._block, head, encode_json(text))))

    def _tell_delta(self, delta: JsonObject) -> None:
        self._emit("content_block_delta", {"type": "content_block_delta", "index": self._block, "delta": delta})

    def _tell_start(self) -> None:
        if not self._told_start:
            self._told_start = True
            usage = filled(encode_usage(self._usage), self._kept.get("usage"))
            self._kept_told = rest_of(self._kept.get("message"), _SAID_AT_THE_END)
            message = {**_message(self._id, self._model, [], usage), **self._kept_told}
            self._emit("message_start", {"type": "message_start", "message": message})

    def _emit(self, event: str, value: JsonObject) -> None:
        self._frames.append(Frame(event, encode_json(value)))


def _is_redacted(part: Part) -> bool:
    """Whether it is redacted reasoning of Claude."""
    return (
        isinstance(part, Reasoning) and part.encrypted is not None and part.dialect in (None, NAME) and part.id is None
    )


def encode_whole(response: LLMResponse) -> bytes:
    """The body of a whole response."""
    blocks = (encode_answer_part(part) for part in response.output)
    content = [block for block in blocks if block is not None]
    kept = response.extra.get(NAME, {})
    usage = filled(encode_usage(response.usage), kept.get("usage"))
    message = _message(response.response_id, response.model, content, usage)
    reason = response.finish_reason or FinishReason.STOP
    stop = stop_fields(reason, response.raw_finish_reason, response.refusal, kept.get("stop_details"))
    rest = {name: value for place in ("message", "delta", "event") for name, value in kept.get(place, {}).items()}
    return encode_json({**message, **stop, **rest})


def encode_answer_part(part: Part) -> JsonObject | None:
    """Return a part of a response as a block; ``None`` if this wire has no block for it."""
    match part:
        case Reasoning():
            own = encode_part(part, "output") if part.encrypted is not None else None
            return own or {"type": "thinking", "thinking": part.text, "signature": seal(part)}
        case ToolCall():
            return _answer_tool_call(part)
        case Refusal():
            return None  # it is in stop_details
        case Opaque():
            return part.value if part.dialect == NAME else None
        case Text() if part.citations and (block := encode_part(part, "output")) is not None:
            return block | {"citations": _citations(part)}
        case _:
            return encode_part(part, "output")


def _citations(part: Text) -> list[Any]:
    """Anthropic's own citations, or those of another provider in Anthropic's form."""
    own = own_fields(part.extra, NAME).get("citations")
    return own if isinstance(own, list) else to_anthropic(part.citations)


def _answer_tool_call(call: ToolCall) -> JsonObject:
    # The wire's input is an object; a model of another vendor may have written something else.
    try:
        value: Any = call.parsed()
    except ValueError:
        value = {"arguments": call.arguments}
    own = own_fields(call.extra, NAME)
    return {"type": "tool_use", "id": call.id, "name": call.name, "input": value, **own}


def _message(message_id: str, model: str, content: list[JsonObject], usage: JsonObject) -> JsonObject:
    return {
        "id": message_id,
        "type": "message",
        "role": "assistant",
        "model": model,
        "content": content,
        "stop_reason": None,
        "stop_sequence": None,
        "stop_details": None,
        "usage": usage,
    }


def stop_fields(reason: FinishReason, raw: str | None, refusal: str, kept: JsonObject | None) -> JsonObject:
    """The fields that say why the response ended. If the response came from Anthropic, they have its own stop reason,
    with its details from ``kept``.
    """
    word = raw if raw is not None and REASONS.get(raw) == reason else _STOP_REASONS[reason]
    if refusal:
        word = "refusal"
    details = {"type": "refusal", "category": None, "explanation": refusal or None} if word == "refusal" else None
    if kept:
        details = {**(details or {}), **kept}
    return {"stop_reason": word, "stop_sequence": None, "stop_details": details}


def encode_usage(usage: Usage | None) -> JsonObject:
    """Token counts as Anthropic reports them: input tokens exclude those read from or written to the cache."""
    usage = usage or Usage()
    return {
        "input_tokens": max(0, usage.input_tokens - usage.cached_tokens - usage.cache_write_tokens),
        "cache_creation_input_tokens": usage.cache_write_tokens,
        "cache_read_input_tokens": usage.cached_tokens,
        "output_tokens": usage.output_tokens,
        "output_tokens_details": {"thinking_tokens": usage.reasoning_tokens},
    }
