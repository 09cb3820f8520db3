"""Decode Gemini's responses, streamed or whole, into events.

Gemini numbers no items: each chunk adds parts to one list. Adjacent text parts are one item until a part of another
kind, or a signature, ends it. Older models send ``finishReason`` in every chunk, and an error may follow one, so the
response ends only when its body does. If SSE was requested, a JSON array of chunks may arrive instead, or an error as
plain JSON, alone or after some events.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import cached_property
from typing import Any, final

import msgspec

from llm_protocol.codec.citations import from_gemini
from llm_protocol.codec.decoding import BLANK, AnswerDecoder
from llm_protocol.codec.error_body import find_error
from llm_protocol.codec.items import OpenItem
from llm_protocol.codec.json import JsonDecoder, TooLarge, WireError, decode_json, json_text
from llm_protocol.codec.json_array import JsonArrayDecoder
from llm_protocol.codec.lenient import fit, read_object
from llm_protocol.codec.logprobs import from_gemini as logprobs_from_gemini
from llm_protocol.codec.media import unbase64
from llm_protocol.codec.sse import MAX_EVENT_BYTES, ServerSentEvent, SseDecoder
from llm_protocol.content import Image, JsonObject, Opaque, Reasoning, Text, ToolCall
from llm_protocol.events import FieldsAdded, ItemKind, Started, UsageReported
from llm_protocol.extra_fields import KeptFields, merge, rest_of
from llm_protocol.failures import Failure
from llm_protocol.response import FinishReason
from llm_protocol.wires.gemini.errors import failure_of
from llm_protocol.wires.gemini.shapes import (
    BROKEN_REASONS,
    CANDIDATE_FIELDS,
    CHUNK_FIELDS,
    FEEDBACK_FIELDS,
    FINISH_REASONS,
    NAME,
    PART_FIELDS,
    TOKENS_DETAILS,
    USAGE_FIELDS,
    GeminiBlob,
    GeminiCall,
    GeminiChunk,
    GeminiPart,
    GeminiUsageMetadata,
    made_id,
)


@final
class GeminiPieceSplitter:
    """Splits SSE or a JSON array into chunks. The first byte decides which of them it is."""

    def __init__(self, max_event_bytes: int = MAX_EVENT_BYTES) -> None:
        self._limit = max_event_bytes
        self._sse = SseDecoder(max_event_bytes)
        self._array: JsonArrayDecoder | None = None
        self._first = True

    @property
    def surplus(self) -> bytes:
        """The beginning of a body that is neither SSE nor a JSON array."""
        return self._sse.surplus

    def feed(self, data: bytes) -> Iterable[ServerSentEvent]:
        """Return the chunks that ``data`` completes. If the data after them is malformed, raises `WireError`
        afterwards.
        """
        if self._first:
            data = data.lstrip(BLANK)
            if not data:
                return []
            self._first = False
            if data.startswith(b"["):
                self._array = JsonArrayDecoder(self._limit)
        if self._array is None:
            return self._sse.feed(data)
        return (ServerSentEvent("", chunk.decode("utf-8", "replace")) for chunk in self._array.feed(data))

    def end(self) -> list[ServerSentEvent]:
        """The chunks that the end of the body completes."""
        return self._sse.end()


def cut_whole(body: bytes) -> list[bytes]:
    """Return the chunks of a complete body: the body itself, or the members of an array. Raises `WireError`."""
    array = body.lstrip(BLANK)
    return list(JsonArrayDecoder(len(body)).feed(array)) if array.startswith(b"[") else [body]


_CHUNK = JsonDecoder(GeminiChunk)
_ESSENTIAL = frozenset(("candidates", "content", "parts", "text", "functionCall", "name", "args", "inlineData", "data"))
"""The fields that hold content. Any other field may have any type."""
_NO_THOUGHT: tuple[Any, ...] = (None, False, "", "false")
"""Any other value marks the part as a thought."""


@final
class GeminiDecoder(AnswerDecoder):
    """Decodes one response, streamed or whole."""

    def __init__(self) -> None:
        super().__init__()
        self._begun = False
        self._id = ""
        self._open: OpenItem | None = None
        self._calls = 0
        self._usage: GeminiUsageMetadata | None = None
        self._hidden: tuple[int | None, int | None] | None = None
        self._is_counted = False
        """Whether the usage arrived with the end of the response."""
        self._finish: str | None = None
        self._blocked = False
        self._kept = KeptFields(NAME)
        self._last: _RawChunk | None = None
        """The last chunk, which contains the complete usage."""
        self._has_call_behind = False
        """Whether calls have followed the open text, which stays open because its citations are in the last chunk."""
        self._logprobs: list[JsonObject] = []
        self._fields: JsonObject = {}
        """The candidate's fields that are not read."""
        self._extra: JsonObject = {}
        """The fields that are not read, of the open item's parts."""

    def take(self, piece: ServerSentEvent) -> None:
        """Process the next chunk. Raises `WireError`."""
        self._take_chunk(piece.data)

    def take_whole(self, body: bytes) -> None:
        """Process a body that is one chunk or an array of chunks. Raises `WireError`."""
        for chunk in cut_whole(body):
            if not self.over:
                self._take_chunk(chunk)
        if self._finish is None and not self._items and not self.over:
            raise WireError("it has no candidates")
        if not self.over:
            self._close()

    def failure_in(self, body: Any) -> Failure:
        """Decode an error body into a failure."""
        return failure_of(None, body)

    def end(self, surplus: bytes) -> None:
        """End the response. ``surplus``, which was not SSE, is an error in plain JSON, or not a response at all."""
        value = _first(surplus) if surplus else None
        if find_error(value) is not None:
            self.fail(failure_of(None, value))
        elif surplus and not self._begun:
            self.misread("it is neither an event stream nor an error in JSON")
        else:
            self._close()

    def fail(self, failure: Failure) -> None:
        """End the response with a failure, and report the usage up to then."""
        self._tell_usage(final=self._is_counted)
        super().fail(failure)

    def _take_chunk(self, text: str | bytes) -> None:
        raw = _RawChunk(text)
        try:
            chunk = _CHUNK.decode(text)
        except TooLarge:
            raise
        except WireError:
            raw.has_more = True
            chunk = fit(raw.value, GeminiChunk, _ESSENTIAL, self.ignored)
        if chunk.error is not None:
            self.fail(failure_of(None, raw.value))
        else:
            self._take(chunk, raw)

    def _close(self) -> None:
        if self._finish is None:
            self.truncated("a finishReason")
            return
        self._close_item(None)
        self._keep(self._last)
        self._tell_usage(final=self._is_counted)
        self._finished(self._reason(), self._finish, has_calls=self._calls > 0)

    def _keep(self, last: _RawChunk | None) -> None:
        fields = last.value if last is not None else {}
        usage = rest_of(fields.get("usageMetadata"), USAGE_FIELDS)
        if all(map(_is_of_images, _listed(usage.get(TOKENS_DETAILS)))):  # the encoder writes this field itself
            usage.pop(TOKENS_DETAILS, None)
        self._kept.keep("usage", usage)
        self._kept.keep("feedback", fields.get("promptFeedback"), FEEDBACK_FIELDS)
        self._kept.keep("chunk", fields, CHUNK_FIELDS)
        self._out += self._kept.take_events()

    def _take_usage(self, usage: GeminiUsageMetadata) -> None:
        """Report the counts of the prompt and of thoughts when they change. Counts are cumulative."""
        hidden = (usage.prompt_token_count, usage.thoughts_token_count)
        self._usage = usage
        if hidden != self._hidden:
            self._hidden = hidden
            self._tell_usage(final=False)

    def _tell_usage(self, *, final: bool) -> None:
        if self._usage is not None:
            self._out.append(UsageReported(self._usage.usage(), final))

    def _reason(self) -> FinishReason:
        if self._blocked:
            return FinishReason.CONTENT_FILTER
        word = self._finish or ""
        return FINISH_REASONS.get(word, FinishReason.ERROR if word in BROKEN_REASONS else FinishReason.UNKNOWN)

    def _take(self, chunk: GeminiChunk, raw: _RawChunk) -> None:
        if not self._begun:
            self._begun = True
            self._id = chunk.response_id or ""
            self._out.append(Started(model=chunk.model_version or "", upstream_id=chunk.response_id))
        if chunk.usage_metadata is not None:
            self._take_usage(chunk.usage_metadata)
        self._last = raw
        for at, candidate in enumerate(chunk.candidates or ()):
            if candidate.index:
                continue  # another candidate: the canonical response has only one
            if raw.has_more:
                self._take_fields(raw.candidate(at))
            if candidate.content is not None:
                for part_at, part in enumerate(candidate.content.parts or ()):
                    self._take_part(part, raw, (at, part_at))
            if candidate.finish_reason is not None:
                self._finish = str(candidate.finish_reason)
        self._is_counted |= self._finish is not None and chunk.usage_metadata is not None
        feedback = chunk.prompt_feedback
        if feedback is not None and feedback.block_reason is not None and not chunk.candidates:
            self._finish, self._blocked = str(feedback.block_reason), True

    def _take_fields(self, fields: JsonObject) -> None:
        """Report the candidate fields that only this wire's clients understand. Some models repeat them in every
        chunk.
        """
        self._logprobs += logprobs_from_gemini(fields.get("logprobsResult"))
        changed = {name: value for name, value in fields.items() if self._fields.get(name) != value}
        if changed:
            self._fields |= changed
            self._out.append(FieldsAdded(NAME, {"candidate": changed}))

    def _take_part(self, part: GeminiPart, raw: _RawChunk, place: tuple[int, int]) -> None:
        extra: JsonObject = {}
        if raw.has_more:
            extra = rest_of(raw.part(*place), PART_FIELDS)
        if part.text is not None:
            kind: ItemKind = "reasoning" if part.thought not in _NO_THOUGHT else "text"
            self._take_text(kind, part.text, part.thought_signature, extra)
        elif part.function_call is not None:
            call = self._call(part.function_call, part.thought_signature)
            self._whole(msgspec.structs.replace(call, extra={NAME: extra}) if extra else call)
        elif part.inline_data is not None and not part.thought and _is_image(part.inline_data):
            data = unbase64(part.inline_data.data or "")
            media_type = part.inline_data.mime_type
            self._whole(Image(data=data, media_type=media_type, signature=part.thought_signature))
        elif value := raw.part(*place):
            self._whole(Opaque(dialect=NAME, value=value))

    def _call(self, call: GeminiCall, signature: str | None) -> ToolCall:
        if not call.name:
            raise WireError("a functionCall without a name")
        self._calls += 1
        return ToolCall(
            id=call.id or made_id(self._id, self._calls),
            name=call.name,
            arguments=json_text(call.args or {}),
            signature=signature,
        )

    def _take_text(self, kind: ItemKind, text: str, signature: str | None, extra: JsonObject) -> None:
        if not text and not signature:
            return
        if self._open is None or self._open.kind != kind or self._has_call_behind:
            self._close_item(None)
            self._open = OpenItem(self._begin(kind), kind)
        self._add(self._open, text)
        if extra:
            merge(self._extra, extra)
        if signature:
            self._close_item(signature)

    def _close_item(self, signature: str | None) -> None:
        if self._open is None:
            return
        part = self._open.part(dialect=NAME)
        assert isinstance(part, Text | Reasoning)
        part = msgspec.structs.replace(part, signature=signature)
        if self._extra:
            part = msgspec.structs.replace(part, extra={NAME: self._extra})
            self._extra = {}
        if self._fields and isinstance(part, Text):
            citations, logprobs = from_gemini(self._fields, part.text), tuple(self._logprobs)
            part = msgspec.structs.replace(part, citations=citations, logprobs=logprobs)
            self._logprobs = []
        self._end(self._open, part)
        self._open = None
        self._has_call_behind = False

    def _whole(self, part: ToolCall | Image | Opaque) -> None:
        if isinstance(part, ToolCall) and self._open is not None and self._open.kind == "text":
            self._has_call_behind = True
        else:
            self._close_item(None)
        self._tell(part)


def _is_of_images(details: Any) -> bool:
    return isinstance(details, dict) and details.get("modality") == "IMAGE"


def _is_image(blob: GeminiBlob) -> bool:
    return (blob.mime_type or "").startswith("image/")


@final
class _RawChunk:
    """A chunk decoded again, with the fields that the typed decoder does not know. Decoded at most once, and only if
    needed.
    """

    def __init__(self, text: str | bytes) -> None:
        self._text = text
        self.has_more = False
        """Whether the chunk may have such fields."""

    @cached_property
    def value(self) -> JsonObject:
        """The complete chunk as a dict."""
        return read_object(self._text)

    @cached_property
    def _candidates(self) -> list[Any]:
        return _listed(self.value.get("candidates"))

    def candidate(self, at: int) -> JsonObject:
        """The fields of a candidate that are not read, under the index that the typed decoder uses."""
        return rest_of(self._candidates[at], CANDIDATE_FIELDS)

    def part(self, candidate: int, part: int) -> JsonObject:
        """One part of a candidate as a dict."""
        try:
            raw: JsonObject = _listed(self._candidates[candidate]["content"].get("parts"))[part]
            return {name: value for name, value in raw.items() if value is not None}
        except (KeyError, IndexError, TypeError, AttributeError):
            raise WireError("parts: expected a list of objects") from None


def _listed(value: Any) -> list[Any]:
    """The members as the tolerant decoder sees them: a single object counts as a list, and null as none."""
    return [item for item in (value if isinstance(value, list) else [value]) if item is not None]


def _first(surplus: bytes) -> object:
    """The JSON value in ``surplus``; the first member of a list."""
    try:
        value = decode_json(surplus)
    except WireError:
        return None
    return value[0] if isinstance(value, list) and value else value
