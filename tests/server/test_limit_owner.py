"""A refusal by a limit says whose it was: over the wire, in the metrics, to every kind of client."""

from __future__ import annotations

from typing import Any

import pytest

from llm_protocol.policy import Limits
from llm_protocol.requests import LLMProvider
from llm_runtime.config import Server
from llm_runtime.config.server import MIB
from support.callers import Served, served
from support.peer import reply, stall
from support.upstream import JSON, whole

ONE_A_MINUTE = Limits(requests_per_minute=1)
RESPONSES, CHAT, MESSAGES = "/v1/responses", "/v1/chat/completions", "/v1/messages"


def question(path: str, **more: Any) -> dict[str, Any]:
    if path == RESPONSES:
        return {"model": "cheap/small", "input": "hi", **more}
    return {"model": "cheap/small", "max_tokens": 5, "messages": [{"role": "user", "content": "hi"}], **more}


async def metrics(open_: Served) -> str:
    return (await open_.ask("other", "GET", "/metrics")).body.decode()


@pytest.mark.parametrize(
    ("path", "stream"), [(CHAT, False), (CHAT, True), (RESPONSES, False), (MESSAGES, False), (MESSAGES, True)]
)
@pytest.mark.parametrize("owner", ["caller", "provider"])
async def test_a_refusal_says_whose_limit_it_was(owner: str, path: str, stream: bool) -> None:
    mine = {"limits": ONE_A_MINUTE} if owner == "caller" else {}
    theirs = {"cheap": ONE_A_MINUTE} if owner == "provider" else {}
    async with served(me=mine, other={"admin": True}, limits=theirs) as open_:
        assert (await open_.ask("me", "POST", path, question(path))).status == 200
        plain = await open_.ask("me", "POST", path, question(path, stream=stream))
        curious = await open_.ask("me", "POST", path, question(path, stream=stream, llm_runtime={}))
        counted = await metrics(open_)
        assert open_.asked() == {"cheap": 1}
    for refused in (plain, curious):
        assert refused.status == 429
        assert 60 <= int(refused.headers["retry-after"]) <= 62
        assert refused.headers["x-llm-runtime-limit-owner"] == owner
        whose = "the caller's own limits" if owner == "caller" else "the limits of provider cheap"
        assert whose in refused.json["error"]["message"]
    assert "llm_runtime" not in plain.json
    assert curious.json["llm_runtime"]["limit_owner"] == owner
    assert f'llm_runtime_requests_limited_total{{owner="{owner}",reason="rate_limited"}} 2.0' in counted


async def test_a_stream_that_has_begun_tells_it_in_its_last_event() -> None:
    async with served(me={"limits": ONE_A_MINUTE}) as open_:
        assert (await open_.ask("me", "POST", RESPONSES, question(RESPONSES))).status == 200
        refused = await open_.ask("me", "POST", RESPONSES, question(RESPONSES, stream=True, background=True))
    last = refused.events[-2]
    assert (last["type"], last["response"]["error"]["code"]) == ("response.failed", "rate_limit_exceeded")
    assert last["response"]["llm_runtime"]["limit_owner"] == "caller"


async def test_a_vendors_own_limit_is_the_providers() -> None:
    slow = reply(b'{"error": {"message": "slow"}}', 429, {"retry-after": "40"})
    async with served(me={}, other={"admin": True}, vendor=slow) as open_:
        refused = await open_.ask("me", "POST", CHAT, question(CHAT, llm_runtime={}))
        counted = await metrics(open_)
    assert (refused.status, refused.headers["retry-after"]) == (429, "40"), "40 s are longer than wait_s"
    assert refused.headers["x-llm-runtime-limit-owner"] == "provider"
    assert refused.json["llm_runtime"]["limit_owner"] == "provider"
    assert 'llm_runtime_requests_limited_total{owner="provider",reason="rate_limited"} 1.0' in counted


async def test_headers_that_say_nothing_is_left_hold_the_model_that_answered() -> None:
    spent = {"x-ratelimit-remaining-requests": "0", "x-ratelimit-reset-requests": "40s"}
    vendor, limits = reply(whole("hello"), headers=JSON | spent), {"cheap": Limits(requests_per_minute=6_000)}
    async with served(me={}, vendor=vendor, kind=LLMProvider.OPENAI, limits=limits) as open_:
        assert (await open_.ask("me", "POST", CHAT, question(CHAT))).status == 200
        held = await open_.ask("me", "POST", CHAT, question(CHAT))
        assert open_.asked() == {"cheap": 1}
        other = await open_.ask("me", "POST", CHAT, question(CHAT) | {"model": "cheap/other"})
    assert (held.status, held.headers["x-llm-runtime-limit-owner"]) == (429, "provider")
    assert 39 <= int(held.headers["retry-after"]) <= 41, "40 s are longer than wait_s"
    assert "cheap/small" in held.json["error"]["message"]
    assert other.status == 200


async def test_a_limit_of_this_server_is_the_servers() -> None:
    small = Server(port=0, drain_s=1, max_body_mb=1_000 / MIB, max_body_total_mb=1_000 / MIB)
    async with (
        served(me={}, other={"admin": True}, server=small, vendor=stall()) as open_,
        await open_.connect() as waiting,
    ):
        await waiting.begin("POST", CHAT, question(CHAT, user="x" * 800), authorization="Bearer sk-me")
        await open_.vendors["cheap"].until(lambda: bool(open_.asked()))
        refused = await open_.ask("me", "POST", CHAT, question(CHAT, user="x" * 800))
        counted = await metrics(open_)
    assert (refused.status, refused.json["error"]["code"]) == (503, "body_memory_full")
    assert refused.headers["x-llm-runtime-limit-owner"] == "server"
    assert 'llm_runtime_requests_limited_total{owner="server",reason="body_memory_full"} 1.0' in counted
    assert 'llm_runtime_server_refused_total{code="body_memory_full"} 1.0' in counted


async def test_what_no_limit_refused_has_no_owner() -> None:
    async with served(me={}, other={}) as open_:
        wrong = await open_.ask("me", "POST", CHAT, question(CHAT, llm_runtime={}) | {"model": "none/such"})
    assert wrong.status == 404
    assert "x-llm-runtime-limit-owner" not in wrong.headers
    assert "llm_runtime" not in wrong.json
