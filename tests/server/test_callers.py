"""What a caller may use, at every endpoint: what is not allowed does not exist."""

from __future__ import annotations

from typing import Any

import pytest

from llm_protocol.policy import Limits, Policy
from support.callers import VENDORS, served
from support.server import Reply

ALICE: dict[str, Any] = {"models": ("cheap/*", "fair/middle")}
MESSAGES = [{"role": "user", "content": "hi"}]
ENDPOINTS: dict[str, tuple[str, dict[str, Any]]] = {
    "chat": ("/v1/chat/completions", {"messages": MESSAGES}),
    "completions": ("/v1/completions", {"prompt": "hi"}),
    "code": ("/v1/code/generations", {"instruction": "hi"}),
    "responses": ("/v1/responses", {"input": "hi"}),
    "messages": ("/v1/messages", {"messages": MESSAGES, "max_tokens": 10}),
    "gemini": ("/v1beta/models/{}:generateContent", {"contents": [{"role": "user", "parts": [{"text": "hi"}]}]}),
    "cohere": ("/v2/chat", {"messages": MESSAGES}),
}


def body(server: str, model: str, **policy: Any) -> tuple[str, dict[str, Any]]:
    """Path and body of a request."""
    path, fields = ENDPOINTS[server]
    said: dict[str, Any] = {"llm_runtime": policy} if policy else {}
    return path.format(model), {**fields, **said} if "{}" in path else {**fields, **said, "model": model}


def told(answer: Reply, model: str) -> tuple[int, str]:
    """An answer without what differs from one request to the next."""
    return answer.status, answer.body.decode().replace(model, "MODEL")


@pytest.mark.parametrize("server", ENDPOINTS)
async def test_a_model_that_is_not_allowed_is_answered_as_one_that_does_not_exist(server: str) -> None:
    async with served(alice=ALICE, bob={}) as daemon:
        unknown = await daemon.ask("alice", "POST", *body(server, "none/big"))
        refused = await daemon.ask("alice", "POST", *body(server, "dear/big"))
        assert told(refused, "dear/big") == told(unknown, "none/big")
        assert refused.status == 404
        assert daemon.asked() == {}
        assert (await daemon.ask("alice", "POST", *body(server, "cheap/small"))).status == 200
        assert (await daemon.ask("bob", "POST", *body(server, "dear/big"))).status == 200
        assert daemon.asked() == {"cheap": 1, "dear": 1}


async def test_so_it_is_over_websocket() -> None:
    async with served(alice=ALICE, bob={}) as daemon, daemon.websocket("alice") as ws:
        heard = []
        for model in ("none/big", "dear/big"):
            await ws.create(model=model)
            [event] = await ws.response()
            heard.append(str(event).replace(model, "MODEL"))
        assert heard[0] == heard[1]
        assert "model_not_found" in heard[0]
        assert daemon.asked() == {}
        await ws.create(model="cheap/small")
        assert (await ws.response())[-1]["type"] == "response.completed"


@pytest.mark.parametrize(
    ("path", "headers"),
    [("/v1/models", {}), ("/v1/models", {"anthropic-version": "2023-06-01"}), ("/v1beta/models", {})],
)
async def test_it_is_in_no_list(path: str, headers: dict[str, str]) -> None:
    async with served(alice=ALICE, bob={}) as daemon:
        mine = (await daemon.ask("alice", "GET", path, **headers)).body
        everything = (await daemon.ask("bob", "GET", path, **headers)).body
        assert [name for name in VENDORS if f"{name}/{VENDORS[name]}".encode() in mine] == ["cheap", "fair"]
        assert [name for name in VENDORS if f"{name}/{VENDORS[name]}".encode() in everything] == list(VENDORS)


@pytest.mark.parametrize("path", ["/v1/models/{}", "/v1/runtime/explain?model={}"])
async def test_it_cannot_be_looked_at(path: str) -> None:
    async with served(alice=ALICE, bob={}) as daemon:
        unknown = await daemon.ask("alice", "GET", path.format("none/big"))
        refused = await daemon.ask("alice", "GET", path.format("dear/big"))
        assert told(refused, "dear/big") == told(unknown, "none/big")
        assert refused.status == 404
        assert (await daemon.ask("alice", "GET", path.format("cheap/small"))).status == 200
        assert (await daemon.ask("bob", "GET", path.format("dear/big"))).status == 200


@pytest.mark.parametrize(
    "policy",
    [
        {},
        {"select": "order", "candidates": ["dear/big", "fair/middle"]},
        {"strategy": "panel", "members": 3, "synthesiser": "none"},
        {"strategy": "panel", "members": ["dear/big", "cheap/small"], "synthesiser": "none"},
        {"strategy": "panel", "members": 2, "synthesiser": "dear/big"},
        {"strategy": "panel", "members": ["cheap/small"], "candidates": ["dear/big", "fair/middle"], "refill": True},
        {"strategy": "race", "candidates": ["cheap/small", "dear/big"]},
        {"strategy": "council", "members": 3, "synthesiser": "dear/big"},
        {"strategy": "best_of", "samples": 2, "members": ["cheap/small", "fair/middle"], "judge": "dear/big"},
        {"strategy": "vote", "members": ["cheap/small", "dear/big"]},
    ],
    ids=str,
)
async def test_nobody_chooses_it(policy: dict[str, Any]) -> None:
    """Neither `auto`, nor the selector for a strategy, nor the request's own policy."""
    async with served(alice=ALICE, bob={}) as daemon:
        answer = await daemon.ask("alice", "POST", *body("chat", "auto", **policy))
        assert answer.status == 200
        assert daemon.asked().keys() <= {"cheap", "fair"}
        assert daemon.asked(), "somebody answered"


async def test_candidates_none_of_which_is_allowed_are_none() -> None:
    async with served(alice=ALICE) as daemon:
        answer = await daemon.ask("alice", "POST", *body("chat", "auto", candidates=["dear/big"]))
        assert (answer.status, answer.json["error"]["code"]) == (404, "model_not_found")
        assert daemon.asked() == {}


async def test_a_route_is_used_by_its_name_with_models_that_are_not_allowed_beside_it() -> None:
    routes = {"careful": Policy(candidates=("dear/big",)), "other": Policy(candidates=("cheap/small",))}
    async with served(alice={"models": ("careful",)}, bob=ALICE, routes=routes) as daemon:
        for server in ENDPOINTS:
            assert (await daemon.ask("alice", "POST", *body(server, "careful"))).status == 200
        assert daemon.asked() == {"dear": len(ENDPOINTS)}
        for caller, model in (("alice", "dear/big"), ("alice", "other"), ("bob", "other"), ("bob", "careful")):
            assert (await daemon.ask(caller, "POST", *body("chat", model))).status == 404
        assert daemon.asked() == {"dear": len(ENDPOINTS)}


async def test_a_caller_that_has_used_up_its_limit_does_not_affect_others() -> None:
    limits = Limits(requests_per_minute=1)
    async with served(alice={"limits": limits}, bob={"limits": limits}, carol={}) as daemon:
        question = body("chat", "cheap/small", deadline_s=1)
        assert (await daemon.ask("alice", "POST", *question)).status == 200
        for _ in range(5):
            refused = await daemon.ask("alice", "POST", *question)
            assert (refused.status, refused.json["error"]["code"]) == (429, "rate_limit_exceeded")
        assert daemon.asked() == {"cheap": 1}
        for _ in range(5):
            assert (await daemon.ask("carol", "POST", *question)).status == 200
        assert (await daemon.ask("bob", "POST", *question)).status == 200
        assert (await daemon.ask("bob", "POST", *question)).status == 429
        assert daemon.asked() == {"cheap": 7}
