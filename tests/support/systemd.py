"""A daemon that is started as systemd starts one with a socket."""

from __future__ import annotations

import socket
import subprocess
import sys
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

import trio

from support import commands

LAUNCHER = """
import os, sys
os.dup2(int(sys.argv[1]), 3)
os.environ.update(LISTEN_PID=str(os.getpid()), LISTEN_FDS="1")
os.execv(sys.argv[2], sys.argv[2:])
"""


@asynccontextmanager
async def activated(listener: socket.socket, *arguments: str, **environ: str) -> AsyncGenerator[trio.Process]:
    """A daemon that was started by whoever has ``listener``, and is ready."""
    number = listener.fileno()
    command = [sys.executable, "-c", LAUNCHER, str(number), *commands.COMMAND, "serve", *arguments]
    process = await trio.lowlevel.open_process(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=commands.environment(environ),
        pass_fds=[number],
    )
    try:
        with trio.fail_after(commands.SECONDS):
            assert (await commands.line(process.stdout)).startswith("ready ")
            yield process
    finally:
        process.kill()
        with trio.CancelScope(shield=True):
            await process.wait()
            for pipe in (process.stdout, process.stderr):
                if pipe:
                    await pipe.aclose()
