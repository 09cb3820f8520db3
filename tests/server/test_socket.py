"""Writes to one socket by several tasks, when it goes away."""

from __future__ import annotations

import socket

import pytest
import trio
import trio.testing

from llm_runtime.server.receiver import Receiver
from llm_runtime.server.socket import Socket


async def write(member: Socket, data: bytes, seen: list[BaseException | None]) -> None:
    try:
        await member.send(data)
    except Exception as exc:
        seen.append(exc)
    else:
        seen.append(None)


@pytest.mark.parametrize("end", ["abort", "close"])
async def test_all_writes_that_wait_are_told_that_the_connection_is_broken(end: str) -> None:
    """The first waits for the peer, the others for the first."""
    ours, theirs = socket.socketpair()
    member = Socket(ours, Receiver())
    seen: list[BaseException | None] = []
    with theirs:
        async with trio.open_nursery() as nursery:
            for _ in range(3):
                nursery.start_soon(write, member, b"x" * 10_000_000, seen)
                await trio.testing.wait_all_tasks_blocked()
            assert member.is_blocked
            getattr(member, end)()
    assert [type(each) for each in seen] == [trio.BrokenResourceError] * 3
