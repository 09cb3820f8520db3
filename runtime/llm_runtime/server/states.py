"""The states of an HTTP connection and of a WebSocket session, and every change of them. Pure, as h11's tables are.

What comes from outside (a clock, a client that leaves, a drain) may come at any time, so it is in the table for every
state. What the connection does itself is there only where it is possible: anything else is a bug, and raises
`ImpossibleChange`.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum
from typing import Final, Generic, TypeVar, final


class HttpState(Enum):
    """What an HTTP connection is doing."""

    IDLE = "idle"
    """Nothing of a request is here."""
    HEAD = "head"
    """A part of a head is here."""
    BODY = "body"
    """A head is here, and its body is not whole."""
    LATE = "late"
    """A request took too long to arrive: 408."""
    DONE = "done"
    """It was idle for too long, or the server drains: nothing is said."""
    EVICTED = "evicted"
    """Another connection has its place: 429, and nobody waits for the client."""
    LEFT = "left"
    """The client has left; what came whole before that is still answered."""
    ANSWERING = "answering"
    """An endpoint is at work, whether or not the client stays."""
    BOUND = "bound"
    """An endpoint is at work for as long as the client stays."""
    ANSWERING_LEFT = "answering, left"
    """An endpoint is at work, and the client has left."""
    LAST_WORDS = "last words"
    """All is said; the client is given time to read it."""
    WEBSOCKET = "websocket"
    """The socket is a WebSocket session's now."""
    ENDED = "ended"
    """Nothing more is said."""
    CUT = "cut"
    """The connection's task is to be cancelled."""


class HttpChange(Enum):
    """What happens to an HTTP connection."""

    HEAD_BEGINS = "the first bytes of a head"
    BODY_BEGINS = "a whole head without all of its body"
    ARRIVED = "a whole request, or one that is refused and leaves the connection usable"
    BOUND = "the endpoint works for this client alone"
    ANSWERED = "a response, after which another request may come"
    ANSWERED_LAST = "a response that says it is the last"
    UPGRADED = "a handshake"
    REFUSED = "a refusal that ends the connection"
    CLIENT_LEFT = "the end of what the client sends"
    TOO_LATE = "a deadline"
    DRAINED = "the server drains"
    EVICTED = "its place is another's"


class SessionState(Enum):
    """What a WebSocket session is doing."""

    OPEN = "open"
    """It takes requests."""
    ANNOUNCING = "announcing"
    """It takes none, and will say why before it closes, when the active ones have ended."""
    FINISHING = "finishing"
    """It takes none, and closes when the active ones have ended."""
    CLOSING = "closing"
    """Nothing but a close frame is sent any more."""


class SessionChange(Enum):
    """What happens to a WebSocket session."""

    EXPIRED = "its lifetime or its key has ended"
    DRAINED = "the server drains or is cut off"
    ANNOUNCED = "the reason was said"
    FINISHED = "all is said"
    HUNG_UP = "a fault of the client"


class ImpossibleChange(Exception):  # noqa: N818  (it is a bug, not an error that anybody handles)
    """There is no such change in this state."""


S = TypeVar("S", bound=Enum)
C = TypeVar("C", bound=Enum)


@final
class StateMachine(Generic[S, C]):
    """A state, which changes as a table says."""

    __slots__ = ("_table", "state")

    def __init__(self, start: S, table: Mapping[S, Mapping[C, S]]) -> None:
        self.state = start
        self._table = table

    def change(self, change: C) -> S:
        """Make a change. Returns the new state. Raises `ImpossibleChange`."""
        try:
            self.state = self._table[self.state][change]
        except KeyError:
            raise ImpossibleChange(f"{change.value!r} in the state {self.state.value!r}") from None
        return self.state


def _http_table() -> dict[HttpState, dict[HttpChange, HttpState]]:
    # A request that is whole is answered, though its client has left or its time is just over. An eviction comes first.
    reading = {
        HttpChange.ARRIVED: HttpState.ANSWERING,
        HttpChange.REFUSED: HttpState.LAST_WORDS,
        HttpChange.CLIENT_LEFT: HttpState.LEFT,
        HttpChange.TOO_LATE: HttpState.LATE,
        HttpChange.EVICTED: HttpState.EVICTED,
    }
    arriving = {**reading, HttpChange.HEAD_BEGINS: HttpState.HEAD, HttpChange.BODY_BEGINS: HttpState.BODY}
    # While "100 Continue" is sent, what comes from outside may come in between.
    unmoved = (HttpChange.HEAD_BEGINS, HttpChange.BODY_BEGINS)
    answering = {
        HttpChange.ANSWERED: HttpState.IDLE,
        HttpChange.ANSWERED_LAST: HttpState.LAST_WORDS,
        HttpChange.EVICTED: HttpState.CUT,
    }
    table: dict[HttpState, dict[HttpChange, HttpState]] = {
        HttpState.IDLE: {**arriving, HttpChange.TOO_LATE: HttpState.DONE, HttpChange.DRAINED: HttpState.DONE},
        HttpState.HEAD: arriving,
        HttpState.BODY: arriving,
        HttpState.LATE: arriving,
        HttpState.DONE: {**arriving, HttpChange.TOO_LATE: HttpState.DONE},
        HttpState.LEFT: {
            **reading,
            **dict.fromkeys(unmoved, HttpState.LEFT),
            HttpChange.ARRIVED: HttpState.ANSWERING_LEFT,
            HttpChange.TOO_LATE: HttpState.LEFT,
        },
        HttpState.EVICTED: {**dict.fromkeys(unmoved, HttpState.EVICTED), HttpChange.REFUSED: HttpState.ENDED},
        HttpState.ANSWERING: {
            **answering,
            HttpChange.BOUND: HttpState.BOUND,
            HttpChange.UPGRADED: HttpState.WEBSOCKET,
            HttpChange.CLIENT_LEFT: HttpState.ANSWERING_LEFT,
        },
        HttpState.BOUND: {**answering, HttpChange.BOUND: HttpState.BOUND, HttpChange.CLIENT_LEFT: HttpState.CUT},
        HttpState.ANSWERING_LEFT: {
            HttpChange.ANSWERED: HttpState.ENDED,
            HttpChange.ANSWERED_LAST: HttpState.ENDED,
            HttpChange.BOUND: HttpState.CUT,
            HttpChange.UPGRADED: HttpState.WEBSOCKET,
            HttpChange.EVICTED: HttpState.CUT,
        },
        HttpState.LAST_WORDS: {HttpChange.EVICTED: HttpState.CUT},
        HttpState.WEBSOCKET: {HttpChange.EVICTED: HttpState.CUT},
        HttpState.ENDED: {HttpChange.EVICTED: HttpState.CUT},
        # A task that was cancelled may come as far as its next wait.
        HttpState.CUT: dict.fromkeys(HttpChange, HttpState.CUT),
    }
    outside = (HttpChange.CLIENT_LEFT, HttpChange.TOO_LATE, HttpChange.DRAINED, HttpChange.EVICTED)
    return {state: {**dict.fromkeys(outside, state), **changes} for state, changes in table.items()}


HTTP: Final = _http_table()
"""What follows from each change in each state of an HTTP connection."""

ANSWERING: Final = frozenset((HttpState.ANSWERING, HttpState.BOUND, HttpState.ANSWERING_LEFT))
"""An endpoint is at work."""

SESSION: Final[dict[SessionState, dict[SessionChange, SessionState]]] = {
    SessionState.OPEN: {
        SessionChange.EXPIRED: SessionState.ANNOUNCING,
        SessionChange.DRAINED: SessionState.FINISHING,
        SessionChange.HUNG_UP: SessionState.CLOSING,
    },
    SessionState.ANNOUNCING: {
        SessionChange.EXPIRED: SessionState.ANNOUNCING,
        SessionChange.DRAINED: SessionState.FINISHING,
        SessionChange.ANNOUNCED: SessionState.FINISHING,
        SessionChange.HUNG_UP: SessionState.CLOSING,
    },
    SessionState.FINISHING: {
        SessionChange.EXPIRED: SessionState.FINISHING,
        SessionChange.DRAINED: SessionState.FINISHING,
        SessionChange.FINISHED: SessionState.CLOSING,
        SessionChange.HUNG_UP: SessionState.CLOSING,
    },
    SessionState.CLOSING: {
        SessionChange.EXPIRED: SessionState.CLOSING,
        SessionChange.DRAINED: SessionState.CLOSING,
        SessionChange.HUNG_UP: SessionState.CLOSING,
    },
}
"""What follows from each change in each state of a WebSocket session."""
