"""Which connections may stay, so that silent clients cannot shut out legitimate ones.

A connection is unverified until it has shown a valid key or, if no keys are configured, until it has made a request
that is not refused. When `max_connections` is reached, the oldest unverified connection is closed: a legitimate client
sends its request at once, and the oldest connection has had the most time to do so. If all connections are verified,
the new one is taken into a small reserve that serves only health and metrics.

If keys are configured, unverified connections may take only a part of the limit: a number per address, and a quarter of
what the verified ones leave. An address that many callers share (loopback, a trusted proxy, a unix socket) has no such
limit.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence
from typing import Generic, Protocol, TypeVar, final

from llm_runtime.config import ServerLimits
from llm_runtime.server.limits import RESERVED_CONNECTIONS, UNVERIFIED_SHARE
from llm_runtime.server.logins import network_of


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
