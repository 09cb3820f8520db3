"""A conversation is made short, and goes on from there."""

from __future__ import annotations

import json
from typing import Any

import pytest

from llm_protocol.content import Opaque
from llm_protocol.requests import ChatRequest
from llm_protocol.wires.responses import OpenAIResponsesServer
from llm_protocol.wires.responses.content import seal_summary
from support.server import OpenServer, open_server, saying

PATH = "/v1/responses/compact"
HISTORY: list[dict[str, Any]] = [
    {"role": "user", "content": "look up the weather"},
    {"type": "function_call", "call_id": "c1", "name": "weather", "arguments": '{"city": "Bonn"}'},
    {"type": "function_call_output", "call_id": "c1", "output": "rain"},
    {"role": "assistant", "content": "It rains."},
    {"role": "user", "content": [{"type": "input_image", "image_url": "https://example.org/a.png"}]},
]


def _asked(server: OpenServer) -> ChatRequest:
    request = server.engine.requests[-1]
    assert isinstance(request, ChatRequest)
    return request


async def test_the_users_messages_come_back_with_a_summary() -> None:
    async with open_server(saying("It rains", " in Bonn."), saying("go on")) as server:
        got = await server.request("POST", PATH, {"model": "m", "input": HISTORY, "instructions": "be brief"})
        assert got.status == 200, got.body
        assert got.json["object"] == "response.compaction"
        assert got.json["usage"]["total_tokens"] == 5
        first, second, item = got.json["output"]
        assert (first["role"], first["content"]) == ("user", [{"type": "input_text", "text": "look up the weather"}])
        assert second["content"] == [{"type": "input_image", "image_url": "https://example.org/a.png"}]
        assert item["type"] == "compaction"
        asked = _asked(server)
        assert asked.tools == ()
        (told,) = asked.messages
        for line in ("[system] be brief", "[assistant] calls weather with", "result of c1: rain", "(an image)"):
            assert line in told.text

        body = {"model": "m", "input": [*got.json["output"], {"role": "user", "content": "and tomorrow?"}]}
        assert (await server.request("POST", "/v1/responses", body)).status == 200
        messages = _asked(server).messages
        assert [message.role for message in messages] == ["user"] * 4
        assert messages[2].text.endswith("It rains in Bonn.")


async def test_the_conversation_before_is_part_of_it() -> None:
    async with open_server(saying("first"), saying("short")) as server:
        made = (await server.request("POST", "/v1/responses", {"input": "hello"})).json
        body = {"model": "m", "previous_response_id": made["id"]}
        output = (await server.request("POST", PATH, body)).json["output"]
        assert [item["type"] for item in output] == ["message", "compaction"]
        assert "[assistant] first" in _asked(server).messages[0].text
        unknown = await server.request("POST", PATH, {"model": "m", "previous_response_id": "resp_none"})
        assert (unknown.status, unknown.json["error"]["code"]) == (400, "previous_response_not_found")


@pytest.mark.parametrize("body", [{}, {"model": "m"}, {"model": "m", "input": 7}, {"model": "m", "input": []}])
async def test_what_is_no_conversation_is_refused(body: dict[str, Any]) -> None:
    async with open_server() as server:
        assert (await server.request("POST", PATH, body)).status == 400
        assert server.engine.runs == []


async def test_a_model_that_writes_nothing_has_failed() -> None:
    async with open_server(saying(" ")) as server:
        got = await server.request("POST", PATH, {"model": "m", "input": "hi"})
        assert (got.status, got.json["error"]["message"]) == (502, "the model wrote no summary")


def test_a_vendors_own_item_stays_as_it_is_and_a_damaged_one_of_ours_is_refused() -> None:
    server = OpenAIResponsesServer()

    def read(payload: str) -> Any:
        item = {"type": "compaction", "id": "cmp_1", "encrypted_content": payload}
        body = {"model": "m", "input": [item, {"role": "user", "content": "hi"}]}
        return server.decode_create(json.dumps(body).encode()).input[0].content[0]

    assert isinstance(read("gAAAA"), Opaque)
    assert read(seal_summary("äöü 🎉")).text.endswith("äöü 🎉")
    with pytest.raises(Exception, match=r"input\[0\].encrypted_content"):
        read(seal_summary("abc") + "!")
