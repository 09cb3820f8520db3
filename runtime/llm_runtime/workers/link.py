"""The messages between the parent and a worker: JSON, one line each, over a pair of sockets.

When one process ends, the connection closes, and so the other process notices.
"""

from __future__ import annotations

import logging
import socket
from collections.abc import Callable, Sequence
from typing import Final, Generic, TypeVar, final

import msgspec
import trio

from llm_runtime.reloading import ReloadResult

LONGEST_LINE: Final = 1024 * 1024
"""The most bytes of one message. The longest message lists the mistakes of a configuration."""

LONGEST_MISTAKES: Final = 64 * 1024
"""The most bytes of these mistakes. A message is sent in one piece, and a socket buffers about 200 KiB."""

log = logging.getLogger(__name__)


class Outcome(msgspec.Struct, frozen=True, kw_only=True, tag="outcome"):
    """The result of a reload, or the mistakes in the configuration, or another problem. ``number`` is that of the
    `Reload`.
    """

    number: int = 0
    result: ReloadResult | None = None
    mistakes: tuple[str, ...] = ()
    problem: str = ""


def cut(mistakes: Sequence[str]) -> tuple[str, ...]:
    """Return as many mistakes as fit into an `Outcome`, and a line with the number of the others."""
    told: list[str] = []
    left = LONGEST_MISTAKES
    for each in mistakes:
        data = each.encode()
        if told and len(data) > left:
            return (*told, f"and {len(mistakes) - len(told)} more")
        told.append(data[:left].decode(errors="ignore"))
        left -= len(data)
    return tuple(told)


class Ready(msgspec.Struct, frozen=True, tag="ready"):
    """From a worker: it accepts requests."""


class Alive(msgspec.Struct, frozen=True, tag="alive"):
    """From a worker, every `ALIVE_SECONDS`."""


class AskReload(msgspec.Struct, frozen=True, tag="ask_reload"):
    """From a worker: one of its clients wants a reload. The parent replies with an `Outcome`."""


class Reload(msgspec.Struct, frozen=True, tag="reload"):
    """To a worker: apply this copy of the configuration. The worker replies with an `Outcome` with this ``number``."""

    copy: str | None
    number: int = 0


class StopOrder(msgspec.Struct, frozen=True, tag="stop"):
    """To a worker: finish the responses and end, or end ``at_once``. Repeating the same order has no effect."""

    at_once: bool = False


FromWorker = Ready | Alive | AskReload | Outcome
FromParent = Reload | Outcome | StopOrder

M = TypeVar("M")


@final
class WorkerLink(Generic[M]):
    """One end of the link. ``incoming`` decodes received messages."""

    def __init__(self, end: socket.socket, incoming: msgspec.json.Decoder[M]) -> None:
        end.setblocking(False)
        self._end = end
        self._incoming = incoming

    def send(self, message: object) -> None:
        """Send a message without waiting. If the buffer is full, the other process hangs: the link is closed. Only
        `Alive` is dropped instead.
        """
        data = msgspec.json.encode(message) + b"\n"
        try:
            sent = self._end.send(data)
        except BlockingIOError:
            sent = len(data) if isinstance(message, Alive) else 0
        except OSError:
            return  # it has gone
        if sent != len(data):
            log.error(
                "the link between parent and worker is closed, because the other process does not read its messages"
            )
            self._end.shutdown(socket.SHUT_RDWR)

    async def listen(self, take: Callable[[M], None]) -> None:
        """Call ``take`` with each received message, until the other process has gone."""
        buffer = b""
        while len(buffer) < LONGEST_LINE:
            await trio.lowlevel.wait_readable(self._end)
            try:
                data = self._end.recv(65_536)
            except BlockingIOError:
                continue
            except OSError:
                return
            if not data:
                return
            *lines, buffer = (buffer + data).split(b"\n")
            for line in lines:
                take(self._incoming.decode(line))

    def close(self) -> None:
        """Close this end. No task may be in `listen` any more."""
        self._end.close()
