"""Every bound of the front door, with its unit. Nothing in here waits or grows beyond one of these."""

from __future__ import annotations

MAX_CONNECTIONS = 1_000
"""Connections at once; one more is refused with 429."""

FAILED_LOGINS = 10
"""Wrong keys from one peer within `LOGIN_SECONDS` that are answered with 401; more are with 429."""

LOGIN_SECONDS = 60.0
"""How long wrong keys are counted together, from the first of them on."""

WATCHED_PEERS = 4_096
"""Peers whose wrong keys are counted; of more, those that began first are forgotten."""

BACKLOG = 1_024
"""Connections the kernel holds for us until we accept them."""

HEAD_BYTES = 16 * 1024
"""Request line and header fields together."""

BODY_BYTES = 16 * 1024 * 1024
"""A request's body, and a WebSocket message (base64 images)."""

PIPELINED_BYTES = 64 * 1024
"""Bytes of further requests that a client may send while one is being answered; with more it is cut off."""

RECEIVE_BYTES = 64 * 1024
"""Bytes taken from a socket at once."""

HEAD_SECONDS = 10.0
"""From the first byte of a request to the end of its head; also for the WebSocket handshake."""

BODY_SECONDS = 10.0
"""For a body to arrive, plus what it takes at `MIN_RATE`."""

KEEP_ALIVE_SECONDS = 75.0
"""An idle HTTP connection is closed after this."""

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

ACTIVE_RESPONSES = 16
"""Responses in flight on one WebSocket."""

NAMED_LANES = 32
"""Named lanes on one WebSocket, the default one not counted."""

QUEUED_PER_LANE = 64
"""Requests that wait on one lane."""

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

RETENTION_SECONDS = 600.0
"""Stored responses can be asked for this long after their end."""

RETAINED_BYTES = 64 * 1024 * 1024
"""Bytes of stored responses; the oldest go first."""

TICK_SECONDS = 1.0
"""How often deadlines that need no precision are looked at."""
