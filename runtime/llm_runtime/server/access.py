"""Decide who may connect, and which connections may stay.

A request is checked before anything else, in this order: Host, Origin, key. Host: a web page can make its own name
resolve to 127.0.0.1 and reach a local daemon as if it were the page's own server. The Host field then contains the
page's name, which is not an allowed one. Origin: browsers send it for requests that a page makes; other programs send
none. The daemon's own page, the dashboard, is allowed. A presented key is compared with every configured key by digest,
so neither the timing nor the error distinguishes a wrong key from a missing or expired one. Wrong keys are counted per
peer; a client with a valid key is never refused because of them.

The number of connections is limited so that silent clients cannot shut out legitimate ones. A connection is unverified
until it has shown a valid key or, if no keys are configured, until it has made a request that is not refused. When
`max_connections` is reached, the oldest unverified connection is closed: a legitimate client sends its request at once,
and the oldest connection has had the most time to do so. If all connections are verified, the new one is taken into a
small reserve that serves only health and metrics.

If keys are configured, unverified connections may take only a part of the limit: a number per address, and a quarter of
what the verified ones leave. An address that many callers share (loopback, a trusted proxy, a unix socket) has no such
limit.
"""

from __future__ import annotations

import hashlib
import hmac
import ipaddress
import logging
import re
import time
from collections.abc import Callable, Mapping, Sequence
from enum import Enum
from typing import Generic, Protocol, TypeVar, final
from urllib.parse import parse_qsl

from llm_runtime.config import Key, Server, ServerLimits
from llm_runtime.server.http_error import HttpError, wrong_key
from llm_runtime.server.limits import RESERVED_CONNECTIONS, UNVERIFIED_SHARE
from llm_runtime.server.logins import FailedLogins, network_of
from llm_runtime.server.socket import UNIX

log = logging.getLogger("llm_runtime.server")

KEY_HEADERS = ("x-api-key", "x-goog-api-key", "api-key")
"""Header fields in which clients send the key, besides ``Authorization: Bearer``: Anthropic's, Google's and Azure's."""

KEY_PROTOCOL = "openai-insecure-api-key."
"""The prefix of the subprotocol in which a browser offers its key, because it cannot set header fields on a WebSocket.
"""

_HOST = re.compile(r"(\[[0-9a-f:.]+\]|[a-z0-9._-]+)(?::\d{1,5})?")
_LOOPBACK = frozenset(("localhost", "127.0.0.1", "::1"))
"""The common names of the loopback interface. `Access.is_our_host` also accepts every loopback address."""

_KEY_IN_QUERY = frozenset(("token", "access_token", "api_key", "apikey", "key"))


class Role(Enum):
    """The role that a request requires of its key."""

    CALLER = "caller"
    """Send requests. Every key has this role, unless it is for metrics only."""
    METRICS = "metrics"
    """Read the metrics of all callers. A key with ``admin`` or ``metrics_only`` has this role."""
    ADMIN = "admin"


@final
class Access:
    """The access rules, compiled once from the configuration."""

    def __init__(
        self, server: Server, keys: Mapping[str, Key], tell_wrong_key: Callable[[str], None] | None = None
    ) -> None:
        self.failed = FailedLogins(tell_wrong_key)
        self.change(server, keys)

    def change(self, server: Server, keys: Mapping[str, Key]) -> None:
        """Replace the rules. A caller that was removed is treated like one whose key has expired."""
        self._origins = frozenset(server.allowed_origins)
        self._hosts = frozenset(host.lower() for host in server.allowed_hosts)
        self._keys = tuple((name, _digest(key.secret.reveal())) for name, key in keys.items())
        self._expires = {name: key.expires.timestamp() for name, key in keys.items() if key.expires is not None}
        self._admins = frozenset(name for name, key in keys.items() if key.admin)
        self._metrics_only = frozenset(name for name, key in keys.items() if key.metrics_only)

    def check_place(self, headers: Mapping[str, str], query: str, local_host: str) -> None:
        """Check Host and Origin, and that the URL contains no key. Raises `HttpError`."""
        host = headers.get("host", "")
        if not self.is_our_host(host, local_host):
            message = "This host name is not served here; add it to server.allowed_hosts."
            raise HttpError(403, "host_not_allowed", message, close=True)
        origin = headers.get("origin")
        from_elsewhere = headers.get("sec-fetch-site") == "cross-site"  # browsers send it even without an Origin
        is_known = origin in self._origins or (origin is not None and _is_own_page(origin, host))
        if not is_known and (origin is not None or from_elsewhere):
            message = "Web pages of this origin may not connect; add it to server.allowed_origins."
            raise HttpError(403, "origin_not_allowed", message, close=True)
        if query and _KEY_IN_QUERY.intersection(name.lower() for name, _ in parse_qsl(query, keep_blank_values=True)):
            message = "A key must not be part of the URL, because URLs are logged; send it as Authorization: Bearer."
            raise HttpError(400, "key_in_query", message, close=True)

    def check_key(self, headers: Mapping[str, str], peer_host: str) -> str:
        """Return the name of the caller; empty if no keys are configured. Raises `HttpError`."""
        if not self._keys:
            return ""
        caller = self.owner(_presented(headers))
        if caller is None or self.has_expired(caller):
            refused = self.failed.another(peer_host)
            if refused is None:  # refused ones are logged as one line, see `FailedLogins`
                log.warning(
                    "%s from %s", "a wrong key" if _presented(headers) else "a request without a key", peer_host
                )
            raise refused or wrong_key()
        return caller

    def check_role(self, caller: str, role: Role) -> None:
        """Raise `HttpError` if the caller's key does not have ``role``."""
        if not self._keys or caller in self._admins:
            return
        if role is Role.ADMIN:
            raise HttpError(403, "not_allowed", "This endpoint needs a key with admin = true.")
        if role is Role.METRICS and caller not in self._metrics_only:
            raise HttpError(403, "not_allowed", "This endpoint needs a key with metrics_only = true or admin = true.")
        if role is Role.CALLER and caller in self._metrics_only:
            raise HttpError(403, "not_allowed", "This key is for /metrics only.")

    def sees_all(self, caller: str) -> bool:
        """Return whether the caller may see the requests of other callers."""
        return not self._keys or caller in self._admins

    def secret_of(self, caller: str) -> bytes | None:
        """Return a secret that only this caller and the runtime know; ``None`` if no keys are configured."""
        return next((digest for name, digest in self._keys if name == caller), None)

    def has_expired(self, caller: str) -> bool:
        """Whether the caller's key has expired. Compares ``expires`` with the wall clock."""
        if all(name != caller for name, _ in self._keys) and (self._keys or caller):
            return True
        expires = self._expires.get(caller)
        return expires is not None and time.time() >= expires

    def allows_origin(self, origin: str | None) -> bool:
        """Whether a page of this origin may read responses."""
        return origin is not None and origin in self._origins

    def is_our_host(self, host: str, local_host: str) -> bool:
        """Whether ``host`` (a Host field) is loopback, the local address of the connection, or configured. On a unix
        socket any ``host`` is accepted, because no web page can reach it.
        """
        if local_host == UNIX:
            return True
        if (parts := _HOST.fullmatch(host.lower())) is None:
            return False
        name = parts[1].strip("[]").rstrip(".")
        if name in _LOOPBACK or name == local_host or name in self._hosts or host.lower() in self._hosts:
            return True
        try:
            address = ipaddress.ip_address(name)
            return address.is_loopback or address == ipaddress.ip_address(local_host)
        except ValueError:
            return False

    def owner(self, presented: str) -> str | None:
        """Return the caller whose key is ``presented``; ``None`` if no caller has this key. ``presented`` is compared
        with all configured keys, so that the response time reveals nothing.
        """
        digest, found = _digest(presented), None
        for name, known in self._keys:
            if hmac.compare_digest(digest, known):
                found = name
        return found


def _is_own_page(origin: str, host: str) -> bool:
    """Whether the page is the daemon's own: its origin is the request's Host, which `Access.is_our_host` has checked.
    Behind a proxy that terminates TLS the scheme is https.
    """
    return origin in (f"http://{host}", f"https://{host}")


def _presented(headers: Mapping[str, str]) -> str:
    """Return the key in a request, from any header that the vendors' SDKs use; empty if there is none."""
    scheme, _, token = headers.get("authorization", "").partition(" ")
    if scheme.lower() == "bearer":
        return token.strip()
    for name in KEY_HEADERS:
        if name in headers:
            return headers[name].strip()
    return next((each.removeprefix(KEY_PROTOCOL) for each in protocols(headers) if each.startswith(KEY_PROTOCOL)), "")


def protocols(headers: Mapping[str, str]) -> list[str]:
    """The WebSocket subprotocols that a client offers."""
    return [each.strip() for each in headers.get("sec-websocket-protocol", "").split(",") if each.strip()]


def plain_protocol(headers: Mapping[str, str]) -> str | None:
    """The subprotocol to accept: the first that is not a key, because a key is never echoed. ``None`` if the client
    offers no other.
    """
    return next((each for each in protocols(headers) if not each.startswith(KEY_PROTOCOL)), None)


def _digest(key: str) -> bytes:
    return hashlib.sha256(key.encode("utf-8", "surrogatepass")).digest()


class AdmittedConnection(Protocol):
    """The part of a connection that the connection limit uses."""

    @property
    def peer_host(self) -> str:
        """The client's address; empty for a unix socket."""
        ...

    def evict(self) -> None:
        """Close now to make way for another connection. Must not wait or raise."""
        ...


G = TypeVar("G", bound=AdmittedConnection)


@final
class ConnectionAdmission(Generic[G]):
    """The current connections, in the order of arrival. Pure bookkeeping."""

    def __init__(self, limits: ServerLimits, *, has_keys: bool, proxies: Sequence[str] = ()) -> None:
        self._limits = limits
        self.has_keys = has_keys
        self._proxies = tuple(ipaddress.ip_network(each, strict=False) for each in proxies)
        self._verified: set[G] = set()
        self._unverified: dict[G, str] = {}
        self._reserved: dict[G, None] = {}
        self._counted: dict[G, None] = {}
        self._by_peer: dict[str, dict[G, None]] = {}

    def __len__(self) -> int:
        return len(self._verified) + len(self._unverified) + len(self._reserved)

    @property
    def acceptable_at_once(self) -> int:
        """How many new connections may be admitted before any of them is served. If more were admitted, one of them
        could be evicted before it had a chance to show a key.
        """
        if not self.has_keys:
            return max(1, self._limits.max_connections - len(self._verified))
        return max(1, min(self._share(), self._limits.max_unverified_per_peer))

    @property
    def unverified(self) -> int:
        """The number of connections that are not verified yet."""
        return len(self._unverified)

    def admit(self, connection: G) -> None:
        """Admit a connection. If a limit is reached, the oldest unverified connection that counts towards it is
        evicted. If all connections are verified, ``connection`` is taken into the reserve.
        """
        peer = self._counted_peer(connection.peer_host)
        of_peer = self._by_peer.get(peer, {})
        if peer and len(of_peer) >= self._limits.max_unverified_per_peer:
            self._evict(next(iter(of_peer)))
        elif peer and len(self._counted) >= self._share():
            self._evict(next(iter(self._counted)))
        elif len(self._verified) + len(self._unverified) >= self._limits.max_connections:
            if not self._unverified:
                self._admit_to_reserve(connection)
                return
            self._evict(next(iter(self._unverified)))
        self._unverified[connection] = peer
        if peer:
            self._counted[connection] = None
            self._by_peer.setdefault(peer, {})[connection] = None

    def is_reserved(self, connection: G) -> bool:
        """Whether ``connection`` is in the reserve, for health and metrics only."""
        return connection in self._reserved

    def mark_verified(self, connection: G) -> None:
        """Mark ``connection`` as verified."""
        if connection in self._unverified:
            self._remove_unverified(connection)
            self._verified.add(connection)

    def remove(self, connection: G) -> None:
        """Record that ``connection`` has closed or was asked to close."""
        self._verified.discard(connection)
        self._reserved.pop(connection, None)
        if connection in self._unverified:
            self._remove_unverified(connection)

    def _share(self) -> int:
        return max(1, (self._limits.max_connections - len(self._verified)) // UNVERIFIED_SHARE)

    def _counted_peer(self, host: str) -> str:
        """The key under which an unverified connection from ``host`` is counted; empty if it is not counted."""
        if not self.has_keys or not host:
            return ""
        try:
            address = ipaddress.ip_address(host.partition("%")[0])
        except ValueError:
            return host
        if address.is_loopback or any(address in proxy for proxy in self._proxies):
            return ""
        return network_of(host)

    def _admit_to_reserve(self, connection: G) -> None:
        if len(self._reserved) >= RESERVED_CONNECTIONS:
            self._evict(next(iter(self._reserved)))
        self._reserved[connection] = None

    def _evict(self, connection: G) -> None:
        self.remove(connection)
        connection.evict()

    def _remove_unverified(self, connection: G) -> None:
        peer = self._unverified.pop(connection)
        if peer:
            del self._counted[connection]
            of_peer = self._by_peer[peer]
            del of_peer[connection]
            if not of_peer:
                del self._by_peer[peer]
