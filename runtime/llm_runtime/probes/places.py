"""Probe the places besides providers that a configuration names. They leave nothing behind.

Each function returns a status and a message. None has a time limit of its own; cancelling them is harmless.
"""

from __future__ import annotations

import errno
import os
import tempfile
from collections.abc import Callable
from secrets import token_hex
from typing import Final, TypeAlias

import trio

from llm_actors.redis import RedisScript, RedisServer, run_session
from llm_runtime.config import Server
from llm_runtime.local_model import find_model, is_installed
from llm_runtime.probes.report import CheckStatus
from llm_runtime.server import CannotListenError
from llm_runtime.server.listener import listen, removed_after

Finding: TypeAlias = tuple[CheckStatus, str]

PROBE_BYTES: Final = 4096
"""The content of the file that tests whether the cache file could be written."""

# What the shared limits do on a server. Nothing stays: a hash without fields does not exist.
_SCRIPT: Final = """
redis.call('HSET', KEYS[1], 'at', redis.call('TIME')[1])
redis.call('PEXPIRE', KEYS[1], 1000)
local kept = redis.call('HGETALL', KEYS[1])
redis.call('HDEL', KEYS[1], 'at')
return #kept == 2 and ARGV[1] or ''
"""


async def try_address(server: Server) -> Finding:
    """Whether the daemon could listen there. After a release it does already, so a port in use is only a warning."""
    try:
        for listener in await listen(server):
            with removed_after(server.unix):
                listener.close()
    except CannotListenError as exc:
        if isinstance(exc.__cause__, OSError) and exc.__cause__.errno == errno.EADDRINUSE:
            return CheckStatus.WARNING, "in use: by the daemon if it runs already; if not, serve will not start"
        return CheckStatus.FAILED, str(exc)
    return CheckStatus.OK, "can be listened on"


async def try_file(path: str) -> Finding:
    """Whether the cache's or the store's file can be written or created."""
    return await _written(_write_beside, path)


async def try_folder(path: str) -> Finding:
    """Whether files can be written into the folder, which may have to be created."""
    return await _written(_write_into, path)


async def _written(write: Callable[[str], str], path: str) -> Finding:
    try:
        return CheckStatus.OK, await trio.to_thread.run_sync(write, path, abandon_on_cancel=True)
    except OSError as exc:
        where = exc.filename if isinstance(exc.filename, str) else path
        return CheckStatus.FAILED, f"cannot be written: {where}: {exc.strerror}"


def _write_beside(path: str) -> str:
    """Write a nameless file in the place of the file. Blocks; raises OSError."""
    path = os.path.abspath(os.path.expanduser(path))
    exists = os.path.lexists(path)
    if exists:
        os.close(os.open(path, os.O_RDWR | os.O_CLOEXEC))  # only to open it: another process may be using it
    folder = _probed(os.path.dirname(path))
    return "can be written" if exists else f"can be made in {folder}"


def _write_into(path: str) -> str:
    """Write a nameless file in the folder. Blocks; raises OSError."""
    folder = _probed(path)
    return "can be written" if folder == path else f"can be made in {folder}"


def _probed(folder: str) -> str:
    """Write a nameless file in the folder, or in the closest one above it that exists. Return which it was."""
    while not os.path.lexists(folder):
        folder = os.path.dirname(folder)
    try:
        with tempfile.TemporaryFile(dir=folder, buffering=0) as probe:
            probe.write(bytes(PROBE_BYTES))
    except OSError as exc:
        exc.filename = folder  # else it may be the probe's own random name
        raise
    return folder


async def try_redis(server: RedisServer) -> Finding:
    """Whether the server runs scripts that write, each within its time limit."""
    key, word = f"{{{server.prefix}}}:limits:check", token_hex(8).encode()
    answers: list[bytes] = []

    async def use(script: RedisScript) -> None:
        answers.append(await script.run([key], word))
        enough.cancel(reason="it has answered")

    problem = "answers something else"
    with trio.CancelScope() as enough:
        problem = (await run_session(server, _SCRIPT, use)).detail
    if answers == [word]:
        return CheckStatus.OK, "runs the scripts that limits are shared by"
    return CheckStatus.FAILED, f"{problem.rstrip('.')}; meanwhile limits are not shared"


async def try_local_model() -> Finding:
    """Whether it is installed. Without it nothing starts, except in a checkout, which installs it when needed."""
    file = await trio.to_thread.run_sync(lambda: find_model() if is_installed() else None)
    if file is None:
        return CheckStatus.WARNING, "not installed; serve installs it, once (about 130 MB)"
    return CheckStatus.OK, f"installed: {file}"
