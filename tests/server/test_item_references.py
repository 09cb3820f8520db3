"""Items of stored responses that a request says by their ids alone."""

from __future__ import annotations

import pytest

from llm_protocol.content import Text, ToolCall
from llm_protocol.requests import ChatRequest
from support.daemon import vendor
from support.server import open_server

CALL = {"input": "call weather", "tools": [{"type": "function", "name": "weather", "parameters": {}}]}


async def test_what_was_answered_before_stands_in_the_place_of_its_id() -> None:
    async with open_server(vendor) as server:
        said = (await server.request("POST", "/v1/responses", {"input": "say Hello"})).json["output"][0]
        called = (await server.request("POST", "/v1/responses", CALL)).json["output"][0]
        body = {
            "input": [
                {"role": "user", "content": "say Hello"},
                {"type": "item_reference", "id": said["id"]},
                {"role": "user", "content": "call weather"},
                {"type": "item_reference", "id": called["id"]},
                {"type": "function_call_output", "call_id": called["call_id"], "output": "rain"},
                {"role": "user", "content": "say bye"},
            ]
        }
        assert (await server.request("POST", "/v1/responses", body)).status == 200
        request = server.engine.requests[-1]
        assert isinstance(request, ChatRequest)
        assert [message.role for message in request.messages] == [
            "user",
            "assistant",
            "user",
            "assistant",
            "tool",
            "user",
        ]
        hello, call = request.messages[1].content[0], request.messages[3].content[0]
        assert isinstance(hello, Text)
        assert hello.text == "Hello"
        assert isinstance(call, ToolCall)
        assert (call.id, call.name) == (called["call_id"], "weather")


@pytest.mark.parametrize("ident", ["msg_nothing", "", "msg_0123456789abcdef0123456789abcdef_0", None])
async def test_an_unknown_item_is_not_found(ident: object) -> None:
    async with open_server(vendor) as server:
        body = {"input": [{"type": "item_reference", "id": ident}, {"role": "user", "content": "say hi"}]}
        reply = await server.request("POST", "/v1/responses", body)
        assert (reply.status, reply.json["error"]["code"]) == (404, "item_not_found")


async def test_another_callers_item_and_one_that_was_not_stored_are_unknown() -> None:
    async with open_server(vendor, keys={"a": "sk-aaaa", "b": "sk-bbbb"}) as server:
        for store, key, status in ((True, "a", 200), (True, "b", 404), (False, "a", 404)):
            asked = {"input": "say Hello", "store": store}
            made = (await server.request("POST", "/v1/responses", asked, authorization="Bearer sk-aaaa")).json
            body = {"input": [{"type": "item_reference", "id": made["output"][0]["id"]}]}
            body["input"].append({"role": "user", "content": "say hi"})
            reply = await server.request("POST", "/v1/responses", body, authorization=f"Bearer sk-{key * 4}")
            assert reply.status == status, (store, key)
