"""Count wrong keys by peer.

Only requests with a wrong key are ever refused because of earlier wrong keys. A valid key is always accepted: behind
a proxy all callers share one address, and no caller may be able to lock out the others. So the count slows down
clients that retry in a loop, and warns the operator. The length of the keys protects them from guessing.
"""

from __future__ import annotations

import ipaddress
import logging
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from math import ceil
from typing import final

import trio

from llm_runtime.server.http_error import HttpError, too_many_wrong_keys
from llm_runtime.server.limits import FAILED_LOGINS, LOGIN_SECONDS, WATCHED_PEERS

log = logging.getLogger("llm_runtime.server")

_IPV6_NETWORK_BITS = 64
"""The bits of an IPv6 address that count as one peer: a client usually has all addresses with the same first 64 bits.
"""


@dataclass(slots=True)
class _Window:
    since: float
    failures: int = 0


@final
class FailedLogins:
    """Counts wrong keys of at most `WATCHED_PEERS` peers, ordered by the start of their windows. ``tell`` is called
    with the peer of each wrong key that is counted, so that other workers can count it, too.
    """

    def __init__(self, tell: Callable[[str], None] | None = None) -> None:
        self._tell = tell
        self._windows: OrderedDict[str, _Window] = OrderedDict()

    def another(self, host: str) -> HttpError | None:
        """Count a wrong key from ``host``. Returns the error to send if its network has now sent too many, else
        ``None``.
        """
        now, peer = trio.current_time(), network_of(host)
        window = self._count(peer, now)
        if self._tell is not None and window.failures <= FAILED_LOGINS + 1:
            self._tell(peer)
        if window.failures <= FAILED_LOGINS:
            return None
        if window.failures == FAILED_LOGINS + 1:
            log.warning("more than %d wrong keys from %s within %g s", FAILED_LOGINS, peer, LOGIN_SECONDS)
        return too_many_wrong_keys(ceil(window.since + LOGIN_SECONDS - now))

    def count(self, peer: str) -> None:
        """Count a wrong key that ``peer`` has shown to another worker."""
        self._count(peer, trio.current_time())

    def _count(self, peer: str, now: float) -> _Window:
        window = self._windows.get(peer)
        if window is None or now >= window.since + LOGIN_SECONDS:
            window = self._begin(peer, now)
        window.failures += 1
        return window

    def _begin(self, peer: str, now: float) -> _Window:
        window = self._windows[peer] = _Window(now)
        self._windows.move_to_end(peer)
        if len(self._windows) > WATCHED_PEERS:
            self._windows.popitem(last=False)
        return window


def network_of(host: str) -> str:
    """Return the key under which a peer is counted: its IPv4 address, or its IPv6 network."""
    try:
        address = ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return host
    if address.version == 4:
        return host
    return str(ipaddress.ip_network((address, _IPV6_NETWORK_BITS), strict=False))
