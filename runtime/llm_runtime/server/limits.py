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

STRANGERS_SHARE = 4
"""Connections without a valid key may take one part in so many of the connections that are left."""

EXHAUSTED_PAUSE_SECONDS = 0.1
"""How long accepting pauses when the process has no file descriptor left."""

ACCEPTED_AT_ONCE = 16
"""Connections that are accepted before those that are there already have their turn."""

LINGERING_CONNECTIONS = 32
"""Connections that are read from after our last words, so that their clients come to read them; others are cut."""

BACKLOG = 1_024
"""Connections the kernel holds for us until we accept them."""

HEAD_BYTES = 16 * 1024
"""Request line and header fields together."""

CHUNKS_AT_ONCE = 256
"""Chunks of a body that are read before other connections have their turn."""

CONTENT_ENCODINGS = 3
"""Encodings of one body, applied one after another."""

ZSTD_WINDOW_BYTES = 8 * 1024 * 1024
"""The largest zstd window, as RFC 9659 has it: the memory that a few bytes of a body can claim."""

PIPELINED_BYTES = 64 * 1024
"""Bytes of further requests that a client may send while one is being answered; with more it is cut off."""

RECEIVE_BYTES = 64 * 1024
"""Bytes taken from a socket at once."""

BODY_SECONDS = 10.0
"""For a body to arrive, plus what it takes at `MIN_RATE`."""

WRITE_STALL_SECONDS = 30.0
"""How far a peer that is slow to read may fall behind `MIN_RATE` before its socket is aborted: a write of n bytes has
this long plus n / `MIN_RATE`. The stall rule; it is the same for HTTP and WebSocket.
"""

MIN_RATE = 16 * 1024
"""Bytes per second below which a peer counts as stalled."""

WRITE_PIECE_BYTES = 64 * 1024
"""The stall rule is applied to each piece of this size, so it does not matter how an answer is cut into writes."""

KEEPALIVE_IDLE_SECONDS = 15
"""A connection over which nothing came for this long is probed by the kernel (TCP_KEEPIDLE)."""

KEEPALIVE_INTERVAL_SECONDS = 5
"""Time between two such probes (TCP_KEEPINTVL)."""

VANISHED_SECONDS = 40
"""A peer whose machine or network is gone: how long sent bytes and probes may stay without an acknowledgement, and how
long it may refuse all bytes, before the kernel breaks the connection (TCP_USER_TIMEOUT).
"""

UNSENT_BYTES = 16 * 1024
"""Unsent bytes the kernel may hold for one socket (TCP_NOTSENT_LOWAT): what comes later is chosen later."""

SSE_PING_SECONDS = 15.0
"""An idle event stream sends its wire's keep-alive this often: see `stream_format`."""

WS_PING_SECONDS = 20.0
"""A WebSocket whose peer has sent nothing for this long is pinged, and aborted when it sends nothing for as long again.
It is given more time to read what was written before the ping: see `Heartbeat`.
"""

CLOSE_SECONDS = 2.0
"""For any closing handshake, and for a peer to read our last words."""

SHUTDOWN_SECONDS = 2 * CLOSE_SECONDS + 1.0
"""What the server may take to end, beyond `drain_s`."""

PARTING_SECONDS = 0.5
"""For all connections together to be told that they are cut off. Less than the kernel waits for an actor it cancels."""

LINGER_BYTES = 1024 * 1024
"""Bytes thrown away from a peer that still sends while we close."""

LANE_NAME = r"[A-Za-z0-9_.-]{1,256}"
"""What a lane may be called."""

MESSAGE_FRAGMENTS = 16_384
"""Frames that one WebSocket message may come in."""

UNSAID_FRAMES = 256
"""Frames about requests (errors, that one waits, that one was withdrawn) that wait for a client that does not read. One
more and it is closed with 1008.
"""

UNSAID_BYTES = 32 * 1024 * 1024
"""Bytes of those frames, which may repeat what a request said; one alone may be larger."""

WRITE_BATCH_BYTES = 16 * 1024
"""WebSocket messages are written together up to this size, a larger one in fragments of it. Pings and pongs go in
between.
"""

ECHOED_CHARACTERS = 256
"""The longest id of a client that an error repeats."""

ECHOED_INPUT_CHARACTERS = 64 * 1024
"""The longest ``response.steer`` message whose ids an error repeats."""

ISSUED_IDS = 10_000
"""Ids of the vendors' that are remembered for each caller; of more, the least recently used are forgotten."""

RECENT_RESPONSES = 256
"""Responses a WebSocket connection remembers for ``previous_response_id``."""

RECENT_BYTES = 16 * 1024 * 1024
"""Bytes of conversation it remembers them with."""

PAGE_ITEMS = 20
"""Input items of a response on one page, if the client does not say how many."""

MAX_PAGE_ITEMS = 100
"""The most input items that a client may ask for on one page."""

LATER_SECONDS = 1
"""Retry-After where waiting helps and nothing says for how long."""

TICK_SECONDS = 1.0
"""How often deadlines that need no precision are looked at."""
