"""Connect to an origin's host and port by TCP, trying the addresses of the name as RFC 8305 describes.

The next address is tried when the last one has failed or has had a quarter of a second. The first connection wins,
and the others are closed.
"""

from __future__ import annotations

import socket
from collections.abc import Awaitable, Callable
from typing import Final

import trio

from llm_actors.transport.errors import is_out_of_resources
from llm_actors.transport.resolve import ResolvedAddress, Resolver

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
