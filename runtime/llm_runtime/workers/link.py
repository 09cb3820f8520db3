"""What the parent and a worker say to each other: JSON, one line each, over a pair of sockets.

Each learns from the end of it that the other has gone.
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
"""Bytes of one message; the longest has the mistakes of a configuration."""

LONGEST_MISTAKES: Final = 64 * 1024
"""Bytes of these mistakes. A message is sent in one piece, and a socket takes about 200 KiB."""

log = logging.getLogger(__name__)


class Outcome(msgspec.Struct, frozen=True, kw_only=True, tag="outcome"):
    """How a reload went: its result, or the mistakes in the configuration, or another problem. ``number`` is that of
    the `Reload`.
    """

    number: int = 0
    result: ReloadResult | None = None
    mistakes: tuple[str, ...] = ()
    problem: str = ""


def cut(mistakes: Sequence[str]) -> tuple[str, ...]:
    """As many mistakes as an `Outcome` may have, and how many more there are."""
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
    """From a worker: it takes requests."""


class Alive(msgspec.Struct, frozen=True, tag="alive"):
    """From a worker, every `ALIVE_SECONDS`."""


class AskReload(msgspec.Struct, frozen=True, tag="ask_reload"):
    """From a worker: a client of it wants a reload. An `Outcome` follows."""


class Reload(msgspec.Struct, frozen=True, tag="reload"):
    """To a worker: take over what is in this copy of the configuration. An `Outcome` with this ``number``
    follows.
    """

    copy: str | None
    number: int = 0


class StopOrder(msgspec.Struct, frozen=True, tag="stop"):
    """To a worker: finish the responses and end, or end ``at_once``. Repeated, it changes nothing."""

    at_once: bool = False


FromWorker = Ready | Alive | AskReload | Outcome
FromParent = Reload | Outcome | StopOrder

M = TypeVar("M")


@final
class WorkerLink(Generic[M]):
    """One end. ``incoming`` decodes what comes."""

    def __init__(self, end: socket.socket, incoming: msgspec.json.Decoder[M]) -> None:
        end.setblocking(False)
        self._end = end
        self._incoming = incoming

    def send(self, message: object) -> None:
        """Hand a message over, without waiting. An other end that does not read hangs, and is told nothing more; but
        `Alive` is not missed.
        """
        data = msgspec.json.encode(message) + b"\n"
        try:
            sent = self._end.send(data)
        except BlockingIOError:
            sent = len(data) if isinstance(message, Alive) else 0
        except OSError:
            return  # it has gone
        if sent != len(data):
            log.error("the other end of a worker's link does not read: the link is closed")
            self._end.shutdown(socket.SHUT_RDWR)

    async def listen(self, take: Callable[[M], None]) -> None:
        """Call ``take`` with each message that comes, until the other end has gone."""
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
        """Close this end. Nobody may be listening any more."""
        self._end.close()
