"""What the server sides of all wires share: the encoder of streamed responses, and the ``llm_runtime`` object of a
response, which says which provider responded, at what cost, and why.
"""
# ruff: noqa: B027  (hooks that most wires leave empty)

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable

from llm_protocol.codec.items import DELTA_OF, kind_of, text_of
from llm_protocol.codec.json import encode_json
from llm_protocol.content import JsonObject, Part
from llm_protocol.dialect import ClientRequest, Frame
from llm_protocol.events import (
    DELTAS,
    Delta,
    Event,
    Failed,
    FieldsAdded,
    Finished,
    ItemDone,
    ItemStarted,
    MemberDelta,
    MemberDone,
    MemberEvent,
    MemberFailed,
    MemberStarted,
    Restarted,
    Started,
    UsageReported,
    merged,
)
from llm_protocol.failures import Failure
from llm_protocol.response import LLMResponse, Usage


class StreamEncoder(ABC):
    """Turns the events of one run into a client's frames; see `llm_protocol.dialect.ResponseEncoder`.

    A wire implements a hook for each kind of event, and appends frames to ``_frames``. Adjacent deltas of one item are
    joined. An item without deltas gets one with its whole text before it is done.
    """

    def __init__(self, inbound: ClientRequest, response_id: str) -> None:
        self._id = response_id
        self._model = inbound.request.model
        """The model that responds; until it is known, the requested one."""
        self._wants_runtime_fields = is_wanted(inbound)
        self._usage: Usage | None = None
        self._streamed: set[int] = set()
        """The items whose text was sent in deltas."""
        self._frames: list[Frame] = []
        self._unmerged: Callable[[Iterable[Event]], Iterable[tuple[Event, int]]] | None = None
        """Returns the events, each with its number of deltas, for wires on which deltas must not be joined freely."""

    def start(self) -> list[Frame]:
        """The frames to send before the provider has sent anything. None by default, so that an error can still be an
        HTTP error.
        """
        return []

    def encode(self, events: Iterable[Event]) -> list[Frame]:
        """The frames for the next events."""
        only = events[0] if isinstance(events, list) and len(events) == 1 else None
        if isinstance(only, DELTAS) and not only.lengths and self._unmerged is None:  # the common case first
            pairs: Iterable[tuple[Event, int]] = ((only, 1),)
        else:
            pairs = (self._unmerged or merged)(events)
        for event, count in pairs:
            if isinstance(event, DELTAS):
                self._streamed.add(event.index)
                self._delta(event, count)
            else:
                self._take(event, count)
        frames, self._frames = self._frames, []
        return frames

    def _take(self, event: Event, count: int) -> None:
        match event:
            case Started():
                self._model = event.model or self._model
                self._started()
            case ItemStarted():
                self._item_started(event)
            case ItemDone():
                if event.index not in self._streamed and (text := self._whole_text(event.part)):
                    self._streamed.add(event.index)
                    self._delta(DELTA_OF[kind_of(event.part)](event.index, text), 1)
                self._item_done(event)
            case UsageReported():
                self._usage = event.usage
            case FieldsAdded():
                self._fields_added(event.dialect, event.fields)
            case Finished():
                if self._usage is None and event.response is not None:
                    self._usage = event.response.usage
                self._finished(event)
            case Failed():
                self._failed(event)
            case Restarted():
                self._usage = None
                self._streamed.clear()
                self._restarted()
            case MemberStarted() | MemberDelta() | MemberDone() | MemberFailed():
                self._member(event, count)
            case _:
                pass  # embeddings are never streamed

    @abstractmethod
    def _delta(self, event: Delta, count: int) -> None:
        """Hook: more text of an item. The delta stands for ``count`` deltas of the run."""

    @abstractmethod
    def _item_done(self, event: ItemDone) -> None:
        """Hook: an item is complete, and all its text was written."""

    @abstractmethod
    def _finished(self, event: Finished) -> None:
        """Hook: the response is complete."""

    @abstractmethod
    def _failed(self, event: Failed) -> None:
        """Hook: the response ends with a failure."""

    # Hooks that most wires leave empty.

    def _started(self) -> None:
        """Hook: the provider has begun to respond; ``_model`` is known."""

    def _item_started(self, event: ItemStarted) -> None:
        """Hook: an item begins."""

    def _fields_added(self, dialect: str, fields: dict[str, JsonObject]) -> None:
        """Hook: fields that only clients of ``dialect`` understand."""

    def _restarted(self) -> None:
        """Hook: everything written so far is void."""

    def _member(self, event: MemberEvent, count: int) -> None:
        """Hook: an event of a member."""

    def _whole_text(self, part: Part) -> str:
        """The text of an item without deltas, as this wire streams it."""
        return text_of(part)


# ---------------------------------------------------------------- the object `llm_runtime`

_LIFTED = ("limit_owner", "members")
"""Entries of the decision record that are reported separately."""


def is_wanted(inbound: ClientRequest) -> bool:
    """Whether the client sent an ``llm_runtime`` object. Other clients may not accept fields that they do not know."""
    return inbound.policy is not None


def runtime_fields(body: bytes, response: LLMResponse | None, *, wanted: bool) -> bytes:
    """Return ``body``, a JSON object, with the ``llm_runtime`` object added if it is ``wanted``."""
    if not wanted or response is None:
        return body
    return b'%b,"llm_runtime":%b}' % (body[:-1], encode_json(runtime_object(response)))


def limit_fields(body: bytes, failure: Failure) -> bytes:
    """Return ``body``, the JSON object of an error, with the owner of the limit added, if a limit was the cause."""
    owner = failure.limited_by
    return body if owner is None else b'%b,"llm_runtime":{"limit_owner":"%b"}}' % (body[:-1], owner.encode())


def runtime_object(response: LLMResponse, *, answers: bool = False) -> JsonObject:
    """Return the ``llm_runtime`` object: deployment, cost and decision record; with ``answers``, also the members'
    responses.
    """
    owner = response.decision.get("limit_owner")
    return (
        ({} if owner is None else {"limit_owner": owner})
        | {
            "request_id": response.request_id,
            "provider": response.provider,
            "upstream_id": response.upstream_id,
            "cost": response.cost,
            "processing_time_ms": round(response.processing_time_ms, 3),
            "usage_estimated": response.usage is not None and response.usage.estimated,
            "adjusted": [each.to_json() for each in response.adjusted],
            "decision": {name: value for name, value in response.decision.items() if name not in _LIFTED},
        }
        | _members(response, answers=answers)
    )


def _members(response: LLMResponse, *, answers: bool) -> JsonObject:
    """Return the report on each member, with its response if that is part of this one."""
    runtime_fields: list[JsonObject] = response.decision.get("members", [])
    texts = {member.request_id: member.content for member in response.members if answers}
    given = [
        each | {"content": texts[each["request_id"]]} if each["request_id"] in texts else each
        for each in runtime_fields
    ]
    return {"members": given} if given else {}
