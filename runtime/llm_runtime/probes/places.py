"""Checks of what a configuration names besides providers: the server's address, files, folders, Redis, the local
model. They leave nothing behind.

Each function returns a status and a message. None has a time limit; they may be cancelled at any time.
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
"""The size of a file, in bytes, that is written to check the folder of the cache file."""

# The commands that shared limits need. Nothing is left, because a hash without fields does not exist.
_SCRIPT: Final = """
redis.call('HSET', KEYS[1], 'at', redis.call('TIME')[1])
redis.call('PEXPIRE', KEYS[1], 1000)
local kept = redis.call('HGETALL', KEYS[1])
redis.call('HDEL', KEYS[1], 'at')
return #kept == 2 and ARGV[1] or ''
"""


async def try_address(server: Server) -> Finding:
    """Check whether the daemon can listen on its address. An address in use is only a warning, because the running
    daemon may be using it.
    """
    try:
        for listener in await listen(server):
            with removed_after(server.unix):
                listener.close()
    except CannotListenError as exc:
        if isinstance(exc.__cause__, OSError) and exc.__cause__.errno == errno.EADDRINUSE:
            return CheckStatus.WARNING, "in use; unless that is the daemon itself, serve will not start"
        return CheckStatus.FAILED, str(exc)
    return CheckStatus.OK, "is free"


async def try_file(path: str) -> Finding:
    """Check whether the file of the cache or the store can be written or created."""
    return await _written(_write_beside, path)


async def try_folder(path: str) -> Finding:
    """Check whether files can be written into a folder, which may have to be created."""
    return await _written(_write_into, path)


async def _written(write: Callable[[str], str], path: str) -> Finding:
    try:
        return CheckStatus.OK, await trio.to_thread.run_sync(write, path, abandon_on_cancel=True)
    except OSError as exc:
        where = exc.filename if isinstance(exc.filename, str) else path
        return CheckStatus.FAILED, f"cannot be written: {where}: {exc.strerror}"


def _write_beside(path: str) -> str:
    """Write a temporary file in the folder of the file. Blocks. Raises OSError."""
    path = os.path.abspath(os.path.expanduser(path))
    exists = os.path.lexists(path)
    if exists:
        os.close(os.open(path, os.O_RDWR | os.O_CLOEXEC))  # open it only: another process may be using it
    folder = _probed(os.path.dirname(path))
    return "can be written" if exists else f"can be created in {folder}"


def _write_into(path: str) -> str:
    """Write a temporary file in the folder. Blocks. Raises OSError."""
    folder = _probed(path)
    return "can be written" if folder == path else f"can be created in {folder}"


def _probed(folder: str) -> str:
    """Write a temporary file in the folder, or in its closest parent that exists. Return the folder that was used."""
    while not os.path.lexists(folder):
        folder = os.path.dirname(folder)
    try:
        with tempfile.TemporaryFile(dir=folder, buffering=0) as probe:
            probe.write(bytes(PROBE_BYTES))
    except OSError as exc:
        exc.filename = folder  # otherwise it may be the random name of the temporary file
        raise
    return folder


async def try_redis(server: RedisServer) -> Finding:
    """Check whether Redis runs scripts that write, within the time limit."""
    key, word = f"{{{server.prefix}}}:limits:check", token_hex(8).encode()
    answers: list[bytes] = []

    async def use(script: RedisScript) -> None:
        answers.append(await script.run([key], word))
        enough.cancel(reason="the server has replied")

    problem = "gives an unexpected reply"
    with trio.CancelScope() as enough:
        problem = (await run_session(server, _SCRIPT, use)).detail
    if answers == [word]:
        return CheckStatus.OK, "runs the scripts for shared limits"
    return CheckStatus.FAILED, f"{problem.rstrip('.')}; until that works, limits are not shared"


async def try_local_model() -> Finding:
    """Check whether the local model is installed. A missing model is only a warning: in a checkout it is installed when
    it is needed.
    """
    file = await trio.to_thread.run_sync(lambda: find_model() if is_installed() else None)
    if file is None:
        return CheckStatus.WARNING, "not installed; serve will download it once (about 130 MB)"
    return CheckStatus.OK, f"installed: {file}"
