"""``n`` at vendors that give several choices in one response: one call, whose prompt is paid once."""

from __future__ import annotations

import json
from typing import Any

import pytest

from llm_protocol.model_facts import Capabilities
from llm_protocol.policy import AttemptsPatch, Policy
from llm_protocol.requests import LLMProvider
from support.callers import Served, served
from support.peer import Step, reply, sse
from support.upstream import JSON, whole

CHAT: dict[str, Any] = {"model": "cheap/small", "messages": [{"role": "user", "content": "hi"}]}
USAGE = {"prompt_tokens": 3, "completion_tokens": 9, "total_tokens": 12}
CALL = {"id": "c1", "type": "function", "function": {"name": "f", "arguments": '{"a": 1}'}}
TOOLS = [{"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}]
LOGPROBS: dict[str, Any] = {
    "content": [{"token": "two", "logprob": -0.5, "bytes": None, "top_logprobs": []}],
    "refusal": None,
}
OPENAI = LLMProvider.OPENAI
ONCE = AttemptsPatch(max=1)  # else each test waits for retries


def choice(index: int, finish: str = "stop", *, logprobs: Any = None, **message: Any) -> dict[str, Any]:
    said = {"role": "assistant", "content": None, **message}
    return {"index": index, "message": said, "finish_reason": finish, "logprobs": logprobs}


def body_of(*choices: dict[str, Any]) -> Step:
    head = {"id": "c1", "object": "chat.completion", "created": 1, "model": "small"}
    return reply(json.dumps({**head, "choices": choices, "usage": USAGE}).encode(), headers=JSON)


def piece(index: int, delta: dict[str, Any] | None = None, finish: str | None = None, **more: Any) -> str:
    head = {"id": "c1", "object": "chat.completion.chunk", "created": 1, "model": "small"}
    return json.dumps({**head, "choices": [{"index": index, "delta": delta or {}, "finish_reason": finish, **more}]})


def usage() -> str:
    return json.dumps({"id": "c1", "object": "chat.completion.chunk", "choices": [], "usage": USAGE})


THREE = body_of(
    choice(0, content="one"),
    choice(1, "length", content="two", logprobs=LOGPROBS),
    choice(2, "tool_calls", tool_calls=[CALL]),
)
STREAM = (
    piece(1, {"role": "assistant", "content": ""}),
    piece(1, {"content": "t"}),
    piece(0, {"role": "assistant", "content": "o"}),
    piece(2, {"tool_calls": [{"index": 0, **CALL, "function": {"name": "f", "arguments": '{"a"'}}]}),
    piece(1, {"content": "wo"}, logprobs=LOGPROBS),
    piece(0, {"content": "ne"}),
    piece(2, {"tool_calls": [{"index": 0, "function": {"arguments": ": 1}"}}]}),
    piece(2, finish="tool_calls"),
    piece(0, finish="stop"),
    piece(1, finish="length"),
)


async def ask(daemon: Served, **more: Any) -> Any:
    return await daemon.ask("me", "POST", "/v1/chat/completions", {**CHAT, "n": 3, **more})


def joined(events: list[Any]) -> dict[int, dict[str, Any]]:
    """What a client makes of a stream, by choice."""
    found: dict[int, dict[str, Any]] = {}
    for event in events:
        for each in event["choices"]:
            got = found.setdefault(each["index"], {"text": "", "arguments": "", "finish": None, "logprobs": None})
            got["text"] += each["delta"].get("content") or ""
            got["finish"] = each["finish_reason"] or got["finish"]
            got["logprobs"] = each.get("logprobs") or got["logprobs"]
            for call in each["delta"].get("tool_calls", ()):
                got["arguments"] += call["function"]["arguments"]
    return found


async def test_all_choices_are_one_call() -> None:
    async with served(kind=OPENAI, vendor=THREE, me={}) as daemon:
        got = await ask(daemon, tools=TOOLS, logprobs=True, llm_runtime={})
        body = json.loads(got.body)
        assert [each["index"] for each in body["choices"]] == [0, 1, 2]
        assert [each["message"]["content"] for each in body["choices"]] == ["one", "two", None]
        assert [each["finish_reason"] for each in body["choices"]] == ["stop", "length", "tool_calls"]
        assert body["choices"][1]["logprobs"] == LOGPROBS
        assert body["choices"][2]["message"]["tool_calls"] == [CALL]
        assert body["usage"]["total_tokens"] == 12
        assert "adjusted" not in str(got.headers)
        assert body["llm_runtime"]["adjusted"] == []
        assert [json.loads(call.body)["n"] for call in daemon.vendors["cheap"].requests] == [3]


async def test_a_stream_keeps_each_choice_apart() -> None:
    async with served(kind=OPENAI, vendor=sse(*STREAM, usage(), "[DONE]"), me={}) as daemon:
        got = await ask(daemon, stream=True, stream_options={"include_usage": True}, tools=TOOLS)
        assert (got.status, got.events[-1]) == (200, "[DONE]")
        events = got.events[:-1]
        assert events[0]["choices"][0]["index"] == 0, "OpenAI's SDK cannot begin with another"
        assert joined(events) == {
            0: {"text": "one", "arguments": "", "finish": "stop", "logprobs": None},
            1: {"text": "two", "arguments": "", "finish": "length", "logprobs": LOGPROBS},
            2: {"text": "", "arguments": '{"a": 1}', "finish": "tool_calls", "logprobs": None},
        }
        assert [event["usage"]["total_tokens"] for event in events if event.get("usage")] == [12]
        assert daemon.asked() == {"cheap": 1}


@pytest.mark.parametrize(
    ("vendor", "told"),
    [
        (body_of(choice(0, content="one")), "1 of the 3 requested choices"),
        (body_of(*(choice(at, content="x") for at in range(4))), "contains choice 3"),
        (
            body_of(
                choice(0, content="one"),
                choice(1, content="two"),
                choice(2, "tool_calls", tool_calls=[{**CALL, "function": {"name": "f", "arguments": "{"}}]),
            ),
            "arguments",
        ),
        (sse(*STREAM[:-1], usage(), "[DONE]"), "finish_reason"),
    ],
    ids=["too few", "too many", "a broken call", "one without its end"],
)
async def test_a_choice_that_is_not_whole_fails_the_attempt(vendor: Step, told: str) -> None:
    routes = {"once": Policy(candidates=("cheap/small",), attempts=ONCE)}
    async with served(kind=OPENAI, vendor=vendor, routes=routes, me={}) as daemon:
        got = await ask(daemon, model="once", tools=TOOLS)
        assert got.status == 502
        assert told in json.loads(got.body)["error"]["message"]


async def test_the_next_candidate_is_asked_after_choices_that_are_not_whole() -> None:
    routes = {"some": Policy(candidates=("cheap/small", "fair/middle"), attempts=ONCE)}
    async with served(kind=OPENAI, vendor=body_of(choice(0, content="one")), routes=routes, me={}) as daemon:
        got = await ask(daemon, model="some")
        assert got.status == 502
        assert daemon.asked().keys() >= {"cheap", "fair"}


async def test_where_one_candidate_has_no_such_thing_each_choice_is_a_call() -> None:
    routes = {"some": Policy(candidates=("cheap/small", "fair/middle"))}
    fair = {"fair": {"kind": LLMProvider.OPENAI_COMPATIBLE}}
    said = reply(whole("one"), headers=JSON)
    async with served(kind=OPENAI, vendor=said, more=fair, routes=routes, me={}) as daemon:
        got = await ask(daemon, model="some")
        assert got.headers["x-llm-runtime-adjusted"] == '"n";action=emulated;to="3 requests"'
        assert sum(daemon.asked().values()) == 3


async def test_a_server_whose_models_are_known_to_give_them_is_asked_once() -> None:
    known = {"cheap": {"capabilities": {"*": Capabilities(choices=True)}}}
    async with served(vendor=THREE, more=known, me={}) as daemon:
        assert len(json.loads((await ask(daemon, tools=TOOLS)).body)["choices"]) == 3
        assert daemon.asked() == {"cheap": 1}


@pytest.mark.parametrize(
    "more",
    [{"stop": list("abcde")}, {"llm_runtime": {"max_tokens": 3_000}}],
    ids=["a cut that we make", "a budget"],
)
async def test_what_works_for_one_choice_only_is_a_call_each(more: dict[str, Any]) -> None:
    async with served(kind=OPENAI, vendor=reply(whole("xyz"), headers=JSON), me={}) as daemon:
        assert (await ask(daemon, **more)).status == 200
        assert daemon.asked() == {"cheap": 3}


async def test_a_cached_response_has_all_its_choices() -> None:
    stops = body_of(*(choice(at, content=str(at)) for at in range(3)))
    routes = {"kept": Policy(candidates=("cheap/small",), cache="read")}
    async with served(kind=OPENAI, vendor=stops, routes=routes, me={}) as daemon:
        for stream in (False, False, True):
            got = await ask(daemon, model="kept", stream=stream)
            if stream:
                assert [joined(got.events[:-1])[at]["text"] for at in range(3)] == ["0", "1", "2"]
            else:
                assert [each["message"]["content"] for each in json.loads(got.body)["choices"]] == ["0", "1", "2"]
        assert daemon.asked() == {"cheap": 1}
