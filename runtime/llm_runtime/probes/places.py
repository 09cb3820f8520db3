"""Trying the places that a configuration names besides the providers. Nothing is left behind in any of them.

Each function gives a status and what is to be said. They wait without limit of their own; cancelling them is harmless.
"""

from __future__ import annotations

import errno
import os
import tempfile
from secrets import token_hex
from typing import Final, TypeAlias

import trio

from llm_actors.redis import RedisScript, RedisServer, session
from llm_runtime.config import Server
from llm_runtime.local_model import find_model, is_installed
from llm_runtime.probes.report import CheckStatus
from llm_runtime.server import CannotListenError
from llm_runtime.server.listener import bind

Finding: TypeAlias = tuple[CheckStatus, str]

PROBE_BYTES: Final = 4096
"""Written to find out whether the cache file could be."""

# What the shared limits do on a server. Nothing of it stays: a hash without fields is none.
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
        for listener in await bind(server.host, server.port):
            listener.close()
    except CannotListenError as exc:
        if isinstance(exc.__cause__, OSError) and exc.__cause__.errno == errno.EADDRINUSE:
            return CheckStatus.WARNING, "in use: by the daemon if it runs already; if not, serve will not start"
        return CheckStatus.FAILED, str(exc)
    return CheckStatus.OK, "can be listened on"


async def try_cache(path: str) -> Finding:
    """Whether the cache file can be written, or made."""
    try:
        return CheckStatus.OK, await trio.to_thread.run_sync(_write_beside, path, abandon_on_cancel=True)
    except OSError as exc:
        where = exc.filename if isinstance(exc.filename, str) else path
        return CheckStatus.FAILED, f"cannot be written: {where}: {exc.strerror}"


def _write_beside(path: str) -> str:
    """Write a nameless file where the cache file is or will be. Blocks; raises OSError."""
    path = os.path.abspath(os.path.expanduser(path))
    exists = os.path.lexists(path)
    if exists:
        os.close(os.open(path, os.O_RDWR | os.O_CLOEXEC))  # no more: another process may be using it
    folder = os.path.dirname(path)
    while not os.path.lexists(folder):
        folder = os.path.dirname(folder)
    with tempfile.TemporaryFile(dir=folder, buffering=0) as probe:
        probe.write(bytes(PROBE_BYTES))
    return "can be written" if exists else f"can be made in {folder}"


async def try_redis(server: RedisServer) -> Finding:
    """Whether the server runs scripts that write, each within the time that it is given."""
    key, word = f"{{{server.prefix}}}:limits:check", token_hex(8).encode()
    answers: list[bytes] = []

    async def use(script: RedisScript) -> None:
        answers.append(await script.run([key], word))
        enough.cancel(reason="it has answered")

    said = "answers something else"
    with trio.CancelScope() as enough:
        said = (await session(server, _SCRIPT, use)).detail
    if answers == [word]:
        return CheckStatus.OK, "runs the scripts that limits are shared by"
    return CheckStatus.FAILED, f"{said.rstrip('.')}; meanwhile limits are not shared"


async def try_local_model() -> Finding:
    """Whether it is there. Without it nothing starts, but in a checkout, which installs it when it is needed."""
    file = await trio.to_thread.run_sync(lambda: find_model() if is_installed() else None)
    if file is None:
        return CheckStatus.WARNING, "not installed; serve installs it, once (about 130 MB)"
    return CheckStatus.OK, f"installed: {file}"
