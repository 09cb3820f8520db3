"""A server of HTTP/2 that closes, that has answered in part, or that does not read: when an answer still ends well,
when a request is sent again, and that nothing waits or grows without end.
"""

from __future__ import annotations

import h2.settings
import pytest
import trio
from hyperframe.frame import Frame, GoAwayFrame, PingFrame, SettingsFrame
from trio.testing import MockClock, wait_all_tasks_blocked

from llm_actors.transport import Broken, ProtocolViolation, Transport
from support.http2_side import Http2Side
from support.outgoing import fetch, post
from support.peer import Call, Peer, Script, Step, chunked, close, reply, stall

MIB = 1024 * 1024


def says(*frames: Frame) -> Step:
    """Frames as they are, beside what the server's library knows of the connection."""

    async def step(call: Call) -> None:
        assert isinstance(call.stream, Http2Side)
        await call.stream.below.send_all(b"".join(each.serialize() for each in frames))

    return step


def sends(data: bytes) -> Step:
    """The next bytes of an answer that has begun."""

    async def step(call: Call) -> None:
        await call.send(data)

    return step


async def hints(call: Call) -> None:
    """A head that is not yet the answer."""
    assert isinstance(call.stream, Http2Side)
    call.stream.h2.send_headers(call.stream.stream_id, [(":status", "103")])
    await call.stream.flush()


def goodbye(last_stream_id: int) -> GoAwayFrame:
    return GoAwayFrame(0, last_stream_id=last_stream_id)


LAST = sends(b"3\r\ntwo\r\n0\r\n\r\n")
GRACEFUL = says(goodbye(2**31 - 1), PingFrame(0, b"12345678"), goodbye(1))


@pytest.mark.parametrize(
    "script",
    [
        pytest.param([says(goodbye(1)), chunked(b"one", b"two")], id="before"),
        pytest.param([chunked(b"one", end=False), says(goodbye(1)), LAST], id="between"),
        pytest.param([chunked(b"one", end=False), GRACEFUL, LAST], id="in two steps"),
    ],
)
async def test_an_answer_in_progress_outlives_the_servers_goodbye(autojump_clock: MockClock, script: Script) -> None:
    async with Peer(script, http2=True) as peer:
        transport = Transport(dial=peer.dial, http2=True)
        for _ in range(2):
            with trio.fail_after(10):
                assert await fetch(transport) == (200, b"onetwo")
        assert [each.connection for each in peer.requests] == [1, 2]
        await wait_all_tasks_blocked()
        await transport.aclose()


async def test_what_came_with_a_goodbye_is_still_acknowledged(autojump_clock: MockClock) -> None:
    pongs = -1

    async def count(call: Call) -> None:
        nonlocal pongs
        await trio.sleep(1)
        assert isinstance(call.stream, Http2Side)
        pongs = call.stream.pongs

    pings = says(PingFrame(0, b"12345678"), goodbye(1))
    async with Peer([chunked(b"one", end=False), pings, count, LAST], http2=True) as peer:
        assert await fetch(Transport(dial=peer.dial, http2=True)) == (200, b"onetwo")
    assert pongs == 1


@pytest.mark.parametrize(
    "script",
    [
        pytest.param([hints, close()], id="closed after an interim head"),
        pytest.param([hints, says(goodbye(1)), stall()], id="goodbye after an interim head"),
        pytest.param([chunked(b"one", end=False), says(goodbye(1)), stall()], id="goodbye in the answer"),
    ],
)
async def test_a_request_that_was_answered_in_part_is_not_sent_again(autojump_clock: MockClock, script: Script) -> None:
    """Though the connection was kept, and though the goodbye tells of an earlier request only: it may be billed."""
    async with Peer(reply(b"1"), script, reply(b"2"), http2=True) as peer:
        transport = Transport(dial=peer.dial, http2=True)
        assert await fetch(transport) == (200, b"1")
        with trio.fail_after(10), pytest.raises(Broken) as caught:
            await fetch(transport)
        assert (type(caught.value), caught.value.answered) == (Broken, True)
        assert (len(peer.requests), transport.statistics().resent_total) == (2, 0)
        await transport.aclose()


async def _makes_room(call: Call) -> Http2Side:
    """A server that has room for a large body in its windows, but reads none of it."""
    side = call.stream
    assert isinstance(side, Http2Side)
    while not side.stream_id:
        await side.read_frames()
    side.h2.update_settings({h2.settings.SettingCodes.INITIAL_WINDOW_SIZE: 16 * MIB})
    side.h2.increment_flow_control_window(16 * MIB)
    await side.flush()
    return side


@pytest.mark.parametrize("frame", [PingFrame(0, b"12345678"), SettingsFrame(0)], ids=["pings", "settings"])
async def test_what_is_owed_to_a_server_that_does_not_read_is_bounded(autojump_clock: MockClock, frame: Frame) -> None:
    async def asks(call: Call) -> None:
        side = await _makes_room(call)
        await wait_all_tasks_blocked()
        await side.below.send_all(frame.serialize() * 5_000)
        await trio.sleep_forever()

    async with Peer(greeting=asks, http2=True) as peer:
        transport = Transport(dial=peer.dial, http2=True)
        with trio.fail_after(10), pytest.raises(ProtocolViolation, match="more than 1000 frames to be acknowledged"):
            await fetch(transport, post(bytes(8 * MIB)))
        assert transport.statistics().open == 0


async def test_many_pings_are_answered_by_who_can_send(autojump_clock: MockClock) -> None:
    """A server may ask often; what it reads is not owed."""
    asks = [step for _ in range(8) for step in (says(*[PingFrame(0, b"12345678")] * 300), sends(b"1\r\nx\r\n"))]
    script = [chunked(b"x", end=False), *asks, sends(b"0\r\n\r\n")]
    spaced = [each for step in script for each in (step, _breathe)]
    async with Peer(spaced, http2=True) as peer:
        transport = Transport(dial=peer.dial, http2=True)
        assert await fetch(transport) == (200, b"x" * 9)
        await transport.aclose()


async def _breathe(call: Call) -> None:
    await trio.sleep(1)


async def test_an_early_refusal_larger_than_the_window_ends_when_no_room_can_be_made(autojump_clock: MockClock) -> None:
    """The request was left within a frame, so the server can be told nothing more."""

    async def refuse(call: Call) -> None:
        side = await _makes_room(call)
        await wait_all_tasks_blocked()
        side.h2.send_headers(side.stream_id, [(":status", "413")])
        while (room := min(side.h2.local_flow_control_window(side.stream_id), side.h2.max_outbound_frame_size)) > 0:
            side.h2.send_data(side.stream_id, bytes(room))
            await side.flush()
        await trio.sleep_forever()

    async with Peer(greeting=refuse, http2=True) as peer:
        transport = Transport(dial=peer.dial, http2=True)
        begun = trio.current_time()
        with trio.fail_after(10), pytest.raises(Broken, match="no flow control is left") as caught:
            await fetch(transport, post(bytes(8 * MIB)))
        assert (caught.value.answered, trio.current_time()) == (True, begun)
        assert transport.statistics().open == 0
