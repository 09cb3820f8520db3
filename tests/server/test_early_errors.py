"""When the head of a streamed answer is sent, and what keeps it alive before and after that."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import pytest
import trio
from trio.testing import MockClock

from llm_actors.run import Run
from llm_protocol.events import MemberDelta, MemberFailed, MemberStarted
from llm_protocol.failures import Failure, FailureKind
from support.server import begin_text, end_text, hanging, open_server, silent

SAID = [{"role": "user", "content": "hi"}]
CONTENTS = [{"role": "user", "parts": [{"text": "hi"}]}]
STREAMS: dict[str, dict[str, Any]] = {
    "/v1/chat/completions": {"messages": SAID, "stream": True},
    "/v1/completions": {"prompt": "hi", "stream": True},
    "/v1/responses": {"input": "hi", "stream": True},
    "/v1/messages": {"model": "m", "messages": SAID, "stream": True, "max_tokens": 9},
    "/v1beta/models/m:streamGenerateContent?alt=sse": {"contents": CONTENTS},
    "/v1beta/models/m:streamGenerateContent": {"contents": CONTENTS},
    "/v2/chat": {"model": "m", "messages": SAID, "stream": True},
}
COMMENT = b": ping\n\n"
ANTHROPIC = b'event: ping\ndata: {"type": "ping"}\n\n'
BLANK = b"\n"
KEEP_ALIVES = dict(zip(STREAMS, [COMMENT, COMMENT, COMMENT, ANTHROPIC, BLANK, BLANK, COMMENT], strict=True))


def failing_after(seconds: float, kind: FailureKind = FailureKind.AUTH) -> Callable[[Run], Awaitable[None]]:
    async def script(run: Run) -> None:
        await trio.sleep(seconds)
        run.fail(Failure(kind=kind, message="refused"))

    return script


@pytest.mark.parametrize("path", STREAMS)
async def test_an_error_before_the_first_event_is_an_http_error(path: str, jumping_clock: MockClock) -> None:
    async with open_server(failing_after(29)) as server:
        reply = await server.request("POST", path, STREAMS[path])
        assert reply.status == 424
        assert reply.headers["content-type"].startswith("application/json")
        assert reply.headers["x-should-retry"] == "false"
        assert "refused" in reply.body.decode()


@pytest.mark.parametrize("path", STREAMS)
async def test_the_head_waits_no_longer_than_hold_head_s(path: str, jumping_clock: MockClock) -> None:
    async with open_server(failing_after(20), hold_head_s=10) as server:
        reply = await server.request("POST", path, STREAMS[path])
        assert reply.status == 200
        assert "refused" in reply.body.decode()


@pytest.mark.parametrize("path", STREAMS)
async def test_while_the_head_waits_nothing_is_sent_and_then_the_wires_keep_alive(
    path: str, jumping_clock: MockClock
) -> None:
    async with open_server(silent) as server, await server.connect() as client:
        await client.begin("POST", path, STREAMS[path])
        began = trio.current_time()
        assert (await client.head()).status == 200
        assert 30 <= trio.current_time() - began <= 31
        got = b""
        while got.count(KEEP_ALIVES[path]) < 2:
            got += await client.piece() or b""
        if path == "/v1/responses":
            assert got.startswith(b"event: response.created\n"), "its stream begins before the vendor's"


async def test_with_zero_the_head_is_sent_at_once(jumping_clock: MockClock) -> None:
    async with open_server(silent, hold_head_s=0) as server, await server.connect() as client:
        await client.begin("POST", "/v1/responses", STREAMS["/v1/responses"])
        began = trio.current_time()
        assert (await client.head()).status == 200
        assert trio.current_time() == pytest.approx(began, abs=0.01)


async def test_what_runs_in_the_background_is_never_waited_for(jumping_clock: MockClock) -> None:
    async with open_server(failing_after(5)) as server, await server.connect() as client:
        await client.begin("POST", "/v1/responses", STREAMS["/v1/responses"] | {"background": True})
        began = trio.current_time()
        assert (await client.head()).status == 200
        assert trio.current_time() == pytest.approx(began, abs=0.01)
        got = b""
        while (piece := await client.piece()) is not None:
            got += piece
        assert b"event: response.failed\n" in got


async def test_a_stored_failure_is_still_told_as_a_stream(jumping_clock: MockClock) -> None:
    async with open_server(failing_after(1)) as server:
        asked = await server.request("POST", "/v1/responses", {"input": "hi", "background": True})
        await trio.sleep(2)
        reply = await server.request("GET", f"/v1/responses/{asked.json['id']}?stream=true")
        assert reply.status == 200
        assert [each["type"] for each in reply.events[:-1]][-1] == "response.failed"


async def test_that_a_member_was_asked_or_has_failed_is_no_answer_yet(jumping_clock: MockClock) -> None:
    failure = Failure(kind=FailureKind.AUTH, message="no")

    async def panel(run: Run) -> None:
        run.log.append(MemberStarted(member="a", request_id="r"))
        await trio.sleep(1)
        run.log.append(MemberFailed(member="a", failure=failure))
        await trio.sleep(1)
        run.fail(failure)

    body = STREAMS["/v1/responses"] | {"llm_runtime": {"stream_members": True}}
    async with open_server(panel) as server:
        assert (await server.request("POST", "/v1/responses", body)).status == 424


async def test_a_word_of_a_member_is_the_first_event(jumping_clock: MockClock) -> None:
    async def panel(run: Run) -> None:
        run.log.append(MemberStarted(member="a", request_id="r"))
        await trio.sleep(1)
        run.log.append(MemberDelta(member="a", text="word"))
        await trio.sleep_forever()

    body = STREAMS["/v1/responses"] | {"llm_runtime": {"stream_members": True}}
    async with open_server(panel) as server, await server.connect() as client:
        await client.begin("POST", "/v1/responses", body)
        began = trio.current_time()
        assert (await client.head()).status == 200
        assert trio.current_time() - began == pytest.approx(1, abs=0.01)
        got = b""
        while b"word" not in got:
            got += await client.piece() or b""
        assert got.startswith(b"event: response.created\n"), "nothing that was held back is lost"


async def test_an_answer_is_told_as_soon_as_it_begins(jumping_clock: MockClock) -> None:
    async def slowly(run: Run) -> None:
        await trio.sleep(3)
        begin_text(run)
        await trio.sleep(3)
        end_text(run)

    async with open_server(slowly) as server, await server.connect() as client:
        await client.begin("POST", "/v1/responses", STREAMS["/v1/responses"])
        began = trio.current_time()
        assert (await client.head()).status == 200
        assert trio.current_time() - began == pytest.approx(3, abs=0.01)


async def test_a_client_that_leaves_while_the_head_waits_cancels_its_run(jumping_clock: MockClock) -> None:
    async with open_server(silent, hanging) as server:
        client = await server.connect()
        await client.begin("POST", "/v1/responses", STREAMS["/v1/responses"])
        await server.engine.until(lambda: server.engine.open_runs == 1)
        client.close()
        await server.engine.until(lambda: server.engine.open_runs == 0, seconds=1)
