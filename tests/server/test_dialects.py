"""Every wire over the same answer path: whole, streamed, refused."""

from __future__ import annotations

import json
from typing import Any, NamedTuple

import pytest

from llm_actors.run import Run
from llm_protocol.errors import ModelNotFoundError
from llm_protocol.failures import Failure, FailureKind
from support.server import OpenServer, Reply, open_server

KEY = "sk-0123456789abcdef"
SAID = [{"role": "user", "content": "hi"}]


class Wire(NamedTuple):
    """How one vendor's clients ask, and where the text is in what they read."""

    path: str
    body: dict[str, Any]
    streamed: tuple[str, dict[str, Any]]
    text: tuple[str | int, ...]
    error: tuple[str, ...]
    key: str = "authorization"


WIRES = {
    "openai": Wire(
        "/v1/chat/completions",
        {"model": "m", "messages": SAID},
        ("", {"stream": True}),
        ("choices", 0, "message", "content"),
        ("error", "message"),
    ),
    "completions": Wire(
        "/v1/completions",
        {"model": "m", "prompt": "hi"},
        ("", {"stream": True}),
        ("choices", 0, "text"),
        ("error", "message"),
    ),
    "responses": Wire(
        "/v1/responses",
        {"model": "m", "input": "hi"},
        ("", {"stream": True}),
        ("output", 0, "content", 0, "text"),
        ("error", "message"),
    ),
    "anthropic": Wire(
        "/v1/messages",
        {"model": "m", "messages": SAID, "max_tokens": 9},
        ("", {"stream": True}),
        ("content", 0, "text"),
        ("error", "message"),
        "x-api-key",
    ),
    "gemini": Wire(
        "/v1beta/models/m:generateContent",
        {"contents": [{"role": "user", "parts": [{"text": "hi"}]}]},
        ("/v1beta/models/m:streamGenerateContent?alt=sse", {}),
        ("candidates", 0, "content", "parts", 0, "text"),
        ("error", "message"),
        "x-goog-api-key",
    ),
    "cohere": Wire(
        "/v2/chat",
        {"model": "m", "messages": SAID},
        ("", {"stream": True}),
        ("message", "content", 0, "text"),
        ("message",),
    ),
}
EVERY = pytest.mark.parametrize("wire", WIRES.values(), ids=WIRES)


def at(value: Any, path: tuple[str | int, ...]) -> Any:
    for step in path:
        value = value[step]
    return value


async def ask(server: OpenServer, wire: Wire, *, stream: bool = False, key: str = KEY) -> Reply:
    path, extra = wire.streamed if stream else ("", {})
    headers = {wire.key: f"Bearer {key}" if wire.key == "authorization" else key}
    return await server.request("POST", path or wire.path, wire.body | extra, **headers)


@EVERY
async def test_a_whole_answer(wire: Wire) -> None:
    async with open_server(keys={"me": KEY}) as server:
        reply = await ask(server, wire)
        assert reply.status == 200, reply.body
        assert at(reply.json, wire.text) == "Hello"
        assert server.engine.requests[0].caller == "me"
        assert reply.headers["x-request-id"] == server.engine.requests[0].request_id


@EVERY
async def test_a_streamed_answer(wire: Wire) -> None:
    async with open_server(keys={"me": KEY}) as server:
        reply = await ask(server, wire, stream=True)
        assert reply.headers["content-type"] == "text/event-stream; charset=utf-8"
        deltas = [each for each in reply.events if each != "[DONE]"]
        assert "Hello" in json.dumps(deltas) or '"Hel"' in json.dumps(deltas)
        assert len(deltas) > 1


async def test_gemini_without_sse_is_one_json_array() -> None:
    async with open_server() as server:
        reply = await server.request("POST", "/v1beta/models/m:streamGenerateContent", WIRES["gemini"].body)
        assert reply.headers["content-type"] == "application/json"
        assert "".join(each["candidates"][0]["content"]["parts"][0]["text"] for each in reply.json[:-1]) == "Hello"
        assert reply.json[-1]["candidates"][0]["finishReason"] == "STOP"


@EVERY
@pytest.mark.parametrize("stream", [False, True])
async def test_a_refused_request_is_told_in_the_wires_own_words(wire: Wire, stream: bool) -> None:
    async with open_server(ModelNotFoundError("there is no such model")) as server:
        reply = await ask(server, wire, stream=stream)
        assert reply.status == 404
        assert at(reply.json, wire.error) == "there is no such model"


@EVERY
async def test_a_failure_before_the_first_token_is_an_http_error(wire: Wire) -> None:
    async def limited(run: Run) -> None:
        run.fail(Failure(kind=FailureKind.RATE_LIMITED, message="slow down"))

    async with open_server(limited) as server:
        assert (await ask(server, wire)).status == 429
        assert (await ask(server, wire, stream=True)).status == 429


@EVERY
async def test_a_wrong_key_is_told_in_the_wires_own_words(wire: Wire) -> None:
    async with open_server(keys={"me": KEY}) as server:
        reply = await ask(server, wire, key="sk-wrong")
        assert reply.status == 401
        assert "API key" in at(reply.json, wire.error)
        assert server.engine.requests == []


@EVERY
@pytest.mark.parametrize("body", [b"", b"[]", b"{}", b"nonsense"])
async def test_a_bad_body_is_a_client_error(wire: Wire, body: bytes) -> None:
    async with open_server() as server:
        reply = await server.request("POST", wire.path, body)
        assert 400 <= reply.status < 500
        assert at(reply.json, wire.error)
        assert server.engine.requests == []


async def test_the_model_list_in_every_wires_form() -> None:
    async with open_server() as server:
        openai = (await server.request("GET", "/v1/models")).json
        anthropic = (await server.request("GET", "/v1/models", anthropic_version="2023-06-01")).json
        gemini = (await server.request("GET", "/v1beta/models")).json
        assert openai["object"] == "list"
        assert [each["id"] for each in anthropic["data"]] == [each["id"] for each in openai["data"]]
        assert gemini["models"][0]["name"] == "models/fake/fake-1"


@EVERY
async def test_how_to_answer_is_the_requests_to_say_in_its_own_object(wire: Wire) -> None:
    """Unknown fields are refused there, unlike in the vendor's part of the body."""
    async with open_server() as server:
        said = wire._replace(body=wire.body | {"llm_runtime": {"deadline_s": 7, "cache": "off"}})
        assert (await ask(server, said)).status == 200
        policy = server.engine.requests[0].policy
        assert policy is not None
        assert (policy.deadline_s, policy.cache) == (7.0, "off")
        wrongs: tuple[object, ...] = ({"deadlin_s": 7}, {"deadline_s": "7"}, {"base_url": "http://127.0.0.1:1"}, 1, [])
        for wrong in wrongs:
            reply = await ask(server, wire._replace(body=wire.body | {"llm_runtime": wrong}))
            assert reply.status == 400, wrong
            assert "llm_runtime" in reply.body.decode()
        assert len(server.engine.requests) == 1
