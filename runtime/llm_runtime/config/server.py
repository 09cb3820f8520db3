"""``[server]``: where the daemon listens, and its limits.

Each limit is defined once. The server reads it from this struct, and docs/limits.md is generated from it.
"""

from __future__ import annotations

from ipaddress import ip_network
from typing import Annotated

from msgspec import Meta

from llm_runtime.config.section import Line, Section

MIB = 1024 * 1024

Port = Annotated[int, Meta(ge=0, le=65_535)]
Count = Annotated[int, Meta(ge=1, le=1_000_000)]
Megabytes = Annotated[float, Meta(gt=0, le=65_536)]
Seconds = Annotated[float, Meta(gt=0, le=86_400)]
SecondsOrZero = Annotated[float, Meta(ge=0, le=31_536_000)]


class ServerLimits(Section, frozen=True, kw_only=True):
    """The limits of the server, as part of ``[server]``. A megabyte is 1,048,576 bytes."""

    max_connections: Count = 1_000
    """Connections at once, HTTP and WebSocket together. One more is answered with 429."""
    max_unverified_per_peer: Count = 50
    """Connections of one address that have not shown a valid key, if keys are configured."""
    max_runs: Count = 5_000
    """Requests in progress at once, over any number of connections; one more is answered with 429."""
    max_body_mb: Megabytes = 16.0
    """The body of one request, and one WebSocket message."""
    max_body_total_mb: Megabytes = 256.0
    """All bodies together that are being received or answered; one that exceeds this is answered with 503."""
    max_json_values: Annotated[int, Meta(ge=1_000, le=10_000_000)] = 1_000_000
    """Values in the JSON of one request or WebSocket message, counted by commas and opening brackets."""
    log_limit_mb: Annotated[float, Meta(gt=0, le=1_024)] = 8.0
    """The size of the text of one response, as kept in its run log; a longer response fails with `log_limit`."""
    max_body_s: Seconds = 120.0
    """Time for a body to arrive, however large it is."""
    head_s: Seconds = 10.0
    """Time from the first byte of a request to the end of its head, and for a new connection to send one."""
    keep_alive_s: Seconds = 75.0
    """How long an idle HTTP connection is kept open."""
    hold_head_s: Annotated[float, Meta(ge=0, le=600)] = 30.0
    """How long the head of a streamed response waits for the first event; a failure until then is an HTTP error."""
    websocket_lifetime_s: SecondsOrZero = 3_600.0
    """How long a WebSocket may stay open; 0: no limit."""
    websocket_responses: Count = 16
    """Responses in flight on one WebSocket."""
    websocket_lanes: Count = 32
    """Named lanes on one WebSocket, the default lane not counted."""
    websocket_queue: Count = 64
    """Requests that wait on one lane."""
    websocket_queue_mb: Megabytes = 16.0
    """All waiting requests of one WebSocket together; a single one may be larger."""
    stored_s: Seconds = 600.0
    """How long a stored response can be retrieved after its end."""
    stored_mb: Megabytes = 64.0
    """All stored responses together; the oldest are dropped first."""

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
    """``[server.tls]``: the daemon speaks TLS itself. Files are PEM and are noticed when they change."""

    certificate: Line
    """The certificate, and behind it those of the authorities in between."""
    key: Line | None = None
    """Its private key; omitted: it is in the same file."""
    client_ca: Line | None = None
    """Clients must show a certificate that one of these authorities has signed."""


class Server(ServerLimits, frozen=True, kw_only=True):
    """``[server]``: where the daemon listens. Port 0 is any free port."""

    host: Line = "127.0.0.1"
    """The address to listen on. Any address but loopback needs a key and TLS (docs/how-to/keys.md)."""
    port: Port = 8080
    """The port to listen on; 0: any free port."""
    workers: Annotated[int, Meta(ge=1, le=64)] = 1
    """Processes that share the work, one for each core at most; each has the limits below for itself."""
    drain_s: Annotated[float, Meta(ge=0, le=86_400)] = 30.0
    """How long running responses may go on after the first SIGTERM."""
    allowed_origins: tuple[Line, ...] = ()
    """Origins of web pages that may connect. By default none may."""
    allowed_hosts: tuple[Line, ...] = ()
    """Host names, besides loopback's, that requests may have in their Host field."""
    unix: Line | None = None
    """A unix socket to listen on, instead of host and port: the permissions of the file say who may connect."""
    unix_mode: Annotated[str, Meta(pattern="^0?[0-7]{3}$")] = "600"
    """The permissions of the unix socket, octal."""
    tls: ServerTls | None = None
    ready_delay_s: Annotated[float, Meta(ge=0, le=3_600)] = 0.0
    """How long a daemon that stops still takes requests while `/readyz` says 503, for balancers to notice."""
    insecure_no_tls: bool = False
    """Listen beyond loopback without TLS, because a proxy in front of the daemon provides it."""
    trusted_proxies: tuple[Line, ...] = ()
    """Addresses or networks of proxies. Callers behind one share its address, so it has no limit of its own."""
    websocket: bool = True
    """Whether WebSockets are enabled; if not, clients are told to use HTTP."""

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
