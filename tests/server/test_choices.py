"""Several choices in one response: ``n``, and completions of several prompts."""

from __future__ import annotations

import json
from typing import Any

import pytest

from llm_protocol.policy import Policy
from llm_protocol.requests import LLMProvider
from support.callers import Served, served
from support.peer import Call, Step, reply, sse, stall
from support.upstream import HELLO, JSON, chunk, whole, word

CHAT: dict[str, Any] = {"model": "cheap/small", "messages": [{"role": "user", "content": "hi"}]}
USAGE = {"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5}


def _in_turn(*steps: Step) -> Step:
    """Each call gets another of ``steps``, the last one again."""
    left = list(steps)

    async def step(call: Call) -> None:
        await (left.pop(0) if len(left) > 1 else left[0])(call)

    return step


def _said(text: str) -> Step:
    return reply(whole(text), headers=JSON)


def _streamed(*words: str, usage: bool = True) -> Step:
    counts = (json.dumps({"id": "x", "object": "chat.completion.chunk", "choices": [], "usage": USAGE}),)
    return sse(*map(word, words), chunk(finish="stop"), *(counts if usage else ()), "[DONE]")


async def _events(daemon: Served, body: dict[str, Any]) -> list[Any]:
    got = await daemon.ask("me", "POST", "/v1/chat/completions", {**body, "stream": True})
    assert got.status == 200, got.body
    assert got.events[-1] == "[DONE]"
    return got.events[:-1]


async def test_each_choice_is_a_call_of_its_own() -> None:
    async with served(vendor=_in_turn(_said("one"), _said("two"), _said("three")), me={}) as daemon:
        got = await daemon.ask("me", "POST", "/v1/chat/completions", {**CHAT, "n": 3, "llm_runtime": {}})
        body = json.loads(got.body)
        assert [choice["index"] for choice in body["choices"]] == [0, 1, 2]
        assert {choice["message"]["content"] for choice in body["choices"]} == {"one", "two", "three"}
        assert {choice["finish_reason"] for choice in body["choices"]} == {"stop"}
        each = json.loads(whole("one"))["usage"]
        assert body["usage"]["total_tokens"] == 3 * each["total_tokens"]
        assert daemon.asked() == {"cheap": 3}
        assert all("n" not in json.loads(call.body) for call in daemon.vendors["cheap"].requests)
        assert got.headers["x-llm-runtime-attempts"] == "3"
        assert got.headers["x-llm-runtime-adjusted"] == '"n";action=emulated;to="3 requests"'
        assert body["llm_runtime"]["adjusted"] == [{"parameter": "n", "action": "emulated", "to": "3 requests"}]


async def test_a_stream_tells_the_choices_by_their_index() -> None:
    async with served(vendor=_in_turn(_streamed("o", "ne"), _streamed("two")), me={}) as daemon:
        events = await _events(daemon, {**CHAT, "n": 2, "stream_options": {"include_usage": True}})
        assert len({event["id"] for event in events}) == 1
        texts = {0: "", 1: ""}
        ended = {}
        for event in events:
            for choice in event["choices"]:
                texts[choice["index"]] += choice["delta"].get("content") or ""
                if choice["finish_reason"]:
                    ended[choice["index"]] = choice["finish_reason"]
        assert sorted(texts.values()) == ["one", "two"]
        assert ended == {0: "stop", 1: "stop"}
        counts = [event["usage"] for event in events if event.get("usage")]
        assert [(each["prompt_tokens"], each["completion_tokens"]) for each in counts] == [(6, 4)]
        assert events[-1]["choices"] == []


async def test_one_choice_is_as_without_n() -> None:
    async with served(vendor=_said("one"), me={}) as daemon:
        got = await daemon.ask("me", "POST", "/v1/chat/completions", {**CHAT, "n": 1})
        assert len(json.loads(got.body)["choices"]) == 1
        assert "x-llm-runtime-adjusted" not in got.headers


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
async def test_the_first_failure_ends_all(stream: bool) -> None:
    """The others' connections are cut, and what fails is what the client is told."""
    refused = reply(b'{"error": {"message": "no such thing", "type": "invalid_request_error"}}', 400, JSON)
    async with served(vendor=_in_turn(refused, stall()), me={}) as daemon:
        got = await daemon.ask("me", "POST", "/v1/chat/completions", {**CHAT, "n": 3, "stream": stream})
        assert (got.status, json.loads(got.body)["error"]["message"]) == (400, "cheap/small: no such thing")
        vendor = daemon.vendors["cheap"]
        await vendor.until(lambda: vendor.aborted == len(vendor.requests) - 1)


async def test_a_client_that_leaves_ends_all() -> None:
    async with served(vendor=[sse(*HELLO, end=False), stall()], me={}) as daemon:
        vendor = daemon.vendors["cheap"]
        async with await daemon.connect() as client:
            body = {**CHAT, "n": 3, "stream": True}
            await client.begin("POST", "/v1/chat/completions", body, authorization="Bearer sk-me")
            await vendor.until(lambda: len(vendor.requests) == 3)
        await vendor.until(lambda: vendor.aborted == 3)


@pytest.mark.parametrize(("n", "status"), [(0, 400), (-1, 400), (129, 400), ("2", 400), (None, 200)])
async def test_a_number_that_is_none(n: object, status: int) -> None:
    async with served(vendor=_said("one"), me={}) as daemon:
        got = await daemon.ask("me", "POST", "/v1/chat/completions", {**CHAT, "n": n})
        assert got.status == status
        assert status == 200 or json.loads(got.body)["error"]["param"] == "n"


async def test_choices_share_the_budget_and_are_never_from_the_cache() -> None:
    """Of a route and of the request alike."""
    routes = {"small": Policy(candidates=("cheap/small",), cache="read", max_tokens=300)}
    async with served(vendor=_in_turn(_said("one"), _said("two")), routes=routes, me={}) as daemon:
        got = await daemon.ask("me", "POST", "/v1/chat/completions", {**CHAT, "model": "small", "n": 2})
        assert {each["message"]["content"] for each in json.loads(got.body)["choices"]} == {"one", "two"}
        limits = [json.loads(call.body)["max_tokens"] for call in daemon.vendors["cheap"].requests]
        assert all(limit < 150 for limit in limits)


async def test_idempotency_keys_differ_and_are_the_same_on_a_retry() -> None:
    async with served(vendor=_said("one"), me={}) as daemon:
        for _ in range(2):
            await daemon.ask("me", "POST", "/v1/chat/completions", {**CHAT, "n": 2}, **{"idempotency-key": "k"})
        keys = [call.headers["idempotency-key"] for call in daemon.vendors["cheap"].requests]
        assert sorted(keys[:2]) == sorted(keys[2:])
        assert len(set(keys)) == 2


async def test_completions_of_several_prompts() -> None:
    """As LangChain's ``OpenAI`` asks: the choices of the first prompt come first."""

    async def echo(call: Call) -> None:
        assert call.request is not None
        asked = json.loads(call.request.body)
        text = asked.get("prompt") or asked["messages"][-1]["content"]
        done = {
            "id": "x",
            "object": "text_completion",
            "choices": [{"index": 0, "text": text, "finish_reason": "stop"}],
        }
        await reply(json.dumps({**done, "usage": USAGE}).encode(), headers=JSON)(call)

    async with served(kind=LLMProvider.OPENAI_COMPATIBLE, vendor=echo, me={}) as daemon:
        body = {"model": "cheap/small", "prompt": ["a", "b"], "n": 2}
        got = json.loads((await daemon.ask("me", "POST", "/v1/completions", body)).body)
        assert [(each["index"], each["text"]) for each in got["choices"]] == [(0, "a"), (1, "a"), (2, "b"), (3, "b")]
        assert got["usage"]["total_tokens"] == 20


async def test_tool_calls_of_each_choice() -> None:
    call = {"index": 0, "id": "c", "type": "function", "function": {"name": "f", "arguments": "{}"}}
    stream = sse(chunk({"tool_calls": [call]}), chunk(finish="tool_calls"), "[DONE]")
    tools = [{"type": "function", "function": {"name": "f", "parameters": {}}}]
    async with served(vendor=stream, me={}) as daemon:
        events = await _events(daemon, {**CHAT, "n": 2, "tools": tools})
        calls = {
            choice["index"]
            for event in events
            for choice in event["choices"]
            for each in choice["delta"].get("tool_calls", ())
            if each.get("id")
        }
        assert calls == {0, 1}
