"""Virtual environments of their own for vendors' SDKs, made on first use and kept in ``.envs/``.

An SDK brings its own dependencies, which must neither decide about ours nor be seen by them.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path

import pytest

from support.time_limit import not_counted

ROOT = Path(__file__).resolve().parents[2]
ENVIRONMENTS = ROOT / ".envs"
INSTALL_SECONDS = 300

MUST_HAVE = "LLM_RUNTIME_TEST_ALL"
"""Where this variable is set, as by ``.ci/run``, an SDK that cannot be had is a failure."""

SDKS = {
    "openai": "openai[realtime]>=3.54,<4",
    "anthropic": "anthropic>=2.12,<3",
    "gemini": "google-genai>=3.4,<4",
    "cohere": "cohere>=7.3,<8",
    "cerebras": "cerebras-cloud-sdk>=1.91,<2",
}
"""The vendors' official SDKs, by environment."""


@cache
def sdk_python(name: str, *requirements: str) -> str:
    """The Python of the environment ``name``, which has ``requirements``. Skips the test where they cannot be had, or
    with `MUST_HAVE` fails it."""
    folder = ENVIRONMENTS / name
    python = folder / "bin" / "python"
    stamp = folder / "requirements.txt"
    wanted = "\n".join(requirements)
    with locked(name):
        if not (stamp.is_file() and stamp.read_text() == wanted and python.exists()):
            shutil.rmtree(folder, ignore_errors=True)
            install(sys.executable, "-m", "venv", "--without-pip", str(folder))
            pip = (sys.executable, "-m", "pip", "--python", str(python), "--disable-pip-version-check")
            install(*pip, "install", "--quiet", "--no-compile", *requirements)
            stamp.write_text(wanted)
    return str(python)


@contextmanager
def locked(name: str) -> Iterator[None]:
    """One process at a time makes an environment: the tests run in several. The test's time limit stands still: each
    command has `INSTALL_SECONDS`.
    """
    ENVIRONMENTS.mkdir(exist_ok=True)
    with not_counted(), (ENVIRONMENTS / f"{name}.lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def install(*command: str) -> None:
    """Run a command that installs something from a registry."""
    give_up = pytest.fail if os.environ.get(MUST_HAVE) else pytest.skip
    try:
        subprocess.run(command, check=True, capture_output=True, text=True, timeout=INSTALL_SECONDS)
    except subprocess.CalledProcessError as exc:
        reason = (exc.stderr.strip().splitlines() or ["no reason given"])[-1]
        give_up(f"no package registry to install from: {reason[:200]}")
    except subprocess.TimeoutExpired:
        give_up(f"nothing was installed within {INSTALL_SECONDS} s")
