"""Several choices in one response: ``n``, and completions of several prompts.

Either each choice is a separate request, or the vendor returns several choices for one request; see `in_one_call`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import groupby
from typing import final

import msgspec

from llm_protocol.codec.json import encode_json
from llm_protocol.dialect import ClientRequest, Frame, ResponseEncoder
from llm_protocol.events import (
    ChoiceFinished,
    Event,
    FieldsAdded,
    Finished,
    ItemStarted,
    Started,
)
from llm_protocol.requests import ChatRequest, CompletionRequest
from llm_protocol.response import LLMResponse
from llm_protocol.vendor_profile import OPENAI, VendorProfile
from llm_protocol.wires.openai_chat.server_stream import DONE, encode_whole, opening, whole_body
from llm_protocol.wires.openai_chat.shapes import usage_body

MOST_CHOICES = 128
"""The most choices in one response, as at OpenAI."""


def with_choices(inbound: ClientRequest, prompts: Sequence[str | None]) -> ClientRequest:
    """Return ``inbound`` with one more request for each of ``prompts``; ``None``: the same prompt again."""
    first = msgspec.structs.replace(inbound.request, one_of=len(prompts))
    requests = [
        msgspec.structs.replace(first, prompt=prompt) if isinstance(first, CompletionRequest) else first
        for prompt in prompts
    ]
    return inbound._replace(request=requests[0], choices=tuple(requests[1:]))


def in_one_call(inbound: ClientRequest) -> ClientRequest | None:
    """Return ``inbound`` with one request for all choices; ``None`` if each choice needs its own request."""
    request = inbound.request
    if not inbound.choices or not isinstance(request, ChatRequest):
        return None
    return inbound._replace(request=msgspec.structs.replace(request, n=1 + len(inbound.choices), one_of=1))


def encode_choices(inbound: ClientRequest, response: LLMResponse, profile: VendorProfile) -> bytes:
    """The body of a complete response."""
    if not inbound.choices:
        return encode_whole(inbound, response, profile)
    first, *others = (
        whole_body(inbound._replace(choice=at), choice, profile)
        for at, choice in enumerate((response, *response.choices))
    )
    return encode_json({**first, "choices": first["choices"] + [each["choices"][0] for each in others]})


def closing_frames(inbound: ClientRequest, response: LLMResponse, profile: VendorProfile = OPENAI) -> list[Frame]:
    """The frames after the last choice of a stream has ended. ``response`` is the combined response."""
    request = inbound.request
    frames: list[Frame] = []
    if inbound.include_usage and response.usage is not None:
        kind = "text_completion" if isinstance(request, CompletionRequest) else "chat.completion.chunk"
        head = opening(response.response_id, kind, int(request.timestamp), response.model, profile)
        frames.append(Frame(None, encode_json({**head, "choices": [], "usage": usage_body(response.usage)})))
    return [*frames, DONE]


@final
class FirstChoiceFirst:
    """Holds back the frames of other choices until there is a frame of the first choice, because OpenAI's SDK cannot
    begin with another.
    """

    def __init__(self) -> None:
        self._held: list[Frame] | None = []

    def next(self, choice: int, frames: list[Frame]) -> list[Frame]:
        """Return the frames that may be sent now. ``frames`` are the new frames of ``choice``."""
        if self._held is None:
            return frames
        if choice or not frames:
            self._held += frames
            return []
        held, self._held = self._held, None
        return frames + held


@final
class ChoicesEncoder:
    """The frames of one run with several choices; ``encoders`` has one for each. See `ResponseEncoder`."""

    def __init__(self, inbound: ClientRequest, encoders: list[ResponseEncoder], profile: VendorProfile) -> None:
        self._inbound = inbound
        self._encoders = encoders
        self._profile = profile
        self._order = FirstChoiceFirst()
        self._choice_of: dict[int, int] = {}

    def start(self) -> list[Frame]:
        """Return no frames: see `StreamEncoder.start`."""
        return []

    def encode(self, events: Iterable[Event]) -> list[Frame]:
        """The frames for the next events."""
        frames: list[Frame] = []
        for at, group in groupby(self._told(events), lambda told: told[0]):
            told = [event for _, event in group]
            frames += self._order.next(at, self._encoders[at].encode(told))
            if isinstance(told[-1], Finished) and told[-1].response is not None:  # of all choices
                frames += closing_frames(self._inbound, told[-1].response, self._profile)
        return frames

    def _told(self, events: Iterable[Event]) -> Iterator[tuple[int, Event]]:
        """Return each event with the choice that it belongs to."""
        for event in events:
            match event:
                case Started():
                    yield from ((at, event) for at in range(len(self._encoders)))
                case ItemStarted():
                    self._choice_of[event.index] = event.choice
                    yield event.choice, event
                case FieldsAdded():
                    yield event.choice, event
                case ChoiceFinished():
                    yield event.choice, Finished(reason=event.reason, raw_reason=event.raw_reason)
                case _:
                    yield self._choice_of.get(getattr(event, "index", -1), 0), event
