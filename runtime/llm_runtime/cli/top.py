"""``llm-runtime top``: the dashboard's numbers of a running daemon, in a terminal."""

from __future__ import annotations

import argparse
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import trio

from llm_protocol.errors import LLMClientError
from llm_runtime.cli.daemon_client import daemon_client, decoded
from llm_runtime.cli.logs import start_logging
from llm_runtime.cli.setup import Daemon, daemon
from llm_runtime.cli.signals import cancel_on_signal
from llm_runtime.cli.table import cut
from llm_runtime.cli.terminal import UNREAD, harmless, leaf, print_out, write_all
from llm_runtime.cli.top_screen import screen
from llm_runtime.statistics import Statistics

DEFAULT_URL = "http://127.0.0.1:8080"
"""The daemon to show if none is named: one with the default address."""

_ENTER, _LEAVE = "\x1b[?1049h\x1b[?25l", "\x1b[?25h\x1b[?1049l"
"""Escape sequences: enter the terminal's second screen without a cursor, and leave it."""
_DRAW, _REST_OF_LINE, _REST_OF_SCREEN = "\x1b[H", "\x1b[K", "\x1b[J"
"""Escape sequences: to the upper left corner, clear the rest of the line, clear the rest of the screen. The screen is
overwritten, because clearing it first would flicker.
"""


def run(arguments: argparse.Namespace, environ: Mapping[str, str]) -> int:
    """Show the statistics until Ctrl-C, or once if stdout is not a terminal. Return the exit code. Raises `ConfigError`
    for an invalid address, and `LLMClientError` if the daemon cannot be reached.
    """
    start_logging(arguments.log_level, arguments.log_format)
    running = daemon(arguments.url or environ.get("LLM_RUNTIME_URL") or DEFAULT_URL, None, environ, arguments.ca_file)
    assert running is not None, "an address was given"
    try:
        if arguments.once or not os.isatty(1):
            trio.run(_once, running)
        else:
            trio.run(_follow, running, arguments.interval)
    except BaseExceptionGroup as group:
        cause = leaf(group)
        if isinstance(cause, OSError):  # the terminal has gone
            return UNREAD
        raise cause from None
    return 0


async def _once(running: Daemon) -> None:
    async with daemon_client(running) as client:
        statistics = decoded(await client.get("/runtime/statistics"), Statistics)
    for line in screen(statistics, statistics, shutil.get_terminal_size((200, 0)).columns):
        print_out(line)


async def _follow(running: Daemon, interval: float) -> None:
    """Show the statistics every ``interval`` seconds until a signal. While the daemon is unreachable, wait for it."""
    async with daemon_client(running) as client, trio.open_nursery() as nursery:
        before = decoded(await client.get("/runtime/statistics"), Statistics)
        await nursery.start(cancel_on_signal, nursery.cancel_scope)
        now, lines = before, [""]
        with _second_screen():
            while True:
                size = shutil.get_terminal_size()
                try:
                    now, before = decoded(await client.get("/runtime/statistics"), Statistics), now
                    lines = screen(now, before if before.uptime_s <= now.uptime_s else now, size.columns)
                    state = f"llm-runtime at {running.base_url.removesuffix('/v1')}    Ctrl-C ends"
                except LLMClientError as exc:
                    if not exc.failure.client_retry:
                        raise
                    state = f"NOT RESPONDING: {exc}. The values below are the last known ones."
                _draw([cut(harmless(state).replace("\n", " "), size.columns), *lines][: size.lines])
                await trio.sleep(interval)


@contextmanager
def _second_screen() -> Iterator[None]:
    write_all(_ENTER.encode())
    try:
        yield
    finally:
        write_all(_LEAVE.encode())


def _draw(lines: list[str]) -> None:
    text = f"{_REST_OF_LINE}\r\n".join(lines)
    write_all(f"{_DRAW}{text}{_REST_OF_LINE}{_REST_OF_SCREEN}".encode())
