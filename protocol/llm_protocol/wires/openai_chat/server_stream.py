"""Encode a response for a client of the chat wire, for chat and legacy completions, streamed or whole."""

from __future__ import annotations

from typing import final

from llm_protocol.codec.citations import to_chat
from llm_protocol.codec.fields import own_fields
from llm_protocol.codec.json import encode_json
from llm_protocol.codec.media import image_url
from llm_protocol.codec.response_encoding import StreamEncoder, runtime_fields
from llm_protocol.content import Image, JsonObject, Opaque, Part, Reasoning, Text, ToolCall
from llm_protocol.dialect import ClientRequest, Frame
from llm_protocol.events import Delta, Failed, Finished, ItemDone, ItemStarted, RefusalDelta, TextDelta, ToolCallDelta
from llm_protocol.extra_fields import filled, merge
from llm_protocol.requests import CompletionRequest
from llm_protocol.response import FinishReason, LLMResponse
from llm_protocol.vendor_profile import VendorProfile
from llm_protocol.wires.openai_chat.content import call_body
from llm_protocol.wires.openai_chat.errors import error_body
from llm_protocol.wires.openai_chat.shapes import DETAILS, WIRE, details_of, signed, usage_body

DONE = Frame(None, b"[DONE]")
ANNOTATIONS = "annotations"


def encode_whole(inbound: ClientRequest, response: LLMResponse, profile: VendorProfile) -> bytes:
    """The body of a whole response."""
    return encode_json(whole_body(inbound, response, profile))


def whole_body(inbound: ClientRequest, response: LLMResponse, profile: VendorProfile) -> JsonObject:
    """Return the body of a whole response as a dict, before it is encoded."""
    reason = response.finish_reason or FinishReason.STOP
    legacy = isinstance(inbound.request, CompletionRequest)
    texts = [part for part in response.output if isinstance(part, Text)]
    is_only_text = len(texts) == len(response.output)
    refusal = "" if is_only_text else response.refusal
    choice: JsonObject = {
        "index": inbound.choice,
        "finish_reason": _finish_word(reason, refused=bool(refusal)),
        "logprobs": _logprobs(texts),
    }
    extra = response.extra.get(WIRE, {})
    choice |= extra.get("choice", {})
    if legacy:
        choice["text"] = response.content
    else:
        message: JsonObject = {"role": "assistant", "content": response.content, "refusal": refusal or None}
        if not is_only_text:
            _add_other_parts(message, response, profile)
        own = extra.get("message", {})
        if ANNOTATIONS not in own and (annotations := _annotations(texts)):
            message[ANNOTATIONS] = annotations
        choice["message"] = {**own, **message}
    kind = "text_completion" if legacy else "chat.completion"
    body = opening(response.response_id, kind, int(response.timestamp), response.model, profile)
    usage = filled(usage_body(response.usage), extra.get("usage")) if response.usage else None
    body |= {**extra.get("head", {}), "choices": [choice], "usage": usage}
    return {**extra.get("body", {}), **body}


def opening(ident: str, kind: str, created: int, model: str, profile: VendorProfile) -> JsonObject:
    """The first fields of a response and of each chunk. ``kind`` is the value of the field ``object``."""
    head: JsonObject = {"id": ident, "object": kind, "created": created, "model": model}
    return head if profile.fingerprint is None else head | {"system_fingerprint": profile.fingerprint}


def _add_other_parts(message: JsonObject, response: LLMResponse, profile: VendorProfile) -> None:
    """Add what is not text: reasoning, calls and images."""
    calls = [call for part in response.output if (call := _call(part, profile))]
    if not response.content and (calls or message["refusal"]):
        message["content"] = None
    if reasoning := response.reasoning:
        message[profile.reasoning_field] = reasoning
    if details := [item for part in response.output if isinstance(part, Reasoning) for item in details_of(part)]:
        message[DETAILS] = details
    if calls:
        message["tool_calls"] = calls
    if images := response.images:
        message["images"] = [_image(image) for image in images]


def _logprobs(texts: list[Text]) -> JsonObject | None:
    """Return the log probabilities of texts of another wire, in this wire's form."""
    content = [each for part in texts for each in part.logprobs]
    return {"content": content, "refusal": None} if content else None


def _annotations(texts: list[Text]) -> list[JsonObject]:
    """The citations of all texts, which are one text on this wire."""
    found: list[JsonObject] = []
    before = 0
    for part in texts:
        if part.citations:
            found += to_chat(part.citations, part.text, before)
        before += len(part.text)
    return found


def _call(part: Part, profile: VendorProfile) -> JsonObject | None:
    """A complete call, of a function or of a custom tool; ``None`` for any other part."""
    match part:
        case ToolCall():
            return {**own_fields(part.extra, WIRE), **call_body(part, part.signature)}
        case Opaque(dialect=profile.name, value={"type": "custom"} as call):
            return call
        case _:
            return None


def _image(image: Image) -> JsonObject:
    return {"type": "image_url", "image_url": {"url": image_url(image)}}


def _finish_word(reason: FinishReason, *, refused: bool) -> str:
    """Return OpenAI's finish reason. A refusal in the model's own words ends with ``stop``. Clients know no other
    values.
    """
    if reason is FinishReason.UNKNOWN:
        return "stop"
    return "stop" if refused and reason is FinishReason.CONTENT_FILTER else str(reason)


_FIELDS: dict[type[Delta], bytes] = {TextDelta: b"content", RefusalDelta: b"refusal"}


@final
class OpenAIChatEncoder(StreamEncoder):
    """The frames of one streamed response. Adjacent deltas of an item become one chunk."""

    def __init__(self, inbound: ClientRequest, response_id: str, profile: VendorProfile) -> None:
        super().__init__(inbound, response_id)
        request = inbound.request
        self._profile = profile
        self._choice = inbound.choice
        self._is_one_of_many = bool(inbound.choices)
        """Whether there are other choices. Then usage and the end of the stream follow all of them."""
        self._legacy = isinstance(request, CompletionRequest)
        self._wants_usage = inbound.include_usage
        self._created = int(request.timestamp)
        self._head = b""
        self._calls: dict[int, int] = {}
        self._told_fields: dict[int, JsonObject] = {}
        """For each call, the fields that only this wire knows and that were sent so far."""
        self._has_role = False
        self._refused = False
        self._has_logprobs = False
        self._has_annotations = False
        """Whether the provider's own annotations were sent."""
        self._annotations: list[JsonObject] = []
        self._logprobs: list[JsonObject] = []
        """Log probabilities. These and the annotations are sent at the end, unless the provider uses this wire and
        its own were sent already.
        """
        self._sent = 0
        """Characters of the texts that are complete."""
        self._kept_head: JsonObject = {}
        self._kept_usage: JsonObject = {}

    def _delta(self, event: Delta, count: int) -> None:  # noqa: ARG002
        kind, text = type(event), event.text
        if kind is RefusalDelta:
            self._refused = True
        if self._legacy:
            if kind is TextDelta:
                self._add_choice(b'"text":' + encode_json(text))
        elif kind is ToolCallDelta:
            if not self._profile.whole_calls:
                piece = b'{"tool_calls":[{"index":%d,"function":{"arguments":%b}}]}'
                self._add_delta(piece % (self._calls.get(event.index, 0), encode_json(text)))
        else:
            field = _FIELDS.get(kind) or self._profile.reasoning_field.encode()
            self._add_delta(b'{"%b":%b}' % (field, encode_json(text)))

    def _started(self) -> None:
        self._begin()
        if not (self._legacy or self._has_role):  # clients concatenate what they receive, even a second role
            self._has_role = True
            self._add_delta(b'{"role":"assistant","content":""}')

    def _item_started(self, event: ItemStarted) -> None:
        if event.kind != "tool_call" or self._legacy:
            return
        self._calls[event.index] = len(self._calls)
        if not self._profile.whole_calls:
            function = {"name": event.name or "", "arguments": ""}
            own = self._told_fields[event.index] = own_fields(event.extra, WIRE)
            self._add_call(event.index, {**own, "id": event.id, "type": "function", "function": function})

    def _item_done(self, event: ItemDone) -> None:
        if self._legacy:
            return
        match event.part:
            case Text() as text:
                self._annotations += to_chat(text.citations, text.text, self._sent)
                self._logprobs += text.logprobs
                self._sent += len(text.text)
            case ToolCall() as call if self._profile.whole_calls:
                self._add_call(event.index, {**own_fields(call.extra, WIRE), **call_body(call, call.signature)})
            case ToolCall() as call:
                own = own_fields(call.extra, WIRE)
                sent = self._told_fields.pop(event.index, {})
                rest = {name: value for name, value in own.items() if sent.get(name) != value}
                if rest or call.signature:
                    # The SDK's stream helper fails on a piece of a call without a function.
                    self._add_call(event.index, signed({**rest, "function": {"arguments": ""}}, call.signature))
            case Reasoning() as thought if details := details_of(thought):
                self._add_delta(encode_json({DETAILS: details}))
            case Opaque() as block if custom := _call(block, self._profile):
                self._calls[event.index] = len(self._calls)
                self._add_call(event.index, custom)
            case Image() as image:
                self._add_delta(encode_json({"images": [_image(image)]}))

    def _fields_added(self, dialect: str, fields: dict[str, JsonObject]) -> None:
        """Add fields that servers of this wire send, unchanged."""
        if dialect != WIRE:
            return
        self._has_annotations |= ANNOTATIONS in fields.get("message", {})
        self._has_logprobs |= "logprobs" in fields.get("choice", {})
        if "head" in fields:
            merge(self._kept_head, fields["head"])
            self._begin()
        merge(self._kept_usage, fields.get("usage", {}))
        if not fields.keys() & {"message", "choice", "body"}:
            return
        content: JsonObject = {"text": ""} if self._legacy else {"delta": fields.get("message", {})}
        choice = encode_json({**fields.get("choice", {}), **content})[1:-1]
        body = encode_json(fields["body"])[1:-1] if "body" in fields else b""
        self._add_choice(choice, tail=b"," + body if body else b"")

    def _finished(self, event: Finished) -> None:
        if self._annotations and not self._has_annotations:
            self._add_delta(encode_json({ANNOTATIONS: self._annotations}))
        if self._logprobs and not self._has_logprobs:
            logprobs = encode_json({"logprobs": {"content": self._logprobs, "refusal": None}})[1:-1]
            self._add_choice((b'"text":""' if self._legacy else b'"delta":{}') + b"," + logprobs)
        word = _finish_word(event.reason, refused=self._refused).encode()
        body = b'"text":""' if self._legacy else b'"delta":{}'
        usage = (
            b""
            if self._usage is None or self._is_one_of_many
            else b',"usage":' + encode_json(filled(usage_body(self._usage), self._kept_usage))
        )
        # Usage is sent with the finish reason; if the client requested it, in a separate chunk.
        unasked = not self._profile.stream_usage
        self._add_choice(body, b'"%b"' % word, usage if unasked else b"")
        last = runtime_fields(self._frames[-1].data, event.response, wanted=self._wants_runtime_fields)
        self._frames[-1] = Frame(None, last)
        if usage and self._wants_usage and not unasked:
            self._frames.append(Frame(None, b'%b,"choices":[]%b}' % (self._begun(), usage)))
        if not self._is_one_of_many:
            self._frames.append(DONE)

    def _failed(self, event: Failed) -> None:
        self._frames.append(Frame(None, encode_json(error_body(event.failure))))

    def _begin(self) -> None:
        kind = "text_completion" if self._legacy else "chat.completion.chunk"
        head = opening(self._id, kind, self._created, self._model, self._profile)
        self._head = encode_json({**head, **self._kept_head})[:-1]

    def _begun(self) -> bytes:
        if not self._head:
            self._begin()
        return self._head

    def _add_call(self, index: int, call: JsonObject) -> None:
        self._add_delta(encode_json({"tool_calls": [{"index": self._calls.get(index, 0), **call}]}))

    def _add_delta(self, delta: bytes) -> None:
        self._add_choice(b'"delta":' + delta)

    def _add_choice(self, body: bytes, reason: bytes = b"null", tail: bytes = b"") -> None:
        choices = b'"choices":[{"index":%d,%b,"finish_reason":%b}]' % (self._choice, body, reason)
        self._frames.append(Frame(None, b"%b,%b%b}" % (self._begun(), choices, tail)))
