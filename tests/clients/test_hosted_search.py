"""Clients of the Responses API with OpenAI's hosted web search: it is told of it, others of theirs or of nothing."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest
import trio

from llm_protocol.content import HostedTool, Tool
from llm_protocol.requests import ChatRequest
from support.agent_model import CONTENT, agent_model
from support.agents import SCRIPTS, SIMONW_LLM
from support.daemon import KEY, daemon
from support.sdk import sdk_python
from support.server import OpenServer, open_server

AGENTS_SDK = ("openai-agents==0.24.0",)
SEARCH = {
    "openai": "web_search",
    "anthropic": "web_search_20250305",
    "cohere": None,
}
"""The type of the tool that the vendor is told, by its kind."""

pytestmark = pytest.mark.time_limit(900)


def providers(upstream: OpenServer) -> str:
    at = upstream.address.url
    return "".join(
        f'[providers.{kind}]\nkind = "{kind}"\nbase_url = "{at}{path}"\napi_key = "env:SDK_TEST_KEY"\n'
        f"models = {list(models)}\n"
        for kind, path, models in (
            ("openai", "/v1", ("gpt-5", "gpt-6-luna")),
            ("anthropic", "", ("claude-sonnet-5",)),
            ("cohere", "", ("writes-1",)),
        )
    )


MODELS = {"openai": "openai/gpt-6-luna", "anthropic": "anthropic/claude-sonnet-5", "cohere": "cohere/writes-1"}


async def run(arguments: list[str], **environ: str) -> str:
    with trio.fail_after(150):
        done = await trio.run_process(
            arguments,
            capture_stdout=True,
            stderr=subprocess.STDOUT,
            check=False,
            env={"PATH": os.environ["PATH"], **environ},
        )
    said = done.stdout.decode()
    assert done.returncode == 0, said
    return said


@pytest.mark.parametrize("vendor", SEARCH)
async def test_the_agents_sdk(vendor: str, tmp_path: Path) -> None:
    python = await trio.to_thread.run_sync(sdk_python, "openai-agents", *AGENTS_SDK)
    file = tmp_path / "notes.txt"
    async with open_server(agent_model) as upstream, daemon(upstream, tmp_path, providers(upstream)) as url:
        script = str(SCRIPTS / "agents_sdk.py")
        said = await run([python, script, url, KEY, MODELS[vendor], str(file)], HOME=str(tmp_path))
        assert said.endswith("passed\n")
        assert file.read_bytes() == CONTENT.encode()
        chats = [each for each in upstream.engine.requests if isinstance(each, ChatRequest)]
        assert len(chats) == 3
        for chat in chats:
            hosted = [tool.value["type"] for tool in chat.tools if isinstance(tool, HostedTool)]
            assert hosted == ([SEARCH[vendor]] if SEARCH[vendor] else [])
            assert [tool.name for tool in chat.tools if isinstance(tool, Tool)] == ["write_file"]


async def test_gpt_5_of_llm(tmp_path: Path) -> None:
    """simonw's llm, with the model that it has built in, at another address; and a second turn of its conversation."""
    python = Path(await trio.to_thread.run_sync(sdk_python, "llm", *SIMONW_LLM))
    environ = {"LLM_USER_PATH": str(tmp_path / "llm"), "OPENAI_API_KEY": KEY}
    llm = str(python.with_name("llm"))
    async with open_server(agent_model) as upstream, daemon(upstream, tmp_path, providers(upstream)) as url:
        environ["OPENAI_BASE_URL"] = f"{url}/v1"
        assert "hello you" in await run([llm, "-m", "gpt-5", "[[say hello you]]"], **environ)
        assert "recalled: say recall" in await run([llm, "-c", "[[recall it]]"], **environ)
        assert {each.parameters.wire for each in upstream.engine.requests} == {"openai_responses"}
