"""The vendors' official SDKs, unmodified, each in its own environment, against the daemon before a fake vendor."""

from __future__ import annotations

from pathlib import Path

import pytest
import trio

from support.daemon import KEY, daemon, vendor
from support.npm import node_modules
from support.sdk import ROOT, SDKS, sdk_python
from support.server import open_server

SCRIPTS = Path(__file__).with_name("scripts")
SECONDS = 150
"""For one script, on a busy machine."""


@pytest.mark.time_limit(240)
async def test_the_sdk_for_node_finds_what_it_knows(tmp_path: Path) -> None:
    modules = await trio.to_thread.run_sync(node_modules, "openai-ws", "openai@6", "ws@8")
    async with open_server(vendor) as upstream, daemon(upstream, tmp_path) as url:
        with trio.fail_after(SECONDS):
            done = await trio.run_process(
                ["node", str(SCRIPTS / "openai_node.mjs"), url, KEY, str(modules)],
                capture_stdout=True,
                capture_stderr=True,
                check=False,
                cwd=ROOT / "tests",
            )
        assert done.stdout == b"passed\n", done.stderr.decode()
        await upstream.engine.until(lambda: upstream.engine.open_runs == 0)


@pytest.mark.time_limit(240)
@pytest.mark.parametrize(
    ("sdk", "script"),
    [
        ("openai", "openai_chat"),
        ("openai", "openai_responses"),
        ("openai", "openai_lanes"),
        ("openai", "openai_errors"),
        ("openai", "openai_stored"),
        ("anthropic", "anthropic_messages"),
        ("gemini", "gemini_generate"),
        ("cohere", "cohere_chat"),
    ],
)
async def test_the_sdk_finds_what_it_knows(sdk: str, script: str, tmp_path: Path) -> None:
    python = await trio.to_thread.run_sync(sdk_python, sdk, SDKS[sdk])
    async with open_server(vendor) as upstream, daemon(upstream, tmp_path) as url:
        with trio.fail_after(SECONDS):
            done = await trio.run_process(
                [python, str(SCRIPTS / f"{script}.py"), url, KEY],
                capture_stdout=True,
                capture_stderr=True,
                check=False,
                cwd=ROOT / "tests",
            )
        assert done.stdout == b"passed\n", done.stderr.decode()
        await upstream.engine.until(lambda: upstream.engine.open_runs == 0)
        if script == "openai_errors":
            asked = [str(each) for each in upstream.engine.requests]
            assert sum("fail context_length " in each for each in asked) == 1, "what cannot help is not asked again"
