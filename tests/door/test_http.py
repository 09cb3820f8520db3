"""HTTP/1.1: what is answered, what is refused, and when a connection ends."""

from __future__ import annotations

import trio
from support.door import open_door


async def test_livez_asks_for_nothing() -> None:
    async with open_door(keys={"me": "sk-secret"}) as door:
        reply = await door.request("GET", "/livez", host="evil.test", origin="http://evil.test")
        assert (reply.status, reply.json) == (200, {"status": "ok"})


CHAT = {"model": "fake-1", "messages": [{"role": "user", "content": "hi"}]}


async def test_chat_whole() -> None:
    async with open_door() as door:
        reply = await door.request("POST", "/v1/chat/completions", CHAT)
        assert reply.status == 200, reply.body
        assert reply.json["choices"][0]["message"]["content"] == "Hello"
        assert reply.headers["x-request-id"] == door.engine.requests[0].request_id


async def test_chat_stream() -> None:
    async with open_door() as door:
        reply = await door.request("POST", "/v1/chat/completions", CHAT | {"stream": True})
        assert reply.status == 200, reply.body
        assert "".join(e["choices"][0]["delta"].get("content") or "" for e in reply.events[:-1] if e["choices"]) == "Hello"
        assert reply.events[-1] == "[DONE]"


async def test_responses() -> None:
    async with open_door() as door:
        reply = await door.request("POST", "/v1/responses", {"model": "m", "input": "hi", "stream": True})
        assert [e["type"] for e in reply.events[:-1]][-1] == "response.completed"
        again = await door.request("GET", f"/v1/responses/{reply.events[0]['response']['id']}")
        assert again.json["output"][0]["content"][0]["text"] == "Hello"
