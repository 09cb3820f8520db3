"""The limits of the server that are not options, each with its unit. Options: `llm_runtime.config.ServerLimits`."""

from __future__ import annotations

FAILED_LOGINS = 10
"""Wrong keys from one peer within `LOGIN_SECONDS` that are answered with 401; more are with 429."""

LOGIN_SECONDS = 60.0
"""How long wrong keys are counted together, from the first of them on."""

WATCHED_PEERS = 4_096
"""Peers whose wrong keys are counted; of more, those that began first are forgotten."""

RESERVED_CONNECTIONS = 16
"""Connections beyond `max_connections`, at which only health and metrics are answered."""

RESERVED_SECONDS = 2.0
"""How long one of those may take to ask."""

DEPARTING_CONNECTIONS = 64
"""Connections that have been told to make way and are not closed yet."""

BACKLOG = 1_024
"""Connections the kernel holds for us until we accept them."""

HEAD_BYTES = 16 * 1024
"""Request line and header fields together."""

CHUNKS_AT_ONCE = 256
"""Chunks of a body that are read before other connections have their turn."""

PIPELINED_BYTES = 64 * 1024
"""Bytes of further requests that a client may send while one is being answered; with more it is cut off."""

RECEIVE_BYTES = 64 * 1024
"""Bytes taken from a socket at once."""

BODY_SECONDS = 10.0
"""For a body to arrive, plus what it takes at `MIN_RATE`."""

WRITE_STALL_SECONDS = 30.0
"""For one write to a peer that is slow to read, plus what it takes at `MIN_RATE`; then the socket is aborted."""

MIN_RATE = 16 * 1024
"""Bytes per second below which a peer counts as stalled."""

UNSENT_BYTES = 16 * 1024
"""Unsent bytes the kernel may hold for one socket (TCP_NOTSENT_LOWAT): what comes later is chosen later."""

SSE_PING_SECONDS = 15.0
"""An idle event stream says ``: ping`` this often."""

WS_PING_SECONDS = 20.0
"""An idle WebSocket is pinged this often, and aborted when nothing came back by the next time."""

CLOSE_SECONDS = 2.0
"""For any closing handshake, and for a peer to read our last words."""

LINGER_BYTES = 1024 * 1024
"""Bytes thrown away from a peer that still sends while we close."""

LANE_NAME = r"[A-Za-z0-9_.-]{1,256}"
"""What a lane may be called."""

MESSAGE_FRAGMENTS = 16_384
"""Frames that one WebSocket message may come in."""

UNSAID_FRAMES = 256
"""Error frames that wait for a client which does not read; one more and it is closed with 1008."""

WRITE_BATCH_BYTES = 16 * 1024
"""Frames are gathered up to this size before they are written."""

RECENT_RESPONSES = 256
"""Responses a WebSocket connection remembers for ``previous_response_id``."""

RECENT_BYTES = 16 * 1024 * 1024
"""Bytes of conversation it remembers them with."""

TICK_SECONDS = 1.0
"""How often deadlines that need no precision are looked at."""
