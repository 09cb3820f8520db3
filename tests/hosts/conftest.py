"""A fake provider in a process of its own, and a configuration that leads to it."""

from __future__ import annotations

import json
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from llm_runtime import Config, LLMProvider, Provider

SCRIPT = """
[[rule]]
model = "slow"
delay_event_s = 0.05
text = "one two three four five six seven eight nine ten eleven twelve"

[[rule]]
model = "broken"
fault = "reset"

[[rule]]
model = "silent"
fault = "stall"
after_events = 1

[[rule]]
contains = "weather"
after_tool = false
text = "Let me look."
tool_calls = [{ name = "weather", arguments = { city = "Oslo" } }, { name = "clock" }]

[[rule]]
model = "endless"
after_tool = true
tool_calls = [{ name = "weather", arguments = { city = "Rome" } }]

[[rule]]
model = "wrong"
contains = "fit"
text = '{"name": "Ada", "age": 36}'

[[rule]]
model = "wrong"
text = '{"name": "Ada"}'

[[rule]]
model = "busy"
status = 429
"""
LEAVE_SECONDS = 2.0


class Upstream:
    """The fake as a test sees it."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.config = Config(
            providers={
                "fake": Provider(
                    kind=LLMProvider.OPENAI_COMPATIBLE,
                    base_url=f"{url}/openai_compatible/v1",
                    models=("m", "slow", "broken", "silent", "busy", "endless", "wrong"),
                )
            }
        )

    def journal(self) -> dict[str, Any]:
        with urllib.request.urlopen(f"{self.url}/_fake/journal", timeout=5) as reply:
            journal: dict[str, Any] = json.load(reply)
        return journal

    def is_left(self) -> bool:
        """Whether every call has been left or answered, within `LEAVE_SECONDS`; the fake sees it as the peer does."""
        end = time.monotonic() + LEAVE_SECONDS
        while time.monotonic() < end:
            if self.journal()["open"] == 0:
                return True
        return False


@pytest.fixture(scope="session")
def upstream(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Upstream]:
    script = Path(tmp_path_factory.mktemp("hosts")) / "script.toml"
    script.write_text(SCRIPT)
    command = [sys.executable, "-m", "llm_runtime.cli", "fake-provider", "--port", "0", "--script", str(script)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
        assert process.stdout is not None
        try:
            yield Upstream(process.stdout.readline().split()[-1])
        finally:
            process.terminate()
