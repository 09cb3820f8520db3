"""Sources of provider keys that change: a file, a command, a function of the program."""

from __future__ import annotations

import inspect
import os
import shlex
import signal
import subprocess
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path
from typing import Final

import trio

from llm_actors.provider import KeyRenewer
from llm_protocol.secret import Secret
from llm_runtime.config.keys import MAX_KEY_BYTES, KeyReader, checked_key

FILE_SECONDS: Final = 5.0
"""Seconds for which a key read from a file is used before the file is read again."""

KILL_SECONDS: Final = 5.0
"""Seconds to wait for the end of a killed command."""


def renewer(name: str, key: Secret | None, max_age_s: float) -> KeyRenewer | None:
    """Return the renewer of the key of the provider ``name``; ``None`` if the key does not change."""
    source = key.source if key is not None else None
    if source is None:
        return None
    if callable(source):
        return KeyRenewer(name, _of_function(source), max_age_s)
    scheme, _, rest = source.partition(":")
    if scheme == "file":
        return KeyRenewer(name, lambda: trio.to_thread.run_sync(_of_file, rest, abandon_on_cancel=True), FILE_SECONDS)
    return KeyRenewer(name, lambda: _of_command(rest), max_age_s)


def _of_file(path: str) -> Secret:
    return KeyReader({}, Path()).read(f"file:{path}")


def _of_function(function: Callable[[], str | Awaitable[str]]) -> Callable[[], Awaitable[Secret]]:
    async def fetch() -> Secret:
        value = function()
        return checked_key(await value if inspect.isawaitable(value) else value, "the function for the key")

    return fetch


async def _of_command(command: str) -> Secret:
    """Return the key that ``command`` writes to stdout. Its stderr is not shown, since it may contain secrets. There is
    no time limit: if this is cancelled, the command is killed, with the processes that it has started. Raises
    `ValueError`.
    """
    argv = shlex.split(command)
    try:
        process = await trio.lowlevel.open_process(
            argv,
            stdin=subprocess.DEVNULL,  # stdin may be the prompt of this program
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
    except OSError as exc:
        raise ValueError(f"the command {argv[0]} cannot be run: {exc.strerror}") from None
    assert isinstance(process.stdout, trio.lowlevel.FdStream)
    stdout, output, code = process.stdout, bytearray(), None

    async def read() -> None:
        while len(output) <= MAX_KEY_BYTES:
            if not (piece := await stdout.receive_some(MAX_KEY_BYTES)):
                return
            output.extend(piece)
        nursery.cancel_scope.cancel("the command writes too much")

    try:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(read)
            code = await process.wait()
            nursery.cancel_scope.cancel("a process that the command started may keep the pipe open")
        with suppress(BlockingIOError):
            while len(output) <= MAX_KEY_BYTES and (piece := os.read(stdout.fileno(), MAX_KEY_BYTES)):
                output.extend(piece)
        if len(output) > MAX_KEY_BYTES:
            raise ValueError(f"the command {argv[0]} wrote more than {MAX_KEY_BYTES} bytes")
    finally:
        if process.returncode is None:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            with trio.move_on_after(KILL_SECONDS, shield=True):
                await process.wait()
        await trio.aclose_forcefully(stdout)
    if code != 0:
        end = f"was ended by signal {-code}" if code < 0 else f"exited with status {code}"
        raise ValueError(f"the command {argv[0]} {end}")
    return checked_key(output.decode("ascii", "replace"), f"the command {argv[0]}")
