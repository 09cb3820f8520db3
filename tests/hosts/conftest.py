"""A fake provider in a process of its own, a configuration that leads to it, and a daemon with the same."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from hosts.adapters import DAEMONS, KEY
from llm_protocol.policy import Attempts
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
contains = "Plan the work"
text = '{"topics": ["tides", "the moon"]}'

[[rule]]
contains = "Study:"
after_tool = false
tool_calls = [{ name = "look_up", arguments = { topic = "tides" } }]

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
            attempts=Attempts(wait_min_s=0.05, wait_max_s=0.2),
            providers={
                "fake": Provider(
                    kind=LLMProvider.OPENAI_COMPATIBLE,
                    base_url=f"{url}/openai_compatible/v1",
                    models=("m", "slow", "broken", "silent", "busy", "endless", "wrong"),
                )
            },
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
            upstream = Upstream(process.stdout.readline().split()[-1])
            with _daemon(upstream, script.parent) as url:
                DAEMONS[upstream.config.providers["fake"].base_url] = url
                yield upstream
        finally:
            process.terminate()


@contextmanager
def _daemon(upstream: Upstream, folder: Path) -> Iterator[str]:
    """A daemon with the same configuration, and a route."""
    provider = upstream.config.providers["fake"]
    config = folder / "config.toml"
    config.write_text(f"""
        [server]
        port = 0
        [keys.tests]
        secret = "env:HOSTS_TEST_KEY"
        admin = true
        [providers.fake]
        kind = "openai_compatible"
        base_url = "{provider.base_url}"
        models = {json.dumps(provider.models)}
        [attempts]
        wait_min_s = 0.05
        wait_max_s = 0.2
        [routes.careful]
        candidates = ["fake/m"]
    """)
    command = [sys.executable, "-m", "llm_runtime.cli", "serve", "--config", str(config)]
    environ = {**os.environ, "HOSTS_TEST_KEY": KEY}
    with (
        (folder / "stderr").open("wb") as errors,
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=errors, text=True, env=environ) as process,
    ):
        assert process.stdout is not None
        try:
            line = process.stdout.readline()
            assert line, (folder / "stderr").read_text()
            yield line.split()[-1]
        finally:
            process.terminate()
