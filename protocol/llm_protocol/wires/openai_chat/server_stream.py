"""An answer as this wire says it: whole, and as a stream of chunks, for chat and for legacy completions."""

from __future__ import annotations

from collections.abc import Iterable
from typing import final

from llm_protocol.codec.json import encode_json
from llm_protocol.codec.media import image_url
from llm_protocol.codec.merging import merged
from llm_protocol.content import Image, JsonObject, Opaque, Part, Reasoning, Refusal, Text, ToolCall
from llm_protocol.dialect import Frame, Inbound
from llm_protocol.events import (
    DELTAS,
    Delta,
    Event,
    Failed,
    FieldsAdded,
    Finished,
    ItemDone,
    ItemStarted,
    ReasoningDelta,
    RefusalDelta,
    Started,
    TextDelta,
    ToolCallDelta,
    UsageReported,
)
from llm_protocol.requests import CompletionRequest
from llm_protocol.response import FinishReason, LLMResponse, Usage
from llm_protocol.runtime_fields import is_wanted, runtime_fields
from llm_protocol.wires.openai_chat.content import call_body
from llm_protocol.wires.openai_chat.errors import error_body
from llm_protocol.wires.openai_chat.profile import VendorProfile
from llm_protocol.wires.openai_chat.shapes import DETAILS, WIRE, details_of, signed, usage_body

DONE = Frame(None, b"[DONE]")


def encode_whole(inbound: Inbound, response: LLMResponse, quirks: VendorProfile) -> bytes:
    """The body of a whole answer."""
    reason = response.finish_reason or FinishReason.STOP
    legacy = isinstance(inbound.request, CompletionRequest)
    choice: JsonObject = {"index": 0, "finish_reason": _finish_word(reason, refused=bool(response.refusal))}
    choice["logprobs"] = None
    extra = response.extra.get(WIRE, {})
    choice |= extra.get("choice", {})
    if legacy:
        choice["text"] = response.content
    else:
        choice["message"] = {**extra.get("message", {}), **_message(response, quirks)}
    kind = "text_completion" if legacy else "chat.completion"
    body = _opening(response.response_id, kind, int(response.timestamp), response.model, quirks)
    body |= {"choices": [choice], "usage": usage_body(response.usage) if response.usage else None}
    return encode_json({**extra.get("body", {}), **body})


def _opening(ident: str, kind: str, created: int, model: str, quirks: VendorProfile) -> JsonObject:
    """What an answer and each of its chunks begin with."""
    head: JsonObject = {"id": ident, "object": kind, "created": created, "model": model}
    return head if quirks.fingerprint is None else head | {"system_fingerprint": quirks.fingerprint}


def _message(response: LLMResponse, quirks: VendorProfile) -> JsonObject:
    calls = [call for part in response.output if (call := _call(part, quirks))]
    refusal = response.refusal
    message: JsonObject = {
        "role": "assistant",
        "content": response.content if response.content or not (calls or refusal) else None,
        "refusal": refusal or None,
    }
    if response.reasoning:
        message[quirks.reasoning_field] = response.reasoning
    if details := [item for part in response.output if isinstance(part, Reasoning) for item in details_of(part)]:
        message[DETAILS] = details
    if calls:
        message["tool_calls"] = calls
    if response.images:
        message["images"] = [_image(image) for image in response.images]
    return message


def _call(part: Part, quirks: VendorProfile) -> JsonObject | None:
    """A whole call, of a function or of a custom tool; ``None`` for every other part."""
    match part:
        case ToolCall():
            return call_body(part, part.signature)
        case Opaque(dialect=quirks.name, value={"type": "custom"} as call):
            return call
        case _:
            return None


def _image(image: Image) -> JsonObject:
    return {"type": "image_url", "image_url": {"url": image_url(image)}}


def _finish_word(reason: FinishReason, *, refused: bool) -> str:
    """As OpenAI says it: a refusal in the model's own words ends with ``stop``, and the list is closed."""
    if reason is FinishReason.UNKNOWN:
        return "stop"
    return "stop" if refused and reason is FinishReason.CONTENT_FILTER else reason.value


_FIELDS: dict[type[Delta], bytes] = {TextDelta: b"content", RefusalDelta: b"refusal"}


@final
class OpenAIChatEncoder:
    """The frames of one streamed answer. Adjacent deltas of an item become one chunk."""

    __slots__ = (
        "_calls", "_created", "_has_role", "_head", "_id", "_legacy", "_model", "_quirks", "_refused",
        "_tells", "_told", "_usage", "_wants_usage",
    )  # fmt: skip

    def __init__(self, inbound: Inbound, response_id: str, quirks: VendorProfile) -> None:
        request = inbound.request
        self._quirks = quirks
        self._legacy = isinstance(request, CompletionRequest)
        self._wants_usage = inbound.include_usage
        self._tells = is_wanted(inbound)
        self._id = response_id
        self._created = int(request.timestamp)
        self._model = request.model
        self._head = b""
        self._calls: dict[int, int] = {}
        self._told: set[int] = set()
        self._has_role = False
        self._refused = False
        self._usage: Usage | None = None

    def start(self) -> list[Frame]:
        """Nothing: the first chunk names the model that answers."""
        return []

    def encode(self, events: Iterable[Event]) -> list[Frame]:
        """The frames for the next events."""
        frames: list[Frame] = []
        for event, _ in merged(events):
            if isinstance(event, DELTAS):
                self._told.add(event.index)
                self._text(type(event), event.index, event.text, frames)
            else:
                self._other(event, frames)
        return frames

    def _text(self, kind: type[Delta], index: int, text: str, frames: list[Frame]) -> None:
        if kind is RefusalDelta:
            self._refused = True
        if self._legacy:
            if kind is TextDelta:
                frames.append(self._choice(b'"text":' + encode_json(text)))
        elif kind is ToolCallDelta:
            if self._quirks.whole_calls:
                return
            piece = b'{"tool_calls":[{"index":%d,"function":{"arguments":%b}}]}'
            frames.append(self._delta(piece % (self._calls.get(index, 0), encode_json(text))))
        else:
            field = _FIELDS.get(kind) or self._quirks.reasoning_field.encode()
            frames.append(self._delta(b'{"%b":%b}' % (field, encode_json(text))))

    def _other(self, event: Event, frames: list[Frame]) -> None:
        match event:
            case Started():
                self._begin(event.model or self._model)
                if not (self._legacy or self._has_role):  # clients join what they get, a second role too
                    self._has_role = True
                    frames.append(self._delta(b'{"role":"assistant","content":""}'))
            case ItemStarted(kind="tool_call") if not self._legacy:
                self._calls[event.index] = len(self._calls)
                if not self._quirks.whole_calls:
                    function = {"name": event.name or "", "arguments": ""}
                    call = {"index": self._calls[event.index], "id": event.id, "type": "function", "function": function}
                    frames.append(self._delta(encode_json({"tool_calls": [call]})))
            case ItemDone():
                self._done(event.index, event.part, frames)
            case UsageReported():
                self._usage = event.usage
            case FieldsAdded(dialect=dialect) if dialect == WIRE:
                self._extras(event.fields, frames)
            case Finished():
                self._finish(event, frames)
            case Failed():
                frames.append(Frame(None, encode_json(error_body(event.failure))))

    def _done(self, index: int, part: Part, frames: list[Frame]) -> None:
        if isinstance(part, ToolCall) and self._quirks.whole_calls and not self._legacy:
            call = {"index": self._calls.get(index, 0), **call_body(part, part.signature)}
            frames.append(self._delta(encode_json({"tool_calls": [call]})))
            return
        if index not in self._told:
            self._whole(index, part, frames)
        if isinstance(part, Reasoning) and (details := details_of(part)) and not self._legacy:
            frames.append(self._delta(encode_json({DETAILS: details})))
        if isinstance(part, ToolCall) and part.signature and not self._legacy:
            # The SDK's stream helper fails on a piece of a call without a function.
            call = signed({"index": self._calls.get(index, 0), "function": {"arguments": ""}}, part.signature)
            frames.append(self._delta(encode_json({"tool_calls": [call]})))

    def _extras(self, fields: dict[str, JsonObject], frames: list[Frame]) -> None:
        """What servers of this wire add, as they said it."""
        content: JsonObject = {"text": ""} if self._legacy else {"delta": fields.get("message", {})}
        choice = encode_json({**fields.get("choice", {}), **content})[1:-1]
        body = encode_json(fields["body"])[1:-1] if "body" in fields else b""
        frames.append(self._choice(choice, tail=b"," + body if body else b""))

    def _whole(self, index: int, part: Part, frames: list[Frame]) -> None:
        """An item that came without deltas."""
        match part:
            case Text(text) if text:
                self._text(TextDelta, index, text, frames)
            case Reasoning(text=text) if text:
                self._text(ReasoningDelta, index, text, frames)
            case Refusal(text) if text:
                self._text(RefusalDelta, index, text, frames)
            case ToolCall(arguments=arguments) if arguments:
                self._text(ToolCallDelta, index, arguments, frames)
            case Opaque() if not self._legacy and (call := _call(part, self._quirks)):
                self._calls[index] = len(self._calls)
                frames.append(self._delta(encode_json({"tool_calls": [{"index": self._calls[index], **call}]})))
            case Image() if not self._legacy:
                frames.append(self._delta(encode_json({"images": [_image(part)]})))

    def _finish(self, event: Finished, frames: list[Frame]) -> None:
        word = _finish_word(event.reason, refused=self._refused).encode()
        body = b'"text":""' if self._legacy else b'"delta":{}'
        usage = b"" if self._usage is None else b',"usage":' + encode_json(usage_body(self._usage))
        unasked = not self._quirks.stream_usage  # with the reason then; who asks gets a chunk of its own
        last = self._choice(body, b'"%b"' % word, usage if unasked else b"")
        frames.append(last._replace(data=runtime_fields(last.data, event.response, wanted=self._tells)))
        if usage and self._wants_usage and not unasked:
            frames.append(Frame(None, b'%b,"choices":[]%b}' % (self._begun(), usage)))
        frames.append(DONE)

    def _begin(self, model: str) -> None:
        kind = "text_completion" if self._legacy else "chat.completion.chunk"
        self._head = encode_json(_opening(self._id, kind, self._created, model, self._quirks))[:-1]

    def _begun(self) -> bytes:
        if not self._head:
            self._begin(self._model)
        return self._head

    def _delta(self, delta: bytes) -> Frame:
        return self._choice(b'"delta":' + delta)

    def _choice(self, body: bytes, reason: bytes = b"null", tail: bytes = b"") -> Frame:
        choices = b'"choices":[{"index":0,%b,"finish_reason":%b}]' % (body, reason)
        return Frame(None, b"%b,%b%b}" % (self._begun(), choices, tail))
