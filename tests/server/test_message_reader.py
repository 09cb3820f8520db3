"""The frames of a WebSocket client: any way of cutting them into pieces gives the same messages."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import pytest
import trio
import trio.testing
from hypothesis import given
from hypothesis import strategies as st

from llm_runtime.server.bodies import BodyBudget
from llm_runtime.server.limits import FRAMES_AT_ONCE, MESSAGE_FRAGMENTS, WRITE_STALL_SECONDS
from llm_runtime.server.message_reader import Hangup, MessageReader
from llm_runtime.server.receiver import Receiver
from llm_runtime.server.websocket import WebSocket
from support.server import open_server
from support.ws import BINARY, CLOSE, MORE, PING, PONG, TEXT, connected, frame

SENT = (
    frame(TEXT, "é".encode()) + frame(TEXT, b"{", fin=False) + frame(PING, b"1") + frame(MORE, b"", fin=False)
    + frame(PONG) + frame(MORE, b"}") + frame(PING, b"2") + frame(BINARY, b"\xff" * 300)
)  # fmt: skip
READ = ["é", "{}", b"\xff" * 300]
IDLE_CONNECTIONS = 10


def read(reader: MessageReader, data: bytes) -> list[str | bytes]:
    reader.feed(data)
    return list(iter(reader.next_message, None))


@given(st.lists(st.integers(0, len(SENT)), max_size=8))
def test_pieces_make_the_same_messages(cuts: list[int]) -> None:
    budget = BodyBudget(1000)
    reader, at = MessageReader(1000, budget), 0
    messages: list[str | bytes] = []
    for cut in [*sorted(cuts), len(SENT)]:
        messages += read(reader, SENT[at:cut])
        at = cut
    assert messages == READ
    assert reader.ping == b"2", "the latest"
    assert budget.held == 0


@given(st.binary(max_size=300), st.booleans())
def test_any_bytes_are_messages_or_a_hangup(noise: bytes, inside_a_frame: bool) -> None:
    reader, codes = MessageReader(100, BodyBudget(1000)), set[int]()
    try:
        messages = read(reader, frame(TEXT, noise) if inside_a_frame else noise)
    except Hangup as hangup:
        messages = []
        codes.add(hangup.code)
    assert codes <= {*range(1000, 1015), *range(3000, 5000)}
    assert all(len(message) <= 100 for message in messages)


@pytest.mark.parametrize(
    ("payload", "code"),
    [(b"", 1005), (b"\x03\xe8", 1000), (b"\x03\xf5bye", 1013), (b"\x0b\xb8", 3000), (b"\x13\x87", 4999)],
)
def test_a_close_frame_is_kept_for_the_answer(payload: bytes, code: int) -> None:
    with pytest.raises(Hangup) as found:
        read(MessageReader(100, BodyBudget(1000)), frame(CLOSE, payload))
    assert (found.value.code, found.value.payload) == (code, payload)


@pytest.mark.parametrize("code", [0, 999, 1004, 1006, 1015, 1016, 2999, 5000])
def test_a_close_code_that_must_not_be_sent_is_a_protocol_error(code: int) -> None:
    with pytest.raises(Hangup) as found:
        read(MessageReader(100, BodyBudget(1000)), frame(CLOSE, code.to_bytes(2)))
    assert (found.value.code, found.value.payload) == (1002, None)


def test_an_incomplete_message_counts_until_it_is_released() -> None:
    budget = BodyBudget(10)
    reader = MessageReader(100, budget)
    assert read(reader, frame(TEXT, b"12345678", fin=False)) == []
    assert budget.held == 8
    with pytest.raises(Hangup) as found:
        read(reader, frame(MORE, b"901", fin=False))
    assert found.value.code == 1013
    reader.release()
    assert budget.held == 0


def test_a_message_has_so_many_bytes_in_however_many_frames() -> None:
    budget = BodyBudget(100)
    reader = MessageReader(8, budget)
    half = "😀".encode()
    assert read(reader, frame(TEXT, half, fin=False) + frame(MORE, half)) == ["😀😀"]
    assert read(reader, frame(TEXT, half, fin=False)) == []
    assert budget.held == len(half)
    with pytest.raises(Hangup) as found:
        read(reader, frame(MORE, half + b"1"))
    assert found.value.code == 1009


def test_one_frame_may_arrive_in_any_number_of_pieces() -> None:
    """The limit is on frames: a slow line delivers a large frame in thousands of small packets."""
    reader, text = MessageReader(100_000, BodyBudget(100_000)), "a" * (MESSAGE_FRAGMENTS + 100)
    messages: list[str | bytes] = []
    for byte in frame(TEXT, text.encode()):
        messages += read(reader, bytes([byte]))
    assert messages == [text]


@pytest.mark.parametrize(
    "tiny", [frame(PING), frame(PONG), frame(MORE, b"a", fin=False)], ids=["pings", "pongs", "fragments"]
)
def test_tiny_frames_are_read_in_turns(tiny: bytes) -> None:
    """64 KiB of them take a tenth of a second to read; between two turns others have theirs."""
    reader = MessageReader(100_000, BodyBudget(100_000))
    reader.feed(frame(TEXT, b"", fin=False) + tiny * (3 * FRAMES_AT_ONCE) + frame(MORE))
    turns = 1
    while (message := reader.next_message()) is None:
        assert reader.is_busy
        turns += 1
    assert (message, turns) == ("a" * (3 * FRAMES_AT_ONCE) * (tiny[0] == 0), 4)


async def test_a_flood_of_tiny_frames_is_read_to_its_end() -> None:
    async with open_server() as server, connected(server) as ws:
        await ws.raw(frame(PONG) * (5 * FRAMES_AT_ONCE))
        await ws.create()
        assert (await ws.response())[-1]["type"] == "response.completed"


async def test_an_idle_websocket_has_one_task() -> None:
    """A task costs 3 KB: the receiver reads, and the connection's own task writes."""
    async with open_server() as server:
        async with connected(server) as first:
            await first.create()
            await first.response()
            before = trio.lowlevel.current_statistics().tasks_living
            async with trio.open_nursery() as nursery:

                async def open_one(task_status: trio.TaskStatus[None]) -> None:
                    async with connected(server):
                        task_status.started()
                        await trio.sleep_forever()

                for _ in range(IDLE_CONNECTIONS):
                    await nursery.start(open_one)
                await trio.testing.wait_all_tasks_blocked()
                grown = trio.lowlevel.current_statistics().tasks_living - before
                nursery.cancel_scope.cancel()
        assert grown == 2 * IDLE_CONNECTIONS, "the client's in this test, and one of the server"


async def test_a_writer_waits_for_the_end_of_a_closed_connection_but_not_forever(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """The task that takes messages ends the writer; if it does not, nobody else would."""
    socket = cast("Any", SimpleNamespace(closed=False))
    websocket = WebSocket(socket, MessageReader(1000, BodyBudget(1000)), frame(CLOSE, b"\x03\xe8"))
    websocket.receive(Receiver(), lambda: None, lambda: None)
    with trio.fail_after(2 * WRITE_STALL_SECONDS), pytest.raises(trio.BrokenResourceError):
        await websocket.send([b"{}"])
    assert trio.current_time() == WRITE_STALL_SECONDS
