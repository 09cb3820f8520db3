"""The official OpenAI SDK gets a panel's answer by naming the route as ``model``."""

from __future__ import annotations

from pathlib import Path

import trio

from support.daemon import KEY, daemon, vendor
from support.sdk import ROOT, SDKS, sdk_python
from support.server import open_server

SCRIPT = ROOT / "tests" / "sdk" / "scripts" / "openai_panel.py"
ROUTES = """
        [routes.panel]
        strategy = "panel"
        members = ["fake/fake-1", "fake/fake-1", "fake/fake-1"]
        synthesiser = "longest"
        [routes.chaired]
        strategy = "panel"
        members = ["fake/fake-1", "fake/fake-1", "fake/fake-1"]
        synthesiser = "fake/fake-1"
"""


async def test_the_sdk_gets_a_panels_answer_streamed_and_not(tmp_path: Path) -> None:
    python = await trio.to_thread.run_sync(sdk_python, "openai", SDKS["openai"])
    async with open_server(vendor) as upstream, daemon(upstream, tmp_path, ROUTES) as url:
        with trio.fail_after(60):
            done = await trio.run_process(
                [python, str(SCRIPT), url, KEY],
                capture_stdout=True,
                capture_stderr=True,
                check=False,
                cwd=ROOT / "tests",
            )
        assert done.stdout == b"passed\n", done.stderr.decode()
        await upstream.engine.until(lambda: upstream.engine.open_runs == 0)
