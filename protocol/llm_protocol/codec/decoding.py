"""Decode a response: the part that is the same on every wire.

An `AnswerDecoder` turns one wire's messages into events. A `BodyDecoder` feeds it: it splits the bytes into messages,
ends the response at the first message that cannot be read, and lets nothing follow the end.
"""

from __future__ import annotations

import weakref
from abc import ABC, abstractmethod
from collections.abc import Iterable
from typing import Any, Protocol, final

import msgspec

from llm_protocol.codec.error_body import find_error
from llm_protocol.codec.items import OpenItem
from llm_protocol.codec.json import TooLarge, WireError, decode_json
from llm_protocol.codec.sse import ServerSentEvent, SseDecoder
from llm_protocol.codec.surrogates import HALF, PairJoiner
from llm_protocol.codec.tool_calls import CallExtra, InvalidToolCall, ToolCalls, checked_call
from llm_protocol.content import Part, ToolCall
from llm_protocol.events import Event, Failed, Finished, ItemDone, ItemKind, ItemStarted
from llm_protocol.failures import Failure, FailureKind
from llm_protocol.fold import item_events
from llm_protocol.response import FinishReason

CUTTING = frozenset((FinishReason.LENGTH, FinishReason.CONTENT_FILTER))
"""Reasons for which a response may end at any point, so that an incomplete tool call is not the model's mistake."""


class AnswerDecoder(ABC):
    """Decodes one response. ``over`` is true once ``Finished`` or ``Failed`` is among the events."""

    def __init__(self) -> None:
        self.over = False
        self.ignored: set[str] = set()
        """The names of fields that were left out because their values had unexpected types."""
        self._pending_calls: ToolCalls | None = None
        self._items = 0
        self._out: list[Event] = []

    @abstractmethod
    def take(self, piece: ServerSentEvent) -> None:
        """Process the next piece of the stream. Raises `WireError`."""

    @abstractmethod
    def take_whole(self, body: bytes) -> None:
        """Process a body that is the complete response. Raises `WireError`."""

    @abstractmethod
    def failure_in(self, body: Any) -> Failure:
        """The failure for a decoded body that is an error instead of a response."""

    @abstractmethod
    def end(self, surplus: bytes) -> None:
        """End the response: the body has ended. ``surplus`` is the part of it that was not SSE. Raises `WireError`."""

    def read_whole(self, body: bytes) -> None:
        """Process a body that is a complete response, or an error in its place. Never raises: a malformed body ends the
        response as failed.
        """
        try:
            self.take_whole(body)
        except WireError as exc:
            error = _error_in(body)
            if error is None:
                self.misread(exc)
            else:
                self.fail(self.failure_in(error))

    def fail(self, failure: Failure) -> None:
        """End the response with ``failure``, which is marked as partial if an item has started."""
        self.over = True
        self._out.append(Failed(failure=msgspec.structs.replace(failure, partial=self._items > 0)))

    def misread(self, why: object) -> None:
        """End the response as failed because it is malformed; ``why`` says what is wrong."""
        self.fail(misread(why).failure)

    def truncated(self, missing: str) -> None:
        """End the response as failed because it is truncated. ``missing`` names what did not arrive."""
        self.fail(Failure(kind=FailureKind.TRUNCATED, message=f"the stream ended without {missing}"))

    def told(self) -> list[Event]:
        """Return the events since the last call."""
        out, self._out = self._out, []
        return out

    def _begin(
        self, kind: ItemKind, id_: str | None = None, name: str | None = None, extra: CallExtra | None = None
    ) -> int:
        """Report that an item has started. Returns its index."""
        if self._pending_calls is not None and kind not in ("tool_call", "opaque"):
            self._pending_calls.announce()  # items are reported in the order in which they began
        index = self._items
        self._items += 1
        self._out.append(ItemStarted(index=index, kind=kind, id=id_, name=name, extra=extra))
        return index

    def _add(self, item: OpenItem, text: str) -> None:
        """Report more text of ``item``."""
        if text:
            item.pieces.append(text)
            self._out.append(item.delta(item.index, text))

    def _end(self, item: OpenItem, part: Part) -> None:
        """Report that ``item`` is complete."""
        self._out.append(ItemDone(index=item.index, part=part))

    def _tool_calls(self, prefix: str, dialect: str) -> ToolCalls:
        """The accumulator of this response's tool calls. ``prefix`` begins the ids of calls that arrive without one;
        unread fields become the ``extra`` of ``dialect``.
        """
        me = weakref.proxy(self)  # a reference cycle would keep the response's text until the next garbage collection
        self._pending_calls = ToolCalls(
            prefix,
            dialect,
            lambda kind, call: me._begin(kind, call.id, call.name, call.extra),
            lambda event: me._put(event),
        )
        return self._pending_calls

    def _put(self, event: Event) -> None:
        self._out.append(event)

    def _finished(self, reason: FinishReason, raw: str | None, *, has_calls: bool) -> None:
        """End the response. If it has tool calls, the reason becomes TOOL_CALLS, unless the response was cut or the
        vendor reports an error.

        Raises `InvalidToolCall` if the vendor's reason is TOOL_CALLS and there is no call.
        """
        if has_calls and reason not in CUTTING and reason is not FinishReason.ERROR:
            reason = FinishReason.TOOL_CALLS
        elif reason is FinishReason.TOOL_CALLS and not has_calls:
            raise InvalidToolCall(f"the response ends with {(raw or '')[:100]!r} and has no tool call")
        self._out.append(Finished(reason=reason, raw_reason=raw))
        self.over = True

    def _tell(self, part: Part, *, cut: bool = False) -> None:
        """Report an item that arrived in one piece. If it was ``cut``, report only its start. Raises
        `InvalidToolCall`.
        """
        if isinstance(part, ToolCall) and not cut:
            part = checked_call(part)
        events = item_events(self._items, part)
        self._out += [next(events)] if cut else events
        self._items += 1


class PieceSplitter(Protocol):
    """Splits the bytes of a streamed response into the pieces that the decoder takes one by one."""

    @property
    def surplus(self) -> bytes:
        """The beginning of bytes that belong to no piece."""
        ...

    def feed(self, data: bytes) -> Iterable[ServerSentEvent]:
        """The pieces that ``data`` completes. May raise `WireError` after some of them."""
        ...

    def end(self) -> list[ServerSentEvent]:
        """The pieces that the end of the body completes."""
        ...


BLANK = b"\xef\xbb\xbf \t\r\n"
"""The bytes that may precede JSON: white space and a byte order mark."""

_SSE_LINES = (b"data:", b"event:", b"id:", b"retry:", b":")


@final
class BodyDecoder:
    """The `StreamDecoder` of every response that is streamed.

    The first byte of a body decides what it is, not its content type: some servers respond to a request for a stream
    with one JSON object, or the other way round (`read_whole`). Such an object is collected and decoded at its end.
    """

    __slots__ = ("_answer", "_is_new", "_pairs", "_splitter", "_whole")

    def __init__(self, answer: AnswerDecoder, splitter: PieceSplitter | None = None) -> None:
        self._answer = answer
        self._splitter = splitter or SseDecoder()
        self._is_new = True
        self._pairs = PairJoiner()
        self._whole: bytearray | None = None

    @property
    def is_whole(self) -> bool:
        """Whether the body is one JSON object. Such a body is kept in memory until its end."""
        return self._whole is not None

    @property
    def ignored(self) -> set[str]:
        """The names of fields that were left out because their values had unexpected types."""
        return self._answer.ignored

    def feed(self, data: bytes) -> list[Event]:
        """The events that ``data`` completes. None follow ``Finished`` or ``Failed``."""
        answer = self._answer
        if answer.over:
            return []
        if self._is_new:
            data = data.lstrip(BLANK)
            if not data:
                return []
            self._is_new = False
            if data.startswith(b"{") or (data.startswith(b"[") and isinstance(self._splitter, SseDecoder)):
                self._whole = bytearray()
        if self._whole is not None:
            self._whole += data
            return []
        try:
            self._take(self._splitter.feed(data))
        except WireError as exc:
            answer.misread(exc)
        return answer.told()

    def end(self) -> list[Event]:
        """End the response because the body has ended. Without the vendor's end marker, the last event is ``Failed``
        with the kind ``truncated``.
        """
        answer = self._answer
        if answer.over:
            return []
        if self._whole is not None:
            answer.read_whole(bytes(self._whole))
            return answer.told()
        try:
            self._take(self._splitter.end())
            self._take_all(self._pairs.end())
            if not answer.over:
                answer.end(self._splitter.surplus.strip())
        except WireError as exc:
            answer.misread(exc)
        return answer.told()

    def _take(self, pieces: Iterable[ServerSentEvent]) -> None:
        answer, pairs = self._answer, self._pairs
        for piece in pieces:
            if pairs.held or HALF in piece.data:
                self._take_all(pairs.feed(piece))
            else:
                answer.take(piece)
            if answer.over:
                break

    def _take_all(self, pieces: list[ServerSentEvent]) -> None:
        for piece in pieces:
            if not self._answer.over:
                self._answer.take(piece)


def misread(why: object) -> Failed:
    """The failure for a malformed response. ``why`` is the error that the decoder raised."""
    if isinstance(why, InvalidToolCall):
        return Failed(failure=Failure(kind=FailureKind.INVALID_TOOL_CALL, message=str(why)))
    if isinstance(why, TooLarge):
        return Failed(failure=Failure(kind=FailureKind.ANSWER_TOO_LARGE, message=f"the response is too large: {why}"))
    return Failed(failure=Failure(kind=FailureKind.PROTOCOL, message=f"the vendor's response cannot be decoded: {why}"))


def read_whole(answer: AnswerDecoder, body: bytes, ignored: set[str] | None = None) -> list[Event]:
    """The events of a response that arrived in one piece; the last one is ``Finished`` or ``Failed``. The names of
    fields that were left out are added to ``ignored``.
    """
    if body.lstrip(BLANK).startswith(_SSE_LINES):
        decoder = BodyDecoder(answer)
        events = [*decoder.feed(body), *decoder.end()]
    else:
        answer.read_whole(body)
        events = answer.told()
    if ignored is not None:
        ignored |= answer.ignored
    return events


def _error_in(body: bytes) -> Any:
    """The decoded body, if it is an error; else ``None``."""
    try:
        value = decode_json(body)
    except WireError:
        return None
    return value if find_error(value) is not None else None
