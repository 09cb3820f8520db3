"""The states of an HTTP connection and of a WebSocket session, and all their transitions. Pure, like h11's tables.

Events from outside (a timeout, a disconnect, a drain) can occur in any state, so the tables list them for every state.
Events that the connection itself causes are listed only where they are possible: anything else is a bug, and raises
`ImpossibleChange`.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum
from typing import Final, Generic, TypeVar, final


class _Hashed(Enum):
    """The base of the enums, whose members are looked up in tables for every request. It hashes a member by identity:
    `Enum` would hash its name, in Python code.
    """

    __hash__ = object.__hash__


class HttpState(_Hashed):
    """The state of an HTTP connection."""

    IDLE = "idle"
    """No part of a request has arrived."""
    HEAD = "head"
    """A part of a head has arrived."""
    BODY = "body"
    """A head has arrived, and its body is incomplete."""
    LATE = "late"
    """A request took too long to arrive: 408."""
    DONE = "done"
    """The connection was idle for too long, or the server drains. The connection closes without a response."""
    EVICTED = "evicted"
    """Another connection takes the place of this one: 429, without waiting for the client."""
    LEFT = "left"
    """The client has disconnected; a complete request is still answered."""
    ANSWERING = "answering"
    """An endpoint is running. It continues if the client disconnects."""
    BOUND = "bound"
    """An endpoint is running. It is cancelled if the client disconnects."""
    ANSWERING_LEFT = "answering, left"
    """An endpoint is running, and the client has disconnected."""
    LAST_WORDS = "last words"
    """Everything is sent; the client is given time to read it."""
    WEBSOCKET = "websocket"
    """The socket belongs to a WebSocket session now."""
    ENDED = "ended"
    """Nothing more is sent."""
    CUT = "cut"
    """The connection's task is to be cancelled."""


class HttpChange(_Hashed):
    """The events of an HTTP connection."""

    HEAD_BEGINS = "the first bytes of a head"
    BODY_BEGINS = "a complete head with an incomplete body"
    ARRIVED = "a complete request, or one that is refused and leaves the connection usable"
    BOUND = "the endpoint works for this client alone"
    ANSWERED = "a response, after which another request may come"
    ANSWERED_LAST = "a response that is announced as the last"
    UPGRADED = "a handshake"
    REFUSED = "a refusal that ends the connection"
    CLIENT_LEFT = "the end of what the client sends"
    TOO_LATE = "a deadline"
    DRAINED = "the server drains"
    EVICTED = "another connection takes its place"


class SessionState(_Hashed):
    """The states of a WebSocket session."""

    OPEN = "open"
    """New requests are accepted."""
    ANNOUNCING = "announcing"
    """No new requests are accepted. When the active ones have ended, the session sends the reason and closes."""
    FINISHING = "finishing"
    """No new requests are accepted. When the active ones have ended, the session closes."""
    CLOSING = "closing"
    """Only a close frame is still sent."""


class SessionChange(_Hashed):
    """The events of a WebSocket session."""

    EXPIRED = "its lifetime or its key has ended"
    DRAINED = "the server drains or is cut off"
    ANNOUNCED = "the reason was sent"
    FINISHED = "all is said"
    HUNG_UP = "a protocol error of the client"


class ImpossibleChange(Exception):  # noqa: N818  (it is a bug, not an error that anybody handles)
    """The table has no such transition."""


S = TypeVar("S", bound=Enum)
C = TypeVar("C", bound=Enum)


@final
class StateMachine(Generic[S, C]):
    """A state machine that follows a table."""

    __slots__ = ("_table", "state")

    def __init__(self, start: S, table: Mapping[S, Mapping[C, S]]) -> None:
        self.state = start
        self._table = table

    def change(self, change: C) -> S:
        """Apply an event. Returns the new state. Raises `ImpossibleChange`."""
        try:
            self.state = self._table[self.state][change]
        except KeyError:
            raise ImpossibleChange(f"{change.value!r} is not possible in the state {self.state.value!r}") from None
        return self.state


def _http_table() -> dict[HttpState, dict[HttpChange, HttpState]]:
    # A complete request is answered even if its client has disconnected or its time is just over. An eviction wins.
    reading = {
        HttpChange.ARRIVED: HttpState.ANSWERING,
        HttpChange.REFUSED: HttpState.LAST_WORDS,
        HttpChange.CLIENT_LEFT: HttpState.LEFT,
        HttpChange.TOO_LATE: HttpState.LATE,
        HttpChange.EVICTED: HttpState.EVICTED,
    }
    arriving = {**reading, HttpChange.HEAD_BEGINS: HttpState.HEAD, HttpChange.BODY_BEGINS: HttpState.BODY}
    # While "100 Continue" is sent, events from outside may occur.
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
        # A cancelled task may run up to its next checkpoint.
        HttpState.CUT: dict.fromkeys(HttpChange, HttpState.CUT),
    }
    outside = (HttpChange.CLIENT_LEFT, HttpChange.TOO_LATE, HttpChange.DRAINED, HttpChange.EVICTED)
    return {state: {**dict.fromkeys(outside, state), **changes} for state, changes in table.items()}


HTTP: Final = _http_table()
"""The transitions of each state of an HTTP connection."""

ANSWERING: Final = frozenset((HttpState.ANSWERING, HttpState.BOUND, HttpState.ANSWERING_LEFT))
"""The states in which an endpoint is running."""

UNREAD: Final = frozenset((HttpState.LAST_WORDS, HttpState.ENDED, HttpState.CUT))
"""The states in which nothing more is read from the client."""

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
"""The transitions of each state of a WebSocket session."""
