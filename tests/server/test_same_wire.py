"""Through the daemon, nothing of a vendor's own wire is lost: every parameter of its SDK, every field of its answers.

The upstream is a capturing fake of the same vendor. What is refused or stays here is explained, once, for this test and
bin/vendor-drift alike.
"""

from __future__ import annotations

import json
import tomllib
from typing import Any

import pytest

from llm_actors.transport import HttpRequest, Transport, parse_url
from llm_protocol.secret import Secret
from llm_runtime.config import Config, Provider, Server
from llm_runtime.runtime import Runtime
from llm_runtime.server import ListenAddress, server_child
from support.drift import (
    ENDPOINTS,
    EXPLAINED,
    OTHER_NAMES,
    SURFACE,
    is_explained,
    missing_fields,
    real_sample,
)
from support.peer import Peer, reply
from support.upstream import JSON

SURFACES: dict[str, Any] = json.loads(SURFACE.read_text(encoding="utf-8"))
REASONS: dict[str, str] = tomllib.loads(EXPLAINED.read_text(encoding="utf-8"))

# Name of the endpoint -> kind of the provider, and which sample is its answer.
PLACES = {
    "openai chat": ("openai", "openai chat"),
    "openai embeddings": ("openai", "openai embeddings"),
    "openai images": ("openai", "openai images"),
    "anthropic messages": ("anthropic", "anthropic messages"),
    "anthropic beta messages": ("anthropic", "anthropic beta messages"),
    "gemini generationConfig": ("gemini", "gemini generateContent"),
    "cohere chat": ("cohere", "cohere chat"),
}
BESIDE: dict[tuple[str, str], dict[str, Any]] = {
    ("openai chat", "parallel_tool_calls"): {
        "tools": [{"type": "function", "function": {"name": "f", "parameters": {"type": "object", "properties": {}}}}]
    },
}
"""What a parameter is sent with where its vendor refuses it alone."""
OTHER_FORM = {"functions", "function_call"}
"""Who asks with these is answered in the old form: the call stands in ``function_call``."""
VERSIONED = {"openai": "/v1"}


@pytest.mark.parametrize("name", PLACES)
async def test_every_parameter_arrives_and_every_field_comes_back(name: str) -> None:
    kind, sample = PLACES[name]
    endpoint = ENDPOINTS[name]
    answer = real_sample(sample, SURFACES["answers"][sample])
    lost: dict[str, str] = {}
    asked = 0
    async with Peer(reply(json.dumps(answer).encode(), headers=JSON)) as vendor:
        provider = Provider(
            kind=kind, base_url=vendor.url + VERSIONED.get(kind, ""), api_key=Secret("sk-test"), models=("m",)
        )
        addresses: list[ListenAddress] = []
        runtime = Runtime(
            Config(providers={"p": provider}),
            doors=lambda rt: server_child(Server(host="127.0.0.1", port=0, drain_s=1), rt, addresses.append),
        )
        transport = Transport()
        async with runtime.running():
            origin, _ = parse_url(addresses[0].url)
            for parameter, value in SURFACES["parameters"][name].items():
                if parameter in endpoint.body or parameter == "model":
                    continue
                body: dict[str, Any] = {"model": "m", **endpoint.body, **BESIDE.get((name, parameter), {})}
                body |= {endpoint.inside: {parameter: value}} if endpoint.inside else {parameter: value}
                path, headers = endpoint.path, {"content-type": "application/json"}
                before = len(vendor.requests)
                async with transport.send(
                    HttpRequest("POST", origin, path, headers, json.dumps(body).encode())
                ) as response:
                    status, told = response.status, await response.read()
                if status != 200 or len(vendor.requests) == before:
                    lost[f"{name} parameter {parameter}"] = f"{status}: {told[:200]!r}"
                    continue
                sent = json.loads(vendor.requests[-1].body)
                sent = sent.get(endpoint.inside, {}) if endpoint.inside else sent
                if parameter not in sent and OTHER_NAMES.get(parameter) not in sent:
                    lost[f"{name} parameter {parameter}"] = "does not arrive"
                asked += 1
                if told.startswith(b"{") and parameter not in OTHER_FORM:
                    gone = missing_fields(answer, json.loads(told))
                    lost |= {f"{sample} answer {each}": "does not come back" for each in gone}
            await transport.aclose()
        assert asked >= len(SURFACES["parameters"][name]) * 3 // 5, "most were refused"
    assert {each: what for each, what in lost.items() if not is_explained(each, REASONS)} == {}
