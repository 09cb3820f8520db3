"""Reading answers: chunks of generateContent, whole or streamed, into events.

Gemini numbers nothing: each chunk brings more parts of one list. Neighbouring text parts are one item until a part of
another kind, or a signature, ends it. Older models say ``finishReason`` in every chunk, and an error may follow one, so
the answer is only over when the body is. Where SSE was asked for, three other things may come: a JSON array of chunks,
and an error as plain JSON, alone or after some events.
"""

from __future__ import annotations

from typing import Any

import msgspec

from llm_protocol.content import Image, JsonObject, Opaque, Reasoning, Text, ToolCall
from llm_protocol.dialects.gemini.errors import failure_of
from llm_protocol.dialects.gemini.framing import JsonArrayDecoder
from llm_protocol.dialects.gemini.tables import FINISH_REASONS, NAME
from llm_protocol.events import (
    Event,
    Failed,
    Finished,
    ItemDone,
    ItemStarted,
    ReasoningDelta,
    Started,
    TextDelta,
    UsageReported,
)
from llm_protocol.failures import Failure, FailureKind
from llm_protocol.fold import item_events
from llm_protocol.pictures import unbase64
from llm_protocol.response import FinishReason, Usage
from llm_protocol.sse import MAX_EVENT_BYTES, SseDecoder, SseOverflowError
from llm_protocol.wire import JsonDecoder, WireError, decode_json, decode_object, json_text


class _Call(msgspec.Struct, frozen=True, gc=False):
    name: str = ""
    args: JsonObject | None = None
    id: str | None = None


class _Blob(msgspec.Struct, frozen=True, gc=False, rename="camel"):
    mime_type: str | None = None
    data: str | None = None


class _Part(msgspec.Struct, frozen=True, gc=False, rename="camel"):
    text: str | None = None
    thought: bool | None = None
    thought_signature: str | None = None
    function_call: _Call | None = None
    inline_data: _Blob | None = None


class _Content(msgspec.Struct, frozen=True, gc=False):
    parts: list[_Part] | None = None


class _Candidate(msgspec.Struct, frozen=True, gc=False, rename="camel"):
    content: _Content | None = None
    finish_reason: str | int | None = None
    index: int | None = None


class _Feedback(msgspec.Struct, frozen=True, gc=False, rename="camel"):
    block_reason: str | int | None = None


class _Modality(msgspec.Struct, frozen=True, gc=False, rename="camel"):
    modality: str | int | None = None
    token_count: int | None = None


class UsageMetadata(msgspec.Struct, frozen=True, gc=False, rename="camel"):
    """Gemini's counts: ``candidates`` without thoughts, ``prompt`` with what was cached but without tools' results."""

    prompt_token_count: int | None = None
    candidates_token_count: int | None = None
    thoughts_token_count: int | None = None
    cached_content_token_count: int | None = None
    tool_use_prompt_token_count: int | None = None
    candidates_tokens_details: list[_Modality] | None = None

    def usage(self) -> Usage:
        """The same on the common scale."""
        thoughts = self.thoughts_token_count or 0
        return Usage(
            input_tokens=(self.prompt_token_count or 0) + (self.tool_use_prompt_token_count or 0),
            output_tokens=(self.candidates_token_count or 0) + thoughts,
            cached_tokens=self.cached_content_token_count or 0,
            reasoning_tokens=thoughts,
            image_tokens=sum(d.token_count or 0 for d in self.candidates_tokens_details or () if d.modality == "IMAGE"),
        )


class _Chunk(msgspec.Struct, frozen=True, gc=False, rename="camel"):
    candidates: list[_Candidate] | None = None
    prompt_feedback: _Feedback | None = None
    usage_metadata: UsageMetadata | None = None
    model_version: str | None = None
    response_id: str | None = None
    error: Any = None


_CHUNK = JsonDecoder(_Chunk)
_MADE_ID = "call_gemini_"


def made_id(*where: object) -> str:
    """An id for a call that Gemini gave none; always the same for the same place."""
    return _MADE_ID + "_".join(map(str, where))


def vendor_id(call_id: str) -> str | None:
    """``call_id`` as Gemini may see it: not at all if it is one of ours."""
    return None if call_id.startswith(_MADE_ID) else call_id


def protocol_failure(why: object) -> Failed:
    """The end of an answer that cannot be understood."""
    return Failed(failure=Failure(kind=FailureKind.PROTOCOL, message=f"Gemini's answer could not be understood: {why}"))


class Answer:
    """Builds one answer from chunks. After the terminal event it takes nothing more."""

    def __init__(self) -> None:
        self.over = False
        self._begun = False
        self._id = ""
        self._index = -1
        self._kind = ""  # of the open item, "text" or "reasoning"; "" when none is open
        self._pieces: list[str] = []
        self._calls = 0
        self._usage: UsageMetadata | None = None
        self._finish: str | None = None
        self._blocked = False

    def add(self, text: str | bytes) -> list[Event]:
        """The events of one chunk's JSON text."""
        if self.over:
            return []
        out: list[Event] = []
        try:
            chunk = _CHUNK.decode(text)
            if chunk.error is not None:
                return self.fail(failure_of(None, decode_object(text)))
            self._take(chunk, text, out)
        except WireError as exc:
            out += self._end(protocol_failure(exc))
        return out

    def fail(self, failure: Failure) -> list[Event]:
        """The answer broke."""
        return self._end(Failed(failure=failure))

    def close(self, *, torn: str | None = None) -> list[Event]:
        """There are no more chunks. ``torn`` is why the body cannot have been an answer, if nothing else was said."""
        if self.over:
            return []
        if self._finish is None:
            if torn and not self._begun:
                return self._end(protocol_failure(torn))
            return self.fail(
                Failure(kind=FailureKind.TRUNCATED, message="Gemini's answer ended without a finishReason")
            )
        out: list[Event] = []
        self._close_item(None, out)
        return out + self._end(Finished(reason=self._reason(), raw_reason=self._finish))

    def _end(self, event: Finished | Failed) -> list[Event]:
        self.over = True
        return [event] if self._usage is None else [UsageReported(self._usage.usage()), event]

    def _reason(self) -> FinishReason:
        if self._blocked:
            return FinishReason.CONTENT_FILTER
        reason = FINISH_REASONS.get(self._finish or "", FinishReason.ERROR)
        return FinishReason.TOOL_CALLS if reason is FinishReason.STOP and self._calls else reason

    def _take(self, chunk: _Chunk, text: str | bytes, out: list[Event]) -> None:
        if not self._begun:
            self._begun = True
            self._id = chunk.response_id or ""
            out.append(Started(model=chunk.model_version or "", upstream_id=chunk.response_id))
        if chunk.usage_metadata is not None:
            self._usage = chunk.usage_metadata
        for at, candidate in enumerate(chunk.candidates or ()):
            if candidate.index:
                continue  # another choice: the canonical answer has one
            if candidate.content is not None:
                for part_at, part in enumerate(candidate.content.parts or ()):
                    self._take_part(part, (text, at, part_at), out)
            if candidate.finish_reason is not None:
                self._finish = str(candidate.finish_reason)
        feedback = chunk.prompt_feedback
        if feedback is not None and feedback.block_reason is not None and not chunk.candidates:
            self._finish, self._blocked = str(feedback.block_reason), True

    def _take_part(self, part: _Part, where: tuple[str | bytes, int, int], out: list[Event]) -> None:
        if part.text is not None:
            self._take_text("reasoning" if part.thought else "text", part.text, part.thought_signature, out)
        elif part.function_call is not None:
            self._whole(self._call(part.function_call, part.thought_signature), out)
        elif part.inline_data is not None and not part.thought and _is_image(part.inline_data):
            data = unbase64(part.inline_data.data or "")
            media_type = part.inline_data.mime_type
            self._whole(Image(data=data, media_type=media_type, signature=part.thought_signature), out)
        else:
            raw = _raw_part(*where)
            if raw:
                self._whole(Opaque(dialect=NAME, value=raw), out)

    def _call(self, call: _Call, signature: str | None) -> ToolCall:
        if not call.name:
            raise WireError("a functionCall without a name")
        self._calls += 1
        return ToolCall(
            id=call.id or made_id(self._id, self._calls),
            name=call.name,
            arguments=json_text(call.args or {}),
            signature=signature,
        )

    def _take_text(self, kind: str, text: str, signature: str | None, out: list[Event]) -> None:
        if not text and not signature:
            return
        if self._kind != kind:
            self._close_item(None, out)
            self._index += 1
            self._kind = kind
            out.append(ItemStarted(index=self._index, kind="text" if kind == "text" else "reasoning"))
        if text:
            self._pieces.append(text)
            out.append(TextDelta(self._index, text) if kind == "text" else ReasoningDelta(self._index, text))
        if signature:
            self._close_item(signature, out)

    def _close_item(self, signature: str | None, out: list[Event]) -> None:
        if not self._kind:
            return
        text = "".join(self._pieces)
        part = (
            Text(text, signature) if self._kind == "text" else Reasoning(text=text, signature=signature, dialect=NAME)
        )
        out.append(ItemDone(index=self._index, part=part))
        self._kind = ""
        self._pieces.clear()

    def _whole(self, part: ToolCall | Image | Opaque, out: list[Event]) -> None:
        self._close_item(None, out)
        self._index += 1
        out += item_events(self._index, part)


def _is_image(blob: _Blob) -> bool:
    return (blob.mime_type or "").startswith("image/")


def _raw_part(text: str | bytes, candidate: int, part: int) -> JsonObject:
    """The part again, with the fields that the typed decoder does not know."""
    raw: JsonObject = decode_object(text)["candidates"][candidate]["content"]["parts"][part]
    return {name: value for name, value in raw.items() if value is not None}


_BLANK = b"\xef\xbb\xbf \t\r\n"


class GeminiStreamDecoder:
    """Decodes one streamed body. Any split of the bytes gives the same events."""

    def __init__(self, max_event_bytes: int = MAX_EVENT_BYTES) -> None:
        self._answer = Answer()
        self._limit = max_event_bytes
        self._sse = SseDecoder(max_event_bytes)
        self._array: JsonArrayDecoder | None = None
        self._first = True

    def feed(self, data: bytes) -> list[Event]:
        """The events that ``data`` completes. After ``Finished`` or ``Failed`` there are no more."""
        if self._answer.over:
            return []
        if self._first:
            data = data.lstrip(_BLANK)
            if not data:
                return []
            self._first = False
            if data.startswith(b"["):
                self._array = JsonArrayDecoder(self._limit)
        try:
            if self._array is not None:
                return self._add(self._array.feed(data))
            return self._add([event.data for event in self._sse.feed(data)])
        except (SseOverflowError, WireError) as exc:
            return self._answer.fail(protocol_failure(exc).failure)

    def end(self) -> list[Event]:
        """The body has ended. Without a ``finishReason`` before: ``Failed`` with kind ``truncated``."""
        out = self._add([event.data for event in self._sse.end()])
        stray = self._sse.stray
        if not stray:
            return out + self._answer.close()
        return out + self._plain(stray)

    def _plain(self, stray: bytes) -> list[Event]:
        """What is not SSE: an error in plain JSON, or something that is no answer at all."""
        try:
            value = decode_json(stray)
        except WireError:
            return self._answer.close(torn="neither SSE nor JSON")
        if isinstance(value, list) and value:
            value = value[0]
        if isinstance(value, dict) and "error" in value:
            return [] if self._answer.over else self._answer.fail(failure_of(None, value))
        return self._answer.close(torn="JSON that is no error where SSE was expected")

    def _add(self, texts: list[str] | list[bytes]) -> list[Event]:
        if len(texts) == 1:
            return self._answer.add(texts[0])
        return [event for text in texts for event in self._answer.add(text)]


def whole_answer(body: bytes) -> list[Event]:
    """The events of a body that is one JSON chunk, or an array of them."""
    answer = Answer()
    try:
        if body.lstrip(_BLANK).startswith(b"["):
            chunks = JsonArrayDecoder(len(body)).feed(body.lstrip(_BLANK))
        else:
            chunks = [body]
    except WireError as exc:
        return answer.fail(protocol_failure(exc).failure)
    out = [event for chunk in chunks for event in answer.add(chunk)]
    return out + answer.close()
