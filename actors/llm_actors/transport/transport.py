"""One request and one response, over a reused or a new connection, inside one ``async with``.

The block is the lease. Leaving it in any way returns the connection to the idle connections, if the response was read
to its end. Otherwise the socket is closed at once, so that a cancelled request costs no more at the provider. There are
no redirects, no environment variables, no cookies, no retries (except for ``connection.Stale``), and no time limits
besides ``connect_timeout``: time limits belong to the caller, who knows the request's deadline.
"""

from __future__ import annotations

import ssl
import weakref
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from types import TracebackType
from typing import Final

import trio

from llm_actors.transport.connection import (
    IDLE_SECONDS,
    MAX_IDLE_PER_ORIGIN,
    ClientConnection,
    IdleStack,
    OutgoingConnection,
    PlainWire,
    Stale,
    Wire,
)
from llm_actors.transport.dial import Dial, TcpDial
from llm_actors.transport.errors import (
    WIRE_ERRORS,
    ConnectFailed,
    ConnectTimeout,
    OutOfResources,
    ProxyRefused,
    TlsFailed,
    is_out_of_resources,
    wire_reason,
)
from llm_actors.transport.http1 import HttpRequest, Origin, StreamedBody, encode
from llm_actors.transport.proxy import Proxy, credentials_refused, open_tunnel
from llm_actors.transport.response import HttpResponse
from llm_actors.transport.tls import TlsWire
from llm_actors.transport.trust import TlsTrust

CONNECT_TIMEOUT_SECONDS: Final = 10.0

_IDLE: Final = trio.lowlevel.RunVar[weakref.WeakSet[IdleStack]]("idle connections of all transports of this run")


@dataclass(frozen=True, slots=True)
class TransportStatistics:
    """The current connections (``connecting``, ``active`` in a request, ``idle``) and the counters since the start
    (``*_total``).
    """

    connecting: int
    active: int
    idle: int
    opened_total: int
    reused_total: int
    resent_total: int

    @property
    def open(self) -> int:
        """The number of open connections."""
        return self.active + self.idle


class Transport:
    """Connections to any number of origins. The constructor does no I/O. Use one object within one Trio run.

    ``dial`` makes network connections and is replaceable for tests; this class always adds TLS, above ``dial``.
    ``proxy``: the proxy for all connections; ``trust`` applies to an https proxy, too. ``http2``: use HTTP/2, over
    TLS if the server agrees; needs the package ``h2``. A proxy that forwards requests is used with HTTP/1.1.
    """

    def __init__(
        self,
        trust: TlsTrust | None = None,
        *,
        dial: Dial | None = None,
        proxy: Proxy | None = None,
        http2: bool = False,
        max_idle_per_origin: int = MAX_IDLE_PER_ORIGIN,
        idle_seconds: float = IDLE_SECONDS,
    ) -> None:
        self._trust = trust or TlsTrust()
        self._trust_lock = trio.Lock()
        self._dial = dial or TcpDial()
        self._proxy = proxy
        self._http2: Callable[[Origin, Wire], OutgoingConnection] | None = None
        if http2:
            from llm_actors.transport.http2 import Http2Connection  # with its library, for those who ask for it

            self._http2 = Http2Connection
        self._idle = IdleStack(max_per_origin=max_idle_per_origin, idle_seconds=idle_seconds)
        self._is_listed = False
        """Whether `_give_up_idle` knows the idle connections."""
        self._closed = False
        self._connecting = self._active = self._opened = self._reused = self._resent = 0

    def send(
        self,
        request: HttpRequest,
        *,
        connect_timeout: float = CONNECT_TIMEOUT_SECONDS,
        on_sent: Callable[[], None] | None = None,
    ) -> ConnectionLease:
        """Send ``request``. The block is entered when the head of the response has arrived, whatever its status.

        ``connect_timeout`` (seconds) covers name lookup, TCP, proxy and TLS of a new connection. ``on_sent`` is
        called when there is a connection and sending begins: before that, the peer has received nothing. Raises a
        :class:`TransportError`: RequestRefused before anything is sent, ConnectFailed, ProxyRefused, ConnectTimeout,
        OutOfResources, TlsFailed, Broken, ProtocolViolation, UnsupportedEncoding. Raises ClosedResourceError after
        ``aclose``. To keep the connection, read the body until ``b""``. Cancelling the block closes the socket.
        """
        return ConnectionLease(self, request, connect_timeout, on_sent)

    async def aclose(self) -> None:
        """Close the idle connections and accept no more requests. Connections in use are closed when their requests
        end.
        """
        self._closed = True
        self._idle.clear()
        await trio.lowlevel.checkpoint()

    def statistics(self) -> TransportStatistics:
        """Return the numbers of current connections, and the counters."""
        return TransportStatistics(
            connecting=self._connecting,
            active=self._active,
            idle=len(self._idle),
            opened_total=self._opened,
            reused_total=self._reused,
            resent_total=self._resent,
        )

    async def exchange(
        self, request: HttpRequest, connect_timeout: float, on_sent: Callable[[], None] | None = None
    ) -> tuple[OutgoingConnection, HttpResponse]:
        """Send a request. Return the response, and the connection to pass to `put_back`. Only for `ConnectionLease`."""
        if self._closed:
            raise trio.ClosedResourceError("the transport is closed")
        payload = self._encode(request)
        # A streamed body can be sent only once, so it is not sent over a kept connection, which may be dead.
        kept = None
        if not isinstance(request.body, StreamedBody):
            kept = self._idle.pop(request.origin, trio.current_time())
        if kept is not None:
            self._reused += 1
            try:
                return kept, await self._ask(kept, request, payload, on_sent)
            except Stale:
                self._resent += 1
        connection = await self._connect(request.origin, connect_timeout)
        response = await self._ask(connection, request, payload, on_sent)
        response.resent = kept is not None
        return connection, response

    def _encode(self, request: HttpRequest) -> bytes:
        if self._proxy is None or not self._proxy.forwards(request.origin):
            return encode(request)
        return encode(request, absolute=True, proxy_authorization=self._proxy.authorization)

    async def _ask(
        self,
        connection: OutgoingConnection,
        request: HttpRequest,
        payload: bytes,
        on_sent: Callable[[], None] | None,
    ) -> HttpResponse:
        self._active += 1
        try:
            # Sending may have no checkpoint. A caller that has left pays nothing, so nothing is sent for it.
            await trio.lowlevel.checkpoint_if_cancelled()
            if on_sent is not None:
                on_sent()
            response = await connection.ask(request, payload)
            self._check_proxy(response)
        except BaseException:
            self._active -= 1
            connection.close()
            raise
        return response

    def _check_proxy(self, response: HttpResponse) -> None:
        """Raise `ProxyRefused` if the response came from the proxy, and not from the origin."""
        if response.status == 407 and self._proxy is not None and self._proxy.forwards(response.origin):
            raise ProxyRefused(response.origin, credentials_refused(self._proxy, 407))

    def put_back(self, connection: OutgoingConnection) -> None:
        """Keep the connection for another request, or close it if its reuse is not proven safe."""
        self._active -= 1
        if connection.renew() and not self._closed:
            if not self._is_listed:
                _idle_of_this_run().add(self._idle)
                self._is_listed = True
            self._idle.push(connection, trio.current_time())
        else:
            connection.close()

    async def _connect(self, origin: Origin, timeout: float) -> OutgoingConnection:
        stage = ["connecting"]
        self._connecting += 1
        try:
            with trio.fail_after(timeout):
                wire = await self._open_wire(origin, stage)
        except trio.TooSlowError as exc:
            raise ConnectTimeout(origin, f"no connection within {timeout:g} s ({stage[0]})") from exc
        finally:
            self._connecting -= 1
        self._opened += 1
        if self._http2 is not None and self._speaks_http2(origin, wire):
            return self._http2(origin, wire)
        return ClientConnection(origin, wire)

    def _speaks_http2(self, origin: Origin, wire: Wire) -> bool:
        """Whether the server uses HTTP/2: over TLS it has agreed to it; without TLS the configuration says so."""
        if isinstance(wire, TlsWire) and origin.scheme == "https":
            return wire.protocol == "h2"
        return self._proxy is None or not self._proxy.forwards(origin)

    async def _open_wire(self, origin: Origin, stage: list[str]) -> Wire:
        context = await self._tls_context(origin, http2=self._http2 is not None) if origin.scheme == "https" else None
        if self._proxy is None:
            wire: Wire = PlainWire(await self._open_stream(origin, origin.host, origin.port))
        else:
            wire = await self._through(self._proxy, origin, stage)
        if context is None:
            return wire
        stage[0] = "in the TLS handshake"
        return await _in_tls(wire, context, origin, origin.host)

    async def _through(self, proxy: Proxy, origin: Origin, stage: list[str]) -> Wire:
        """Return a wire to ``proxy``; if the proxy does not forward requests, a wire through it to ``origin``."""
        stage[0] = "connecting to the proxy"
        context = await self._tls_context(origin) if proxy.scheme == "https" else None
        wire: Wire = PlainWire(await self._open_stream(origin, proxy.host, proxy.port, "the proxy: "))
        if context is not None:
            stage[0] = "in the TLS handshake with the proxy"
            wire = await _in_tls(wire, context, origin, proxy.host, "the proxy: ")
        if proxy.forwards(origin):
            return wire
        stage[0] = "waiting for the proxy"
        try:
            await open_tunnel(wire, proxy, origin)
        except WIRE_ERRORS as exc:
            wire.close()
            raise ConnectFailed(origin, f"the proxy: {wire_reason(exc)}") from exc
        except BaseException:
            wire.close()
            raise
        return wire

    async def _open_stream(self, origin: Origin, host: str, port: int, whose: str = "") -> trio.SocketStream:
        try:
            return await self._dial_twice(host, port)
        except OSError as exc:
            kind = OutOfResources if is_out_of_resources(exc) else ConnectFailed
            raise kind(origin, whose + wire_reason(exc)) from exc

    async def _dial_twice(self, host: str, port: int) -> trio.SocketStream:
        try:
            return await self._dial(host, port)
        except OSError as exc:
            if not (is_out_of_resources(exc) and _give_up_idle()):
                raise
        return await self._dial(host, port)

    async def _tls_context(self, origin: Origin, *, http2: bool = False) -> ssl.SSLContext:
        if not self._trust.is_loaded(http2=http2):
            # Reads and parses a hundred certificates or more: in a thread, once, for the first caller. That thread is
            # never abandoned: a program that exited meanwhile would run OpenSSL's exit hook during it, and crash.
            async with self._trust_lock:
                try:
                    await trio.to_thread.run_sync(partial(self._trust.context, http2=http2))
                except OSError as exc:
                    if is_out_of_resources(exc):
                        raise OutOfResources(origin, wire_reason(exc)) from exc
                    file = f" in {self._trust.ca_file}" if self._trust.ca_file else ""
                    raise TlsFailed(
                        origin, f"the trusted certificates{file} cannot be read: {wire_reason(exc)}"
                    ) from exc
        return self._trust.context(http2=http2)


async def _in_tls(wire: Wire, context: ssl.SSLContext, origin: Origin, host: str, whose: str = "") -> TlsWire:
    """Return TLS with ``host`` over ``wire``. If the handshake fails, ``wire`` is closed."""
    try:
        tls = TlsWire(wire, context, host)
        await tls.handshake()
    except WIRE_ERRORS as exc:
        wire.close()
        raise TlsFailed(origin, whose + wire_reason(exc)) from exc
    except UnicodeError as exc:
        wire.close()
        raise TlsFailed(origin, f"{whose}not a valid host name") from exc
    except BaseException:
        wire.close()
        raise
    return tls


def _idle_of_this_run() -> weakref.WeakSet[IdleStack]:
    try:
        return _IDLE.get()
    except LookupError:
        stacks = weakref.WeakSet[IdleStack]()
        _IDLE.set(stacks)
        return stacks


def _give_up_idle() -> bool:
    """Close the idle connections of all transports of this Trio run. Returns whether there were any."""
    found = [stack for stack in _idle_of_this_run() if len(stack)]
    for stack in found:
        stack.clear()
    return bool(found)


class ConnectionLease:
    """The block around one response. It is a class and not a generator, because a generator would keep the request,
    with its prompt, in memory until the end of the block.
    """

    __slots__ = ("_connect_timeout", "_connection", "_on_sent", "_request", "_response", "_transport")

    def __init__(
        self,
        transport: Transport,
        request: HttpRequest,
        connect_timeout: float,
        on_sent: Callable[[], None] | None = None,
    ) -> None:
        self._transport = transport
        self._request = request
        self._connect_timeout = connect_timeout
        self._on_sent = on_sent

    async def __aenter__(self) -> HttpResponse:
        self._connection, self._response = await self._transport.exchange(
            self._request, self._connect_timeout, self._on_sent
        )
        del self._request
        return self._response

    async def __aexit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None
    ) -> None:
        self._response.end()
        self._transport.put_back(self._connection)
