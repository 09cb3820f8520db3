"""The server as actors: one listener, and one child per connection.

    sessions  one_for_one, temporary: one child per connection. A bug ends only the connection it occurs in.
    server    accepts connections; the last to start and the first to stop. Stopping it drains the server.

Both share one `ServerState`, which outlives a crash of the listener, so open connections are not affected.
"""

from __future__ import annotations

import logging
import socket
from collections.abc import Callable, Mapping, Sequence
from itertools import count
from types import MappingProxyType
from typing import Never, final

import msgspec
import trio

from llm_actors.kernel import ChildSpec, Inbox, NotRunning, Previous, Restart, StartFailed, Supervisor, TooManyChildren
from llm_actors.shared_responses import SharedResponses
from llm_runtime.config import Key, Server
from llm_runtime.server.connection import HttpConnection
from llm_runtime.server.engine import RequestEngine
from llm_runtime.server.http1 import encode_response
from llm_runtime.server.http_error import NO_SNIFFING, HttpError, too_many_connections
from llm_runtime.server.limits import (
    CLOSE_SECONDS,
    DEPARTING_CONNECTIONS,
    RESERVED_CONNECTIONS,
    RESERVED_SECONDS,
    SHUTDOWN_SECONDS,
)
from llm_runtime.server.listener import Acceptor, duplicated, listen, removed_after
from llm_runtime.server.siblings import Siblings, WorkerState
from llm_runtime.server.socket import Socket
from llm_runtime.server.state import Reload, ServerState

log = logging.getLogger("llm_runtime.server")

_numbers = count(1)

NO_KEYS: Mapping[str, Key] = MappingProxyType({})


class ListenAddress(msgspec.Struct, frozen=True):
    """Where the server listens. A restarted listener takes the same address, so clients find it again."""

    host: str
    port: int
    scheme: str = "http"
    unix: str | None = None

    @property
    def url(self) -> str:
        """The address as a URL. A unix socket is ``unix:PATH``, the notation of nginx."""
        if self.unix is not None:
            return f"unix:{self.unix}"
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{self.scheme}://{host}:{self.port}"


def address_of(config: Server, listener: socket.socket, *, inherited: bool) -> ListenAddress:
    """Return the address of ``listener``. ``inherited``: the socket comes from another process, so its address may
    differ from the one in ``config``.
    """
    scheme = "http" if config.tls is None else "https"
    if listener.family == socket.AF_UNIX:
        return ListenAddress("", 0, unix=str(listener.getsockname() if inherited else config.unix))
    host, port = listener.getsockname()[:2]
    return ListenAddress(host if inherited else config.host, port, scheme)


def server_child(
    config: Server,
    engine: RequestEngine,
    on_listening: Callable[[ListenAddress], None] = lambda _: None,
    *,
    keys: Mapping[str, Key] = NO_KEYS,
    inherited: Sequence[socket.socket] = (),
    reload: Reload | None = None,
    file: str | None = None,
    siblings: Siblings | None = None,
    shared: SharedResponses | None = None,
) -> tuple[ChildSpec[Never], ChildSpec[Never]]:
    """Return the two branches of the tree that form the server, in the order in which they start. Without ``keys``,
    anyone who can reach the port may send requests.

    ``on_listening`` is called synchronously each time the listener has started to accept connections. A start fails
    with `CannotListenError`. ``inherited`` are sockets that already listen and replace the address in ``config``;
    they are left open. ``reload`` serves ``POST /v1/runtime/reload``, and ``file`` is the file that it reads.
    ``siblings`` are the other workers, if there are any. ``shared`` is the Redis storage of responses that all
    replicas can read. Raises `ConfigError` if the certificate is not usable.
    """
    server_state = ServerState(config, keys, engine, reload, file, siblings, shared)
    sessions = Supervisor(
        name="sessions", max_children=config.max_connections + RESERVED_CONNECTIONS + DEPARTING_CONNECTIONS
    )

    def server(previous: Previous) -> ServerActor:
        known = previous if isinstance(previous, ListenAddress) else None
        return ServerActor(server_state, sessions, known, on_listening, inherited)

    seconds = config.ready_delay_s + config.drain_s + SHUTDOWN_SECONDS
    spec: ChildSpec[Never] = ChildSpec("server", server, shutdown=seconds, mailbox=None)
    return sessions.as_child(), spec


@final
class ServerActor:
    """Listens, and starts a child of ``sessions`` for each connection."""

    def __init__(
        self,
        server_state: ServerState,
        sessions: Supervisor,
        previous: ListenAddress | None,
        on_listening: Callable[[ListenAddress], None],
        inherited: Sequence[socket.socket] = (),
    ) -> None:
        self._server_state = server_state
        self._sessions = sessions
        self._port = previous.port if previous else server_state.config.port
        self._on_listening = on_listening
        self._inherited = inherited

    async def run(self, inbox: Inbox[Never], *, task_status: trio.TaskStatus[None]) -> None:
        """Accept connections until asked to stop; then drain, see `ServerState.drain`."""
        config = self._server_state.config
        # Closing a duplicate leaves the socket listening: a client that connects during a restart waits for the next
        # process.
        listeners = duplicated(self._inherited) or await listen(config, self._port)
        acceptors = [Acceptor(each, self._admit, self._start, self._acceptable_at_once) for each in listeners]
        stopping = trio.Event()
        try:
            with removed_after(None if self._inherited else config.unix):
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(self._server_state.ticker.run)
                    nursery.start_soon(self._server_state.receiver.run)
                    await nursery.start(self._server_state.persistence.run)
                    if self._server_state.tls is not None:
                        nursery.start_soon(self._server_state.tls.watch)
                    for acceptor in acceptors:
                        nursery.start_soon(acceptor.run)
                    if self._server_state.siblings is not None:
                        own: WorkerState = self._server_state
                        await nursery.start(self._server_state.siblings.run, own)
                    address = address_of(config, listeners[0], inherited=bool(self._inherited))
                    inbox.checkpoint(address)
                    inbox.when_stopping(stopping.set)
                    task_status.started()
                    self._on_listening(address)
                    await stopping.wait()
                    self._server_state.leaving = True
                    await trio.sleep(config.ready_delay_s)
                    for acceptor in acceptors:
                        acceptor.close()
                    await self._server_state.drain(config.drain_s)
                    await self._server_state.persistence.flush()
                    nursery.cancel_scope.cancel("the server is shutting down")
        finally:
            for acceptor in acceptors:
                acceptor.close()

    def _acceptable_at_once(self) -> int:
        if self._server_state.siblings is not None:
            return 1  # all workers are woken: the first to accept all waiting connections would get all the work
        return self._server_state.admission.acceptable_at_once

    def _admit(self, accepted: socket.socket) -> HttpConnection:
        """Register a connection. Raises `HttpError` if the connection limit is reached."""
        tls = self._server_state.tls.layer() if self._server_state.tls is not None else None
        connection = HttpConnection(Socket(accepted, self._server_state.receiver, tls), self._server_state)
        admission = self._server_state.admission
        admission.admit(connection)
        if admission.is_reserved(connection):
            connection.hurry(RESERVED_SECONDS)
        return connection

    async def _start(self, connection: HttpConnection) -> None:
        """Start the child of a connection. If a request arrived together with the connection, its key has been
        checked when this returns.
        """
        connected, admission = connection.socket, self._server_state.admission
        name = f"connection-{next(_numbers)}"  # never a name that the listener used before a crash
        spec: ChildSpec[Never] = ChildSpec(
            name, lambda _: connection, Restart.TEMPORARY, shutdown=CLOSE_SECONDS, mailbox=None
        )
        try:
            await self._sessions.start_child(spec)
        except TooManyChildren:
            admission.remove(connection)
            refused = too_many_connections()
            self._server_state.engine.refused(refused.code, is_limit=refused.is_limit)
            await _turn_away(connected, refused)
        except (NotRunning, StartFailed):  # the kernel delivers the failure to this connection only
            admission.remove(connection)
            connected.abort()
        except BaseException:
            admission.remove(connection)
            connected.abort()
            raise


async def _turn_away(connected: Socket, refused: HttpError) -> None:
    """Send the reason if it fits into the kernel's buffer, and close. Does not wait for the client, because too many
    connections are open already.
    """
    try:
        await connected.send(encode_response(refused.response(), (NO_SNIFFING,), close=True, bare=False))
    except trio.BrokenResourceError:
        pass
    finally:
        connected.close()
