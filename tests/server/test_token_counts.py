"""How many tokens a prompt has, as each wire asks it."""

from __future__ import annotations

from typing import Any

import pytest

from llm_protocol.response import TokenCount
from support.server import open_server

SAID = [{"role": "user", "content": "hi"}]
CONTENTS = [{"role": "user", "parts": [{"text": "hi"}]}]
ASKED: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "/v1/messages/count_tokens": ({"model": "m", "messages": SAID}, {"input_tokens": 7}),
    "/v1/messages/count_tokens?beta=true": (
        {"model": "m", "messages": SAID, "thinking": {"type": "enabled", "budget_tokens": 32_000}},
        {"input_tokens": 7},
    ),
    "/v1beta/models/m:countTokens": ({"contents": CONTENTS}, {"totalTokens": 7}),
    "/v1/models/m:countTokens": ({"contents": CONTENTS}, {"totalTokens": 7}),
    "/v1beta/models/p%2Fm:countTokens": (
        {"generateContentRequest": {"model": "models/p/m", "contents": CONTENTS}},
        {"totalTokens": 7},
    ),
    "/v1/responses/input_tokens": (
        {"model": "m", "input": "hi"},
        {"object": "response.input_tokens", "input_tokens": 7},
    ),
}


@pytest.mark.parametrize("path", ASKED)
async def test_a_count_in_the_form_of_the_wire(path: str) -> None:
    body, counted = ASKED[path]
    async with open_server() as server:
        reply = await server.request("POST", path, body)
        assert (reply.status, reply.json) == (200, counted)
        assert "x-llm-runtime-estimated" not in reply.headers
        assert server.engine.requests[0].messages[-1].text == "hi"  # type: ignore[union-attr]
        assert server.engine.runs == []
        server.engine.counted = TokenCount(7, estimated=True)
        assert (await server.request("POST", path, body)).headers["x-llm-runtime-estimated"] == "true"


@pytest.mark.parametrize("path", ASKED)
async def test_a_request_that_is_none_is_refused_as_usual(path: str) -> None:
    async with open_server() as server:
        assert (await server.request("POST", path, {"model": 7})).status == 400


async def test_the_conversation_before_counts() -> None:
    async with open_server() as server:
        first = (await server.request("POST", "/v1/responses", {"input": "before"})).json
        body = {"input": "after", "previous_response_id": first["id"]}
        await server.request("POST", "/v1/responses/input_tokens", body)
        counted = server.engine.requests[-1]
        assert [each.text for each in counted.messages] == ["before", "Hello", "after"]  # type: ignore[union-attr]
