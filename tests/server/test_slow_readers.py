"""Who is alive on a slow or silent connection, and who is not. The clock moves between any two statements here."""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import suppress

import pytest
import trio
import trio.testing

from llm_actors.run import Run
from llm_actors.testing import MovingClock
from llm_protocol.codec.json import CheckedJson, JsonLimits
from llm_runtime.server.bodies import decode_body
from llm_runtime.server.limits import CLOSE_SECONDS, MIN_RATE, WRITE_STALL_SECONDS
from support.server import HttpClient, OpenServer, add_text, begin_text, open_server, saying
from support.ws import CLOSE, PING, PONG, TEXT, WsClient, connected, frame, handshake, text_of, upgrade

SMALL_BUFFER = 16 * 1024
MUCH = "0123456789" * 30_000


async def flooding(run: Run) -> None:
    """More than any buffer takes, at once, and no end."""
    begin_text(run)
    for _ in range(10):
        add_text(run, MUCH)
    await trio.sleep_forever()


class Throttled:
    """A client's stream that reads ``rate`` bytes a second, and makes a ``pause`` after each 300 kB."""

    def __init__(self, stream: trio.SocketStream, rate: int, pause: float = 0.0) -> None:
        self.socket = stream.socket
        self.send_all = stream.send_all
        self._stream = stream
        self._rate = rate
        self._pause = pause
        self._read = 0

    async def receive_some(self, max_bytes: int = 65536) -> bytes:
        data = bytes(await self._stream.receive_some(max(1, min(max_bytes, self._rate // 4))))
        before, self._read = self._read, self._read + len(data)
        pauses = self._read // 300_000 - before // 300_000
        await trio.sleep(len(data) / self._rate + pauses * self._pause)
        return data


def throttle(http: HttpClient, rate: int, pause: float = 0.0) -> None:
    """Let this client read slowly from now on."""
    http.stream = Throttled(http.stream, rate, pause)  # type: ignore[assignment]


async def slow_websocket(server: OpenServer, rate: int, pause: float = 0.0) -> WsClient:
    http = await server.connect(receive_buffer=SMALL_BUFFER)
    ws = await upgrade(http, handshake())
    throttle(http, rate, pause)
    return ws


# -- silent ----------------------------------------------------------------------------------------------------------


async def test_a_websocket_that_says_nothing_is_pinged_and_stays(jumping_clock: MovingClock) -> None:
    """As those do that browsers, Node's clients and pools open in advance."""
    async with open_server() as server, connected(server) as ws:
        for _ in range(4):
            got = await ws.frame()
            assert got is not None, f"cut off after {trio.current_time():.0f} s"
            assert got.opcode == PING
            await ws.raw(frame(PONG, got.payload))
        assert trio.current_time() >= 80
        await ws.create()
        assert text_of(await ws.response()) == "Hello"


async def test_a_silent_websocket_that_answers_no_ping_is_cut_off_after_the_ping(jumping_clock: MovingClock) -> None:
    async with open_server() as server, connected(server) as ws:
        got = await ws.frame()
        assert got is not None
        assert got.opcode == PING
        assert await ws.close_code() == 1006
        assert 38 <= trio.current_time() <= 43


# -- slow ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("silence", [0, 7, 13, 19])
async def test_a_slow_reader_of_a_long_answer_gets_it_whole(jumping_clock: MovingClock, silence: float) -> None:
    """300 kB of text, which the wire says several times over, at 30 kB/s: whatever the phase of the ping."""
    async with open_server(saying(MUCH)) as server:
        ws = await slow_websocket(server, 30_000)
        await trio.sleep(silence)
        began = trio.current_time()
        await ws.create()
        with trio.fail_after(200):
            events = await ws.response()
        assert text_of(events) == MUCH
        assert events[-1]["type"] == "response.completed"
        assert trio.current_time() - began > 40, "or the test is not about a slow reader"
        ws.http.close()


async def test_a_slow_reader_of_server_sent_events_gets_them_whole(jumping_clock: MovingClock) -> None:
    async with open_server(saying(MUCH)) as server, await server.connect(receive_buffer=SMALL_BUFFER) as client:
        throttle(client, 30_000)
        await client.begin("POST", "/v1/responses", {"input": "hi", "stream": True})
        events = (await client.reply()).events
        assert text_of(events[:-1]) == MUCH
        assert events[-1] == "[DONE]"


async def test_a_ping_is_answered_between_the_frames_of_a_long_answer(jumping_clock: MovingClock) -> None:
    async with open_server(saying(*["word " * 2000] * 60)) as server:
        ws = await slow_websocket(server, 50_000)
        await ws.create()
        await trio.sleep(1)
        await ws.raw(frame(PING, b"are you there?"))
        opcodes = []
        while (got := await ws.frame()) is not None:
            opcodes.append(got.opcode)
            if b'"response.completed"' in got.payload[:200]:
                break
        assert PONG in opcodes
        assert TEXT in opcodes[opcodes.index(PONG) + 1 :], "not behind all that there was to say"
        ws.http.close()


async def test_what_a_client_sends_is_read_while_it_is_written_to(jumping_clock: MovingClock) -> None:
    """A ping before it does not hold up a cancel: the reader never waits for the writer."""
    async with open_server(flooding) as server:
        ws = await slow_websocket(server, 30_000)
        await ws.create()
        await server.engine.until(lambda: server.engine.open_runs == 1)
        await trio.sleep(1)
        await ws.raw(frame(PING, b"?") * 3)
        await ws.send({"type": "response.cancel"})
        await server.engine.until(lambda: server.engine.open_runs == 0, seconds=1)
        ws.http.close()


# -- stalled ---------------------------------------------------------------------------------------------------------

AT_ONCE = WRITE_STALL_SECONDS + 64 * 1024 / MIN_RATE + 2


@pytest.mark.parametrize("silence", [0, 5, 10, 15, 19])
async def test_one_that_reads_nothing_is_cut_off_by_the_stall_rule(jumping_clock: MovingClock, silence: float) -> None:
    async with open_server(flooding) as server:
        ws = await slow_websocket(server, 1)
        await trio.sleep(silence)
        began = trio.current_time()
        await ws.create()
        await server.engine.until(lambda: server.engine.open_runs == 1)
        await server.engine.until(lambda: server.engine.open_runs == 0, seconds=120)
        assert WRITE_STALL_SECONDS <= trio.current_time() - began <= AT_ONCE
        ws.http.close()


async def test_one_that_reads_no_server_sent_events_is_cut_off_by_the_same_rule(jumping_clock: MovingClock) -> None:
    async with open_server(flooding) as server, await server.connect(receive_buffer=SMALL_BUFFER) as client:
        began = trio.current_time()
        await client.begin("POST", "/v1/responses", {"input": "hi", "stream": True})
        await server.engine.until(lambda: server.engine.open_runs == 1)
        await server.engine.until(lambda: server.engine.open_runs == 0, seconds=120)
        assert WRITE_STALL_SECONDS <= trio.current_time() - began <= AT_ONCE


@pytest.mark.parametrize("rate", [1, 1000])
@pytest.mark.parametrize("kind", ["websocket", "sse"])
async def test_one_that_reads_too_slowly_is_cut_off_by_the_same_rule(
    jumping_clock: MovingClock, rate: int, kind: str
) -> None:
    """It makes progress, but less than the minimum rate."""
    async with open_server(flooding) as server:
        if kind == "websocket":
            ws = await slow_websocket(server, rate)
            http = ws.http
            await ws.create()
        else:
            http = await server.connect(receive_buffer=SMALL_BUFFER)
            throttle(http, rate)
            await http.begin("POST", "/v1/responses", {"input": "hi", "stream": True})
        began = trio.current_time()

        async def sip() -> None:
            with suppress(trio.BrokenResourceError):
                while await http.stream.receive_some():
                    pass

        async with trio.open_nursery() as nursery:
            nursery.start_soon(sip)
            await server.engine.until(lambda: server.engine.open_runs == 1)
            await server.engine.until(lambda: server.engine.open_runs == 0, seconds=300)
            nursery.cancel_scope.cancel()
        assert WRITE_STALL_SECONDS <= trio.current_time() - began <= AT_ONCE + 5
        http.close()


async def test_a_reader_that_pauses_and_catches_up_is_not_cut_off(jumping_clock: MovingClock) -> None:
    async with open_server(saying(MUCH)) as server:
        ws = await slow_websocket(server, 1_000_000, pause=15)
        await ws.create()
        with trio.fail_after(200):
            assert text_of(await ws.response()) == MUCH
        assert trio.current_time() > 60
        ws.http.close()


@pytest.mark.parametrize("is_decoding", [False, True])
@pytest.mark.parametrize(
    ("last", "code"), [(frame(CLOSE, b"\x03\xe8"), 1000), (frame(TEXT, b"\xff"), 1007)], ids=["close", "fault"]
)
async def test_the_end_of_a_websocket_has_its_code_although_much_is_being_written(
    last: bytes, code: int, is_decoding: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The last frame arrives while the writer waits for the client, perhaps while a large message is being decoded."""
    decoding, may_decode = trio.Event(), trio.Event()

    async def read_slowly(limits: JsonLimits, body: bytes | str, decode: Callable[[CheckedJson], object]) -> object:
        if len(body) > len(MUCH):
            decoding.set()
            await may_decode.wait()
        return await decode_body(limits, body, decode)

    monkeypatch.setattr("llm_runtime.server.turns.decode_body", read_slowly)
    codes: list[int] = []
    async with open_server(flooding) as server:
        http = await server.connect(receive_buffer=SMALL_BUFFER)
        ws = await upgrade(http, handshake())
        await ws.create()
        await trio.testing.wait_all_tasks_blocked()
        large = json.dumps({"type": "response.create", "model": "m", "input": MUCH}).encode()
        await ws.raw(frame(TEXT, large) * is_decoding + last)
        if is_decoding:
            await decoding.wait()
        await trio.testing.wait_all_tasks_blocked()

        async def read() -> None:
            codes.append(await ws.close_code())

        async with trio.open_nursery() as nursery:
            nursery.start_soon(read)
            await trio.testing.wait_all_tasks_blocked()
            may_decode.set()
    assert codes == [code]


async def test_a_client_that_closes_and_does_not_read_is_not_waited_for(jumping_clock: MovingClock) -> None:
    """The answer to its close frame has the time of any closing handshake, and then its run ends."""
    async with open_server(flooding) as server:
        http = await server.connect(receive_buffer=SMALL_BUFFER)
        ws = await upgrade(http, handshake())
        await ws.create()
        await server.engine.until(lambda: server.engine.open_runs == 1)
        await trio.testing.wait_all_tasks_blocked()
        closed_at = trio.current_time()
        await ws.raw(frame(CLOSE, b"\x03\xe8"))
        await server.engine.until(lambda: server.engine.open_runs == 0)
        assert trio.current_time() - closed_at < 2 * CLOSE_SECONDS
