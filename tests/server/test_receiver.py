"""One task receives for all connections."""

from __future__ import annotations

import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import trio

from llm_runtime.server.receiver import Receiver
from llm_runtime.server.socket import Socket


@asynccontextmanager
async def receiving(receiver: Receiver) -> AsyncIterator[None]:
    async with trio.open_nursery() as nursery:
        nursery.start_soon(receiver.run)
        yield
        nursery.cancel_scope.cancel()


class Heard:
    """What a member was given."""

    def __init__(self) -> None:
        self.pieces: list[bytes] = []
        self._changed = trio.Event()

    def take(self, data: bytes) -> None:
        self.pieces.append(data)
        self._changed.set()
        self._changed = trio.Event()

    async def until(self, condition: Callable[[], bool]) -> None:
        with trio.fail_after(5):
            while not condition():
                await self._changed.wait()


async def test_what_comes_between_two_runs_waits() -> None:
    """The receiver crashes with the server, the connections do not."""
    receiver, heard = Receiver(), Heard()
    ours, theirs = socket.socketpair()
    with theirs:
        member = Socket(ours, receiver)
        receiver.add(member, heard.take)
        for word in (b"one", b"two"):
            theirs.send(word)
            async with receiving(receiver):
                await heard.until(lambda word=word: word in heard.pieces)  # type: ignore[misc]
        member.close()
    assert heard.pieces == [b"one", b"two"]


async def test_the_end_is_told_once_and_ends_the_membership() -> None:
    receiver, heard = Receiver(), Heard()
    ours, theirs = socket.socketpair()
    member = Socket(ours, receiver)
    async with receiving(receiver):
        receiver.add(member, heard.take)
        theirs.close()
        await heard.until(lambda: heard.pieces == [b""])
        for _ in range(3):
            await trio.lowlevel.checkpoint()
        assert heard.pieces == [b""]
        assert await member.receive() == b"", "the socket is free for others"
    member.close()


async def test_a_reset_is_an_end() -> None:
    receiver, heard = Receiver(), Heard()
    async with receiving(receiver):
        (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
        theirs = await trio.open_tcp_stream("127.0.0.1", listener.socket.getsockname()[1])
        accepted = await listener.accept()
        member = Socket(socket.socket(fileno=accepted.socket.detach()), receiver)
        receiver.add(member, heard.take)
        Socket(socket.socket(fileno=theirs.socket.detach()), receiver).abort()
        await heard.until(lambda: heard.pieces == [b""])
        member.close()
        await listener.aclose()


async def test_a_number_can_be_used_again_at_once() -> None:
    """A member that is closed makes way for the next connection, which the kernel gives the same number."""
    receiver, old, new = Receiver(), Heard(), Heard()
    ours, theirs = socket.socketpair()
    member = Socket(ours, receiver)
    async with receiving(receiver):
        receiver.add(member, old.take)
        await trio.lowlevel.checkpoint()
        number = member.fileno()
        member.close()
        again, other = socket.socketpair()
        assert number in {again.fileno(), other.fileno()}
        if other.fileno() == number:
            again, other = other, again
        successor = Socket(again, receiver)
        receiver.add(successor, new.take)
        other.send(b"hello")
        await new.until(lambda: new.pieces == [b"hello"])
        successor.close()
        other.close()
    theirs.close()
    assert old.pieces == []
