"""What a stream told and what is found under the response's id are one and the same, however it ended."""

from __future__ import annotations

from typing import Any

import pytest
import trio
from trio.testing import MockClock

from llm_actors.run import Run
from llm_protocol.content import Text, ToolCall
from llm_protocol.events import (
    Failed,
    Finished,
    ItemDone,
    ItemStarted,
    Restarted,
    ToolCallDelta,
    UsageReported,
)
from llm_protocol.failures import Failure, FailureKind
from llm_protocol.response import FinishReason, Usage
from support.server import Script, add_text, begin_text, hanging, open_server, saying
from support.ws import WsClient, connected, ids, text_of

ASK = {"model": "m", "input": "hi"}


def failing(kind: FailureKind) -> Script:
    async def script(run: Run) -> None:
        begin_text(run)
        add_text(run, "half")
        run.log.append(UsageReported(Usage(input_tokens=7, output_tokens=5, estimated=True)))
        failure = Failure(kind=kind, message="it broke", partial=True)
        run.log.append(Failed(failure=failure, response=run.folded(provider="fake")))

    return script


async def cut_at_its_length(run: Run) -> None:
    begin_text(run)
    add_text(run, "text")
    run.log.append(ItemDone(index=0, part=Text("text")))
    run.log.append(ItemStarted(index=1, kind="tool_call", id="call_2", name="g"))
    run.log.append(ToolCallDelta(1, '{"b":'))
    run.log.append(UsageReported(Usage(input_tokens=7, output_tokens=5)))
    run.log.append(Finished(reason=FinishReason.LENGTH, response=run.folded()))


async def text_cut_at_its_length(run: Run) -> None:
    begin_text(run)
    add_text(run, "text")
    run.log.append(ItemDone(index=0, part=Text("text")))
    run.log.append(UsageReported(Usage(input_tokens=7, output_tokens=5)))
    run.log.append(Finished(reason=FinishReason.LENGTH, response=run.folded()))


async def said_again(run: Run) -> None:
    begin_text(run)
    add_text(run, "void")
    run.log.append(Restarted())
    await saying("again")(run)


async def calls_a_tool(run: Run) -> None:
    begin_text(run)
    call = ToolCall(id="call_1", name="f", arguments="{}")
    run.log.append(ItemDone(index=0, part=Text("let me look")))
    run.log.append(ItemStarted(index=1, kind="tool_call", id="call_1", name="f"))
    run.log.append(ItemDone(index=1, part=call))
    run.log.append(Finished(reason=FinishReason.TOOL_CALLS, response=run.folded()))


ENDS: dict[str, Script] = {
    "whole": saying("Hel", "lo"),
    "a call cut": cut_at_its_length,
    "a text cut": text_cut_at_its_length,
    "said again": said_again,
    "a tool": calls_a_tool,
    "failed": failing(FailureKind.TRUNCATED),
    "out of time": failing(FailureKind.DEADLINE),
    "cancelled": hanging,
}


async def told(ws: WsClient, response_id: str | None = None) -> list[dict[str, Any]]:
    """All events of a response, which is cancelled if it hangs."""
    events: list[dict[str, Any]] = []
    while not events or events[-1]["type"] not in ("response.completed", "response.incomplete", "response.failed"):
        events.append(await ws.event())
        if text_of(events) == "so far" and "cancelled" not in str(events) and events[-1]["type"].endswith(".delta"):
            await ws.send({"type": "response.cancel"})
    return [each for each in events if each["type"] != "llm-runtime:cancelled"]


@pytest.mark.parametrize("end", ENDS)
async def test_stream_resume_and_get_agree(end: str) -> None:
    async with open_server(ENDS[end]) as server, connected(server) as ws:
        await ws.create()
        events = await told(ws)
        last = events[-1]
        url = f"/v1/responses/{ids(events)}"
        assert (await server.request("GET", url)).json == last["response"]
        ended: list[Any] = []
        for each in events:
            if each["type"] == "llm-runtime:restarted":
                ended.clear()
            elif each["type"] == "response.output_item.done":
                ended.append(each["item"])
        output = last["response"]["output"]
        assert ended == [item for item in output if item["status"] == "completed" or item in ended]
        assert all(item["status"] == "incomplete" for item in output if item not in ended)
        for after in (*range(-1, last["sequence_number"] + 1), last["sequence_number"] + 1, 10**9):
            over_http = await server.request("GET", f"{url}?stream=true&starting_after={after}")
            assert over_http.status == 200
            assert over_http.events[-2:] == [last, "[DONE]"], "nothing ends in silence"
            await ws.send({"type": "response.resume", "response_id": ids(events), "starting_after": after})
            assert (await ws.response())[-1] == last


@pytest.mark.parametrize("end", [name for name in ENDS if name not in ("cancelled", "failed", "out of time")])
async def test_an_answer_that_comes_whole_is_the_same(end: str) -> None:
    async with open_server(ENDS[end]) as server:
        whole = (await server.request("POST", "/v1/responses", ASK)).json
        assert (await server.request("GET", f"/v1/responses/{whole['id']}")).json == whole
        after = f"/v1/responses/{whole['id']}?stream=true"
        assert (await server.request("GET", after)).events[-2]["response"] == whole


async def test_a_call_that_was_cut_is_there_and_incomplete() -> None:
    async with open_server(cut_at_its_length) as server:
        whole = (await server.request("POST", "/v1/responses", ASK)).json
        assert (whole["status"], whole["incomplete_details"]) == ("incomplete", {"reason": "max_output_tokens"})
        message, call = whole["output"]
        assert message["status"] == "completed"
        assert (call["type"], call["call_id"], call["name"], call["arguments"], call["status"]) == (
            "function_call", "call_2", "g", '{"b":', "incomplete",
        )  # fmt: skip


@pytest.mark.parametrize("kind", [FailureKind.TRUNCATED, FailureKind.DEADLINE, FailureKind.RATE_LIMITED])
async def test_what_a_failed_answer_took_is_told_and_marked_as_estimated(kind: FailureKind) -> None:
    async with open_server(failing(kind)) as server, connected(server) as ws:
        await ws.create()
        body = (await ws.response())[-1]["response"]
        assert (body["usage"]["input_tokens"], body["usage"]["output_tokens"]) == (7, 5)
        assert body["llm_runtime"]["usage_estimated"] is True
        assert body["error"]["code"] in ("server_error", "rate_limit_exceeded", "invalid_prompt")
        assert body["llm_runtime"]["error"]["kind"] == kind


# -- resuming ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("over", ["http", "websocket"])
async def test_a_cursor_beyond_what_a_running_response_has_said_is_an_error(over: str) -> None:
    async with open_server(hanging) as server, connected(server) as ws, connected(server) as other:
        await ws.create()
        events = [await ws.event()]
        while not text_of(events):
            events.append(await ws.event())
        last = events[-1]["sequence_number"]
        if over == "http":
            url = f"/v1/responses/{ids(events)}?stream=true&starting_after="
            reply = await server.request("GET", f"{url}{last + 1}")
            assert (reply.status, reply.json["error"]["param"]) == (400, "starting_after")
        else:
            asked = {"type": "response.resume", "response_id": ids(events)}
            await other.send(asked | {"starting_after": last + 1})
            error = await other.event()
            assert (error["status"], error["error"]["param"]) == (400, "starting_after")
            await other.send(asked | {"starting_after": last})
            await ws.send({"type": "response.cancel"})
            assert (await other.response())[-1]["response"]["status"] == "cancelled"


async def test_a_failed_response_is_resumed_over_http_as_a_stream() -> None:
    async with open_server(failing(FailureKind.RATE_LIMITED)) as server, connected(server) as ws:
        await ws.create()
        events = await ws.response()
        reply = await server.request("GET", f"/v1/responses/{ids(events)}?stream=true&starting_after=1")
        assert reply.status == 200
        assert reply.headers["content-type"].startswith("text/event-stream")
        assert [each if each == "[DONE]" else each["type"] for each in reply.events][-2:] == [
            "response.failed",
            "[DONE]",
        ]


# -- deleting ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("store", [True, False])
async def test_what_is_deleted_is_gone_on_its_own_connection_too(store: bool) -> None:
    async with open_server() as server, connected(server) as ws:
        await ws.create(store=store)
        response_id = ids(await ws.response())
        url = f"/v1/responses/{response_id}"
        assert (await server.request("DELETE", url)).json == {"id": response_id, "object": "response", "deleted": True}
        await ws.send({"type": "response.resume", "response_id": response_id})
        assert (await ws.event())["error"]["code"] == "response_not_found"
        await ws.create("more", previous_response_id=response_id)
        assert (await ws.event())["error"]["code"] == "previous_response_not_found"
        for method in ("GET", "DELETE"):
            assert (await server.request(method, url)).status == 404


@pytest.mark.parametrize("store", [True, False])
async def test_what_is_too_old_is_gone_on_its_own_connection_too(store: bool, jumping_clock: MockClock) -> None:
    async with open_server(stored_s=10.0) as server, connected(server) as ws:
        await ws.create(store=store)
        response_id = ids(await ws.response())
        await trio.sleep(8)
        await ws.create("more", previous_response_id=response_id, store=False)
        assert (await ws.response())[-1]["type"] == "response.completed"
        await trio.sleep(4)
        await ws.create("more", previous_response_id=response_id)
        assert (await ws.event())["error"]["code"] == "previous_response_not_found"


async def test_nobody_else_deletes_what_a_connection_alone_remembers() -> None:
    keys = {"alice": "sk-a", "bob": "sk-b"}
    async with open_server(keys=keys) as server, connected(server, authorization="Bearer sk-a") as ws:
        await ws.create(store=False)
        url = f"/v1/responses/{ids(await ws.response())}"
        assert (await server.request("DELETE", url, authorization="Bearer sk-b")).status == 404
        assert (await server.request("GET", url, authorization="Bearer sk-a")).status == 404, "it is not stored"
        assert (await server.request("DELETE", url, authorization="Bearer sk-a")).status == 200


# -- chains -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("over", ["http", "websocket"])
async def test_a_chain_that_skips_tool_outputs_is_refused(over: str) -> None:
    output = {"type": "function_call_output", "call_id": "call_1", "output": "42"}
    async with open_server(calls_a_tool, saying("so")) as server, connected(server) as ws:
        await ws.create()
        previous = {"previous_response_id": ids(await ws.response())}
        if over == "http":
            reply = await server.request("POST", "/v1/responses", ASK | previous)
            assert reply.status == 400
            error = reply.json["error"]
        else:
            await ws.create("go on", **previous)
            error = (await ws.event())["error"]
        assert error["message"] == "No tool output found for function call call_1."
        assert (error["type"], error["param"]) == ("invalid_request_error", "input")
        await ws.send({"type": "response.create", "model": "m", "input": [output], **previous})
        events = await ws.response()
        assert text_of(events) == "so"
        await ws.create("and now?", previous_response_id=ids(events))
        assert (await ws.response())[-1]["type"] == "response.completed", "the output is in the conversation"
