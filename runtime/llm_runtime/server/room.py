"""Room for connections: those who belong here are never shut out by those who say nothing.

A connection begins as a stranger. It is known once it has shown a valid key, or, where no keys are configured, once it
has made a request that is not refused. When there is no room for one more, the stranger that came first makes way: who
belongs here says so at once, and a silent connection has had longer to do it than any that came after it. When all are
known, the newcomer gets a place in a small reserve, where only health and metrics are answered.

Where keys are configured, strangers may take only a part of the room: so many per address, and a quarter of what the
known ones leave. An address that many callers have in common (loopback, a trusted proxy, a unix socket) has no limit of
its own.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence
from typing import Generic, Protocol, TypeVar, final

from llm_runtime.config import ServerLimits
from llm_runtime.server.limits import RESERVED_CONNECTIONS, STRANGERS_SHARE
from llm_runtime.server.logins import network_of


class Guest(Protocol):
    """A connection, as far as room is concerned."""

    @property
    def peer_host(self) -> str:
        """The address it comes from; empty for a unix socket."""
        ...

    def make_way(self) -> None:
        """End now: its place is another's. Must neither wait nor raise."""
        ...


G = TypeVar("G", bound=Guest)


@final
class Room(Generic[G]):
    """Who is here. Pure bookkeeping, in the order of arrival."""

    def __init__(self, limits: ServerLimits, *, has_keys: bool, proxies: Sequence[str] = ()) -> None:
        self._limits = limits
        self._has_keys = has_keys
        self._proxies = tuple(ipaddress.ip_network(each, strict=False) for each in proxies)
        self._known: set[G] = set()
        self._strangers: dict[G, str] = {}
        self._reserved: dict[G, None] = {}
        self._counted: dict[G, None] = {}
        self._by_peer: dict[str, dict[G, None]] = {}

    def __len__(self) -> int:
        return len(self._known) + len(self._strangers) + len(self._reserved)

    @property
    def newcomers_at_once(self) -> int:
        """How many may enter before those that entered first have had their say: of more, one could have to make way
        for another before it could show a key.
        """
        if not self._has_keys:
            return max(1, self._limits.max_connections - len(self._known))
        return max(1, min(self._share(), self._limits.max_unverified_per_peer))

    @property
    def strangers(self) -> int:
        """Connections that are not known yet."""
        return len(self._strangers)

    def enter(self, guest: G) -> None:
        """Take a connection in; another may have to make way for it."""
        peer = self._counted_peer(guest.peer_host)
        of_peer = self._by_peer.get(peer, {})
        if peer and len(of_peer) >= self._limits.max_unverified_per_peer:
            self._turn_out(next(iter(of_peer)))
        elif peer and len(self._counted) >= self._share():
            self._turn_out(next(iter(self._counted)))
        elif len(self._known) + len(self._strangers) >= self._limits.max_connections:
            if not self._strangers:
                self._enter_reserve(guest)
                return
            self._turn_out(next(iter(self._strangers)))
        self._strangers[guest] = peer
        if peer:
            self._counted[guest] = None
            self._by_peer.setdefault(peer, {})[guest] = None

    def is_reserved(self, guest: G) -> bool:
        """Whether ``guest`` is here only to ask for health and metrics."""
        return guest in self._reserved

    def recognise(self, guest: G) -> None:
        """``guest`` belongs here."""
        if guest in self._strangers:
            self._forget_stranger(guest)
            self._known.add(guest)

    def leave(self, guest: G) -> None:
        """``guest`` has gone, or has been told to."""
        self._known.discard(guest)
        self._reserved.pop(guest, None)
        if guest in self._strangers:
            self._forget_stranger(guest)

    def _share(self) -> int:
        return max(1, (self._limits.max_connections - len(self._known)) // STRANGERS_SHARE)

    def _counted_peer(self, host: str) -> str:
        """What a stranger from ``host`` is counted by; empty where it is not."""
        if not self._has_keys or not host:
            return ""
        try:
            address = ipaddress.ip_address(host.partition("%")[0])
        except ValueError:
            return host
        if address.is_loopback or any(address in proxy for proxy in self._proxies):
            return ""
        return network_of(host)

    def _enter_reserve(self, guest: G) -> None:
        if len(self._reserved) >= RESERVED_CONNECTIONS:
            self._turn_out(next(iter(self._reserved)))
        self._reserved[guest] = None

    def _turn_out(self, guest: G) -> None:
        self.leave(guest)
        guest.make_way()

    def _forget_stranger(self, guest: G) -> None:
        peer = self._strangers.pop(guest)
        if peer:
            del self._counted[guest]
            of_peer = self._by_peer[peer]
            del of_peer[guest]
            if not of_peer:
                del self._by_peer[peer]
