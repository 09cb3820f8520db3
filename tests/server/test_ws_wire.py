"""RFC 6455 on raw sockets: handshakes, frames, closes. Whatever a client does, the server lives."""

from __future__ import annotations

import json
from itertools import permutations

import pytest
import trio
import trio.lowlevel
from hypothesis import given, settings
from hypothesis import strategies as st
from trio.testing import MockClock
from wsproto import ConnectionType
from wsproto.connection import Connection
from wsproto.events import TextMessage

from llm_runtime.config import Server
from llm_runtime.server.limits import WRITE_BATCH_BYTES
from llm_runtime.server.websocket import encode_text
from support.server import OpenServer, hanging, open_server, saying
from support.ws import BINARY, CLOSE, MORE, PING, PONG, TEXT, connected, frame, handshake, text_of, upgrade

BODY_BYTES = Server().max_body_bytes
CREATE = b'{"type":"response.create","model":"m","input":"hi"}'


async def is_served(server: OpenServer) -> None:
    """Another client gets its answer."""
    async with connected(server) as ws:
        await ws.create()
        assert (await ws.response())[-1]["type"] == "response.completed"


@pytest.mark.parametrize(
    ("request_bytes", "status"),
    [
        (handshake(sec_websocket_version="12"), 426),
        (handshake(sec_websocket_version=""), 426),
        (handshake(sec_websocket_key=""), 400),
        (handshake(sec_websocket_key="c2hvcnQ="), 400),
        (handshake(sec_websocket_key="!" * 24), 400),
        (handshake(upgrade=""), 426),
        (handshake(connection="keep-alive"), 426),
        (handshake(connection="x-upgrade"), 426),
        (handshake(sec_websocket_protocol="é"), 400),
        (handshake(path="/v1/realtime"), 404),
        (handshake().replace(b"GET", b"POST", 1), 400),
        (handshake().replace(b"HTTP/1.1", b"HTTP/1.0", 1), 400),
    ],
)
async def test_a_bad_handshake_is_refused_with_the_reason(request_bytes: bytes, status: int) -> None:
    async with open_server() as server, await server.connect() as client:
        await client.send(request_bytes)
        await client.stream.send_eof()
        answer = await client.until_closed()
        assert answer.startswith(b"HTTP/1.1 %d " % status), answer
        assert b'"error":{"message":"' in answer
        await is_served(server)


async def test_what_a_handshake_says_besides_is_not_read() -> None:
    """Extensions are not supported, and a proxy may add any fields."""
    async with open_server() as server, await server.connect() as client:
        offered = handshake(sec_websocket_extensions="é", x_strange="é", connection="keep-alive, Upgrade")
        ws = await upgrade(client, offered)
        await ws.create()
        assert text_of(await ws.response()) == "Hello"


async def test_websockets_switched_off_sends_clients_to_http() -> None:
    async with open_server(websocket=False) as server, await server.connect() as client:
        await client.send(handshake())
        assert (await client.receive()).startswith(b"HTTP/1.1 426 ")


async def test_a_kept_alive_connection_may_upgrade() -> None:
    async with open_server() as server, await server.connect() as client:
        await client.request("GET", "/livez")
        ws = await upgrade(client, handshake(path="/responses"))
        await ws.create()
        assert text_of(await ws.response()) == "Hello"


async def test_a_frame_in_the_packet_of_the_handshake_is_not_lost() -> None:
    async with open_server() as server, await server.connect() as client:
        ws = await upgrade(client, handshake() + frame(TEXT, CREATE))
        assert text_of(await ws.response()) == "Hello"


async def test_the_handshake_may_come_byte_by_byte() -> None:
    async with open_server() as server, await server.connect() as client:
        request = handshake()
        for at in range(len(request) - 1):
            await client.send(request[at : at + 1])
        ws = await upgrade(client, request[-1:])
        for byte in frame(TEXT, CREATE):
            await ws.raw(bytes([byte]))
        assert text_of(await ws.response()) == "Hello"


async def test_a_message_may_come_in_fragments_with_pings_in_between() -> None:
    async with open_server() as server, connected(server) as ws:
        await ws.raw(frame(TEXT, CREATE[:9], fin=False) + frame(PING, b"now"))
        got = await ws.frame()
        assert got is not None
        assert (got.opcode, got.payload) == (PONG, b"now")
        await ws.raw(frame(MORE, b"", fin=False) + frame(MORE, CREATE[9:]))
        assert text_of(await ws.response()) == "Hello"


BAD = {
    "not masked": (frame(TEXT, b"{}", masked=False), 1002),
    "a reserved bit": (frame(TEXT, b"{}", rsv=4), 1002),
    "an unknown data opcode": (frame(0x3, b""), 1002),
    "an unknown control opcode": (frame(0xB, b""), 1002),
    "a continuation of nothing": (frame(MORE, b"x"), 1002),
    "a new message inside another": (frame(TEXT, b"x", fin=False) + frame(TEXT, b"y"), 1002),
    "a fragmented ping": (frame(PING, b"x", fin=False), 1002),
    "a ping of 126 bytes": (frame(PING, b"x" * 126), 1002),
    "a close of one byte": (frame(CLOSE, b"\x03"), 1002),
    "close code 1005": (frame(CLOSE, b"\x03\xed"), 1002),
    "close code 256": (frame(CLOSE, b"\x00\x01"), 1002),
    "a close reason that is not UTF-8": (frame(CLOSE, b"\x03\xe8\xff"), 1007),
    "text that is not UTF-8": (frame(TEXT, b"\xff\xfe"), 1007),
    "text with a surrogate": (frame(TEXT, b"\xce\xba\xe1\xbd\xb9\xcf\x83\xce\xbc\xce\xb5\xed\xa0\x80"), 1007),
    "text that is not UTF-8 in its second fragment": (frame(TEXT, b"\xce", fin=False) + frame(MORE, b"("), 1007),
    "binary": (frame(BINARY, b"{}"), 1003),
    "a length of 2**63": (b"\x81\xff" + (1 << 63).to_bytes(8) + b"mask", 1002),
}


@pytest.mark.parametrize(("sent", "code"), BAD.values(), ids=BAD)
async def test_a_broken_frame_closes_with_the_right_code(sent: bytes, code: int) -> None:
    """Also while a response is streaming, which is cancelled."""
    async with open_server(hanging) as server, connected(server) as ws:
        await ws.create()
        await server.engine.until(lambda: server.engine.open_runs == 1)
        await ws.raw(sent)
        assert await ws.close_code() == code
        await server.engine.until(lambda: server.engine.open_runs == 0, seconds=1)


async def test_a_message_over_the_limit_closes_with_1009() -> None:
    async with open_server() as server, connected(server) as ws:

        async def flood() -> None:
            part = frame(MORE, b"a" * 2**20, fin=False)
            try:
                await ws.raw(frame(TEXT, b"a", fin=False))
                for _ in range(BODY_BYTES // 2**20 + 2):
                    await ws.raw(part)
            except trio.BrokenResourceError:
                pass

        async with trio.open_nursery() as nursery:
            nursery.start_soon(flood)
            assert await ws.close_code() == 1009
            nursery.cancel_scope.cancel()
        await is_served(server)


@pytest.mark.parametrize("size", [BODY_BYTES + 1, 2**63 - 1])
async def test_a_frame_that_announces_too_much_closes_with_1009_before_it_comes(size: int) -> None:
    """By its header alone."""
    async with open_server() as server, connected(server) as ws:
        await ws.raw(b"\x81\xff" + size.to_bytes(8) + b"mask")
        assert await ws.close_code() == 1009
        await is_served(server)


@pytest.mark.parametrize("payload", [b"", b"a"])
async def test_a_message_in_endless_fragments_is_a_policy_violation(payload: bytes) -> None:
    """Empty fragments never fill a message, so their count is bounded."""
    async with open_server() as server, connected(server) as ws:

        async def flood() -> None:
            parts = frame(MORE, payload, fin=False) * 1000
            try:
                await ws.raw(frame(TEXT, b"a", fin=False))
                for _ in range(1000):
                    await ws.raw(parts)
            except trio.BrokenResourceError:
                pass

        async with trio.open_nursery() as nursery:
            nursery.start_soon(flood)
            assert await ws.close_code() == 1008
            nursery.cancel_scope.cancel()
        await is_served(server)


async def test_pings_are_answered_while_messages_wait() -> None:
    """Application messages, then a ping, then a close: pong and close come, whatever the lanes do."""
    async with open_server(hanging) as server, connected(server) as ws:
        await ws.raw(frame(TEXT, CREATE) * 20 + frame(PING, b"?"))
        with trio.fail_after(1):
            while (got := await ws.frame()) is not None and got.opcode != PONG:
                pass
        await ws.raw(frame(CLOSE, b"\x03\xe8"))
        with trio.fail_after(1):
            assert await ws.close_code() == 1000


async def test_a_pong_does_not_wait_for_the_end_of_a_large_message() -> None:
    """A control frame goes between two fragments (RFC 6455, 5.4)."""
    text = "0123456789" * 60_000
    async with open_server(saying(text)) as server, await server.connect(receive_buffer=16 * 1024) as http:
        ws = await upgrade(http, handshake())
        await ws.create()
        messages: list[bytes] = []
        parts: list[bytes] = []
        pinged, pongs, waited = False, 0, 0
        while not (messages and b'"response.completed"' in messages[-1][:100]):
            got = await ws.frame()
            assert got is not None
            if got.opcode == PONG:
                assert parts, "it came inside a message"
                pongs += 1
                continue
            assert got.opcode == (MORE if parts else TEXT)
            assert len(got.payload) <= WRITE_BATCH_BYTES
            parts.append(got.payload)
            waited += len(got.payload) if pinged and not pongs else 0
            if got.fin:
                messages.append(b"".join(parts))
                parts = []
            elif not pinged:
                pinged = True
                await ws.raw(frame(PING, b"?"))
        assert pongs == 1
        assert waited < 300_000, "less than half of the message"
        assert text_of([json.loads(each) for each in messages]) == text


@pytest.mark.parametrize("size", [0, 125, 126, WRITE_BATCH_BYTES, WRITE_BATCH_BYTES + 1, 3 * WRITE_BATCH_BYTES])
def test_a_message_is_cut_into_fragments_of_so_many_bytes(size: int) -> None:
    connection = Connection(ConnectionType.CLIENT)
    frames = encode_text(b"a" * size)
    assert len(frames) == max(1, -(-size // WRITE_BATCH_BYTES))
    connection.receive_data(b"".join(frames))
    events = [event for event in connection.events() if isinstance(event, TextMessage)]
    assert "".join(event.data for event in events) == "a" * size
    assert [event.message_finished for event in events] == [False] * (len(events) - 1) + [True]
    assert [event.frame_finished for event in events] == [True] * len(frames)


LAST = {
    "ping": frame(PING, b"!"),
    "data": frame(TEXT, CREATE),
    "close": frame(CLOSE, b"\x03\xe8"),
    "noise": b"\xff" * 8,
}


@pytest.mark.parametrize("order", list(permutations(LAST, 3)))
@pytest.mark.parametrize("leave", ["close", "reset"])
async def test_nothing_a_client_sends_while_we_close_harms_the_server(order: tuple[str, ...], leave: str) -> None:
    """A ping after our close has killed servers."""
    async with open_server() as server:
        async with connected(server) as ws:
            await ws.raw(frame(BINARY, b"x"))  # which we answer with a close
            for name in order:
                try:
                    await ws.raw(LAST[name])
                except trio.BrokenResourceError:
                    break
                await trio.lowlevel.checkpoint()
            if leave == "reset":
                ws.http.reset()
            else:
                assert await ws.close_code() in (1000, 1002, 1003, 1006)
        await is_served(server)


@settings(max_examples=60)
@given(st.binary(max_size=300), st.booleans())
def test_no_bytes_harm_the_server(noise: bytes, inside_a_frame: bool) -> None:
    """Any bytes after the handshake end that connection at most."""

    async def main() -> None:
        async with open_server() as server:
            async with connected(server) as ws:
                await ws.raw(frame(TEXT, noise) if inside_a_frame else noise)
                await ws.http.stream.send_eof()
                await ws.close_code()
            await is_served(server)

    trio.run(main)


@pytest.mark.parametrize("how", ["close", "reset", "close frame"])
async def test_a_client_that_vanishes_cancels_all_its_responses(how: str) -> None:
    async with open_server(hanging) as server, connected(server) as ws:
        for lane in range(20):
            await ws.create(stream_id=f"lane-{lane}")
        await server.engine.until(lambda: server.engine.open_runs == 16)
        if how == "close frame":
            await ws.raw(frame(CLOSE, b"\x03\xe8"))
        elif how == "reset":
            ws.http.reset()
        else:
            ws.http.close()
        await server.engine.until(lambda: server.engine.open_runs == 0, seconds=1)
        assert len(server.engine.runs) == 16, "what waited was never begun"


async def test_a_client_that_answers_no_ping_is_cut_off(jumping_clock: MockClock) -> None:
    async with open_server(hanging) as server, connected(server) as ws:
        started = trio.current_time()
        await ws.create()
        assert await ws.close_code() == 1006
        assert 38 <= trio.current_time() - started <= 43
        await server.engine.until(lambda: server.engine.open_runs == 0)


async def test_a_client_that_answers_pings_stays(jumping_clock: MockClock) -> None:
    async with open_server() as server, connected(server) as ws:
        pinged = 0
        while trio.current_time() < 90:
            got = await ws.frame()
            assert got is not None
            assert got.opcode == PING
            pinged += 1
            await ws.raw(frame(PONG, got.payload))
        assert pinged >= 4
        await ws.create()
        assert text_of(await ws.response()) == "Hello"


async def test_a_connection_ends_with_its_lifetime_between_turns(jumping_clock: MockClock) -> None:
    async with open_server(websocket_lifetime_s=30) as server, connected(server) as ws:
        await ws.create()
        await ws.response()
        said = await ws.event()
        assert said["error"]["code"] == "websocket_connection_limit_reached"
        assert await ws.close_code() == 1000
