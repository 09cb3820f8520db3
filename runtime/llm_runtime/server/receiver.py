"""What one task does for all connections: `Receiver` receives, and `Ticker` watches deadlines that need no precision.

A client may disconnect at any moment, usually while it waits for a response. So the server reads from every
connection as long as it exists. One task per connection would use more memory than a typical response, and would cost
a scheduler pass per request. One clock tick for all connections costs neither a task nor a cancel scope for each.
"""

from __future__ import annotations

import selectors
from collections.abc import Callable
from typing import Protocol, TypeAlias, final

import trio

from llm_runtime.server.limits import TICK_SECONDS

Take: TypeAlias = Callable[[bytes], None]
"""Called with received bytes, and with ``b""`` at the end of the connection. Must not wait or raise."""


class ReadableSocket(Protocol):
    """A non-blocking socket; see `Socket`."""

    def fileno(self) -> int:
        """Its file descriptor."""
        ...

    def receive_now(self) -> bytes | None:
        """Return the bytes that have arrived; empty at the end, ``None`` if there are none yet. Raises
        `trio.BrokenResourceError`.
        """
        ...


@final
class Receiver:
    """Receives for its members while `run` runs. Bytes that arrive between two calls of `run` are buffered in the
    kernel.
    """

    def __init__(self) -> None:
        self._members: dict[ReadableSocket, Take] = {}
        self._selector: selectors.BaseSelector | None = None

    def add(self, socket: ReadableSocket, take: Take) -> None:
        """Pass everything received from ``socket`` to ``take``, until the socket's end. Nothing else may receive from
        it meanwhile.

        Bytes that have already arrived are passed before this returns.
        """
        self._members[socket] = take
        if self._selector is not None:
            self._selector.register(socket, selectors.EVENT_READ, socket)
            self._receive(socket)

    def remove(self, socket: ReadableSocket) -> None:
        """Stop receiving from ``socket``, if it is a member. Call this before closing it: its descriptor will be
        reused.
        """
        if self._members.pop(socket, None) is not None and self._selector is not None:
            self._selector.unregister(socket)

    async def run(self) -> None:
        """Receive until cancelled."""
        with selectors.DefaultSelector() as self._selector:
            for socket in self._members:
                self._selector.register(socket, selectors.EVENT_READ, socket)
            try:
                while True:
                    await trio.lowlevel.wait_readable(self._selector)
                    for key, _ in self._selector.select(0):
                        self._receive(key.data)
            finally:
                self._selector = None

    def _receive(self, socket: ReadableSocket) -> None:
        take = self._members.get(socket)
        if take is None:
            return  # removed by the handler of another socket that became readable at the same time
        try:
            data = socket.receive_now()
        except trio.BrokenResourceError:
            data = b""  # an error is an end like any other
        if data == b"":
            self.remove(socket)
        if data is not None:
            take(data)


class Ticking(Protocol):
    """An object with deadlines."""

    def tick(self, now: float) -> None:
        """Act on all deadlines that have passed at ``now`` (Trio's clock). Must not wait or raise."""
        ...


@final
class Ticker:
    """Calls the `tick` of its members every `TICK_SECONDS`, one after the other."""

    def __init__(self) -> None:
        self._members: dict[Ticking, None] = {}

    def add(self, member: Ticking) -> None:
        """Call the `tick` of ``member`` from now on."""
        self._members[member] = None

    def remove(self, member: Ticking) -> None:
        """Stop calling the `tick` of ``member``."""
        self._members.pop(member, None)

    async def run(self) -> None:
        """Call the members until cancelled."""
        while True:
            await trio.sleep(TICK_SECONDS)
            now = trio.current_time()
            for member in tuple(self._members):
                member.tick(now)
