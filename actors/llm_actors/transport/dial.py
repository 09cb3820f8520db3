"""Connect to an origin's host and port by TCP: resolve the name, then try its addresses as RFC 8305 describes.

Names are resolved in few threads: one hanging lookup must not keep other names from being resolved. ``getaddrinfo``
blocks and cannot be cancelled, so a lookup belongs to its name and not to its first caller: all callers that need a
name share its lookup, and cancelling one caller does not end the lookup. So a name that hangs costs one thread, however
many requests need it. The process can exit meanwhile: the thread is a daemon thread.

The next address is tried when the last one has failed or has had a quarter of a second. The first connection wins,
and the others are closed.
"""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import trio

from llm_actors.transport.errors import is_out_of_resources

if TYPE_CHECKING:
    from outcome import Outcome


RESOLVER_THREADS: Final = 16  # different names looked up at the same time

SockAddr = tuple[Any, ...]  # as the socket module has it: its shape depends on the family


class ResolvedAddress(NamedTuple):
    """An address that a TCP connection can be made to."""

    family: int
    sockaddr: SockAddr


Lookup = Callable[[str, int], list[ResolvedAddress]]


def system_lookup(host: str, port: int) -> list[ResolvedAddress]:
    """Return the addresses in the order that the system prefers. Blocks; raises OSError."""
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return [ResolvedAddress(family, sockaddr) for family, _, _, _, sockaddr in found]


class _Lookup:
    """One lookup; ``found`` is set with ``done``."""

    def __init__(self) -> None:
        self.done = trio.Event()
        self.found: list[ResolvedAddress] | Exception = []


class Resolver:
    """Shares lookups among callers, and limits the number of threads."""

    def __init__(self, lookup: Lookup = system_lookup, *, threads: int = RESOLVER_THREADS) -> None:
        self._lookup = lookup
        self._limiter = trio.CapacityLimiter(threads)
        self._running: dict[tuple[str, int], _Lookup] = {}

    async def resolve(self, host: str, port: int) -> list[ResolvedAddress]:
        """Return at least one address, or raise OSError. Has no time limit. Cancelling this leaves the
        lookup running.
        """
        key = (host, port)
        if key not in self._running:
            # The slot first: a caller that waits for one must not claim a name that is then never looked up.
            slot = object()
            await self._limiter.acquire_on_behalf_of(slot)
            if key in self._running:
                self._limiter.release_on_behalf_of(slot)
            else:
                self._start(key, slot)
        lookup = self._running[key]
        await lookup.done.wait()
        if isinstance(lookup.found, Exception):
            # A new one for each caller: an exception that is raised twice collects the tracebacks of both.
            raise type(lookup.found)(*lookup.found.args) from lookup.found
        if not lookup.found:
            raise socket.gaierror(socket.EAI_NONAME, "no address")
        return lookup.found

    def _start(self, key: tuple[str, int], slot: object) -> None:
        lookup = self._running[key] = _Lookup()
        token = trio.lowlevel.current_trio_token()

        def look_up() -> list[ResolvedAddress] | Exception:
            try:
                return self._lookup(*key)
            except UnicodeError:
                return socket.gaierror(socket.EAI_NONAME, "not a host name")
            except Exception as exc:
                return exc

        def finish(result: Outcome[list[ResolvedAddress] | Exception]) -> None:
            del self._running[key]
            self._limiter.release_on_behalf_of(slot)
            lookup.found = result.unwrap()
            lookup.done.set()

        def deliver(result: Outcome[list[ResolvedAddress] | Exception]) -> None:
            with suppress(trio.RunFinishedError):  # no caller waits any more
                token.run_sync_soon(finish, result)

        try:
            trio.lowlevel.start_thread_soon(look_up, deliver, f"resolve {key[0]}")
        except RuntimeError as exc:  # the process may have no more threads
            del self._running[key]
            self._limiter.release_on_behalf_of(slot)
            raise OSError(errno.ENOMEM, os.strerror(errno.ENOMEM)) from exc


STAGGER_SECONDS: Final = 0.25

Dial = Callable[[str, int], Awaitable[trio.SocketStream]]


class TcpDial:
    """Opens TCP connections. Calling it with a host and a port returns a connected stream, or raises OSError.

    A call has no time limit. Cancelling a call leaves no connection open.
    """

    def __init__(self, resolver: Resolver | None = None) -> None:
        self._resolver = resolver or Resolver()

    async def __call__(self, host: str, port: int) -> trio.SocketStream:
        literal = _literal(host, port)
        addresses = [literal] if literal else await self._resolver.resolve(host, port)
        return await _first_to_connect(_families_in_turn(addresses))


def _literal(host: str, port: int) -> ResolvedAddress | None:
    for family in (socket.AF_INET, socket.AF_INET6):
        try:
            socket.inet_pton(family, host)
        except OSError:
            continue
        return ResolvedAddress(family, (host, port))
    return None


def _families_in_turn(addresses: list[ResolvedAddress]) -> list[ResolvedAddress]:
    """Put an address of the other IP version second: if IPv6 is broken, all IPv6 addresses are unreachable."""
    first = addresses[0].family
    other = next((at for at, address in enumerate(addresses) if address.family != first), None)
    if other is None:
        return addresses
    return [addresses[0], addresses[other], *addresses[1:other], *addresses[other + 1 :]]


async def _first_to_connect(addresses: list[ResolvedAddress]) -> trio.SocketStream:
    won: list[trio.SocketStream] = []
    failures: list[OSError] = []

    async def attempt(address: ResolvedAddress, failed: trio.Event) -> None:
        try:
            stream = await _connect(address)
        except OSError as exc:
            failures.append(exc)
            failed.set()
        else:
            won.append(stream)
            nursery.cancel_scope.cancel()

    try:
        async with trio.open_nursery() as nursery:
            for address in addresses:
                failed = trio.Event()
                nursery.start_soon(attempt, address, failed)
                if address is addresses[-1]:
                    break
                with trio.move_on_after(STAGGER_SECONDS):
                    await failed.wait()
    except BaseException:
        for stream in won:
            stream.socket.close()
        raise
    for late in won[1:]:
        late.socket.close()
    if not won:
        raise next(filter(is_out_of_resources, failures), failures[0])
    return won[0]


async def _connect(address: ResolvedAddress) -> trio.SocketStream:
    sock = trio.socket.socket(address.family, socket.SOCK_STREAM)
    try:
        await sock.connect(address.sockaddr)
        return trio.SocketStream(sock)  # which also turns Nagle's delay off
    except BaseException:
        sock.close()
        raise
