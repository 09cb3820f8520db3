"""Decode a response with several choices (``n``): each with its own decoder, and with all items in one sequence."""

from __future__ import annotations

from typing import Any, final

import msgspec

from llm_protocol.codec.decoding import AnswerDecoder
from llm_protocol.codec.json import TooLarge, WireError, encode_json
from llm_protocol.codec.lenient import read_object
from llm_protocol.codec.sse import ServerSentEvent
from llm_protocol.content import JsonObject
from llm_protocol.events import (
    DELTAS,
    ChoiceFinished,
    Event,
    Failed,
    FieldsAdded,
    Finished,
    ItemDone,
    ItemStarted,
    Started,
    UsageReported,
)
from llm_protocol.failures import Failure
from llm_protocol.wires.openai_chat.errors import failure_of
from llm_protocol.wires.openai_chat.shapes import CHUNKS, KEEP_ALIVES, ChatChunk
from llm_protocol.wires.openai_chat.stream import OpenAIChatDecoder


@final
class ChoicesDecoder(AnswerDecoder):
    """One chat response with ``count`` choices, streamed or whole. If a choice is missing or cannot be read, all
    fail: the vendor bills them together, so one attempt cannot succeed in part.
    """

    def __init__(self, request_id: str, dialect: str, count: int) -> None:
        super().__init__()
        self._each = [OpenAIChatDecoder(request_id, dialect) for _ in range(count)]
        for decoder in self._each:
            decoder.ignored = self.ignored
        self._seen: set[int] = set()
        self._started = False
        self._indices: dict[tuple[int, int], int] = {}
        """For each choice and its own index of an item, the item's index in the response."""
        self._ends: dict[int, Finished] = {}

    def take(self, piece: ServerSentEvent) -> None:
        """Process the next event of the stream. Raises `WireError`."""
        if piece.data[:1] != "{":
            word = piece.data.strip()
            if word.upper() == "[DONE]":
                self._finish()
                return
            if word in KEEP_ALIVES:
                return
        chunk = _plain_chunk(piece.data)
        if chunk is None or chunk.error or chunk.usage or len(chunk.choices or ()) != 1:
            self._take_object(read_object(piece.data))
        else:
            self._take_token(chunk, piece.data)

    def _take_token(self, chunk: ChatChunk, text: str) -> None:
        """Process a chunk of one choice, the common case."""
        assert chunk.choices
        choice = chunk.choices[0]
        at = self._checked(choice.index or 0)
        choice.index = 0
        self._seen.add(at)
        self._each[at].take_chunk(chunk, {}, text)
        self._gather(at)

    def _take_object(self, body: JsonObject) -> None:
        choices = body.get("choices")
        if not isinstance(choices, list):
            self._feed(0, body)
            return
        for at in self._indices_in(choices):
            self._feed(at, _of_choice(body, [each for each in choices if _index(each) == at]))
            if self.over:
                return
        if body.get("usage") is not None:  # of all choices together
            self._feed(0, {**body, "choices": []})

    def take_whole(self, body: bytes) -> None:
        """Process a whole response, which is one JSON body. Raises `WireError`."""
        found = read_object(body)
        choices = found.get("choices")
        if not isinstance(choices, list) or not choices:
            self._each[0].take_whole(body)
            self._gather(0)
            return
        self._seen.update(self._indices_in(choices))
        self._check_all()
        for at in self._seen:
            if at:
                chosen = _of_choice(found, [each for each in choices if _index(each) == at])
                self._each[at].take_whole(encode_json(chosen))
        first = {**found, "choices": [each for each in choices if _index(each) == 0]}
        self._each[0].take_whole(encode_json(first))
        for at in range(len(self._each)):
            self._gather(at)
        if not self.over:
            self._finish()

    def end(self, surplus: bytes) -> None:
        """End the response. A body that was JSON in place of the promised stream is still a response."""
        if surplus and not self._seen:
            self.take_whole(surplus)
        elif len(self._seen) < len(self._each):
            self.truncated("all of its choices")
        else:
            self._finish()

    def fail(self, failure: Failure) -> None:
        """End the response with a failure, and report the usage up to then."""
        first = self._each[0]
        if not first.over:
            first.fail(failure)
        self._out += [each for each in first.told() if isinstance(each, UsageReported)]
        super().fail(failure)

    def failure_in(self, body: Any) -> Failure:
        """Decode an error body into a failure."""
        return failure_of(body)

    def _indices_in(self, choices: list[Any]) -> list[int]:
        """Return the indices of the choices in a chunk, in order. Raises `WireError` for a choice that was not
        requested.
        """
        return sorted({self._checked(_index(each)) for each in choices})

    def _checked(self, at: int) -> int:
        if not 0 <= at < len(self._each):
            raise WireError(f"it contains choice {at}, but only {len(self._each)} choices were requested")
        return at

    def _check_all(self) -> None:
        if len(self._seen) < len(self._each):
            raise WireError(f"it contains only {len(self._seen)} of the {len(self._each)} requested choices")

    def _feed(self, at: int, body: JsonObject) -> None:
        self._seen.add(at)
        self._each[at].take_object(body)
        self._gather(at)

    def _gather(self, at: int) -> None:
        """Collect the events of choice ``at``, with the indices of the whole response."""
        for event in self._each[at].told():
            match event:
                case Started():
                    if not self._started:
                        self._started = True
                        self._out.append(event)
                case Finished():
                    self._ends[at] = event
                case Failed():
                    if not self.over:
                        self.fail(event.failure)
                case _:
                    self._out.append(self._renumbered(at, event))

    def _renumbered(self, at: int, event: Event) -> Event:
        match event:
            case ItemStarted():
                index = self._indices[at, event.index] = self._items
                self._items += 1
                return msgspec.structs.replace(event, index=index, choice=at)
            case ItemDone():
                return msgspec.structs.replace(event, index=self._indices[at, event.index])
            case FieldsAdded():
                return msgspec.structs.replace(event, choice=at)
            case _ if isinstance(event, DELTAS):
                return msgspec.structs.replace(event, index=self._indices[at, event.index])
            case _:
                return event

    def _finish(self) -> None:
        """End all choices, because no more chunks will arrive. The first choice, which has the usage, is ended last."""
        self._check_all()
        for at in reversed(range(len(self._each))):
            if not self._each[at].over:
                self._each[at].end(b"")
                self._gather(at)
            if self.over:
                return
        for at, end in sorted(self._ends.items()):
            if at:
                self._out.append(ChoiceFinished(choice=at, reason=end.reason, raw_reason=end.raw_reason))
        self._out.append(self._ends[0])
        self.over = True


def _index(choice: Any) -> int:
    """Return the index of a choice. Some servers leave out that of the first one."""
    index = choice.get("index") if isinstance(choice, dict) else None
    return index if isinstance(index, int) else 0


def _of_choice(body: JsonObject, choices: list[Any]) -> JsonObject:
    """Return ``body`` with only these choices, which belong to one choice of the response."""
    return {**body, "choices": [{**each, "index": 0} for each in choices], "usage": None}


def _plain_chunk(text: bytes | str) -> ChatChunk | None:
    """Decode a chunk that has only known fields, each with the expected type; ``None`` for any other chunk. Raises
    `TooLarge`.
    """
    try:
        return CHUNKS.decode(text)
    except TooLarge:
        raise
    except WireError:
        return None
