"""A silent stream's keep-alives, before its first event and between any two, to the Python clients of each wire."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import trio

from llm_actors.run import Run
from llm_runtime.server import request_context
from support.agent_model import SILENT_SECONDS
from support.agents import SCRIPTS
from support.client_lab import FULL, TURN_SECONDS, VENDORS, lab
from support.sdk import SDKS, sdk_python
from support.server import add_text, begin_text, end_text, open_server

LITELLM = "litellm>=1.80,<2"
CLIENTS = {
    "openai_chat": ("openai", SDKS["openai"]),
    "openai_responses": ("openai", SDKS["openai"]),
    "anthropic": ("anthropic", SDKS["anthropic"]),
    "google": ("gemini", SDKS["gemini"]),
    "google_async": ("gemini", SDKS["gemini"]),
    "cohere": ("cohere", SDKS["cohere"]),
    "litellm_gemini": ("litellm", LITELLM),
    "litellm_anthropic": ("litellm", LITELLM),
    "litellm_openai": ("litellm", LITELLM),
}
PAUSE = 1.5
"""Seconds: the server looks once a second whether there is silence."""


async def with_silences(run: Run) -> None:
    await trio.sleep(PAUSE)
    begin_text(run)
    for piece in ("Hel", "lo"):
        await trio.sleep(PAUSE)
        add_text(run, piece)
    await trio.sleep(PAUSE)
    end_text(run)


async def said(client: str, *arguments: str) -> str:
    """What the client read of one stream."""
    python = await trio.to_thread.run_sync(sdk_python, *CLIENTS[client])
    environ = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}
    with trio.fail_after(TURN_SECONDS):
        done = await trio.run_process(
            [python, str(SCRIPTS / "silent_stream.py"), client, *arguments],
            capture_stdout=True,
            capture_stderr=True,
            check=False,
            env=environ | {"LITELLM_LOCAL_MODEL_COST_MAP": "True"},
        )
    assert done.returncode == 0, done.stderr.decode()[-2000:]
    return done.stdout.decode().splitlines()[-1]


@pytest.mark.parametrize("client", CLIENTS)
@pytest.mark.time_limit(900)
async def test_silence_is_kept_alive(client: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(request_context, "SSE_PING_SECONDS", 0.1)
    async with open_server(with_silences, hold_head_s=0) as server:
        assert await said(client, server.address.url) == "Hello"


@pytest.mark.parametrize("vendor", VENDORS)
@pytest.mark.parametrize("client", CLIENTS)
@pytest.mark.time_limit(900)
@pytest.mark.skipif(not FULL, reason=f"takes {SILENT_SECONDS:.0f} s; in the full form only")
async def test_forty_seconds_of_silence_at_the_vendor(client: str, vendor: str, tmp_path: Path) -> None:
    """Before the first event and, at the same time, between two events of another stream."""
    async with lab("llm", vendor, tmp_path) as at:

        async def ask(verb: str, answer: str) -> None:
            assert await said(client, at.place.url, at.place.key, at.place.model, f"[[{verb} now]]") == answer

        async with trio.open_nursery() as nursery:
            nursery.start_soon(ask, "silent", "after silence")
            nursery.start_soon(ask, "pause", "before after")
        assert len(at.upstream.engine.requests) == 2, "nobody lost patience and asked again"
