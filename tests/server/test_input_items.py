"""What a stored response was asked, and embeddings in the form of Cohere's first version."""

from __future__ import annotations

from typing import Any

import pytest

from llm_actors.run import Run
from support.daemon import vendor
from support.server import OpenServer, open_server

INPUT = [
    {"role": "user", "content": "first"},
    {"type": "function_call", "call_id": "c1", "name": "f", "arguments": "{}"},
    {"type": "function_call_output", "call_id": "c1", "output": "out"},
    {"role": "user", "content": [{"type": "input_text", "text": "last"}]},
]


async def asked(server: OpenServer, query: str = "") -> dict[str, Any]:
    made = (await server.request("POST", "/v1/responses", {"input": INPUT, "instructions": "be brief"})).json
    reply = await server.request("GET", f"/v1/responses/{made['id']}/input_items{query}")
    assert reply.status == 200, reply.body
    found: dict[str, Any] = reply.json
    return found


async def test_the_items_are_listed_the_latest_first() -> None:
    async with open_server() as server:
        page = await asked(server)
        assert [each["type"] for each in page["data"]] == [
            "message",
            "function_call_output",
            "function_call",
            "message",
        ]
        assert page["data"][0]["content"] == [{"type": "input_text", "text": "last"}]
        assert page["data"][1]["output"] == "out"
        assert (page["object"], page["has_more"]) == ("list", False)
        assert (page["first_id"], page["last_id"]) == (page["data"][0]["id"], page["data"][-1]["id"])
        assert len({each["id"] for each in page["data"]}) == 4


async def test_a_page_follows_another() -> None:
    async with open_server() as server:
        made = (await server.request("POST", "/v1/responses", {"input": INPUT})).json
        path = f"/v1/responses/{made['id']}/input_items?order=asc&limit=3"
        first = (await server.request("GET", path)).json
        second = (await server.request("GET", f"{path}&after={first['last_id']}")).json
        assert (first["has_more"], second["has_more"]) == (True, False)
        assert [len(first["data"]), len(second["data"])] == [3, 1]


@pytest.mark.parametrize("query", ["?limit=0", "?limit=101", "?limit=000000100999", "?limit=x", "?after=nobody"])
async def test_what_is_wrong_is_refused(query: str) -> None:
    async with open_server() as server:
        made = (await server.request("POST", "/v1/responses", {"input": "hi"})).json
        assert (await server.request("GET", f"/v1/responses/{made['id']}/input_items{query}")).status == 400


async def test_what_another_caller_was_asked_is_not_there() -> None:
    async with open_server(keys={"a": "sk-aaaa", "b": "sk-bbbb"}) as server:
        made = (await server.request("POST", "/v1/responses", {"input": "hi"}, authorization="Bearer sk-aaaa")).json
        path = f"/v1/responses/{made['id']}/input_items"
        assert (await server.request("GET", path, authorization="Bearer sk-aaaa")).status == 200
        assert (await server.request("GET", path, authorization="Bearer sk-bbbb")).status == 404


async def test_coheres_first_embed() -> None:
    async def embedding(run: Run) -> None:
        await vendor(run)

    async with open_server(embedding) as server:
        lists = (await server.request("POST", "/v1/embed", {"model": "m", "texts": ["a", "bcd"]})).json
        assert lists["embeddings"] == [[1.0, 0.5], [3.0, 0.5]]
        assert (lists["response_type"], lists["texts"]) == ("embeddings_floats", ["a", "bcd"])
        body = {"model": "m", "texts": ["a"], "embedding_types": ["float"], "input_type": "search_query"}
        typed = (await server.request("POST", "/v1/embed", body)).json
        assert typed["embeddings"] == {"float": [[1.0, 0.5]]}
        assert typed["response_type"] == "embeddings_by_type"
