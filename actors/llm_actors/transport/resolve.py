"""Names to addresses, in few threads: one hanging name must not keep the others from being looked up.

``getaddrinfo`` blocks and cannot be cancelled, so a lookup belongs to its name and not to whoever asked first:
everyone who asks for a name while it is being looked up shares that lookup, and leaving does not end it. A name that
hangs therefore costs one thread, however many requests want it.
"""

from __future__ import annotations

import socket
from collections.abc import Callable
from typing import Any, Final, NamedTuple

import outcome
import trio

RESOLVER_THREADS: Final = 16  # different names looked up at the same time

SockAddr = tuple[Any, ...]  # as the socket module has it: its shape depends on the family


class Address(NamedTuple):
    """Where a TCP connection may be made to."""

    family: int
    sockaddr: SockAddr


Lookup = Callable[[str, int], list[Address]]


def system_lookup(host: str, port: int) -> list[Address]:
    """The addresses in the order in which the system prefers them. Blocks; raises OSError."""
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return [Address(family, sockaddr) for family, _, _, _, sockaddr in found]


class _Pending:
    def __init__(self) -> None:
        self.done = trio.Event()
        self.result: outcome.Outcome[list[Address]] | None = None


class Resolver:
    """Shares lookups among those who ask, and bounds the threads that they take."""

    def __init__(self, lookup: Lookup = system_lookup, *, threads: int = RESOLVER_THREADS) -> None:
        self._lookup = lookup
        self._limiter = trio.CapacityLimiter(threads)
        self._pending: dict[tuple[str, int], _Pending] = {}

    async def resolve(self, host: str, port: int) -> list[Address]:
        """At least one address, or OSError. Waits without limit of its own; a cancel leaves the lookup running."""
        key = (host, port)
        pending = self._pending.get(key)
        if pending is None:
            # The slot first: whoever waits for one must not hold a name that then nobody looks up.
            holder = object()
            await self._limiter.acquire_on_behalf_of(holder)
            pending = self._pending.get(key)
            if pending is None:
                pending = self._start(key, holder)
            else:
                self._limiter.release_on_behalf_of(holder)
        await pending.done.wait()
        assert pending.result is not None
        addresses = pending.result.unwrap()
        if not addresses:
            raise socket.gaierror(socket.EAI_NONAME, "no address")
        return addresses

    def _start(self, key: tuple[str, int], holder: object) -> _Pending:
        pending = self._pending[key] = _Pending()
        token = trio.lowlevel.current_trio_token()

        def finish(result: outcome.Outcome[list[Address]]) -> None:
            del self._pending[key]
            self._limiter.release_on_behalf_of(holder)
            pending.result = result
            pending.done.set()

        def deliver(result: outcome.Outcome[list[Address]]) -> None:
            try:
                token.run_sync_soon(finish, result)
            except trio.RunFinishedError:
                self._pending.pop(key, None)

        trio.lowlevel.start_thread_soon(lambda: self._lookup(*key), deliver, f"resolve {key[0]}")
        return pending
