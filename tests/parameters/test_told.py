"""What was changed is told to the client, and what belongs to one tenant stays with it."""

from __future__ import annotations

import json
from typing import Any

from llm_protocol.policy import Policy
from llm_protocol.requests import LLMProvider
from support.callers import served
from support.peer import reply
from support.upstream import JSON

CHAT: dict[str, Any] = {"model": "cheap/small", "messages": [{"role": "user", "content": "hi"}]}
TOLD = '"top_a";action=left_out'


async def test_the_header_and_the_body_tell_what_was_left_out() -> None:
    """The body only to a client that speaks of the runtime."""
    async with served(kind=LLMProvider.OPENAI, me={}) as daemon:
        reply = await daemon.ask("me", "POST", "/v1/chat/completions", {**CHAT, "top_a": 1, "llm_runtime": {}})
        assert reply.status == 200, reply.body
        assert reply.headers["x-llm-runtime-adjusted"] == TOLD
        told = json.loads(reply.body)["llm_runtime"]["adjusted"]
        assert told == [{"parameter": "top_a", "action": "left_out"}]
        plain = await daemon.ask("me", "POST", "/v1/chat/completions", CHAT)
        assert "x-llm-runtime-adjusted" not in plain.headers


async def test_strict_refuses_before_anybody_is_asked() -> None:
    """Of a request, of a route, of a key; the parameter is named."""
    routes = {"careful": Policy(candidates=("cheap/small",), strict=True)}
    async with served(kind=LLMProvider.OPENAI, routes=routes, me={}, picky={"strict": True}) as daemon:
        for caller, body in (
            ("me", {**CHAT, "llm_runtime": {"strict": True}}),
            ("me", {**CHAT, "model": "careful"}),
            ("picky", CHAT),
        ):
            reply = await daemon.ask(caller, "POST", "/v1/chat/completions", {**body, "top_a": 1})
            error = json.loads(reply.body)["error"]
            assert (reply.status, error["code"], error["param"]) == (400, "unsupported_parameter", "top_a")
        assert daemon.asked() == {}


async def test_betas_of_responses_go_on_over_http_and_websocket() -> None:
    """What is about the WebSocket itself stays; so does an idempotency key of a connection that many requests share."""
    refused = reply(b'{"error": {"message": "as asked for"}}', 400, JSON)
    async with served(kind=LLMProvider.OPENAI, vendor=refused, responses=True, me={}) as daemon:
        vendor = daemon.vendors["cheap"]
        own = {"openai-beta": "responses=v1, responses_websockets=2026-02-06", "idempotency-key": "k"}
        body = {"model": "cheap/small", "input": "hi"}
        await daemon.ask("me", "POST", "/v1/responses", body, **own)
        assert vendor.requests[-1].target == "/v1/responses"
        assert vendor.requests[-1].headers["openai-beta"] == "responses=v1"
        assert len(vendor.requests[-1].headers["idempotency-key"]) == 64
        async with daemon.websocket("me", **own) as socket:
            await socket.create(model="cheap/small")
            assert (await socket.response())[-1]["type"] == "error"
        assert vendor.requests[-1].headers["openai-beta"] == "responses=v1"
        assert "idempotency-key" not in vendor.requests[-1].headers
        async with daemon.websocket("me", **{"openai-beta": "responses_websockets=2026-02-06"}) as socket:
            await socket.create(model="cheap/small")
            await socket.response()
        assert "openai-beta" not in vendor.requests[-1].headers
        assert len(vendor.requests) == 3


async def test_two_callers_with_one_idempotency_key_send_two() -> None:
    """The same for the same caller, and never the client's own."""
    async with served(alice={}, bob={}) as daemon:
        sent: list[str] = []
        for caller in ("alice", "bob", "alice"):
            await daemon.ask(caller, "POST", "/v1/chat/completions", CHAT, **{"idempotency-key": "k-1"})
            sent.append(daemon.vendors["cheap"].requests[-1].headers["idempotency-key"])
        assert sent[0] == sent[2]
        assert len({*sent, "k-1"}) == 3
