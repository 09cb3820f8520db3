"""Frameworks, each by a script of its own: a loop with a tool that edits a file, a resumed conversation, streams,
cancelling, errors; in the full form 40 s of silence.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import trio

from support.agent_model import CONTENT
from support.agents import SCRIPTS
from support.client_lab import CHOSEN, FULL, VENDORS, lab
from support.frameworks import FRAMEWORKS
from support.sdk import sdk_python

pytestmark = pytest.mark.time_limit(900)


@pytest.mark.parametrize("vendor", CHOSEN)
@pytest.mark.parametrize("script", FRAMEWORKS)
async def test_the_framework_finds_what_it_knows(script: str, vendor: str, tmp_path: Path) -> None:
    framework = FRAMEWORKS[script]
    python = await trio.to_thread.run_sync(sdk_python, framework.name, *framework.packages)
    environ = {name: os.environ[name] for name in ("PATH", "LANG") if name in os.environ}
    async with lab("llm", vendor, tmp_path) as at:
        arguments = [at.place.url, at.place.key, VENDORS[vendor], str(at.place.work), "full" if FULL else "short"]
        with trio.fail_after(600):
            done = await trio.run_process(
                [python, str(SCRIPTS / f"{script}.py"), *arguments],
                capture_stdout=True,
                capture_stderr=True,
                check=False,
                env=environ | {"HOME": str(at.place.home), "LITELLM_LOCAL_MODEL_COST_MAP": "True"},
            )
        assert done.stdout.decode().endswith("passed\n"), done.stdout.decode() + done.stderr.decode()[-3000:]
        written = [file.read_bytes() for file in at.place.work.glob("*.txt")]
        assert len(written) == framework.files
        assert all(content == CONTENT.encode() for content in written)
