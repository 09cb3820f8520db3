"""The responses that can be retrieved by id: queued and running ones, and stored ones for a limited time.

An id is valid only for the caller who made the request. For others it is indistinguishable from an id that never
existed.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterator
from math import inf
from typing import NamedTuple, final

import msgspec

from llm_actors.run import Follower, Run
from llm_protocol.content import Message
from llm_protocol.dialect import ClientRequest
from llm_protocol.events import Finished
from llm_protocol.failures import Failure, FailureKind
from llm_protocol.wires.responses import ResponseOptions
from llm_runtime.config import ServerLimits
from llm_runtime.server.limits import LINGERING_RESPONSES, RECENT_BYTES, RECENT_RESPONSES


def end_interrupted(run: Run, message: str, ended_at: float | None = None) -> None:
    """End the log of a response whose process has ended, with the failure `interrupted`. ``ended_at`` is a UNIX time;
    with it, the last event is the same in every process. May be called in any thread.
    """
    failure = Failure(kind=FailureKind.INTERRUPTED, message=message, partial=run.has_content)
    response = run.folded(processing_time_ms=0.0)
    run.fail(failure, response if ended_at is None else msgspec.structs.replace(response, timestamp=ended_at))


@final
class StoredResponse:
    """A response and its request. ``input`` is the conversation before the response, without instructions.
    ``asked_bytes`` is the approximate size of request and conversation.
    """

    __slots__ = (
        "asked_bytes", "ended_at", "inbound", "input", "is_foreign", "is_gone", "is_in_file", "is_shared", "options",
        "run",
    )  # fmt: skip

    def __init__(
        self,
        run: Run,
        inbound: ClientRequest,
        options: ResponseOptions,
        messages: tuple[Message, ...],
        asked_bytes: int,
    ) -> None:
        self.run = run
        self.inbound = inbound
        self.options = options
        self.input = messages
        self.asked_bytes = asked_bytes
        self.ended_at = inf
        self.is_gone = False
        """Whether the response was deleted or has expired. Then it cannot be retrieved, even if a connection still
        remembers it.
        """
        self.is_in_file = False
        """Whether the store's file has a row for the response."""
        self.is_shared = False
        """Whether other replicas have the response, too, and may have deleted it."""
        self.is_foreign = False
        """Whether another replica produces or has produced the response."""

    @property
    def id(self) -> str:
        """The response's id."""
        return self.run.response_id

    @property
    def caller(self) -> str:
        """The caller that the response belongs to."""
        return self.inbound.request.caller

    @property
    def weight(self) -> int:
        """The approximate size of request and response in bytes."""
        return self.asked_bytes + self.run.log.size

    @property
    def outlives_its_end(self) -> bool:
        """Whether the response can be retrieved after its end."""
        return self.options.store or self.options.background

    def conversation(self) -> tuple[Message, ...] | None:
        """The conversation that a following response continues; ``None`` unless this response is complete."""
        end = self.run.log.end
        if not isinstance(end, Finished) or end.response is None:
            return None
        return (*self.input, end.response.message) if end.response.output else self.input


class _Lingering(NamedTuple):
    stored: StoredResponse
    follower: Follower
    until: float


class WaitingResponse(NamedTuple):
    """A response that has an id and waits for its turn on a WebSocket. ``withdraw`` cancels it."""

    id: str
    inbound: ClientRequest
    options: ResponseOptions
    withdraw: Callable[[], None]


@final
class Recent:
    """The responses that one connection remembers besides the store, so that ``store: false`` responses can be
    continued.
    """

    def __init__(self, store: ResponseStore) -> None:
        self._store = store
        self._kept: OrderedDict[str, StoredResponse] = OrderedDict()
        self._bytes = 0

    def add(self, stored: StoredResponse) -> None:
        """Remember a response that has ended. The least recently used responses are dropped to stay within the
        limits.
        """
        if stored.id in self._kept or stored.is_gone:
            return
        self._kept[stored.id] = stored
        self._bytes += stored.weight
        self._store.remember(stored)
        while len(self._kept) > RECENT_RESPONSES or self._bytes > RECENT_BYTES:
            self._forget(next(iter(self._kept.values())))

    def get(self, response_id: str) -> StoredResponse | None:
        """Return the remembered response with this id; ``None`` if there is none."""
        stored = self._kept.get(response_id)
        if stored is None or stored.is_gone:
            return None
        self._kept.move_to_end(response_id)
        return stored

    def is_current(self, response_id: str) -> bool:
        """Whether the response is remembered and is in this process only, so that no other replica can have deleted
        it.
        """
        stored = self.get(response_id)
        return stored is not None and not stored.is_shared

    def tidy(self) -> None:
        """Drop the responses that were deleted or have expired."""
        for stored in [each for each in self._kept.values() if each.is_gone]:
            self._forget(stored)

    def clear(self) -> None:
        """Drop all responses, because the connection ends."""
        for stored in list(self._kept.values()):
            self._forget(stored)

    @property
    def responses(self) -> list[StoredResponse]:
        """The remembered responses."""
        return list(self._kept.values())

    def _forget(self, stored: StoredResponse) -> None:
        del self._kept[stored.id]
        self._bytes -= stored.weight
        self._store.forget_remembered(stored)


@final
class ResponseStore:
    """All responses of one server. Each `tick` stores or drops the responses that have ended."""

    def __init__(self, limits: ServerLimits) -> None:
        self._limits = limits
        self._live: dict[str, StoredResponse] = {}
        self._stored: OrderedDict[str, StoredResponse] = OrderedDict()
        # remembered only by a connection, because they are not to be stored
        self._remembered: dict[str, StoredResponse] = {}
        self._waiting: dict[str, WaitingResponse] = {}
        # made by another worker, and followed here
        self._mirrors: dict[str, StoredResponse] = {}
        self._lingering: OrderedDict[str, _Lingering] = OrderedDict()
        self._bytes = 0

    def put(self, stored: StoredResponse) -> None:
        """Keep a response in progress."""
        self._live[stored.id] = stored

    def adopt(self, stored: StoredResponse, now: float) -> None:
        """Add an ended response that was read from the store or came from another process."""
        stored.ended_at = now
        self._stored[stored.id] = stored
        self._bytes += stored.weight

    def knows(self, response_id: str) -> bool:
        """Whether there is a response with this id, of any caller."""
        known = (self._live, self._stored, self._waiting, self._mirrors)
        return any(response_id in each for each in known)

    def find_any(self, response_id: str) -> StoredResponse | None:
        """Return the response with this id, of any caller, running or stored; ``None`` if there is none."""
        known = (self._mirrors, self._live, self._stored)
        return next((each[response_id] for each in known if response_id in each), None)

    def mirror(self, stored: StoredResponse) -> None:
        """Add the mirror of a response that another process produces. It is kept until `unmirror`."""
        self._mirrors[stored.id] = stored

    def unmirror(self, stored: StoredResponse) -> None:
        """Remove the mirror."""
        if self._mirrors.get(stored.id) is stored:
            del self._mirrors[stored.id]

    def find(self, response_id: str, caller: str) -> StoredResponse | None:
        """Return the caller's response with this id, running or stored, mirrors included; ``None`` if there is none."""
        mirror = self._mirrors.get(response_id)
        return mirror if mirror is not None and mirror.caller == caller else self.find_own(response_id, caller)

    def find_own(self, response_id: str, caller: str) -> StoredResponse | None:
        """Return the caller's response with this id, running or stored, mirrors excluded; ``None`` if there is none."""
        stored = self._live.get(response_id) or self._stored.get(response_id)
        if stored is None or stored.caller != caller:
            return None
        return stored if stored.outlives_its_end or stored.run.log.end is None else None

    def all_of(self, caller: str) -> Iterator[StoredResponse]:
        """The caller's responses in memory that can be retrieved by id, the latest first."""
        for known in (self._live, self._stored):
            yield from (
                stored for stored in reversed(known.values()) if stored.caller == caller and stored.outlives_its_end
            )

    def is_taken(self, response_id: str) -> bool:
        """Whether there is a response with this id, of any caller, running, stored, lingering or waiting."""
        known = (self._live, self._stored, self._waiting, self._lingering, self._remembered)
        return any(response_id in each for each in known)

    def linger(self, stored: StoredResponse, until: float) -> None:
        """Keep a response whose connection broke, and let it run to its end, until its client returns (`resumed`) or
        until ``until`` on Trio's clock. At most `LINGERING_RESPONSES` are kept; the oldest are dropped.
        """
        self.resumed(stored.id)
        self._lingering[stored.id] = _Lingering(stored, stored.run.follow(), until)
        while len(self._lingering) > LINGERING_RESPONSES:
            self.resumed(next(iter(self._lingering)))

    def find_lingering(self, response_id: str, caller: str) -> StoredResponse | None:
        """Return the caller's lingering response with this id; ``None`` if there is none."""
        found = self._lingering.get(response_id)
        return None if found is None or found.stored.caller != caller else found.stored

    def resumed(self, response_id: str) -> None:
        """Stop keeping a lingering response: its client has returned, or its time is over."""
        if (found := self._lingering.pop(response_id, None)) is not None:
            found.follower.close()

    def find_live(self, response_id: str, caller: str) -> StoredResponse | None:
        """Return the caller's response with this id; ``None`` if it is not running."""
        stored = self.find(response_id, caller)
        return stored if stored is not None and stored.run.log.end is None else None

    def find_to_delete(self, response_id: str, caller: str) -> StoredResponse | None:
        """Return the caller's response with this id, even if only a connection remembers it; ``None`` if there is
        none.
        """
        stored = self.find(response_id, caller) or self._remembered.get(response_id)
        return stored if stored is not None and stored.caller == caller else None

    def drop(self, stored: StoredResponse) -> None:
        """Remove a response from the memory of this process. Does not cancel its run, and does not delete it from the
        file or from Redis.
        """
        stored.is_gone = True
        self._live.pop(stored.id, None)
        self._remembered.pop(stored.id, None)
        self._mirrors.pop(stored.id, None)
        if self._stored.pop(stored.id, None) is not None:
            self._bytes -= stored.weight

    def remember(self, stored: StoredResponse) -> None:
        """Record that a connection remembers a response, so that it can be deleted from that connection."""
        if not stored.outlives_its_end:
            self._remembered[stored.id] = stored

    def forget_remembered(self, stored: StoredResponse) -> None:
        """Record that the connection no longer remembers ``stored``."""
        self._remembered.pop(stored.id, None)

    def wait(self, waiting: WaitingResponse) -> None:
        """Add a response that waits for its turn."""
        self._waiting[waiting.id] = waiting

    def stop_waiting(self, response_id: str) -> None:
        """Remove the waiting response with this id, if there is one."""
        self._waiting.pop(response_id, None)

    def find_waiting(self, response_id: str, caller: str) -> WaitingResponse | None:
        """Return the caller's response with this id; ``None`` if it is not waiting."""
        waiting = self._waiting.get(response_id)
        return waiting if waiting is not None and waiting.inbound.request.caller == caller else None

    @property
    def background(self) -> list[StoredResponse]:
        """The running background responses."""
        return [stored for stored in self._live.values() if stored.options.background and stored.run.log.end is None]

    def tick(self, now: float) -> None:
        """Store or drop the responses that have ended. Drop those that have expired or exceed the size limit."""
        for stored in [each for each in self._live.values() if each.run.log.end is not None]:
            del self._live[stored.id]
            stored.ended_at = now
            if stored.outlives_its_end:
                self._stored[stored.id] = stored
                self._bytes += stored.weight
        for response_id in [name for name, each in self._lingering.items() if each.until <= now]:
            self.resumed(response_id)
        limits = self._limits
        for stored in [each for each in self._remembered.values() if each.ended_at + limits.stored_s <= now]:
            self.drop(stored)
        while self._stored and (self._bytes > limits.stored_bytes or self._oldest.ended_at + limits.stored_s <= now):
            self.drop(self._oldest)

    @property
    def _oldest(self) -> StoredResponse:
        return next(iter(self._stored.values()))
