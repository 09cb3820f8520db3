"""Decide whether a WebSocket's peer is still connected. Pure: it is given byte counts and the time.

The socket's byte counters are compared with those of the previous check. Times of events are not compared with each
other: two events between the same two checks have no known order.
"""

from __future__ import annotations

from enum import Enum
from typing import Protocol, final

from llm_runtime.server.limits import MIN_RATE, WRITE_STALL_SECONDS, WS_PING_SECONDS


class Traffic(Protocol):
    """The properties of a socket that a heartbeat reads; see `Socket`."""

    @property
    def received(self) -> int:
        """Bytes received so far."""
        ...

    @property
    def sent(self) -> int:
        """Bytes that the kernel has accepted so far."""
        ...

    @property
    def is_blocked(self) -> bool:
        """Whether a write is waiting for the peer to read."""
        ...


class Beat(Enum):
    """What to do now."""

    NOTHING = "nothing"
    PING = "ping"
    ABORT = "abort"


@final
class Heartbeat:
    """Decides when to ping a peer and when to give it up.

    A peer is alive if it sends bytes, or if it reads while a write waits for it. A peer that has sent nothing for
    `WS_PING_SECONDS` is pinged. It then has the same time to send bytes, and never less than the stall rule
    allows for reading the bytes that were written before the ping. While a write waits, only the stall rule applies
    (see `Socket.send`).
    """

    def __init__(self, traffic: Traffic, now: float) -> None:
        self._traffic = traffic
        self._received = traffic.received
        self._sent = self._confirmed = traffic.sent
        self._heard_at = self._sent_at = now
        self._was_blocked = False
        self._until: float | None = None  # when an unanswered ping means that the peer is gone

    def look(self, now: float) -> Beat:
        """Check the traffic; call this about once a second. After `Beat.PING` a ping must be sent."""
        traffic, blocked = self._traffic, self._traffic.is_blocked
        if traffic.received != self._received:
            self._received, self._confirmed = traffic.received, traffic.sent
            self._heard_at, self._until = now, None
        if traffic.sent != self._sent:
            self._sent, self._sent_at = traffic.sent, now
            if self._until is not None and (blocked or self._was_blocked):
                self._until = max(self._until, now + WRITE_STALL_SECONDS)  # the peer freed buffer space, so it reads
        self._was_blocked = blocked
        if blocked:
            return Beat.NOTHING
        if self._until is not None:
            return Beat.ABORT if now >= self._until else Beat.NOTHING
        if now - self._heard_at < WS_PING_SECONDS:
            return Beat.NOTHING
        # an upper bound: the pong comes after the peer has read everything before the ping
        unread = self._sent - self._confirmed
        self._until = max(now + WS_PING_SECONDS, self._sent_at + WRITE_STALL_SECONDS) + unread / MIN_RATE
        return Beat.PING
