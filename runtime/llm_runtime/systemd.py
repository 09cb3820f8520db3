"""The interface to systemd: sockets that it passes to the service, and the state that the service reports.

Without systemd, the functions do nothing. The protocols are those of sd_listen_fds(3) and sd_notify(3).
"""

from __future__ import annotations

import errno
import os
import socket
import time
from collections.abc import Mapping
from contextlib import suppress
from typing import Final, final

import trio

FIRST_SOCKET: Final = 3
MOST_SOCKETS: Final = 16

_NO_LISTENER: Final = "it accepts no connections: use ListenStream and Accept=no in the systemd socket unit"


def inherited_sockets(environ: Mapping[str, str]) -> list[socket.socket]:
    """Return the listening sockets that systemd passes to this process. They stay open when the process ends. Raises
    OSError for a descriptor that is not a listening socket.
    """
    if environ.get("LISTEN_PID") != str(os.getpid()):
        return []
    count = environ.get("LISTEN_FDS", "")
    if not count.isascii() or not count.isdecimal() or int(count) > MOST_SOCKETS:
        return []
    found = []
    for number in range(FIRST_SOCKET, FIRST_SOCKET + int(count)):
        os.set_inheritable(number, False)
        one = socket.socket(fileno=number)
        one.setblocking(False)
        if not one.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):  # a connection, with Accept=yes
            raise OSError(errno.EINVAL, _NO_LISTENER)
        found.append(one)
    return found


@final
class Notifier:
    """Notifies systemd of the state of the service, if systemd has set `NOTIFY_SOCKET`."""

    def __init__(self, environ: Mapping[str, str]) -> None:
        self._address = environ.get("NOTIFY_SOCKET", "")
        usec, pid = environ.get("WATCHDOG_USEC", ""), environ.get("WATCHDOG_PID", str(os.getpid()))
        is_watched = usec.isascii() and usec.isdecimal() and pid == str(os.getpid())
        self.watchdog_s: float | None = int(usec) / 1_000_000 if is_watched and int(usec) else None
        """Seconds within which systemd must be notified each time; ``None`` if systemd does not watch the service."""

    def ready(self) -> None:
        """Report that requests are accepted."""
        self._notify("READY=1")

    def reloading(self) -> None:
        """Report that the configuration is being reloaded; `ready` reports the end."""
        self._notify(f"RELOADING=1\nMONOTONIC_USEC={time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000}")

    def stopping(self) -> None:
        self._notify("STOPPING=1")

    async def watch(self) -> None:
        """Notify systemd twice as often as it requires, until cancelled. An event loop that hangs sends nothing, and
        the watchdog detects that.
        """
        while self.watchdog_s is not None:
            self._notify("WATCHDOG=1")
            await trio.sleep(self.watchdog_s / 2)

    def _notify(self, words: str) -> None:
        if not self._address.startswith(("/", "@")):
            return
        address = "\0" + self._address[1:] if self._address.startswith("@") else self._address
        with suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK) as sender:
            sender.sendto(words.encode(), address)
