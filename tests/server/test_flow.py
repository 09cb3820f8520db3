"""Slow readers: what they cost, what they get, and when they are cut off."""

from __future__ import annotations

from contextlib import suppress

import pytest
import trio
from trio.testing import MockClock

from llm_actors.run import Run
from llm_runtime.server.limits import WRITE_STALL_SECONDS
from support.server import OpenServer, add_text, begin_text, end_text, open_server, saying
from support.ws import WsClient, connected, handshake, text_of, upgrade

TOKENS = 40_000
TINY = 4096


async def fast(run: Run) -> None:
    """A model that is much faster than its reader."""
    begin_text(run)
    for number in range(TOKENS):
        add_text(run, f"{number:05d} ")
        if number % 100 == 0:
            await trio.lowlevel.checkpoint()
    end_text(run)


async def endless(run: Run) -> None:
    begin_text(run)
    while True:
        add_text(run, "word " * 10_000)
        await trio.sleep(1)


WHOLE = "".join(f"{number:05d} " for number in range(TOKENS))


async def slow_socket(server: OpenServer) -> WsClient:
    http = await server.connect(receive_buffer=TINY)
    return await upgrade(http, handshake())


async def test_a_slow_reader_gets_all_the_text_in_few_frames() -> None:
    """Piled-up deltas are joined, late: what is sent is chosen when there is room for it."""
    async with open_server(fast) as server:
        ws = await slow_socket(server)
        await ws.create()
        await server.engine.until(lambda: server.engine.open_runs == 0)
        events = await ws.response()
        deltas = [each for each in events if each["type"] == "response.output_text.delta"]
        assert text_of(events) == WHOLE
        assert len(deltas) < TOKENS / 10
        numbers = [each["sequence_number"] for each in events]
        assert numbers == sorted(set(numbers))
        assert numbers[-1] == TOKENS + 8 - 1, "numbers count what was logged, not what was sent"
        ws.http.close()


async def test_a_slow_reader_of_server_sent_events_too() -> None:
    async with open_server(fast) as server, await server.connect(receive_buffer=TINY) as client:
        await client.begin("POST", "/v1/responses", {"input": "hi", "stream": True})
        await server.engine.until(lambda: server.engine.open_runs == 0)
        reply = await client.reply()
        events = reply.events[:-1]
        assert text_of(events) == WHOLE
        assert len(events) < TOKENS / 10


async def test_a_reader_that_stalls_is_cut_off_and_its_run_cancelled(jumping_clock: MockClock) -> None:
    async with open_server(endless) as server:
        ws = await slow_socket(server)
        await ws.create()
        started = trio.current_time()
        await server.engine.until(lambda: server.engine.open_runs == 1)
        await server.engine.until(lambda: server.engine.open_runs == 0, seconds=120)
        assert trio.current_time() - started <= 2 * WRITE_STALL_SECONDS + 3
        ws.http.close()


async def test_a_stalled_reader_of_server_sent_events_too(jumping_clock: MockClock) -> None:
    async with open_server(endless) as server, await server.connect(receive_buffer=TINY) as client:
        await client.begin("POST", "/v1/responses", {"input": "hi", "stream": True})
        started = trio.current_time()
        await server.engine.until(lambda: server.engine.open_runs == 1)
        await server.engine.until(lambda: server.engine.open_runs == 0, seconds=120)
        assert trio.current_time() - started <= 2 * WRITE_STALL_SECONDS + 3


async def test_a_stalled_connection_takes_all_its_responses_along_and_no_others(jumping_clock: MockClock) -> None:
    async with open_server(endless) as server, connected(server) as other:
        ws = await slow_socket(server)
        for lane in range(16):
            await ws.create(stream_id=f"l{lane}")
        await server.engine.until(lambda: server.engine.open_runs == 16)
        await other.create()
        heard = 0
        with trio.fail_after(200):
            while server.engine.open_runs > 1:
                heard += (await other.event())["type"] == "response.output_text.delta"
        assert heard > 20
        ws.http.close()


async def test_a_reader_of_a_byte_a_second_is_not_waited_for(jumping_clock: MockClock) -> None:
    """Progress, but useless."""
    async with open_server(endless) as server:
        ws = await slow_socket(server)
        await ws.create()
        await server.engine.until(lambda: server.engine.open_runs == 1)

        async def sip() -> None:
            with suppress(trio.BrokenResourceError):
                for _ in range(200):
                    await ws.http.stream.receive_some(1)
                    await trio.sleep(1)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(sip)
            await server.engine.until(lambda: server.engine.open_runs == 0, seconds=120)
            nursery.cancel_scope.cancel()
        ws.http.close()


async def test_large_answers_arrive_whole() -> None:
    text = "0123456789abcdef" * 2**15
    async with open_server(saying(text, text)) as server:
        async with connected(server) as ws:
            await ws.create()
            assert text_of(await ws.response()) == text * 2
        reply = await server.request("POST", "/v1/chat/completions", {"messages": [{"role": "user", "content": "a"}]})
        assert reply.json["choices"][0]["message"]["content"] == text * 2


@pytest.mark.parametrize("lanes", [1, 16])
async def test_text_of_many_lanes_is_not_mixed_up(lanes: int) -> None:
    async def spelling(run: Run) -> None:
        begin_text(run)
        for letter in run.request.messages[0].text * 50:  # type: ignore[union-attr]
            add_text(run, letter)
            await trio.lowlevel.checkpoint()
        end_text(run)

    async with open_server(spelling) as server, connected(server) as ws:
        for lane in range(lanes):
            await ws.create(f"lane {lane} ", stream_id=f"l{lane}")
        ended, events = 0, []
        while ended < lanes:
            events.append(await ws.event())
            ended += events[-1]["type"] == "response.completed"
        for lane in range(lanes):
            own = [each for each in events if each["stream_id"] == f"l{lane}"]
            assert text_of(own) == f"lane {lane} " * 50
            numbers = [each["sequence_number"] for each in own]
            assert numbers == sorted(set(numbers))
