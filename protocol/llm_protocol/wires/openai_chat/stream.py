"""Decode chat and legacy completions, streamed or whole, into events.

A response is complete only with a ``finish_reason``; with ``[DONE]`` alone it is truncated. The end is reported when
the body ends or ``[DONE]`` arrives: usage may follow the finish reason, in a separate chunk.
"""

from __future__ import annotations

from typing import Any, final

import msgspec

from llm_protocol.codec.citations import from_annotations, from_urls
from llm_protocol.codec.decoding import CUTTING, AnswerDecoder
from llm_protocol.codec.items import OpenItem
from llm_protocol.codec.json import TooLarge, WireError
from llm_protocol.codec.lenient import read_object
from llm_protocol.codec.logprobs import from_openai
from llm_protocol.codec.media import image_from_url
from llm_protocol.codec.sse import ServerSentEvent
from llm_protocol.codec.tool_calls import CallPiece, PendingCall
from llm_protocol.content import JsonObject, Opaque, Part, Reasoning, Text, ToolCall
from llm_protocol.events import (
    FieldsAdded,
    ItemKind,
    Started,
    UsageReported,
)
from llm_protocol.extra_fields import KeptFields, beyond, grows, merge, outer_fields
from llm_protocol.failures import Failure, FailureKind
from llm_protocol.response import FinishReason
from llm_protocol.vendor_profile import FINGERPRINT
from llm_protocol.wires.openai_chat.errors import error_in, failure_of
from llm_protocol.wires.openai_chat.lenient import fit_chunk
from llm_protocol.wires.openai_chat.shapes import (
    CHUNKS,
    DETAILS,
    FINISH_REASONS,
    HEAD_FIELDS,
    KEEP_ALIVES,
    USAGE_SHAPE,
    WIRE,
    ChatCall,
    ChatChoice,
    ChatChunk,
    ChatDelta,
    ChatWireUsage,
    ImagePart,
    read_usage,
    service_of,
    signed,
    text_of_details,
    with_details,
)


class _Item(OpenItem):
    """An open text, refusal or reasoning. ``details`` is reasoning in its vendor's own form."""

    __slots__ = ("details",)

    def __init__(self, index: int, kind: ItemKind) -> None:
        super().__init__(index, kind)
        self.details: JsonObject = {}

    def part(self, *, dialect: str | None = None) -> Part:
        part = super().part(dialect=dialect)
        return with_details(part, self.details.get(DETAILS, [])) if isinstance(part, Reasoning) else part


@final
class OpenAIChatDecoder(AnswerDecoder):
    """Decodes one response, chat or legacy completion, streamed or whole. ``searches``: the model may cite pages. The
    list of these pages arrives at the end, so a text stays open while calls follow it.
    """

    def __init__(self, request_id: str, dialect: str, *, searches: bool = False) -> None:
        super().__init__()
        self._dialect = dialect
        self._searches = searches
        self._uncited: list[_Item] = []
        """Complete texts that are still open."""
        self._started = False
        self._open: _Item | None = None
        self._made = self._tool_calls(f"call_{request_id.removeprefix('req_')[:24]}", WIRE)
        self._refused = False
        self._states: dict[tuple[str, str], Any] = {}
        """Extra fields. They are reported once, and again if they change."""
        self._logprobs: list[JsonObject] = []
        self._annotations: list[Any] = []
        self._sources: Any = None
        """Perplexity's list of sources, which is in every chunk."""
        self._reported = 0
        """Characters of the texts that are complete."""
        self._kept = KeptFields(WIRE)
        self._last: dict[str, bytes | str | JsonObject] = {}
        """The last chunk with a finish reason and the last one with usage. Both may have further fields."""
        self._read: bytes | str | JsonObject = b""
        """The last chunk that was searched for extra fields."""
        self._reason: str | None = None
        self._usage: ChatWireUsage | None = None
        self._services: tuple[str, ...] = ()
        self._is_counted = False
        """Whether the usage arrived in a separate chunk, after the response."""

    def take(self, piece: ServerSentEvent) -> None:
        """Process the next event of the stream. Raises `WireError`."""
        text = piece.data
        if text[:1] != "{":
            word = text.strip()
            if word.upper() == "[DONE]":
                self._finish()
                return
            if word in KEEP_ALIVES:
                return
        chunk, extras = read_chunk(text, self.ignored)
        if chunk.error or (chunk.choices is None and error_in(read_object(text))):
            self.fail(failure_of(read_object(text)))
        else:
            self.take_chunk(chunk, extras, text)

    def take_object(self, body: JsonObject) -> None:
        """Process the next event of the stream, which is already decoded. The choices in ``body`` are changed. Raises
        `WireError`.
        """
        chunk, extras = fit_chunk({**body}, self.ignored)
        if chunk.error or (chunk.choices is None and error_in(body)):
            self.fail(failure_of(body))
        else:
            self.take_chunk(chunk, extras, body)

    def end(self, surplus: bytes) -> None:
        """End the response. A body that was JSON instead of a stream is an error, or a complete response."""
        if surplus and self._reason is None:
            self.take_whole(surplus)
        else:
            self._finish()

    def take_whole(self, body: bytes) -> None:
        """Process a complete response. A missing finish reason does not mean truncation. Raises `WireError`."""
        chunk, extras = read_chunk(body, self.ignored)
        if chunk.error or not chunk.choices:
            self._take_odd(read_object(body))
            return
        # A complete response has one choice, whatever its index; in a stream, the index tells several apart.
        first = chunk.choices[0]
        if first.index:
            first = next((choice for choice in chunk.choices if not choice.index), first)
        first.index, chunk.choices = 0, [first]
        self.take_chunk(chunk, extras, body)
        if self._reason is None:
            self._reason = "stop"
        self._finish()

    def _take_odd(self, body: JsonObject) -> None:
        if error_in(body):
            self.fail(failure_of(body))
        else:
            raise WireError("it has no choices")

    def failure_in(self, body: Any) -> Failure:
        """Decode an error body into a failure."""
        return failure_of(body)

    def take_chunk(self, chunk: ChatChunk, extras: JsonObject, text: bytes | str | JsonObject) -> None:
        """Process a chunk that is not an error, with its unknown fields. The chunk was decoded from ``text``."""
        if chunk.usage is not None:
            self._last["usage"] = text
            self._usage, self._is_counted = chunk.usage, not chunk.choices
            self._services = service_of(chunk.service_tier)
        if not chunk.choices:
            return
        if not self._started:
            self._started = True
            self._keep(text)
            self._out += self._kept.take_events()  # before the start, so that an encoder can put them into every chunk
            self._out.append(Started(model=chunk.model or "", upstream_id=chunk.id))
        if extras:
            self._add_extras(extras, chunk.choices[0])
        for choice in chunk.choices:
            if not choice.index:
                self._choice(choice)
                if choice.finish_reason:
                    self._last["reason"] = text

    def _keep(self, text: bytes | str | JsonObject) -> None:
        if text is not self._read:
            self._read = text
            body = outer_fields(text, ("usage",), HEAD_FIELDS)
            if body.get("system_fingerprint") == FINGERPRINT:
                del body["system_fingerprint"]
            self._kept.keep("head", body, HEAD_FIELDS)
            self._kept.keep("usage", beyond(body.get("usage"), USAGE_SHAPE))

    def _add_extras(self, extras: dict[str, JsonObject], choice: ChatChoice) -> None:
        """Report the fields that only this wire's clients understand. Some servers repeat constant fields in every
        chunk.
        """
        message = extras.get("message", {})
        details = message.pop(DETAILS, None)
        if isinstance(details, list):
            self._add_details(details, choice.delta or choice.message)
        if isinstance(annotations := message.get("annotations"), list):
            self._annotations += annotations
        self._sources = extras.get("body", {}).get("citations") or self._sources
        if isinstance(logprobs := extras.get("choice", {}).get("logprobs"), dict):
            self._logprobs += from_openai(logprobs.get("content"))
        reported: dict[str, JsonObject] = {}
        for where, fields in extras.items():
            for name, value in fields.items():
                is_piece = where == "message" or (where == "choice" and grows(value))
                if is_piece or self._states.get((where, name)) != value:
                    self._states[where, name] = value
                    reported.setdefault(where, {})[name] = value
        if reported:
            self._out.append(FieldsAdded(WIRE, reported))

    def _add_details(self, details: list[Any], delta: ChatDelta | None) -> None:
        """Add reasoning in its vendor's own form, in addition to the readable form or in place of it."""
        merge(self._item_of("reasoning").details, {DETAILS: details})
        is_beside = delta is not None and (delta.reasoning or delta.reasoning_content)
        if not is_beside and (text := text_of_details(details)):
            self._text("reasoning", text)

    def _choice(self, choice: ChatChoice) -> None:
        delta = choice.delta or choice.message
        if delta is not None:
            if delta.content and not (delta.reasoning or delta.reasoning_content):  # the common case first
                self._text("text", delta.content)
            else:
                self._thought_and_text(delta)
            if delta.tool_calls:
                alone = len(delta.tool_calls) == 1
                for call in delta.tool_calls:
                    self._call(call, alone)
            if delta.function_call is not None:
                self._call(ChatCall(index=0, function=delta.function_call), True)
            if delta.images:
                self._images(delta.images)
        elif choice.text:
            self._text("text", choice.text)
        if delta is not None and delta.refusal:
            self._refused = True
            self._text("refusal", delta.refusal)
        if choice.finish_reason and choice.finish_reason != "null":
            self._reason = choice.finish_reason  # content and another finish reason may follow: the last one counts

    def _thought_and_text(self, delta: ChatDelta) -> None:
        thought = delta.reasoning or delta.reasoning_content
        if thought:
            self._text("reasoning", thought)
        if delta.content:
            self._text("text", delta.content)

    def _item_of(self, kind: ItemKind) -> _Item:
        """The open item if it is of this kind, else a new one."""
        item = self._open
        if item is None or item.kind != kind:
            self._close_open()
            item = self._open = _Item(self._begin(kind), kind)
        return item

    def _text(self, kind: ItemKind, text: str) -> None:
        item = self._open if self._open is not None and self._open.kind == kind else self._item_of(kind)
        item.pieces.utf8 += text.encode()  # the same as `_add`, but without three calls: this runs for each token
        self._out.append(item.delta(item.index, text))

    def _call(self, call: ChatCall, alone: bool) -> None:
        if call.is_none:  # the entry may be a malformed piece of a call, so it must not be ignored
            raise WireError("tool_calls: an entry with none of a call's fields")
        if self._searches and self._open is not None and self._open.kind == "text":
            self._uncited.append(self._open)
            self._open = None
        self._close_open()
        piece = CallPiece(index=call.index, id=call.id or "", name=call.name, text=call.text, is_alone=alone)
        rest = call.rest if isinstance(call.rest, dict) else None
        self._made.add(piece, custom=call.custom is not None, signature=call.signature, extra=rest)

    def _call_part(self, call: PendingCall, text: str) -> ToolCall | Opaque:
        if not call.custom:
            return ToolCall(id=call.id, name=call.name, arguments=text, signature=call.signature, extra=call.extra)
        value = {**call.fields, "id": call.id, "type": "custom", "custom": {"name": call.name, "input": text}}
        return Opaque(dialect=self._dialect, value=signed(value, call.signature))

    def _images(self, images: list[ImagePart]) -> None:
        for image in images:
            self._close_open()
            self._tell(image_from_url(image.image_url.url))

    def _close_open(self) -> None:
        if self._open is not None:
            self._close(self._open)
            self._open = None

    def _close(self, item: _Item) -> None:
        part = item.part(dialect=self._dialect)
        self._end(item, self._cited(part) if isinstance(part, Text) else part)

    def _cited(self, text: Text) -> Text:
        """Return the text with the sources and log probabilities that have arrived so far."""
        if self._annotations or self._sources:
            found = from_annotations(self._annotations, text.text, self._reported) or from_urls(self._sources)
            text = msgspec.structs.replace(text, citations=found)
            self._annotations = []
        if self._logprobs:
            text = msgspec.structs.replace(text, logprobs=tuple(self._logprobs))
            self._logprobs = []
        self._reported += len(text.text)
        return text

    def _finish(self) -> None:
        """End the response: no more chunks will arrive. The finish reason decides whether it is complete."""
        raw = self._reason
        if raw is None:
            self.truncated("a finish_reason")
            return
        reason = FINISH_REASONS.get(raw, FinishReason.UNKNOWN)
        if reason is FinishReason.ERROR:
            message = f"the vendor ended the response early (finish_reason {raw[:100]})"
            self.fail(Failure(kind=FailureKind.SERVER_ERROR, message=message, upstream_code=raw[:100]))
            return
        for item in self._uncited:
            self._close(item)
        self._close_open()
        self._made.close(self._call_part, cut=reason in CUTTING)
        self._tell_usage()
        if self._refused and reason is FinishReason.STOP:  # also sent for refusals
            reason = FinishReason.CONTENT_FILTER
        self._finished(reason, raw, has_calls=bool(self._made))

    def fail(self, failure: Failure) -> None:
        """End the response with a failure, and report the usage up to then."""
        self._tell_usage(final=self._is_counted or self._reason is not None)
        super().fail(failure)

    def _tell_usage(self, *, final: bool = True) -> None:
        for text in self._last.values():
            self._keep(text)
        self._last.clear()
        self._out += self._kept.take_events()
        if self._usage is not None:
            usage = read_usage(self._usage)
            if self._services:
                usage = msgspec.structs.replace(usage, services=self._services)
            self._out.append(UsageReported(usage, final))


_NOTHING: JsonObject = {}


def read_chunk(text: bytes | str, ignored: set[str]) -> tuple[ChatChunk, JsonObject]:
    """Decode a chunk or a complete response, and return it with its unknown fields: see `lenient.take_extras`. The
    names of fields with unexpected types are added to ``ignored``. Raises `WireError`.
    """
    try:
        return CHUNKS.plain(text) if len(text) <= CHUNKS.small else CHUNKS.decode(text), _NOTHING
    except TooLarge:
        raise
    except (ValueError, msgspec.DecodeError, RecursionError):
        return fit_chunk(read_object(text), ignored)
