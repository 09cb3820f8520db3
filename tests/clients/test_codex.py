"""Codex in its default configuration, over HTTP and WebSocket, in front of every wire: five vendors, a compatible
server that has the Responses API, and one that has not.
"""

from __future__ import annotations

import json
import os
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from llm_protocol.requests import ChatRequest
from llm_runtime.fake.answers import picture
from support.agent_model import CONTENT, agent_model
from support.agents import AGENTS, CODEX, Command, Place, _bin
from support.client_lab import FULL, TURN_SECONDS, Lab
from support.daemon import KEY, daemon
from support.server import open_server

PROVIDERS = {
    "openai": ("openai", "/v1", "gpt-6-luna", "auto"),
    "anthropic": ("anthropic", "", "claude-sonnet-5", "auto"),
    "gemini": ("gemini", "", "gemini-3.8-flash", "auto"),
    "cohere": ("cohere", "", "sees-1", "auto"),
    "cerebras": ("cerebras", "/v1", "sees-1", "auto"),
    "compatible": ("openai_compatible", "/v1", "sees-1", "auto"),
    "chat": ("openai_compatible", "/v1", "gpt-6-luna", "chat"),
}
"""Kind, path, model and ``wire``, by the provider's name. For GPT-6 Codex has other tools than for models that it does
not know.
"""

CHOSEN = tuple(PROVIDERS) if FULL else ("openai", "chat")
EVERY = pytest.mark.parametrize("provider", CHOSEN)

pytestmark = pytest.mark.time_limit(600)


@asynccontextmanager
async def codex(
    provider: str, folder: Path, *, websocket: bool = False, more: tuple[str, ...] = ()
) -> AsyncIterator[Lab]:
    home, work = folder / "home", folder / "work"
    home.mkdir()
    work.mkdir()
    kind, path, model, wire = PROVIDERS[provider]

    def command(place: Place, prompt: str, again: bool) -> Command:
        config = place.home / ".codex"
        config.mkdir(exist_ok=True)
        (config / "config.toml").write_text(f"""
            model = "{place.model}"
            model_provider = "llm-runtime"
            [model_providers.llm-runtime]
            name = "llm-runtime"
            base_url = "{place.url}/v1"
            env_key = "LLM_RUNTIME_KEY"
            supports_websockets = {str(websocket).lower()}
        """)
        options = ["--skip-git-repo-check", "--dangerously-bypass-approvals-and-sandbox", *more]
        resume = ["resume", "--last"] if again else []
        return Command(
            [_bin("codex", CODEX, "codex"), "exec", *resume, *options, "--", prompt],
            {"CODEX_HOME": str(config), "LLM_RUNTIME_KEY": place.key},
        )

    async with open_server(agent_model, hold_head_s=120) as upstream:
        text = f"""
            [providers.{provider}]
            kind = "{kind}"
            base_url = "{upstream.address.url}{path}"
            api_key = "env:SDK_TEST_KEY"
            models = ["{model}"]
            {f'wire = "{wire}"' if wire != "auto" else ""}
        """
        async with daemon(upstream, folder, text) as url:
            agent = AGENTS["codex"]._replace(command=command)
            yield Lab(agent, Place(home, work, url, KEY, f"{provider}/{model}"), upstream, upstream)


def asked(at: Lab) -> list[ChatRequest]:
    """The chats that came to the vendor."""
    return [each for each in at.upstream.engine.requests if isinstance(each, ChatRequest)]


@EVERY
@pytest.mark.parametrize("websocket", [False, True], ids=["HTTP", "WebSocket"])
async def test_it_edits_a_file_and_goes_on(provider: str, websocket: bool, tmp_path: Path) -> None:
    async with codex(provider, tmp_path, websocket=websocket) as at:
        file = at.place.work / "notes.txt"
        turn = await at.turn(f"Please do this: [[edit {file}]]")
        assert turn.code == 0, turn.said
        assert file.read_bytes() == CONTENT.encode(), turn.said
        turn = await at.turn("And now: [[recall it]]", again=True)
        assert "recalled: edit recall" in turn.said
        wires: set[Any] = {each.parameters.wire for each in asked(at)}
        if provider in ("openai", "compatible"):
            assert wires == {"openai_responses"}, "nothing of it was translated"


@EVERY
async def test_it_shows_a_picture(provider: str, tmp_path: Path) -> None:
    image = tmp_path / "a.png"
    image.write_bytes(picture("a"))
    async with codex(provider, tmp_path, more=("--image", str(image))) as at:
        turn = await at.turn("Please do this: [[look here]]")
        assert turn.code == 0, turn.said
        assert "seen: image/png" in turn.said


@pytest.mark.parametrize("provider", [each for each in CHOSEN if each != "cohere"])
async def test_it_wants_its_answer_in_a_shape(provider: str, tmp_path: Path) -> None:
    """Cohere takes no response format beside tools."""
    schema = tmp_path / "schema.json"
    shape = {"type": "object", "properties": {"shape": {"type": "string"}}, "required": ["shape"]}
    schema.write_text(json.dumps(shape | {"additionalProperties": False}))
    async with codex(provider, tmp_path, more=("--output-schema", str(schema))) as at:
        turn = await at.turn("Please do this: [[shape it]]")
        assert turn.code == 0, turn.said
        assert '{"shape": "kept"}' in turn.said


@EVERY
@pytest.mark.parametrize("websocket", [False, True], ids=["HTTP", "WebSocket"])
async def test_an_interrupted_turn_ends_at_the_vendor(provider: str, websocket: bool, tmp_path: Path) -> None:
    async with codex(provider, tmp_path, websocket=websocket) as at:
        engine = at.upstream.engine
        async with at.begun("Please do this: [[hang now]]") as process:
            await engine.until(lambda: engine.open_runs > 0, seconds=TURN_SECONDS)
            os.killpg(process.pid, signal.SIGINT)
            await engine.until(lambda: engine.open_runs == 0, seconds=15)
