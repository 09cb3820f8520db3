"""A provider that is stopped or killed closes its connections, even if that takes a moment."""

from __future__ import annotations

import pytest
import trio
from trio.testing import MockClock

from llm_actors.provider.actor import CLOSE_SECONDS
from llm_actors.transport import Transport
from support.peer import Peer, sse
from support.upstream import END, HELLO, upstream


@pytest.mark.parametrize("seconds", [0.0, CLOSE_SECONDS / 2, CLOSE_SECONDS * 100])
async def test_a_killed_provider_closes_its_idle_connections_and_takes_no_longer_than_it_may(
    seconds: float, autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    close, closed = Transport.aclose, list[bool]()

    async def slow(transport: Transport) -> None:
        try:
            await trio.sleep(seconds)
        except trio.Cancelled:
            transport._idle.clear()  # else the test leaves it behind
            raise
        await close(transport)
        closed.append(True)

    monkeypatch.setattr(Transport, "aclose", slow)
    async with Peer(sse(*HELLO, *END)) as peer:
        with trio.CancelScope() as scope:
            async with upstream(peer) as up:
                await up.ask()
                begun = trio.current_time()
                scope.cancel()
        assert trio.current_time() - begun <= CLOSE_SECONDS + 0.1
        assert closed == [True] * (seconds < CLOSE_SECONDS)
