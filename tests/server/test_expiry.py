"""A key that has expired is like one that was never known, at every endpoint; a response under way goes on."""

from __future__ import annotations

import re
import time
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import trio
from trio.testing import MockClock

from llm_actors.run import Run
from llm_protocol.events import Finished
from llm_runtime.server.routes import ROUTES
from support.callers import served
from support.server import Reply, add_text, begin_text, end_text, hanging, open_server, saying
from support.ws import connected, handshake, ids, text_of

NOW = 1.9e9
KEYS = {"alice": "sk-alice", "bob": "sk-bob"}
ALICE, BOB = ({"authorization": f"Bearer {key}"} for key in KEYS.values())
ASK = {"model": "m", "input": "hi"}
NEEDS_KEY = [(each.method, re.sub(r"{.*}", "x", each.pattern)) for each in ROUTES if not (each.open or each.keyless)]


class Wall:
    """The wall clock, as somebody sets it."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = NOW
        monkeypatch.setattr(time, "time", lambda: self.now)


@pytest.fixture
def wall(monkeypatch: pytest.MonkeyPatch) -> Wall:
    return Wall(monkeypatch)


OF_ONE_ANSWER = ("x-request-id", "request-id", "date")


def said(answer: Reply) -> tuple[int, dict[str, str], bytes]:
    """An answer without what differs from one to the next."""
    return answer.status, {k: v for k, v in answer.headers.items() if k not in OF_ONE_ANSWER}, answer.body


async def slowly(run: Run) -> None:
    """Half an answer, and the rest a while later."""
    begin_text(run)
    add_text(run, "first ")
    await trio.sleep(10)
    add_text(run, "second")
    end_text(run)


async def test_from_its_moment_on_and_not_before(wall: Wall) -> None:
    async with open_server(keys=KEYS, expires={"alice": NOW + 60}) as server:
        wall.now = NOW + 59.9
        assert (await server.request("GET", "/v1/models", **ALICE)).status == 200
        wall.now = NOW + 60
        assert (await server.request("GET", "/v1/models", **ALICE)).status == 401
        assert (await server.request("GET", "/v1/models", **BOB)).status == 200


@pytest.mark.parametrize(("method", "path"), NEEDS_KEY)
async def test_at_every_route_it_is_answered_as_an_unknown_key(wall: Wall, method: str, path: str) -> None:
    async with open_server(keys=KEYS, expires={"alice": NOW}) as server:
        expired = await server.request(method, path, ASK if method == "POST" else None, **ALICE)
        unknown = await server.request(
            method, path, ASK if method == "POST" else None, authorization="Bearer sk-nobody"
        )
        assert said(expired) == said(unknown)
        assert expired.status == 401
        assert server.engine.requests == []


async def test_a_clock_that_jumps_does_nothing_else(wall: Wall, jumping_clock: MockClock) -> None:
    """A key is refused while the wall clock is wrong, and no answer that is being made notices."""
    async with open_server(slowly, saying("later"), keys=KEYS, expires={"alice": NOW + 60}) as server:
        async with await server.connect() as client:
            await client.begin("POST", "/v1/responses", ASK | {"stream": True}, **ALICE)
            await client.head()
            wall.now = NOW + 86_400
            assert (await server.request("GET", "/v1/models", **ALICE)).status == 401
            answer = b""
            while (piece := await client.piece()) is not None:
                answer += piece
            assert b"response.completed" in answer
            wall.now = NOW - 3_600
            assert (await client.request("POST", "/v1/responses", ASK, **ALICE)).status == 200
            assert server.engine.open_runs == 0


async def test_a_background_response_is_finished_and_cannot_be_come_back_to(
    wall: Wall, jumping_clock: MockClock
) -> None:
    async with open_server(slowly, keys=KEYS, expires={"alice": NOW + 60}) as server:
        begun = (await server.request("POST", "/v1/responses", ASK | {"background": True}, **ALICE)).json
        wall.now = NOW + 60
        await trio.sleep(20)
        assert isinstance(server.engine.runs[0].log.end, Finished)
        for method, path in (("GET", ""), ("GET", "?stream=true"), ("POST", "/cancel"), ("DELETE", "")):
            refused = await server.request(method, f"/v1/responses/{begun['id']}{path}", **ALICE)
            assert (refused.status, refused.json["error"]["code"]) == (401, "invalid_api_key")
        wall.now = NOW
        assert (await server.request("GET", f"/v1/responses/{begun['id']}", **ALICE)).json["status"] == "completed"


# ---------------------------------------------------------------- WebSocket


async def test_a_websocket_does_not_begin_with_it(wall: Wall) -> None:
    async with open_server(keys=KEYS, expires={"alice": NOW}) as server, await server.connect() as client:
        await client.send(handshake(**ALICE))
        assert (await client.receive()).startswith(b"HTTP/1.1 401 ")


async def test_an_open_websocket_says_its_answers_to_their_end_and_takes_nothing_new(
    wall: Wall, jumping_clock: MockClock
) -> None:
    async with open_server(slowly, keys=KEYS, expires={"alice": NOW + 60}) as server, connected(server, **ALICE) as ws:
        await ws.create()
        events = [await ws.event()]
        await ws.create("queued behind it")
        wall.now = NOW + 60
        await ws.create("on another lane", stream_id="b")
        await ws.send({"type": "response.resume", "response_id": ids(events)})
        refused: list[dict[str, Any]] = []
        while events[-1]["type"] != "response.completed":
            event = await ws.event()
            (refused if event["type"] == "error" else events).append(event)
        assert text_of(events) == "first second"
        assert [(each["status"], each["error"]["code"]) for each in refused] == [(401, "invalid_api_key")] * 3
        last = await ws.event()
        assert (last["type"], last["error"]["code"]) == ("error", "invalid_api_key")
        assert await ws.close_code() == 1008
        assert len(server.engine.requests) == 1


async def test_what_is_being_answered_can_still_be_cancelled(wall: Wall, jumping_clock: MockClock) -> None:
    async with open_server(hanging, keys=KEYS, expires={"alice": NOW + 60}) as server, connected(server, **ALICE) as ws:
        await ws.create()
        await ws.event()
        wall.now = NOW + 60
        await trio.sleep(5)
        await ws.send({"type": "response.cancel"})
        assert (await ws.response())[-1]["response"]["status"] == "cancelled"
        assert await ws.close_code() == 1008


async def test_an_idle_websocket_is_closed(wall: Wall, jumping_clock: MockClock) -> None:
    async with open_server(keys=KEYS, expires={"alice": NOW + 60}) as server:
        async with connected(server, **ALICE) as hers, connected(server, **BOB) as his:
            await trio.sleep(5)
            wall.now = NOW + 60
            assert (await hers.event())["error"]["code"] == "invalid_api_key"
            assert await hers.close_code() == 1008
            await his.create()
            assert (await his.response())[-1]["type"] == "response.completed"


async def test_the_configuration_says_when() -> None:
    """The whole way from ``[keys.NAME] expires``."""
    now = datetime.now(UTC)
    past, future = now - timedelta(days=1), now + timedelta(days=1)
    async with served(early={"expires": past}, late={"expires": future}, ever={}) as daemon:
        answers = {name: (await daemon.ask(name, "GET", "/v1/models")).status for name in ("early", "late", "ever")}
    assert answers == {"early": 401, "late": 200, "ever": 200}
