"""Idle connections, and the interface of a connection for both versions of HTTP."""

from __future__ import annotations

from typing import Final, Protocol

from llm_actors.transport.request import HttpRequest, Origin
from llm_actors.transport.response import HttpResponse


class OutgoingConnection(Protocol):
    """One connection, used for one request at a time: see `ClientConnection`."""

    origin: Origin

    async def ask(self, request: HttpRequest, payload: bytes) -> HttpResponse:
        """Send one request. Return the response once its head has arrived."""
        ...

    def renew(self) -> bool:
        """Return whether it is proven safe to send another request."""
        ...

    def is_quiet(self) -> bool:
        """Whether nothing is unread and the peer has not closed."""
        ...

    def close(self) -> None:
        """Close the socket at once."""
        ...


MAX_IDLE_PER_ORIGIN: Final = 128
IDLE_SECONDS: Final = 50.0  # common load balancers give up after 60


class IdleStack:
    """A LIFO stack per origin. Pure, except that it closes dropped connections; the time is a parameter."""

    def __init__(self, *, max_per_origin: int = MAX_IDLE_PER_ORIGIN, idle_seconds: float = IDLE_SECONDS) -> None:
        self._max_per_origin = max_per_origin
        self._idle_seconds = idle_seconds
        self._stacks: dict[Origin, list[tuple[OutgoingConnection, float]]] = {}

    def __len__(self) -> int:
        return sum(map(len, self._stacks.values()))

    def pop(self, origin: Origin, now: float) -> OutgoingConnection | None:
        """Return the most recently used connection that is young enough and whose peer has neither closed it nor sent
        anything; ``None`` if there is none. Closes the unusable connections that it finds first.
        """
        stack = self._stacks.get(origin)
        while stack:
            connection, since = stack.pop()
            if now - since < self._idle_seconds and connection.is_quiet():
                return connection
            connection.close()
        return None

    def push(self, connection: OutgoingConnection, now: float) -> None:
        """Keep an idle connection. Closes the oldest ones of its origin if they are too many or idle for too long."""
        stack = self._stacks.setdefault(connection.origin, [])
        stack.append((connection, now))
        while stack and (len(stack) > self._max_per_origin or now - stack[0][1] >= self._idle_seconds):
            stack.pop(0)[0].close()

    def clear(self) -> None:
        """Close all idle connections."""
        for stack in self._stacks.values():
            for connection, _ in stack:
                connection.close()
        self._stacks.clear()
