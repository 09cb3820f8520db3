"""``[server]``: where the daemon listens, and its limits.

Each limit is defined once. The server reads it from this struct, and docs/limits.md is generated from it.
"""

from __future__ import annotations

from ipaddress import ip_network
from typing import Annotated

from msgspec import Meta

from llm_runtime.config.conversion import Line, Section

MIB = 1024 * 1024

Port = Annotated[int, Meta(ge=0, le=65_535)]
Count = Annotated[int, Meta(ge=1, le=1_000_000)]
Megabytes = Annotated[float, Meta(gt=0, le=65_536)]
Seconds = Annotated[float, Meta(gt=0, le=86_400)]
SecondsOrZero = Annotated[float, Meta(ge=0, le=31_536_000)]


class ServerLimits(Section, frozen=True, kw_only=True):
    """The limits of the server, as part of ``[server]``. A megabyte is 1,048,576 bytes."""

    max_connections: Count = 1_000
    """The most open connections, HTTP and WebSocket together. For one more, the oldest connection without a valid key
    is closed. If all connections have valid keys, the new one gets a 429, except for health and metrics."""
    max_unverified_per_peer: Count = 50
    """The most connections from one address without a valid key, if keys are configured. With one more, the oldest of
    them is closed."""
    max_runs: Count = 5_000
    """The most requests in progress at the same time, over all connections. The next request gets a 429."""
    max_body_mb: Megabytes = 16.0
    """The largest body of a request, and the largest WebSocket message."""
    max_body_total_mb: Megabytes = 256.0
    """The limit on the total size of the bodies of all requests in progress. A request that exceeds the limit gets a
    503."""
    max_json_values: Annotated[int, Meta(ge=1_000, le=10_000_000)] = 1_000_000
    """The most values in the JSON of a request or WebSocket message, counted by commas and opening brackets. A request
    with more gets a 400."""
    log_limit_mb: Annotated[float, Meta(gt=0, le=1_024)] = 8.0
    """The largest response: its text, reasoning and tool calls. A larger one fails with `log_limit`."""
    max_body_s: Seconds = 120.0
    """The most seconds for a body to arrive, however large it is. A body slower than 16 KiB per second is refused
    earlier.
    """
    head_s: Seconds = 10.0
    """The most seconds for the head of a request to arrive, and for a new connection to send the first byte."""
    keep_alive_s: Seconds = 75.0
    """Seconds that an idle HTTP connection is kept open."""
    hold_head_s: Annotated[float, Meta(ge=0, le=600)] = 30.0
    """The most seconds that the head of a streamed response waits for the first event. A failure before the head
    is sent is an HTTP error, a later one is an event of the stream."""
    websocket_lifetime_s: SecondsOrZero = 3_600.0
    """Seconds that a WebSocket may stay open; 0: no limit."""
    websocket_responses: Count = 16
    """The most responses in progress on one WebSocket. Further requests wait."""
    websocket_lanes: Count = 32
    """The most named lanes on one WebSocket, besides the default lane. A request for one more gets a 400."""
    websocket_queue: Count = 64
    """The most requests that wait on one lane. The next request gets a 429."""
    websocket_queue_mb: Megabytes = 16.0
    """The limit on the total size of the requests that wait on one WebSocket. A request that exceeds the limit gets a
    429, unless no other request waits."""
    stored_s: Seconds = 600.0
    """Seconds for which a stored response is kept in memory after its end."""
    stored_mb: Megabytes = 64.0
    """The limit on the total size of the stored responses in memory. The oldest are dropped first."""

    @property
    def max_body_bytes(self) -> int:
        """`max_body_mb` in bytes."""
        return int(self.max_body_mb * MIB)

    @property
    def max_body_total_bytes(self) -> int:
        """`max_body_total_mb` in bytes."""
        return int(self.max_body_total_mb * MIB)

    @property
    def websocket_queue_bytes(self) -> int:
        """`websocket_queue_mb` in bytes."""
        return int(self.websocket_queue_mb * MIB)

    @property
    def log_limit_bytes(self) -> int:
        """`log_limit_mb` in bytes."""
        return int(self.log_limit_mb * MIB)

    @property
    def stored_bytes(self) -> int:
        """`stored_mb` in bytes."""
        return int(self.stored_mb * MIB)


class ServerTls(Section, frozen=True, kw_only=True):
    """``[server.tls]``: TLS in the daemon itself. The files are PEM. They are read again when they change."""

    certificate: Line
    """The file with the certificate, followed by the intermediate certificates (PEM)."""
    key: Line | None = None
    """The file with the private key (PEM); omitted: the key is in the file of the certificate."""
    client_ca: Line | None = None
    """A file with certificates of authorities (PEM). Clients must present a certificate that one of these authorities
    has signed. Omitted: clients need no certificate.
    """


class Server(ServerLimits, frozen=True, kw_only=True):
    """``[server]``: where the daemon listens. Port 0 is any free port."""

    host: Line = "127.0.0.1"
    """The address to listen on. Any address but loopback needs a key and TLS (docs/how-to/keys.md)."""
    port: Port = 8080
    """The port to listen on; 0: any free port."""
    workers: Annotated[int, Meta(ge=1, le=64)] = 1
    """The number of processes that share the work; use at most one per core. Each process has the limits of this
    section.
    """
    drain_s: Annotated[float, Meta(ge=0, le=86_400)] = 30.0
    """Seconds that responses in progress may continue after the first SIGTERM, from the end of `ready_delay_s`. A
    second SIGTERM ends them.
    """
    allowed_origins: tuple[Line, ...] = ()
    """Origins of web pages that may connect, in addition to the pages of the daemon itself. Pages of other origins get
    a 403."""
    allowed_hosts: tuple[Line, ...] = ()
    """Host names that requests may have in their Host header, in addition to the daemon's address and loopback. With
    any other name, a request gets a 403."""
    unix: Line | None = None
    """A unix socket to listen on, instead of host and port. The permissions of the file decide who may connect."""
    unix_mode: Annotated[str, Meta(pattern="^0?[0-7]{3}$")] = "600"
    """The permissions of the file of the unix socket, in octal."""
    tls: ServerTls | None = None
    ready_delay_s: Annotated[float, Meta(ge=0, le=3_600)] = 0.0
    """Seconds that a stopping daemon still accepts requests while `/readyz` says 503, so that load balancers notice."""
    insecure_no_tls: bool = False
    """Whether the daemon may listen beyond loopback without TLS, because a proxy in front of the daemon provides TLS.
    """
    trusted_proxies: tuple[Line, ...] = ()
    """Addresses or networks of proxies in front, such as `10.0.0.0/8`. Many callers share the address of a proxy, so
    `max_unverified_per_peer` does not apply to it."""
    websocket: bool = True
    """Whether WebSockets are enabled. If not, clients that try one get an error that says to use HTTP."""

    def __post_init__(self) -> None:
        if self.unix is not None and self.tls is not None:
            raise ValueError("a unix socket cannot use TLS: omit server.tls or server.unix")
        if self.max_body_mb > self.max_body_total_mb:
            raise ValueError("max_body_mb must not be more than max_body_total_mb")
        for proxy in self.trusted_proxies:
            try:
                ip_network(proxy, strict=False)
            except ValueError:
                raise ValueError(f"trusted_proxies: {proxy!r} is not an address or network") from None
