"""The limits of the server that are not options, each with its unit. Options: `llm_runtime.config.ServerLimits`."""

from __future__ import annotations

FAILED_LOGINS = 10
"""Wrong keys of one peer within `LOGIN_SECONDS` that are answered with 401; further ones get 429."""

LOGIN_SECONDS = 60.0
"""The window in which wrong keys are counted together, starting with the first."""

WATCHED_PEERS = 4_096
"""The most peers whose wrong keys are counted. With more, those with the oldest windows are forgotten."""

RESERVED_CONNECTIONS = 16
"""Connections beyond `max_connections`, on which only health and metrics are served."""

RESERVED_SECONDS = 2.0
"""The time in which such a connection must send its request."""

DEPARTING_CONNECTIONS = 64
"""The most connections that were asked to close to make room, and have not closed yet."""

UNVERIFIED_SHARE = 4
"""Connections without a valid key may take one part in so many of the connections that are left."""

EXHAUSTED_PAUSE_SECONDS = 0.1
"""How long accepting pauses when the process has no file descriptor left."""

ACCEPTED_AT_ONCE = 16
"""Connections accepted before existing connections get their turn."""

LINGERING_CONNECTIONS = 32
"""Refused connections that are read from until the client has read the error; further ones are reset."""

BACKLOG = 1_024
"""Connections that the kernel queues until they are accepted."""

UNIX_PROBE_SECONDS = 1.0
"""Seconds to wait for a connection to an existing unix socket, to find out whether another process listens there."""

HEAD_BYTES = 16 * 1024
"""The size of a request line and its header fields together."""

CHUNKS_AT_ONCE = 256
"""Chunks of a body that are parsed before other connections get their turn."""

CONTENT_ENCODINGS = 3
"""Encodings of one body, applied one after another."""

ZSTD_WINDOW_BYTES = 8 * 1024 * 1024
"""The largest zstd window, as RFC 9659 has it: the memory that a few bytes of a body can claim."""

PIPELINED_BYTES = 64 * 1024
"""Bytes of further requests that a client may send during a response; with more, its connection is closed."""

PASSTHROUGH_BYTES = 256 * 1024
"""Bytes of a body that is passed on, in memory until the provider has taken them."""

PASSTHROUGH_WHOLE_BYTES = 64 * 1024
"""A body up to this size is read before it is passed on, so that it can go over a kept connection."""

CREATED_BYTES = 64 * 1024
"""The response to a POST that is passed on is searched for ids up to this size."""

RECEIVE_BYTES = 64 * 1024
"""Bytes read from a socket at once."""

BODY_SECONDS = 10.0
"""The time for a body to arrive, plus its size divided by `MIN_RATE`."""

WRITE_STALL_SECONDS = 30.0
"""How far a slow reader may fall behind `MIN_RATE` before its socket is aborted: a write of n bytes may take this long
plus n / `MIN_RATE`. This is the stall rule; it is the same for HTTP and WebSocket.
"""

MIN_RATE = 16 * 1024
"""Bytes per second below which a peer counts as stalled."""

WRITE_PIECE_BYTES = 64 * 1024
"""The stall rule applies to each piece of this size, so it does not depend on how a response is split into writes."""

KEEPALIVE_IDLE_SECONDS = 15
"""The kernel probes a connection that has received nothing for this long (TCP_KEEPIDLE)."""

KEEPALIVE_INTERVAL_SECONDS = 5
"""Time between two such probes (TCP_KEEPINTVL)."""

VANISHED_SECONDS = 40
"""How long a peer may leave sent bytes and probes unacknowledged, or accept no bytes, before the kernel ends the
connection (TCP_USER_TIMEOUT). That detects peers whose machine or network has failed.
"""

UNSENT_BYTES = 16 * 1024
"""Unsent bytes that the kernel may buffer for one socket (TCP_NOTSENT_LOWAT). A small buffer lets pings
overtake data.
"""

SSE_PING_SECONDS = 15.0
"""The interval of keep-alives on an idle event stream: see `stream_format`."""

WS_PING_SECONDS = 20.0
"""A WebSocket whose peer has sent nothing for this long is pinged, and aborted if it sends nothing for as long again.
It gets more time if it has to read what was written before the ping: see `Heartbeat`.
"""

CLOSE_SECONDS = 2.0
"""The time for any closing handshake, and for a peer to read the last bytes."""

SHUTDOWN_SECONDS = 2 * CLOSE_SECONDS + 1.0
"""The time that stopping the server may take beyond `drain_s`."""

PARTING_SECONDS = 0.5
"""The time for telling all connections that they are cut off. Less than the kernel gives a cancelled actor."""

LINGER_BYTES = 1024 * 1024
"""Bytes discarded from a peer that still sends while the connection closes."""

LANE_NAME = r"[A-Za-z0-9_.-]{1,256}"
"""The pattern of lane names."""

MESSAGE_FRAGMENTS = 16_384
"""Frames of one WebSocket message."""

UNSAID_FRAMES = 256
"""Frames about requests (errors, queued, withdrawn) that may be pending for a client that does not read. With one more,
the connection is closed with 1008.
"""

UNSAID_BYTES = 32 * 1024 * 1024
"""Bytes of those frames, which may repeat parts of a request; a single one may be larger."""

WRITE_BATCH_BYTES = 16 * 1024
"""WebSocket messages are written together up to this size, and a larger one in fragments of it. Pings and pongs are
written in between.
"""

ECHOED_CHARACTERS = 256
"""The longest id of a client that an error repeats."""

ECHOED_INPUT_CHARACTERS = 64 * 1024
"""The longest ``response.steer`` message whose ids an error repeats."""

ISSUED_IDS = 10_000
"""Vendor ids remembered for each caller; beyond that, the least recently used are forgotten."""

UNKNOWN_IDS = 256
"""Vendor ids of one request that other processes are asked about."""

ISSUED_AT_ONCE = 1_000
"""Vendor ids that one command writes to Redis."""

LINGERING_RESPONSES = 256
"""The most responses that are kept for clients whose connection broke, each for
`llm_protocol.native.RESUME_SECONDS`."""

RECENT_RESPONSES = 256
"""Responses that a WebSocket connection remembers for ``previous_response_id``."""

RECENT_BYTES = 16 * 1024 * 1024
"""Bytes of the conversations it remembers with them."""

PAGE_ITEMS = 20
"""Input items on one page, if the client gives no limit."""

MAX_PAGE_ITEMS = 100
"""The largest page of input items that a client may ask for."""

LATER_SECONDS = 1
"""Retry-After if waiting helps and no other value is known."""

TICK_SECONDS = 1.0
"""The interval at which deadlines that need no precision are checked."""

STORE_FLUSH_SECONDS = 0.1
"""The interval at which new events of running responses are written to the store."""

STORE_REST_SECONDS = 5.0
"""The time without writes after the store failed to take one."""

UNWRITTEN_BYTES = 64 * 1024 * 1024
"""Bytes of responses that have ended, that memory has no room for, and that wait to be written to Redis. The oldest
ones beyond that are lost.
"""

GIVEN_UP_ROWS = 10_000
"""The most of the lost responses whose rows are ended when Redis is back; others are told that they are running."""

PUT_FAILURES = 3
"""How often a large change of one response is tried. If Redis does not take it in time, no other replica gets it."""

REPLICA_FLUSH_SECONDS = 2.0
"""How long a server that ends tries to write to Redis what has ended. The next session with Redis begins by then."""

REPLICA_IDLE_SECONDS = 1.0
"""The interval at which a replica that makes no stored response looks for orders of the others."""

ORDER_SECONDS = 1.0
"""The interval at which an order to another replica is repeated, until it shows: one may be lost with a connection."""

REPLICA_START_SECONDS = 2.0
"""How long the server's start waits for Redis to be reached."""

HOLD_SECONDS = 15.0
"""How long a response goes on for a follower at another replica, unless that says again that it has one: as long as the
follower waits while Redis is away (`HEARTBEAT_SECONDS`)."""

MIRROR_BEHIND_SECONDS = 2.0
"""How long a client that has seen more of a response than this replica is kept waiting."""

MIRROR_UNFOLLOWED_SECONDS = 1.0
"""How long a response of another replica is followed for nobody."""

STORE_WAIT_SECONDS = 5.0
"""The longest wait for the row of a new response, or for a deletion; longer than one write takes at most."""
