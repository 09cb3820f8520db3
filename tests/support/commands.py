"""Running our own commands as a person or a service manager does: in a process of their own."""

from __future__ import annotations

import atexit
import os
import subprocess
import sys
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import asynccontextmanager
from tempfile import TemporaryDirectory
from typing import NamedTuple

import trio

_STATE = TemporaryDirectory()
atexit.register(_STATE.cleanup)

COMMAND = (sys.executable, "-P", "-m", "llm_runtime.cli")
SECONDS = 60
"""How long any one run may take."""


class Done(NamedTuple):
    """What was left of a run."""

    code: int
    out: str
    err: str


def environment(extra: Mapping[str, str]) -> dict[str, str]:
    """Ours without keys, without a daemon to ask, without the checkout's rights and without a width of the terminal,
    which pytest-xdist sets."""
    kept = {name: value for name, value in os.environ.items() if not name.endswith("_API_KEY")}
    for name in ("LLM_RUNTIME_URL", "LLM_RUNTIME_KEY", "LLM_RUNTIME_CHECKOUT", "COLUMNS", "LINES"):
        kept.pop(name, None)
    return {**kept, "XDG_STATE_HOME": _STATE.name, **extra}


async def run(*arguments: str, stdin: bytes = b"", **extra: str) -> Done:
    """Run to the end; keyword arguments are environment variables."""
    with trio.fail_after(SECONDS):
        done = await trio.run_process(
            [*COMMAND, *arguments],
            stdin=stdin,
            capture_stdout=True,
            capture_stderr=True,
            check=False,
            env=environment(extra),
        )
    return Done(done.returncode, done.stdout.decode(), done.stderr.decode())


@asynccontextmanager
async def running(
    *arguments: str, stdout: int = subprocess.PIPE, environ: Mapping[str, str] | None = None, seconds: float = SECONDS
) -> AsyncGenerator[trio.Process]:
    """A run to be interfered with, for at most ``seconds``; killed after the block if it is still there."""
    async with started([*COMMAND, *arguments], stdout, environ or {}, seconds=seconds) as process:
        yield process


@asynccontextmanager
async def started(
    command: Sequence[str], stdout: int, environ: Mapping[str, str], *, seconds: float = SECONDS
) -> AsyncGenerator[trio.Process]:
    """Any command, as `running` does it."""
    process = await trio.lowlevel.open_process(
        command, stdin=subprocess.DEVNULL, stdout=stdout, stderr=subprocess.PIPE, env=environment(environ)
    )
    try:
        with trio.fail_after(seconds):
            yield process
    finally:
        process.kill()
        with trio.move_on_after(5, shield=True):
            await process.wait()
            for pipe in (process.stdout, process.stderr):
                if pipe:
                    await pipe.aclose()


async def rest(stream: trio.abc.ReceiveStream | None) -> str:
    """All that is still to come."""
    assert stream
    return b"".join([bytes(part) async for part in stream]).decode()


async def line(stream: trio.abc.ReceiveStream | None) -> str:
    """The next line, which is to be written at once."""
    assert stream
    data = b""
    while not data.endswith(b"\n"):
        part = await stream.receive_some(1)
        assert part, f"ended after {data!r}"
        data += part
    return data.decode().removesuffix("\n")
