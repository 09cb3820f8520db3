"""A silent stream's keep-alives, before its first event and between any two, to the Python clients of each wire."""

from __future__ import annotations

import os

import pytest
import trio

from llm_actors.run import Run
from llm_runtime.server import request_context
from support.agents import SCRIPTS
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


@pytest.mark.parametrize("client", CLIENTS)
@pytest.mark.time_limit(900)
async def test_silence_is_kept_alive(client: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(request_context, "SSE_PING_SECONDS", 0.1)
    python = await trio.to_thread.run_sync(sdk_python, *CLIENTS[client])
    async with open_server(with_silences, hold_head_s=0) as server:
        environ = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}
        with trio.fail_after(90):
            done = await trio.run_process(
                [python, str(SCRIPTS / "silent_stream.py"), client, server.address.url],
                capture_stdout=True,
                capture_stderr=True,
                check=False,
                env=environ | {"LITELLM_LOCAL_MODEL_COST_MAP": "True"},
            )
    assert done.stdout.decode().endswith("Hello\n"), done.stderr.decode()[-2000:]
