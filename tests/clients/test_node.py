"""The SDKs for Node, each by a script of its own: loops with tools, streams, cancelling, errors, lists."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import trio

from support.agents import SCRIPTS
from support.client_lab import CHOSEN, FULL, VENDORS, lab
from support.node_sdks import PACKAGES
from support.npm import node_modules

pytestmark = pytest.mark.time_limit(900)


@pytest.mark.parametrize("vendor", CHOSEN)
@pytest.mark.parametrize("script", PACKAGES)
async def test_the_sdk_finds_what_it_knows(script: str, vendor: str, tmp_path: Path) -> None:
    node = shutil.which("node")
    if node is None:
        pytest.skip("node is not installed")
    modules = await trio.to_thread.run_sync(node_modules, script.replace("_", "-"), *PACKAGES[script])
    async with lab("opencode", vendor, tmp_path) as at:
        arguments = [str(modules), at.place.url, at.place.key, str(at.place.work), VENDORS[vendor]]
        with trio.fail_after(300):
            done = await trio.run_process(
                [node, str(SCRIPTS / f"{script}.mjs"), *arguments, "full" if FULL else "short"],
                capture_stdout=True,
                capture_stderr=True,
                check=False,
            )
        assert done.stdout.decode().endswith("passed\n"), done.stderr.decode()[-3000:]
