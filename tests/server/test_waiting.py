"""Requests that wait for their turn on a WebSocket: they have an id, can be withdrawn, and weigh so much at most."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

import pytest
import trio

from llm_runtime.server.limits import UNSAID_BYTES
from support.server import OpenServer, hanging, open_server, saying
from support.ws import WsClient, connected, handshake, ids, text_of, upgrade

MIB = 1024 * 1024


async def queued(ws: WsClient, text: str = "later", **fields: Any) -> dict[str, Any]:
    """Ask for what has to wait; what is told of it."""
    await ws.create(text, **fields)
    while (event := await ws.event())["type"] != "response.queued":
        pass
    return event


async def until(ws: WsClient, kind: str) -> dict[str, Any]:
    with trio.fail_after(5):
        while (event := await ws.event())["type"] != kind:
            pass
    return event


async def busy(ws: WsClient, server: OpenServer) -> None:
    """One is being answered on the default lane, without an end."""
    await ws.create()
    await until(ws, "response.output_text.delta")
    assert server.engine.open_runs == 1


async def test_who_has_to_wait_is_told_the_id_under_which_it_will_be_answered() -> None:
    async with open_server(hanging, saying("on")) as server, connected(server) as ws:
        await busy(ws, server)
        told = await queued(ws, metadata={"k": "v"})
        assert told["response"]["status"] == "queued"
        assert told["response"]["metadata"] == {"k": "v"}
        assert told["sequence_number"] == -1, "its stream has not begun"
        found = (await server.request("GET", f"/v1/responses/{ids([told])}")).json
        assert found == told["response"]
        await ws.send({"type": "response.cancel"})
        await until(ws, "response.incomplete")
        events = await ws.response()
        assert events[0]["type"] == "response.created"
        assert (events[0]["sequence_number"], ids(events)) == (0, ids([told]))
        assert text_of(events) == "on"


async def test_who_need_not_wait_is_told_nothing_of_it() -> None:
    async with open_server() as server, connected(server) as ws:
        for lane in ({}, {"stream_id": "a"}):
            await ws.create(**lane)
            assert (await ws.event())["type"] == "response.created"
            await until(ws, "response.completed")


@pytest.mark.parametrize("way", ["same", "other", "http", "delete"])
async def test_what_waits_can_be_withdrawn_from_anywhere(way: str) -> None:
    async with open_server(hanging, saying("on")) as server, connected(server) as ws, connected(server) as other:
        await busy(ws, server)
        response_id = ids([await queued(ws)])
        asked = {"type": "response.cancel", "response_id": response_id, "event_id": "e"}
        if way in ("same", "other"):
            by = ws if way == "same" else other
            await by.send(asked)
            told = await until(by, "llm-runtime:cancelled")
            assert (told["response_id"], told["event_id"]) == (response_id, "e")
        elif way == "http":
            reply = await server.request("POST", f"/v1/responses/{response_id}/cancel")
            assert (reply.status, reply.json["status"], reply.json["id"]) == (200, "cancelled", response_id)
        else:
            assert (await server.request("DELETE", f"/v1/responses/{response_id}")).json["deleted"] is True
        end = await until(ws, "response.incomplete")
        assert (end["response"]["id"], end["response"]["status"]) == (response_id, "cancelled")
        assert (await server.request("GET", f"/v1/responses/{response_id}")).status == 404
        await ws.send({"type": "response.cancel"})
        await until(ws, "response.incomplete")
        await ws.create("again")
        assert text_of(await ws.response()) == "on"
        assert [each.messages[0].text for each in server.engine.requests] == ["hi", "again"]  # type: ignore[union-attr]


async def test_cancelling_a_lane_withdraws_what_waits_there_where_nothing_is_active() -> None:
    async with open_server(hanging, saying("on"), websocket_responses=1) as server, connected(server) as ws:
        await busy(ws, server)
        told = await queued(ws, stream_id="a")
        await ws.send({"type": "response.cancel", "stream_id": "a"})
        assert (await until(ws, "llm-runtime:cancelled"))["response_id"] == ids([told])
        end = await until(ws, "response.incomplete")
        assert (end["stream_id"], ids([end])) == ("a", ids([told]))
        await ws.send({"type": "response.cancel", "stream_id": "a"})
        assert (await until(ws, "error"))["error"]["code"] == "response_not_found"


async def test_what_waits_is_found_after_a_vain_try_to_resume_it() -> None:
    async with open_server(hanging) as server, connected(server) as ws, connected(server) as other:
        await busy(ws, server)
        response_id = ids([await queued(ws)])
        for by in (ws, other):
            await by.send({"type": "response.resume", "response_id": response_id, "stream_id": "r"})
            assert (await until(by, "error"))["error"]["code"] == "response_not_found"
        assert (await server.request("GET", f"/v1/responses/{response_id}")).json["status"] == "queued"


@pytest.mark.parametrize("background", [True, False])
async def test_what_is_being_made_is_cancelled_by_its_id_from_another_connection(background: bool) -> None:
    async with open_server(hanging) as server, connected(server) as ws, connected(server) as other:
        await ws.create(background=background)
        response_id = ids([await ws.event()])
        await until(ws, "response.output_text.delta")
        await other.send({"type": "response.cancel", "response_id": response_id})
        assert (await other.event())["response_id"] == response_id
        assert (await until(ws, "response.incomplete"))["response"]["status"] == "cancelled"
        await other.send({"type": "response.cancel", "response_id": response_id})
        assert (await other.event())["error"]["code"] == "response_not_found", "it is over"


async def test_what_waits_is_its_callers_alone() -> None:
    keys = {"alice": "sk-a", "bob": "sk-b"}
    async with open_server(hanging, keys=keys) as server, connected(server, authorization="Bearer sk-a") as ws:
        await busy(ws, server)
        response_id = ids([await queued(ws)])
        bob = {"authorization": "Bearer sk-b"}
        async with connected(server, **bob) as his:
            await his.send({"type": "response.cancel", "response_id": response_id})
            assert (await his.event())["error"]["code"] == "response_not_found"
        for method, path in (("GET", ""), ("DELETE", ""), ("POST", "/cancel")):
            assert (await server.request(method, f"/v1/responses/{response_id}{path}", **bob)).status == 404


async def test_a_connection_that_ends_takes_what_waits_with_it() -> None:
    async with open_server(hanging) as server:
        async with connected(server) as ws:
            await busy(ws, server)
            response_id = ids([await queued(ws)])
        await server.engine.until(lambda: server.engine.open_runs == 0)
        assert (await server.request("GET", f"/v1/responses/{response_id}")).status == 404


async def test_what_waits_on_one_connection_has_so_many_bytes() -> None:
    """In one message more than the limit waits alone; what comes behind it is refused until there is room."""
    async with open_server(hanging, websocket_queue_mb=1.0) as server, connected(server) as ws:
        await busy(ws, server)
        for _ in range(3):
            await queued(ws, "x" * (MIB // 3 - 200))
        await ws.create("y" * 1_000)
        refused = await until(ws, "error")
        assert (refused["status"], refused["error"]["code"]) == (429, "queue_full")
        assert "1 MB" in refused["error"]["message"]
        await ws.create("z" * 10)
        assert (await ws.event())["type"] == "response.queued", "there is room for that"


async def test_who_asks_and_withdraws_without_reading_is_closed() -> None:
    """What is told of a request that waits repeats what it said, so it is bounded by bytes, too."""
    large = {"type": "response.create", "model": "m", "input": "x", "instructions": "i" * 3 * MIB, "stream_id": "a"}
    async with open_server(hanging, websocket_responses=1) as server:
        http = await server.connect(receive_buffer=4096)
        ws = await upgrade(http, handshake())
        await busy(ws, server)
        sent = 0
        with suppress(trio.BrokenResourceError):
            for _ in range(40):
                await ws.send(large, {"type": "response.cancel", "stream_id": "a"})
                sent += 1
        assert UNSAID_BYTES // (6 * MIB) <= sent < 20
        await server.engine.until(lambda: server.engine.open_runs == 0)


async def test_one_that_waits_alone_may_be_larger() -> None:
    async with open_server(hanging, websocket_queue_mb=0.001) as server, connected(server) as ws:
        await busy(ws, server)
        await queued(ws, "x" * 10_000)
        await ws.create("y")
        assert (await until(ws, "error"))["error"]["code"] == "queue_full"
        await ws.send({"type": "response.cancel"})
        await until(ws, "response.incomplete")
        await until(ws, "response.output_text.delta")
        await queued(ws, "z" * 10_000)
