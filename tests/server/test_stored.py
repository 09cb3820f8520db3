"""Responses that can be come back to: stored, in the background, resumed, cancelled, deleted."""

from __future__ import annotations

from typing import Any

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st
from trio.testing import MockClock

from llm_actors.run import Run
from support.server import add_text, begin_text, end_text, hanging, open_server, saying, silent
from support.ws import connected, ids, text_of

ASK = {"model": "m", "input": "hi"}


async def two_halves(run: Run) -> None:
    """Half an answer, and the rest a while later."""
    begin_text(run)
    for letter in "first ":
        add_text(run, letter)
    await trio.sleep(5)
    for letter in "second":
        add_text(run, letter)
    end_text(run)


async def test_a_stored_response_is_what_was_answered() -> None:
    async with open_server() as server:
        whole = (await server.request("POST", "/v1/responses", ASK)).json
        again = (await server.request("GET", f"/v1/responses/{whole['id']}")).json
        assert whole == again
        assert whole["status"] == "completed"
        assert whole["output"][0]["content"][0]["text"] == "Hello"


async def test_a_background_response_is_answered_at_once_and_made_all_the_same(jumping_clock: MockClock) -> None:
    async with open_server(two_halves) as server:
        begun = (await server.request("POST", "/v1/responses", ASK | {"background": True})).json
        assert begun["status"] == "in_progress"
        now = (await server.request("GET", f"/v1/responses/{begun['id']}")).json
        assert now["status"] == "in_progress"
        await trio.sleep(10)
        then = (await server.request("GET", f"/v1/responses/{begun['id']}")).json
        assert (then["status"], then["output"][0]["content"][0]["text"]) == ("completed", "first second")
        await server.request("POST", "/v1/responses", ASK | {"previous_response_id": begun["id"]})
        assert [each.text for each in server.engine.requests[1].messages] == ["hi", "first second", "hi"]  # type: ignore[union-attr]


async def test_head_has_no_body_whatever_the_query_says() -> None:
    """A client or proxy would take the body for the response to its next request."""
    async with open_server() as server, await server.connect() as client:
        whole = (await server.request("POST", "/v1/responses", ASK)).json
        head = f"HEAD /v1/responses/{whole['id']}?stream=true HTTP/1.1\r\nhost: localhost\r\n"
        await client.send(f"{head}connection: close\r\n\r\n".encode())
        answer = await client.until_closed()
        assert answer.startswith(b"HTTP/1.1 200 ")
        assert answer.index(b"\r\n\r\n") == len(answer) - 4


@pytest.mark.parametrize("over", ["http", "websocket"])
async def test_a_background_stream_survives_its_client_and_resumes_where_it_was(
    over: str, jumping_clock: MockClock
) -> None:
    async with open_server(two_halves) as server:
        seen: list[dict[str, Any]] = []
        async with connected(server) as ws:
            await ws.create(background=True)
            while text_of(seen) != "first ":
                seen.append(await ws.event())
        await trio.sleep(1)
        assert server.engine.open_runs == 1, "leaving does not cancel it"
        response_id, after = ids(seen), seen[-1]["sequence_number"]
        if over == "http":
            target = f"/v1/responses/{response_id}?stream=true&starting_after={after}"
            rest = (await server.request("GET", target)).events[:-1]
        else:
            async with connected(server) as ws:
                await ws.send(
                    {"type": "response.resume", "response_id": response_id, "starting_after": after, "stream_id": "r"}
                )
                rest = await ws.response()
                assert {each["stream_id"] for each in rest} == {"r"}
        assert text_of([*seen, *rest]) == "first second"
        numbers = [each["sequence_number"] for each in [*seen, *rest]]
        assert numbers == sorted(set(numbers))
        assert rest[-1]["type"] == "response.completed"


@given(st.integers(-1, 30), st.integers(1, 25))
def test_any_point_of_a_stream_can_be_resumed_from(after: int, pieces: int) -> None:
    """What was seen up to a number and what comes after it are the whole, without gap or repetition."""

    async def main() -> None:
        async with open_server(saying(*(f"<{number}>" for number in range(pieces)))) as server:
            whole = (await server.request("POST", "/v1/responses", ASK | {"stream": True})).events[:-1]
            target = f"/v1/responses/{ids(whole)}?stream=true&starting_after="
            # Deltas may be joined in one stream and not in another, so the text up to a number is taken from a stream
            # that was resumed at each number.
            rest = (await server.request("GET", f"{target}{after}")).events[:-1]
            assert all(each["sequence_number"] > after for each in rest[:-1])
            assert rest[-1] == whole[-1], "the end is told again to whom has seen it"
            full = "".join(f"<{number}>" for number in range(pieces))
            before_deltas = 4
            first = max(0, after - before_deltas + 1)
            assert text_of(rest) == "".join(f"<{number}>" for number in range(first, pieces))
            assert whole[-1]["response"]["output"][0]["content"][0]["text"] == full

    trio.run(main)


async def test_resuming_what_has_ended_gives_the_end() -> None:
    async with open_server() as server, connected(server) as ws:
        await ws.create()
        events = await ws.response()
        await ws.send({"type": "response.resume", "response_id": ids(events), "starting_after": 4})
        rest = await ws.response()
        assert rest[0]["sequence_number"] > 4
        assert rest[-1] == events[-1]
        await ws.send({"type": "response.resume", "response_id": ids(events)})
        assert text_of(await ws.response()) == "Hello"


@pytest.mark.parametrize("background", [True, False])
async def test_cancel_over_http_stops_a_live_response_and_says_what_there_was(background: bool) -> None:
    async with open_server(hanging) as server, connected(server) as ws:
        await ws.create(background=background)
        seen: list[dict[str, Any]] = []
        while not text_of(seen):
            seen.append(await ws.event())
        reply = await server.request("POST", f"/v1/responses/{ids(seen)}/cancel")
        assert reply.json["status"] == "cancelled"
        assert reply.json["output"][0]["content"][0]["text"] == "so far"
        assert (await ws.response())[-1]["response"]["status"] == "cancelled"
        assert (await server.request("POST", f"/v1/responses/{ids(seen)}/cancel")).json["status"] == "cancelled"


async def test_cancel_of_what_has_ended_changes_nothing() -> None:
    async with open_server() as server:
        whole = (await server.request("POST", "/v1/responses", ASK)).json
        assert (await server.request("POST", f"/v1/responses/{whole['id']}/cancel")).json == whole


async def test_delete_forgets_and_stops() -> None:
    async with open_server(saying("a"), silent) as server:
        done = (await server.request("POST", "/v1/responses", ASK)).json["id"]
        live = (await server.request("POST", "/v1/responses", ASK | {"background": True})).json["id"]
        for response_id in (done, live):
            reply = await server.request("DELETE", f"/v1/responses/{response_id}")
            assert reply.json == {"id": response_id, "object": "response", "deleted": True}
            assert (await server.request("GET", f"/v1/responses/{response_id}")).status == 404
        await server.engine.until(lambda: server.engine.open_runs == 0, seconds=1)


@pytest.mark.parametrize("after", ["x", "1.5", "--1", "9" * 40, ""])
async def test_a_cursor_that_is_none_is_refused(after: str) -> None:
    async with open_server() as server:
        whole = (await server.request("POST", "/v1/responses", ASK)).json
        reply = await server.request("GET", f"/v1/responses/{whole['id']}?stream=true&starting_after={after}")
        assert reply.status == (200 if after == "" else 400)


async def test_a_failed_response_can_be_looked_at() -> None:
    from llm_protocol.failures import Failure, FailureKind

    async def breaking(run: Run) -> None:
        begin_text(run)
        add_text(run, "half")
        run.fail(Failure(kind=FailureKind.CRASHED, message="it broke", partial=True))

    async with open_server(breaking) as server:
        events = (await server.request("POST", "/v1/responses", ASK | {"stream": True})).events
        found = (await server.request("GET", f"/v1/responses/{ids(events)}")).json
        assert (found["status"], found["error"]["code"]) == ("failed", "server_error")
        assert found["output"][0]["content"][0]["text"] == "half"
