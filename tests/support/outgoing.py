"""A transport that leads to a Peer, and the check that nothing is left of either afterwards."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager

import trio

from llm_actors.transport import Dial, HttpRequest, Origin, TlsTrust, Transport
from support.peer import Peer

ORIGIN = Origin("http", "api.test", 80)


@asynccontextmanager
async def transport_to(
    peer: Peer, *, dial: Dial | None = None, trust: TlsTrust | None = None, **limits: float
) -> AsyncGenerator[Transport]:
    """Dials ``peer`` whatever the host. After a body without error: no exchange, connection or request is open."""
    transport = Transport(trust, dial=dial or peer.dial, **limits)  # type: ignore[arg-type]
    yield transport
    statistics = transport.statistics()
    assert (statistics.connecting, statistics.active) == (0, 0)
    await transport.aclose()
    assert transport.statistics().open == 0
    with trio.fail_after(1):
        await peer.until(lambda: peer.open_connections == peer.open_requests == 0)


def post(
    body: bytes = b"{}",
    *,
    origin: Origin = ORIGIN,
    target: str = "/v1/chat/completions",
    headers: Mapping[str, str] | None = None,
) -> HttpRequest:
    return HttpRequest("POST", origin, target, headers or {}, body)


async def fetch(transport: Transport, request: HttpRequest | None = None) -> tuple[int, bytes]:
    """One whole exchange."""
    async with transport.send(request or post()) as response:
        return response.status, await response.read()
