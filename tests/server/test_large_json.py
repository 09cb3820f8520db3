"""Large and dense JSON from clients: bounded by an option, read in a thread, refused in words."""

from __future__ import annotations

import json
import threading
from typing import Any

import pytest
import trio

from llm_actors import threads
from llm_actors.threads import LARGE_BYTES, run_large
from support.server import open_server
from support.ws import connected

CHAT = {"model": "fake-1", "messages": [{"role": "user", "content": "hi"}]}
PLACES: dict[str, dict[str, Any]] = {
    "/v1/chat/completions": CHAT,
    "/v1/messages": CHAT | {"max_tokens": 5},
    "/v1/responses": {"model": "fake-1", "input": "hi"},
    "/v1beta/models/fake-1:generateContent": {"contents": [{"parts": [{"text": "hi"}]}]},
    "/v2/chat": CHAT,
}


def with_values(body: dict[str, Any], count: int) -> bytes:
    """The body with a list in it that makes it ``count`` values."""
    text = json.dumps(body | {"extra_list": []}, separators=(",", ":"))
    have = text.count(",") + text.count("[") + text.count("{") + 1
    return text.replace('"extra_list":[]', '"extra_list":[1' + ",1" * (count - have) + "]").encode()


@pytest.mark.parametrize("path", PLACES)
async def test_the_values_of_a_body_and_one_more(path: str) -> None:
    async with open_server(max_json_values=1_000) as server:
        good = await server.request("POST", path, with_values(PLACES[path], 1_000))
        bad = await server.request("POST", path, with_values(PLACES[path], 1_001))

    assert good.status == 200
    assert bad.status == 400
    assert b"more than 1000 values" in bad.body
    assert len(server.engine.requests) == 1


async def test_the_values_of_a_websocket_message_and_one_more() -> None:
    create = {"type": "response.create", "model": "m", "input": "hi"}
    async with open_server(max_json_values=1_000) as server, connected(server) as client:
        await client.send(json.loads(with_values(create, 1_000)))
        assert (await client.response())[-1]["type"] == "response.completed"
        await client.send(json.loads(with_values(create | {"stream_id": "a"}, 1_001)))
        error = await client.event()

    assert "more than 1000 values" in error["error"]["message"]
    assert error["stream_id"] == "a"


async def test_the_limit_may_be_higher_than_the_default() -> None:
    body = with_values(CHAT, 1_200_000)
    async with open_server(max_json_values=1_200_000) as server:
        assert (await server.request("POST", "/v1/chat/completions", body)).status == 200


async def test_fifteen_megabytes_of_empty_lists_are_refused() -> None:
    """They were answered with 200, after other streams had stood still for seven seconds."""
    body = json.dumps(CHAT).encode()[:-1] + b',"x":[' + b"[]," * 5_000_000 + b"1]}"
    async with open_server() as server:
        reply = await server.request("POST", "/v1/chat/completions", body)

    assert reply.status == 400
    assert "lists and objects" in reply.json["error"]["message"]


async def test_a_picture_of_ten_megabytes_is_taken() -> None:
    url = "data:image/png;base64," + "iVBORw0K" * 1_300_000
    content = [{"type": "text", "text": "?"}, {"type": "image_url", "image_url": {"url": url}}]
    async with open_server() as server:
        body = CHAT | {"messages": [{"role": "user", "content": content}]}
        assert (await server.request("POST", "/v1/chat/completions", body)).status == 200


async def test_what_is_large_is_worked_on_in_a_thread_and_what_is_small_is_not() -> None:
    here = threading.get_ident()
    assert await run_large(LARGE_BYTES - 1, threading.get_ident) == here
    assert await run_large(LARGE_BYTES, threading.get_ident) != here


async def test_no_more_than_two_threads_work_on_large_bodies() -> None:
    at_once, most = 0, 0
    lock, gate = threading.Lock(), threading.Event()

    def work() -> None:
        nonlocal at_once, most
        with lock:
            at_once += 1
            most = max(most, at_once)
        gate.wait(5)
        with lock:
            at_once -= 1

    async with trio.open_nursery() as nursery:
        for _ in range(5):
            nursery.start_soon(run_large, LARGE_BYTES, work)
        await trio.testing.wait_all_tasks_blocked(0.05)
        gate.set()

    assert most == threads.LARGE_AT_ONCE


async def test_what_is_raised_in_the_thread_comes_out() -> None:
    with pytest.raises(ValueError, match="invalid literal"):
        await run_large(LARGE_BYTES, int, "x")
