"""Receiving for all HTTP connections, in one task.

A client may leave at any moment, above all while it is answered, so each connection is listened to all its life. A task
for each would hold more memory than the answer it waits for, and would cost a turn of the scheduler per request.
"""

from __future__ import annotations

import selectors
from collections.abc import Callable
from typing import Protocol, TypeAlias, final

import trio

Take: TypeAlias = Callable[[bytes], None]
"""Is given what came, and nothing at the end. Must neither wait nor raise."""


class ReadableSocket(Protocol):
    """A non-blocking socket; see `Socket`."""

    def fileno(self) -> int:
        """Its file descriptor."""
        ...

    def receive_now(self) -> bytes | None:
        """The bytes that are there; empty at the end, None if there are none yet. Raises `trio.BrokenResourceError`."""
        ...


@final
class Receiver:
    """Receives from its members while it runs. What comes between two runs waits in the kernel."""

    def __init__(self) -> None:
        self._members: dict[ReadableSocket, Take] = {}
        self._selector: selectors.BaseSelector | None = None

    def add(self, socket: ReadableSocket, take: Take) -> None:
        """Give what comes from ``socket`` to ``take``, up to its end. Nobody else may receive from it meanwhile.

        What is there already is given before the return.
        """
        self._members[socket] = take
        if self._selector is not None:
            self._selector.register(socket, selectors.EVENT_READ, socket)
            self._receive(socket)

    def remove(self, socket: ReadableSocket) -> None:
        """Leave ``socket`` alone, if it is a member. To be called before it is closed: its number is soon another's."""
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
            return  # removed on behalf of another of those that came together
        try:
            data = socket.receive_now()
        except trio.BrokenResourceError:
            data = b""  # for whoever takes it, an end like any other
        if data == b"":
            self.remove(socket)
        if data is not None:
            take(data)
