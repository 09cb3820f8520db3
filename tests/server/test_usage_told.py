"""What an answer took is told over the Responses API however it ended: counted by the vendor, or estimated."""

from __future__ import annotations

import json
from typing import Any

import pytest

from support.attempts import answering, breaking, status, tokens
from support.served import served
from support.ws import connected, ids, text_of

ASK: dict[str, Any] = {"llm_runtime": {"candidates": ["a/m-a"], "strategy": "fallback", "attempts": {"max": 1}}}


def has_usage(body: dict[str, Any], *, estimated: bool) -> None:
    assert body["usage"]["output_tokens"] > 0
    assert body["usage"]["input_tokens"] > 0
    assert body["usage"]["total_tokens"] == body["usage"]["input_tokens"] + body["usage"]["output_tokens"]
    assert body["llm_runtime"]["usage_estimated"] is estimated


async def test_a_cancelled_answer_tells_what_it_took() -> None:
    async with served(a=[answering(gap=0.3)]) as (_, server), connected(server) as ws:
        await ws.create(model="auto", **ASK)
        events = [await ws.event()]
        while not text_of(events):
            events.append(await ws.event())
        await ws.send({"type": "response.cancel"})
        last = (await ws.response())[-1]
        assert last["response"]["status"] == "cancelled"
        has_usage(last["response"], estimated=True)
        assert (await server.request("GET", f"/v1/responses/{ids(events)}")).json == last["response"]


@pytest.mark.parametrize("script", ["cut", "silent"])
async def test_a_failed_answer_tells_what_it_took(script: str) -> None:
    steps = {"cut": breaking(end=True), "silent": breaking()}
    async with served(a=[steps[script]]) as (_, server), connected(server) as ws:
        await ws.create(model="auto", **ASK)
        last = (await ws.response())[-1]
        assert last["response"]["status"] == "failed"
        has_usage(last["response"], estimated=True)
        assert last["response"]["llm_runtime"]["error"]["kind"] in ("truncated", "timeout_idle")


async def test_a_whole_answer_tells_what_the_vendor_counted() -> None:
    async with served(a=[answering()]) as (_, server), connected(server) as ws:
        await ws.create(model="auto", **ASK)
        body = (await ws.response())[-1]["response"]
        has_usage(body, estimated=False)
        assert body["usage"]["input_tokens"] == tokens("a").input_tokens


async def test_what_was_never_begun_took_nothing() -> None:
    async with served(a=[status(400)]) as (_, server), connected(server) as ws:
        await ws.create(model="auto", **ASK)
        assert "usage" not in json.dumps([each for each in await ws.response() if each["type"] == "error"])


async def test_a_surrogate_pair_that_is_split_over_two_chunks_arrives_whole() -> None:
    halves = [
        '{"choices":[{"index":0,"delta":{"content":"a\\ud83d"}}]}',
        '{"choices":[{"index":0,"delta":{"content":"\\ude00b"}}]}',
    ]
    end = '{"choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}'
    async with served(a=[breaking(*halves, end, "[DONE]", words=0)]) as (_, server), connected(server) as ws:
        await ws.create(model="auto", **ASK)
        events = await ws.response()
        assert text_of(events) == "a😀b"
        found = (await server.request("GET", f"/v1/responses/{ids(events)}")).json
        assert found["output"][0]["content"][0]["text"] == "a😀b"
