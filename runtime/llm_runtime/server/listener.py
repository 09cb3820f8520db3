"""Listen and accept connections. Neither a failing connection nor a lack of file descriptors ends the accept loop."""

from __future__ import annotations

import errno
import logging
import os
import socket
import stat
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Generic, TypeVar, final

import trio

from llm_runtime.config import Server
from llm_runtime.server.limits import ACCEPTED_AT_ONCE, BACKLOG, EXHAUSTED_PAUSE_SECONDS, UNIX_PROBE_SECONDS

C = TypeVar("C")

log = logging.getLogger("llm_runtime.server")

EXHAUSTED = frozenset((errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM))


class CannotListenError(Exception):
    """The server cannot listen on its address. The message is one line with the reason."""


async def listen(server: Server, port: int | None = None) -> list[socket.socket]:
    """Return listening sockets for the address of ``server``, or for ``port`` if given. Raises `CannotListenError`."""
    if server.unix is not None:
        return [await bind_unix(server.unix, int(server.unix_mode, 8))]
    return await bind(server.host, server.port if port is None else port)


def duplicated(listeners: Sequence[socket.socket]) -> list[socket.socket]:
    """Return a duplicate of each socket. Raises `CannotListenError` if one cannot be duplicated; then no duplicate is
    left open.
    """
    duplicates: list[socket.socket] = []
    try:
        duplicates.extend(each.dup() for each in listeners)
    except OSError as exc:
        for each in duplicates:
            each.close()
        raise CannotListenError(f"cannot listen on the inherited sockets: {exc.strerror or exc}") from exc
    return duplicates


async def bind_unix(path: str, mode: int) -> socket.socket:
    """Return a listening unix socket at ``path`` with the permissions ``mode``. A socket that a killed process has
    left there is replaced. Raises `CannotListenError`.
    """
    try:
        found = os.lstat(path)
    except OSError:
        pass  # there is no file, or `bind` reports the problem
    else:
        if not stat.S_ISSOCK(found.st_mode):
            raise CannotListenError(f"{path} exists and is not a socket: remove it, or choose another server.unix")
        if await _is_answered(path):
            in_use = OSError(errno.EADDRINUSE, "in use")
            raise CannotListenError(
                f"{path} is in use: stop the program that listens there, or choose another server.unix"
            ) from in_use
    new = f"{path}.{os.getpid()}"
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        listener.setblocking(False)
        with suppress(FileNotFoundError):
            os.unlink(new)
        listener.bind(new)
        os.chmod(new, mode)  # before a client can connect
        listener.listen(BACKLOG)
        os.rename(new, path)
    except OSError as exc:
        listener.close()
        raise CannotListenError(f"cannot listen on {path}: {exc.strerror or exc}") from exc
    except BaseException:
        listener.close()
        raise
    return listener


async def _is_answered(path: str) -> bool:
    with trio.socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe, trio.move_on_after(UNIX_PROBE_SECONDS):
        try:
            await probe.connect(path)
        except OSError:
            return False
    return True


@contextmanager
def removed_after(path: str | None) -> Iterator[None]:
    """Remove the file of a unix socket after the block, unless another process has put its own socket at that path."""
    if path is None:
        yield
        return
    mine = os.lstat(path).st_ino
    try:
        yield
    finally:
        with suppress(OSError):
            if os.lstat(path).st_ino == mine:
                os.unlink(path)


async def bind(host: str, port: int) -> list[socket.socket]:
    """Return listening sockets on every address of ``host``, all on one port. Raises `CannotListenError`."""
    try:
        found = await trio.socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except OSError as exc:
        raise CannotListenError(f"cannot listen on {host}: {exc.strerror}") from exc
    except UnicodeError as exc:
        raise CannotListenError(f"cannot listen on {host}: it is not a host name") from exc
    listeners: list[socket.socket] = []
    try:
        for family, address in dict.fromkeys((each[0], each[4]) for each in found):
            listeners.append(_listen(family, (address[0], port, *address[2:])))
            port = port or listeners[0].getsockname()[1]
    except OSError as exc:
        for listener in listeners:
            listener.close()
        raise CannotListenError(_why(host, port, exc)) from exc
    return listeners


def _listen(family: int, address: tuple[str | int, ...]) -> socket.socket:
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        listener.setblocking(False)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        listener.bind(address)
        listener.listen(BACKLOG)
    except BaseException:
        listener.close()
        raise
    return listener


def _why(host: str, port: int, exc: OSError) -> str:
    if exc.errno == errno.EADDRINUSE:
        return f"port {port} on {host} is in use: stop the other program, or choose another port with --port"
    if exc.errno == errno.EACCES:
        return f"port {port} on {host} needs privileges: choose a port above 1023 with --port"
    return f"cannot listen on {host} port {port}: {exc.strerror}"


@final
class Acceptor(Generic[C]):
    """Accepts from one listening socket until it is closed.

    ``admit`` turns each socket into a connection, in the order in which the clients connected, and must not wait.
    ``start`` starts the connection. ``at_once`` returns how many connections, at most `ACCEPTED_AT_ONCE`, may be
    admitted before the first of them is started.
    """

    def __init__(
        self,
        listener: socket.socket,
        admit: Callable[[socket.socket], C],
        start: Callable[[C], Awaitable[None]],
        at_once: Callable[[], int] = lambda: ACCEPTED_AT_ONCE,
    ) -> None:
        self._listener = listener
        self._admit = admit
        self._start = start
        self._at_once = at_once
        self._exhausted = False
        self.port: int = 0 if listener.family == socket.AF_UNIX else listener.getsockname()[1]

    async def run(self) -> None:
        """Accept until `close`."""
        with suppress(trio.ClosedResourceError):
            while self._listener.fileno() >= 0:
                await trio.lowlevel.wait_readable(self._listener)
                # one at a time, a large backlog would take many scheduler passes
                async with trio.open_nursery() as nursery:
                    for _ in range(min(ACCEPTED_AT_ONCE, self._at_once())):
                        if (accepted := self._accept()) is None:
                            break
                        try:
                            admitted = self._admit(accepted)
                        except BaseException:
                            accepted.close()
                            raise
                        nursery.start_soon(self._start, admitted)
                if self._exhausted:
                    await trio.sleep(EXHAUSTED_PAUSE_SECONDS)

    def close(self) -> None:
        """Stop listening. Connections that wait in the kernel's backlog are reset."""
        if self._listener.fileno() >= 0:
            trio.lowlevel.notify_closing(self._listener)
            self._listener.close()

    def _accept(self) -> socket.socket | None:
        try:
            accepted, _ = self._listener.accept()
        except BlockingIOError:
            return None
        except OSError as exc:
            if exc.errno in EXHAUSTED and not self._exhausted:
                self._exhausted = True
                log.error(  # noqa: TRY400
                    "no file descriptor is left: waiting clients are accepted when others disconnect; raise the limit "
                    "(ulimit -n, LimitNOFILE=)"
                )
            return None  # otherwise the client has disconnected already
        self._exhausted = False
        return accepted
