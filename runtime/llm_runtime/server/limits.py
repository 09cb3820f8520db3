"""The limits of the server that are not options, each with its unit. The limits that are options are in
`llm_runtime.config.ServerLimits`.
"""

from __future__ import annotations

FAILED_LOGINS = 10
"""Wrong keys of one peer within `LOGIN_SECONDS` that are answered with 401; further ones get 429."""

LOGIN_SECONDS = 60.0
"""The window in which wrong keys are counted together, starting with the first."""

WATCHED_PEERS = 4_096
"""The most peers whose wrong keys are counted. With more, those with the oldest windows are forgotten."""

RESERVED_CONNECTIONS = 16
"""The number of connections beyond `max_connections` that are accepted to serve health and metrics only."""

RESERVED_SECONDS = 2.0
"""Seconds in which a connection of the reserve must send its request."""

DEPARTING_CONNECTIONS = 64
"""The most connections that were asked to close to make way for others, and have not closed yet."""

UNVERIFIED_SHARE = 4
"""Unverified connections may take one part in this many (a quarter) of the connections that verified connections leave.
"""

EXHAUSTED_PAUSE_SECONDS = 0.1
"""Seconds for which accepting pauses when the process has no file descriptor left."""

ACCEPTED_AT_ONCE = 16
"""Connections accepted before existing connections get their turn."""

LINGERING_CONNECTIONS = 32
"""The most refused connections from which bytes are read until the client has read the error. Further ones are reset.
"""

BACKLOG = 1_024
"""Connections that the kernel queues until the server accepts them."""

UNIX_PROBE_SECONDS = 1.0
"""Seconds to wait for a connection to an existing unix socket, to find out whether another process listens there."""

HEAD_BYTES = 16 * 1024
"""The largest size in bytes of a request line and its header fields together."""

CHUNKS_AT_ONCE = 256
"""Chunks of a body that are parsed before other connections get their turn."""

CONTENT_ENCODINGS = 3
"""The most encodings of one body, applied one after another."""

CONTENT_MEMBERS = 1_024
"""Members of one encoding, such as the parts of a file that was compressed in parallel."""

ZSTD_WINDOW_BYTES = 8 * 1024 * 1024
"""The largest zstd window in bytes, the limit of RFC 9659. A few bytes of a body can claim this much memory."""

PIPELINED_BYTES = 64 * 1024
"""Bytes of further requests that a client may send during a response; with more, its connection is closed."""

PASSTHROUGH_BYTES = 256 * 1024
"""The most bytes of one passthrough body in memory. While there are more, nothing is received from the client."""

PASSTHROUGH_WHOLE_BYTES = 64 * 1024
"""A passthrough body up to this size is read completely before it is sent, so that it can be sent again if a reused
connection was closed.
"""

CREATED_BYTES = 64 * 1024
"""The response to a passthrough POST is searched for ids up to this size."""

RECEIVE_BYTES = 64 * 1024
"""The most bytes that one read takes from a socket."""

BODY_SECONDS = 10.0
"""Seconds for a body to arrive, plus its size divided by `MIN_RATE`."""

WRITE_STALL_SECONDS = 30.0
"""Seconds by which a slow reader may fall behind `MIN_RATE` before its socket is aborted: a write of n bytes may take
this long plus n / `MIN_RATE`. This is the stall rule; it is the same for HTTP and WebSocket.
"""

MIN_RATE = 16 * 1024
"""Bytes per second below which a peer counts as stalled."""

WRITE_PIECE_BYTES = 64 * 1024
"""The stall rule applies to each piece of this size, so it does not depend on how a response is split into writes."""

KEEPALIVE_IDLE_SECONDS = 15
"""Seconds without received bytes after which the kernel probes a connection (TCP_KEEPIDLE)."""

KEEPALIVE_INTERVAL_SECONDS = 5
"""Seconds between two such probes (TCP_KEEPINTVL)."""

VANISHED_SECONDS = 40
"""Seconds for which a peer may leave sent bytes and probes unacknowledged, or accept no bytes, before the kernel ends
the connection (TCP_USER_TIMEOUT). This detects peers whose machine or network has failed.
"""

UNSENT_BYTES = 16 * 1024
"""Unsent bytes that the kernel may buffer for one socket (TCP_NOTSENT_LOWAT). A small buffer lets pings
overtake data.
"""

SSE_PING_SECONDS = 15.0
"""Seconds between keep-alives on an idle event stream: see `KEEP_ALIVES`."""

WS_PING_SECONDS = 20.0
"""Seconds without bytes from its peer after which a WebSocket is pinged. It is aborted if the peer sends nothing for
the same time again. The peer gets more time if it has to read bytes that were written before the ping: see
`Heartbeat`.
"""

CLOSE_SECONDS = 2.0
"""Seconds for any closing handshake, and for a peer to read the last bytes."""

SHUTDOWN_SECONDS = 2 * CLOSE_SECONDS + 1.0
"""Seconds that stopping the server may take beyond `drain_s`."""

PARTING_SECONDS = 0.5
"""Seconds for telling all connections that they are cut off. Less than the kernel gives a cancelled actor."""

LINGER_BYTES = 1024 * 1024
"""The most bytes that are discarded from a peer that still sends while the connection closes."""

LANE_NAME = r"[A-Za-z0-9_.-]{1,256}"
"""The pattern of lane names."""

FRAMES_AT_ONCE = 256
"""Frames from one WebSocket client that are read before other connections get their turn."""

MESSAGE_FRAGMENTS = 16_384
"""The most frames of one WebSocket message."""

UNSAID_FRAMES = 256
"""The most frames about requests (errors, queued, withdrawn) that may be pending for a client that does not read.
With one more, the connection is closed with 1008.
"""

UNSAID_BYTES = 32 * 1024 * 1024
"""The most bytes of these frames together. They may repeat parts of a request. A single frame may be larger."""

WRITE_BATCH_BYTES = 16 * 1024
"""WebSocket messages are written together up to this size in bytes. A larger message is written in fragments of this
size. Pings and pongs are written between them.
"""

ECHOED_CHARACTERS = 256
"""The longest id sent by a client that an error repeats."""

ECHOED_INPUT_CHARACTERS = 64 * 1024
"""The longest ``response.steer`` message whose ids an error repeats."""

ISSUED_IDS = 10_000
"""Vendor ids remembered for each caller; beyond that, the least recently used are forgotten."""

UNKNOWN_IDS = 256
"""The most vendor ids of one request that other processes are asked about."""

ISSUED_AT_ONCE = 1_000
"""Vendor ids that one command writes to Redis."""

LINGERING_RESPONSES = 256
"""The most responses that are kept for clients whose connection broke. Each is kept for
`llm_protocol.native.RESUME_SECONDS`.
"""

RECENT_RESPONSES = 256
"""The most responses that a WebSocket connection remembers for ``previous_response_id``."""

RECENT_BYTES = 16 * 1024 * 1024
"""The most bytes of the conversations of these responses."""

PAGE_ITEMS = 20
"""Input items on one page, if the client gives no limit."""

MAX_PAGE_ITEMS = 100
"""The largest page of input items that a client may ask for."""

LATER_SECONDS = 1
"""Seconds in Retry-After if waiting helps and no other value is known."""

TICK_SECONDS = 1.0
"""Seconds between two checks of deadlines that need no precision."""

STORE_FLUSH_SECONDS = 0.1
"""Seconds between two writes of new events of responses in progress to the store."""

REMNANTS_AT_ONCE = 1_000
"""Incomplete rows that one write removes from the store's file."""

STORE_REST_SECONDS = 5.0
"""Seconds without writes after a write to the store failed."""

RETRY_BYTES = 4 * 1024 * 1024
"""The most bytes of ended responses that one further try writes to the store, if an earlier write failed."""

UNWRITTEN_BYTES = 64 * 1024 * 1024
"""The most bytes of ended responses that the response store has dropped and that still wait to be written to Redis.
Beyond that, the oldest are lost.
"""

GIVEN_UP_ROWS = 10_000
"""The most lost responses whose rows are marked as interrupted when Redis is reachable again. Any others look as if
they were still running.
"""

PUT_FAILURES = 3
"""How often writing a large change of one response is tried. After that, other replicas cannot read the response."""

REPLICA_FLUSH_SECONDS = 2.0
"""Seconds for which a server that ends tries to write its ended responses to Redis. The link to Redis reconnects
within this time.
"""

REPLICA_IDLE_SECONDS = 1.0
"""Seconds between two checks for orders of other replicas, while this replica produces no stored response."""

ORDER_SECONDS = 1.0
"""Seconds after which an order to another replica is repeated, until its effect is visible. An order may be lost with
a connection.
"""

REPLICA_START_SECONDS = 2.0
"""Seconds for which the start of the server waits for the first connection to Redis."""

HOLD_SECONDS = 15.0
"""Seconds for which a response continues for a follower at another replica. That replica renews this time as long as
it has a follower. It is as long as a follower waits while Redis is unreachable (`HEARTBEAT_SECONDS`).
"""

MIRROR_BEHIND_SECONDS = 2.0
"""Seconds that a client waits if it has seen more events of a response than this replica has."""

MIRROR_UNFOLLOWED_SECONDS = 1.0
"""Seconds for which a mirror is kept up to date while it has no follower."""

STORE_WAIT_SECONDS = 5.0
"""The most seconds to wait until the row of a new response is written, or a deletion is made. One write never takes
that long.
"""
