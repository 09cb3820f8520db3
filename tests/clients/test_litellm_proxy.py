"""LiteLLM's proxy behind us, and we behind it, by the recipes of docs/how-to/providers.md."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from llm_actors.transport import HttpRequest, Transport, parse_url
from llm_protocol.content import Tool
from llm_protocol.errors import RateLimitError
from llm_protocol.requests import LLMProvider
from llm_runtime import open_runtime
from llm_runtime.config import parse
from llm_runtime.fake import FakeProvider, FakeToolCall, ScriptRule
from llm_runtime.probes import CheckStatus, check
from support.daemon import KEY, daemon, vendor
from support.litellm_proxy import litellm_proxy
from support.sdk import ROOT
from support.server import open_server

pytestmark = pytest.mark.time_limit(600)

RECIPES = (ROOT / "docs/how-to/providers.md").read_text()
MASTER = "sk-litellm-0123456789"
PARAMETERS = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}


async def test_we_are_behind_litellm(tmp_path: Path) -> None:
    """Its client names a route of ours."""
    (recipe,) = re.findall(r"^```yaml\n(.*?)^```$", RECIPES, re.DOTALL | re.M)
    route = '[routes.careful]\ncandidates = ["fake/fake-1"]\n'
    async with open_server(vendor) as upstream, daemon(upstream, tmp_path, route) as url:
        config = recipe.replace("http://127.0.0.1:8080", url)
        async with litellm_proxy(config, tmp_path, LLM_RUNTIME_KEY=KEY, LITELLM_MASTER_KEY=MASTER) as proxy:
            transport = Transport()

            async def ask(text: str, **more: Any) -> tuple[int, bytes]:
                body = {"model": "careful", "messages": [{"role": "user", "content": text}], **more}
                headers = {"content-type": "application/json", "authorization": f"Bearer {MASTER}"}
                payload = json.dumps(body).encode()
                request = HttpRequest("POST", parse_url(proxy)[0], "/v1/chat/completions", headers, payload)
                async with transport.send(request) as response:
                    return response.status, await response.read()

            status, body = await ask("say Hello there")
            assert (status, json.loads(body)["choices"][0]["message"]["content"]) == (200, "Hello there")
            status, body = await ask("slowly Hello there", stream=True)
            pieces = [json.loads(line[6:]) for line in body.split(b"\n") if line.startswith(b"data: {")]
            deltas = [choice["delta"].get("content") or "" for each in pieces for choice in each["choices"]]
            assert (status, "".join(deltas), len([each for each in deltas if each]) > 1) == (200, "Hello there", True)
            tools = [{"type": "function", "function": {"name": "weather", "parameters": PARAMETERS}}]
            status, body = await ask("call weather", tools=tools)
            (call,) = json.loads(body)["choices"][0]["message"]["tool_calls"]
            assert (status, call["function"]["name"]) == (200, "weather")
            assert json.loads(call["function"]["arguments"]) == {"city": "Paris"}
            assert (await ask("fail bad_request"))[0] == 400
            await transport.aclose()


async def test_litellm_is_behind_us(tmp_path: Path) -> None:
    """Its list, answers, calls and refusals are those of a compatible server."""
    rules = (
        ScriptRule(contains="weather", tool_calls=(FakeToolCall(name="weather"),)),
        ScriptRule(contains="busy", status=429),
    )
    async with FakeProvider(*rules, key="sk-vendor") as fake:
        config = f"""
model_list:
  - model_name: m
    litellm_params: {{ model: openai/fake-chat, api_base: "{fake.base_url(LLMProvider.OPENAI)}", api_key: sk-vendor }}
litellm_settings: {{ num_retries: 0 }}
general_settings: {{ master_key: os.environ/MASTER }}
"""
        async with litellm_proxy(config, tmp_path, MASTER=MASTER) as proxy:
            (recipe,) = re.findall(r"^\[providers\.litellm\]\n.*?(?=^$|^```)", RECIPES, re.DOTALL | re.M)
            source = recipe.replace("http://127.0.0.1:4000", proxy) + "\n[attempts]\nmax = 1\n"
            ours = parse(source.encode(), {"LITELLM_API_KEY": MASTER})
            async with open_runtime(ours) as runtime:
                assert await runtime.models() == {"litellm": ["m"]}
                assert (await runtime.chat("Hello there", model="litellm/m")).content == "You said: Hello there"
                async with runtime.stream("Hello there", model="litellm/m") as stream:
                    pieces = [part async for part in stream.text()]
                assert ("".join(pieces), len(pieces) > 1) == ("You said: Hello there", True)
                tools = [Tool(name="weather", parameters=PARAMETERS)]
                called = await runtime.chat("the weather in Oslo", model="litellm/m", tools=tools)
                assert [call.parsed() for call in called.tool_calls] == [{"city": "the weather in Oslo"}]
                with pytest.raises(RateLimitError):
                    await runtime.chat("busy", model="litellm/m")
            found = await check(ours, "c.toml")
            assert {each.status for each in found} == {CheckStatus.OK}, found
