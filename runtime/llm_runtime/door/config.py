"""What the door needs to know."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from llm_protocol.secret import Secret


class DoorConfig(msgspec.Struct, frozen=True, kw_only=True):
    """Where to listen and whom to let in.

    Without ``keys`` everyone who reaches the port may ask. ``expires`` has the keys that end, with when: seconds since
    the epoch, by the wall clock. ``allowed_origins`` are the web pages that may, and
    ``allowed_hosts`` the names, besides loopback's, under which the daemon may be addressed. A WebSocket lives
    ``lifetime_s`` seconds at most (0: as long as it likes); with ``websocket`` off, clients are told to use HTTP.
    """

    host: str = "127.0.0.1"
    port: int = 8080
    keys: Mapping[str, Secret] = msgspec.field(default_factory=dict)
    expires: Mapping[str, float] = msgspec.field(default_factory=dict)
    allowed_origins: tuple[str, ...] = ()
    allowed_hosts: tuple[str, ...] = ()
    drain_s: float = 30.0
    lifetime_s: float = 3600.0
    websocket: bool = True
