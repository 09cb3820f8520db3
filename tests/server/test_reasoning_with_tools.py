"""GPT-5.4 and later call tools while they reason over the Responses API only: a client of any wire is served so."""

from __future__ import annotations

import json
from typing import Any

import pytest
import trio

from llm_protocol.requests import LLMProvider
from llm_protocol.secret import Secret
from llm_runtime.config import Config, Provider, Server
from llm_runtime.fake import FakeProvider, FakeToolCall, ScriptRule
from llm_runtime.runtime import Runtime
from llm_runtime.server import ListenAddress, server_child
from support.server import HttpClient

MODELS = ("gpt-5.4", "gpt-5.5", "gpt-5.6-sol", "gpt-6-luna", "gpt-6.2-astra")
WEATHER = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
ASKED = "the weather in Oslo"
CLIENTS: dict[str, tuple[str, dict[str, Any]]] = {
    "chat": (
        "/v1/chat/completions",
        {
            "messages": [{"role": "user", "content": ASKED}],
            "tools": [{"type": "function", "function": {"name": "weather", "parameters": WEATHER}}],
            "reasoning_effort": "high",
        },
    ),
    "messages": (
        "/v1/messages",
        {
            "max_tokens": 4_000,
            "messages": [{"role": "user", "content": ASKED}],
            "tools": [{"name": "weather", "input_schema": WEATHER}],
            "output_config": {"effort": "high"},
        },
    ),
    "responses": (
        "/v1/responses",
        {
            "input": ASKED,
            "tools": [{"type": "function", "name": "weather", "parameters": WEATHER}],
            "reasoning": {"effort": "high"},
        },
    ),
}


def calls(body: dict[str, Any]) -> list[dict[str, Any]]:
    """The arguments of the calls in an answer of any of the three wires."""
    if "choices" in body:
        return [json.loads(each["function"]["arguments"]) for each in body["choices"][0]["message"]["tool_calls"]]
    if "output" in body:
        return [json.loads(each["arguments"]) for each in body["output"] if each["type"] == "function_call"]
    return [each["input"] for each in body["content"] if each["type"] == "tool_use"]


@pytest.mark.parametrize("client", CLIENTS)
async def test_a_tool_call_with_reasoning_reaches_the_model(client: str) -> None:
    """The fake vendor refuses it on its chat API, as OpenAI does."""
    path, body = CLIENTS[client]
    rule = ScriptRule(contains="weather", tool_calls=(FakeToolCall(name="weather"),))
    addresses: list[ListenAddress] = []
    server = Server(port=0, drain_s=1)
    async with FakeProvider(rule, key="sk-vendor") as fake:
        provider = Provider(
            kind="openai", base_url=fake.base_url(LLMProvider.OPENAI), api_key=Secret("sk-vendor"), models=MODELS
        )
        runtime = Runtime(
            Config(server=server, providers={"p": provider}),
            servers=lambda rt: server_child(server, rt, addresses.append),
        )
        async with runtime.running():
            async with HttpClient(await trio.open_tcp_stream(addresses[0].host, addresses[0].port)) as asking:
                for model in MODELS:
                    got = await asking.request("POST", path, {"model": f"p/{model}", **body})
                    assert (got.status, calls(json.loads(got.body))) == (200, [{"city": ASKED}]), got.body
        assert [(each.path, each.model) for each in fake.journal.requests] == [
            ("/openai/v1/responses", model) for model in MODELS
        ]
        sent = [json.loads(each.body) for each in fake.journal.requests]
        assert [(each["reasoning"]["effort"], each["tools"][0]["name"]) for each in sent] == [("high", "weather")] * 5
