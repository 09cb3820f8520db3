"""One turn on a lane of a WebSocket: a request, from its admission to the end of its response."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from math import inf
from typing import final

import trio

from llm_actors.threads import run_large
from llm_protocol.dialect import Frame, ResponseEncoder
from llm_protocol.events import Failed
from llm_protocol.failures import FailureKind
from llm_protocol.native import CREATE, NativeRequest, decode_create
from llm_protocol.requests import new_response_id
from llm_protocol.wires.responses import Create
from llm_runtime.server import native
from llm_runtime.server.beginning import begin
from llm_runtime.server.bodies import decode_body
from llm_runtime.server.client_events import ClientEventHead, Resume, read
from llm_runtime.server.http_error import HttpError
from llm_runtime.server.response_store import Recent, StoredResponse
from llm_runtime.server.state import ServerState
from llm_runtime.server.stored import RESPONSES, caught_up, check_cursor


@final
class LaneTurn:
    """A request on a lane, from its admission to its end. ``size`` is the size of its frame in bytes, ``since`` the
    time of its admission (Trio's clock). ``response_id`` is fixed from the start; if the client gave none, ``new_id``
    makes one.
    """

    def __init__(
        self,
        head: ClientEventHead,
        work: Create | NativeRequest | Resume,
        size: int,
        since: float,
        new_id: Callable[[], str] = new_response_id,
    ) -> None:
        self.response_id = new_id() if isinstance(work, Create) else work.response_id
        self.head = head
        self.work = work
        self.size = size
        self.since = since
        self._stored: StoredResponse | None = None
        self._cancelled = False

    def begun(self, stored: StoredResponse) -> None:
        """Record that the response of the request is running."""
        self._stored = stored
        if self._cancelled:
            self.cancel()

    def cancel(self) -> None:
        """Cancel the response as soon as it has begun."""
        self._cancelled = True
        if self._stored is not None:
            self._stored.run.cancel("the client cancelled the response")


@final
class QueueDeadlines:
    """The deadlines of the requests that wait on lanes."""

    def __init__(self) -> None:
        self._deadlines: dict[LaneTurn, float] = {}
        self._next = inf

    def add(self, turn: LaneTurn, deadline: float) -> None:
        """Add a request that waits on its lane until ``deadline`` (Trio's clock) at most."""
        self._deadlines[turn] = deadline
        self._next = min(self._next, deadline)

    def discard(self, turn: LaneTurn) -> None:
        """Remove a request, if it waits."""
        if self._deadlines.pop(turn, None) == self._next:
            self._next = min(self._deadlines.values(), default=inf)

    def next(self) -> float:
        """The earliest deadline; infinity if nothing waits."""
        return self._next

    def take_due(self, now: float) -> list[LaneTurn]:
        """Remove and return the requests whose deadline has passed."""
        due = [turn for turn, deadline in self._deadlines.items() if deadline <= now] if self._next <= now else []
        for turn in due:
            self.discard(turn)
        return due


TURN_TYPES = frozenset(("response.create", CREATE, "response.resume"))
"""The types of messages that begin a turn."""


async def read_turn(server_state: ServerState, head: ClientEventHead, text: str, size: int, caller: str) -> LaneTurn:
    """Return the turn that a message of one of `TURN_TYPES` begins. Raises `HttpError` and `BadRequestError`."""
    now = trio.current_time()
    if head.type == "response.create":
        create = await decode_body(server_state.json_limits, text, RESPONSES.decode_create)
        return LaneTurn(head, create, size, now, server_state.new_response_id)
    if head.type == CREATE:
        native_create = await decode_body(server_state.json_limits, text, lambda body: decode_create(body, caller))
        native.check_is_new(server_state, native_create.response_id)
        return LaneTurn(head, native_create, size, now)
    resume = await run_large(len(text), read, text, Resume)
    return LaneTurn(head, resume, size, trio.current_time())


async def begin_turn(
    server_state: ServerState, turn: LaneTurn, caller: str, headers: Mapping[str, str], recent: Recent
) -> tuple[StoredResponse, ResponseEncoder]:
    """Begin or resume the response of a request whose turn it is, and return it with the encoder for its client.
    ``recent`` are the recent responses of the connection. Raises `HttpError` and `LLMClientError`.
    """
    work, after = turn.work, -1
    if isinstance(work, Resume):
        stored, after = await _resumed(server_state, work, caller, recent), work.starting_after
    elif isinstance(work, NativeRequest):
        stored = await native.begin_native(server_state, work, turn.size, turn.since)
    else:
        stored = await begin(
            server_state,
            work,
            caller,
            turn.size,
            headers=headers,
            stream=True,
            recent=recent,
            since=turn.since,
            response_id=turn.response_id,
        )
    if native.is_native(stored.inbound):
        return stored, native.encoder(stored, after)
    return stored, RESPONSES.response_encoder(
        stored.inbound, stored.id, stored.options, stream_id=turn.head.stream_id, starting_after=after
    )


async def _resumed(server_state: ServerState, resume: Resume, caller: str, recent: Recent) -> StoredResponse:
    response_store = server_state.response_store
    if not recent.is_current(resume.response_id):
        await server_state.bring(resume.response_id, caller)
    stored = (
        response_store.find(resume.response_id, caller)
        or recent.get(resume.response_id)
        or response_store.find_lingering(resume.response_id, caller)
    )
    if stored is None:
        message = f"Response with id '{resume.response_id[:100]}' not found."
        raise HttpError(404, "response_not_found", message, param="response_id")
    await caught_up(stored, resume.starting_after)
    check = native.check_native_cursor if native.is_native(stored.inbound) else check_cursor
    check(stored, resume.starting_after)
    return stored


@final
class Streaming:
    """A response in progress. ``note_ready`` is called when there are new frames, once until the next `next_frames`."""

    def __init__(
        self,
        turn: LaneTurn,
        stored: StoredResponse,
        encoder: ResponseEncoder,
        server_state: ServerState,
        note_ready: Callable[[Streaming], None],
    ) -> None:
        self.turn = turn
        self.stored = stored
        self.subscription = server_state.subscribe(stored.run, self.wake)
        self._encoder = encoder
        self._note_ready = note_ready
        self._noted = False
        self._begun = False

    def wake(self) -> None:
        """Record that there are new events."""
        if not self._noted:
            self._noted = True
            self._note_ready(self)

    def next_frames(self) -> list[Frame]:
        """The frames to send now."""
        self._noted = False
        frames: list[Frame] = []
        if self.subscription.is_held:
            return frames
        if not self._begun:
            self._begun = True
            frames = self._encoder.start()
        if events := self.subscription.take():
            error = self._final_error()
            frames += self._encoder.encode(events) if error is None else [error]
        return frames

    def _final_error(self) -> Frame | None:
        """Return an ``error`` frame in place of ``response.failed``, if nothing was sent before and a retry cannot
        help. Codex treats any ``response.failed`` as a broken connection, and retries five times.
        """
        end, head = self.subscription.end, self.turn.head
        if not isinstance(end, Failed) or self.subscription.begun or not isinstance(self.turn.work, Create):
            return None
        failure, options = end.failure, self.stored.options
        if failure.client_retry or failure.partial or options.background or failure.kind is FailureKind.CANCELLED:
            return None
        return Frame(None, RESPONSES.error_event(failure, stream_id=head.stream_id, event_id=head.event_id))
