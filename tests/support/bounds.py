"""The table behind docs/limits.md: each limit of the server and of answers, its effect, and the tests that hold it."""

from __future__ import annotations

from typing import NamedTuple

import msgspec

from llm_actors.provider.call import ERROR_BODY_BYTES
from llm_protocol.codec.json import LIMITS as JSON_LIMITS
from llm_protocol.codec.whole import MAX_DIMENSIONS, MAX_NUMBERS
from llm_protocol.policy import AnswerLimits
from llm_runtime.config import ServerLimits
from llm_runtime.server import limits


class Bound(NamedTuple):
    """One limit. ``name`` is an option of ``[server]`` or a constant of `llm_runtime.server.limits`. ``before`` and
    ``after`` are what was measured without it, or with it as it was, and with it; empty where nothing was.
    """

    name: str
    what: str
    tests: tuple[str, ...]
    before: str = ""
    after: str = ""

    @property
    def is_option(self) -> bool:
        """Whether it can be configured."""
        return self.name in OPTIONS

    @property
    def is_of_answers(self) -> bool:
        """Whether it limits what a provider sends."""
        return self.name in ANSWERS

    @property
    def value(self) -> str:
        """The default, with its unit."""
        if self.is_of_answers:
            return ANSWERS[self.name]
        if self.name in JSON:
            return _with_unit(self.name, JSON[self.name])
        value = OPTIONS[self.name].default if self.is_option else getattr(limits, self.name)
        return _with_unit(self.name, value)


OPTIONS = {field.name: field for field in msgspec.structs.fields(ServerLimits)}
JSON = {f"JsonLimits.{name}": value for name, value in JSON_LIMITS._asdict().items() if name != "values"}
ANSWERS = {
    "max_answer_mb": f"{AnswerLimits().chat:g} MB; embeddings and images {AnswerLimits().embedding:g} MB",
    "ERROR_BODY_BYTES": f"{ERROR_BODY_BYTES:,} bytes",
    "MAX_NUMBERS": f"{MAX_NUMBERS:,}",
    "MAX_DIMENSIONS": f"{MAX_DIMENSIONS:,}",
}
CONSTANTS = tuple(name for name in vars(limits) if name.isupper())


def _with_unit(name: str, value: object) -> str:
    if isinstance(value, str):
        return f"`{value}`"
    number = f"{value:,g}" if isinstance(value, float) else f"{value:,}"
    if name.endswith("_mb"):
        return f"{number} MB"
    if name.endswith(("_s", "_SECONDS")):
        return f"{number} s"
    if name == "MIN_RATE":
        return f"{number} bytes/s"
    return f"{number} bytes" if name.endswith("_BYTES") else number


SILENT = (
    "with 1,000 silent connections, none of 40 requests with a valid key got a response",
    "all 40 got a response",
)
STRANGERS = (
    "60 connections without a key that send 16 MiB each took the daemon from 35 to 992 MiB",
    "40 to 44 MiB, refused within 0.2 s",
)

BOUNDS = (
    Bound(
        "max_connections",
        "Open connections, HTTP and WebSocket together. If there are more, a connection that has not sent a valid "
        "key (if no keys are configured: no accepted request) is closed for the new one. If there is no such "
        "connection, the new one gets 429 (`connection_limit`).",
        (
            "test_one_connection_too_many_is_told_so",
            "test_silent_connections_shut_nobody_out",
            "test_a_request_that_is_here_is_judged_before_later_connections_are_let_in",
            "test_a_daemon_with_few_descriptors_says_so_and_serves",
        ),
        *SILENT,
    ),
    Bound(
        "max_unverified_per_peer",
        "If keys are configured: connections from one address that have not sent a valid key. If there are more, "
        "the oldest of them is closed. This limit and `UNVERIFIED_SHARE` do not apply to loopback, unix sockets and"
        " `trusted_proxies`.",
        (
            "test_one_address_has_fifty_connections_without_a_key_and_the_next_takes_the_oldest_place",
            "test_strangers_of_many_addresses_have_a_quarter_of_what_is_left",
            "test_shared_addresses_are_limited_only_by_the_whole",
        ),
        *SILENT,
    ),
    Bound(
        "max_runs",
        "Requests in progress at the same time; the next gets 429.",
        ("test_so_many_requests_are_in_flight",),
    ),
    Bound(
        "max_body_mb",
        "The size of a request's body, before and after decompression, and of a WebSocket message. A larger body "
        "gets 413; a larger message closes the WebSocket with the close code 1009.",
        ("test_a_body_has_so_many_bytes", "test_a_websocket_message_has_so_many_bytes"),
    ),
    Bound(
        "max_body_total_mb",
        "All bodies and WebSocket messages in memory together, until their requests have ended. If there are more, "
        "a request gets 503 with Retry-After, and an incomplete message closes the WebSocket with the close code "
        "1013. If keys are configured, a body is kept only after its request has shown a valid key.",
        (
            "test_all_bodies_together_have_so_many_bytes",
            "test_half_a_body_counts_until_its_client_leaves",
            "test_websocket_messages_count_while_they_wait_and_are_answered",
            "test_messages_that_are_not_complete_count_among_all_bodies_in_memory",
            "test_nothing_of_a_strangers_body_is_kept",
        ),
        *STRANGERS,
    ),
    Bound(
        "max_body_s",
        "The time for a body to arrive, whatever its size. A later body gets 408.",
        ("test_a_body_has_so_many_seconds_whatever_its_rate",),
        "1,034 s for 16 MiB at the lowest rate (computed)",
        "120 s",
    ),
    Bound(
        "max_json_values",
        "Values in the JSON of a request or WebSocket message. A request with more gets 400.",
        ("test_the_values_of_a_body_and_one_more", "test_the_values_of_a_websocket_message_and_one_more"),
        "15 MB of empty lists blocked other streams for 7 s and were answered with 200",
        "400; the event loop is busy for at most 13 ms at a time",
    ),
    Bound(
        "log_limit_mb",
        "The text, reasoning and tool calls of one response. A longer response fails with `log_limit`. For images, "
        "`max_answer_mb` applies if it is larger.",
        ("test_an_answer_of_the_limit_and_one_byte_more",),
        "each token and each complete part counted separately: a response of 65,000 one-word tokens (260 KB of text) "
        "failed at its end with `log_limit`",
        "tokens are joined, and complete parts are not counted again: the response counts as 400 KB (its text, and a "
        "few bytes for each joined token)",
    ),
    Bound(
        "head_s",
        "Time for the head of a request to arrive, and for a new connection to send its first byte. An incomplete head "
        "gets 408; a silent connection is closed.",
        ("test_a_head_has_so_many_seconds",),
    ),
    Bound(
        "keep_alive_s",
        "The time for which an idle HTTP connection is kept open.",
        ("test_an_idle_connection_is_kept_for_so_long",),
    ),
    Bound(
        "hold_head_s",
        "The time for which the head of a streamed response waits for the first event. A failure in this time is "
        "sent as an HTTP error, a later failure as an event.",
        ("test_the_head_waits_no_longer_than_hold_head_s",),
    ),
    Bound(
        "websocket_lifetime_s",
        "The time after which a WebSocket is closed. A response in progress is completed first. 0: no limit.",
        ("test_a_connection_ends_with_its_lifetime_between_turns",),
    ),
    Bound(
        "websocket_responses",
        "Responses in progress on one WebSocket; others wait.",
        ("test_sixteen_are_active_and_the_others_wait", "test_lanes_keep_to_their_options"),
    ),
    Bound(
        "websocket_lanes",
        "Named lanes on one WebSocket; a request for one more gets 400.",
        ("test_lanes_keep_to_their_options",),
    ),
    Bound(
        "websocket_queue",
        "Requests waiting on one lane; the next gets 429 (`queue_full`).",
        ("test_a_flood_of_requests_is_refused_beyond_the_queue", "test_lanes_keep_to_their_options"),
    ),
    Bound(
        "websocket_queue_mb",
        "All requests waiting on one WebSocket together; the next gets 429 (`queue_full`). A single request may be "
        "larger.",
        ("test_what_waits_on_one_connection_has_so_many_bytes", "test_one_that_waits_alone_may_be_larger"),
    ),
    Bound(
        "stored_s",
        "The time for which a stored response is kept in memory after its end.",
        ("test_the_shelf_keeps_what_is_stored_for_its_time",),
    ),
    Bound(
        "stored_mb",
        "All stored responses in memory together. If there are more, the oldest are dropped.",
        ("test_all_that_is_stored_has_so_many_bytes", "test_the_shelf_keeps_to_its_bytes_and_the_newest"),
    ),
    # -- not options --------------------------------------------------------------------------------------------------
    Bound(
        "RESERVED_CONNECTIONS",
        "Connections beyond `max_connections` for requests to `/livez`, `/readyz`, `/health` and `/metrics`. Other "
        "requests on them get 429. If there are more, the oldest of them is closed.",
        (
            "test_a_full_server_answers_health_and_metrics_and_nothing_else",
            "test_a_room_full_of_known_ones_has_a_reserve",
        ),
        "a full server answered 429 to `/livez`",
        "200",
    ),
    Bound(
        "RESERVED_SECONDS",
        "Time for a connection beyond `max_connections` to send its request; then it gets 429.",
        ("test_one_connection_too_many_is_told_so",),
    ),
    Bound(
        "DEPARTING_CONNECTIONS",
        "Connections that are being closed to make room for others; while there are more, new connections get 429.",
        ("test_so_many_connections_may_be_on_their_way_out",),
    ),
    Bound(
        "LINGERING_CONNECTIONS",
        "Refused connections that stay open until the client has read the error. If there are more, the others are "
        "reset.",
        ("test_so_many_refused_connections_are_waited_for",),
    ),
    Bound(
        "ACCEPTED_AT_ONCE",
        "Connections that are accepted in a row before other tasks run.",
        ("test_so_many_connections_are_accepted_at_once",),
    ),
    Bound(
        "BACKLOG",
        "Connections that the operating system queues until the daemon accepts them.",
        ("test_the_kernel_holds_so_many_connections",),
    ),
    Bound(
        "FAILED_LOGINS",
        "Wrong keys from one address within `LOGIN_SECONDS` that get 401; further wrong keys get 429. A valid key is "
        "always accepted.",
        ("test_many_wrong_keys_are_told_to_wait_and_hung_up_on",),
    ),
    Bound(
        "LOGIN_SECONDS",
        "The period for `FAILED_LOGINS`. It begins with the first wrong key of an address.",
        ("test_a_window_ends_when_it_said_and_the_wait_shrinks_towards_it",),
    ),
    Bound(
        "WATCHED_PEERS",
        "Addresses whose wrong keys are counted. If there are more, the addresses that have been counted for the "
        "longest time are forgotten.",
        ("test_the_table_is_bounded_and_forgets_who_began_first",),
    ),
    Bound(
        "HEAD_BYTES",
        "The head of a request: its first line and its header fields. A larger head gets 431.",
        ("test_a_head_has_so_many_bytes",),
    ),
    Bound(
        "CHUNKS_AT_ONCE",
        "Chunks of a body that are parsed in a row before other connections are served.",
        ("test_a_body_of_tiny_chunks_is_read_in_turns",),
        "64 KiB of one-byte chunks blocked the event loop for 114 ms",
        "13 ms",
    ),
    Bound(
        "PIPELINED_BYTES",
        "Bytes of further requests that arrive on a connection during a response. If there are more, the connection"
        " is closed.",
        ("test_so_much_may_be_sent_ahead",),
    ),
    Bound(
        "PASSTHROUGH_BYTES",
        "Bytes in memory of a passthrough body that the provider has not read yet. If there are more, the client "
        "has to wait.",
        ("test_a_vendor_that_does_not_read_holds_the_client_back",),
    ),
    Bound(
        "PASSTHROUGH_WHOLE_BYTES",
        "The largest passthrough body that is read completely before it is sent. Such a body can be sent again, so it "
        "may use a kept connection; a larger one needs a new connection.",
        ("test_a_small_body_goes_over_a_kept_connection",),
    ),
    Bound(
        "CREATED_BYTES",
        "The largest response to a passthrough POST that is searched for the ids of created objects. If keys are "
        "configured, requests with an id from a larger response are refused.",
        ("test_ids_in_a_long_response_are_not_looked_for",),
    ),
    Bound(
        "BODY_SECONDS",
        "The time for a body to arrive is this time plus its size divided by `MIN_RATE`, at most `max_body_s`. A "
        "later body gets 408.",
        ("test_a_request_that_does_not_come_is_not_waited_for",),
    ),
    Bound(
        "WRITE_STALL_SECONDS",
        "The time for a client to read what was written is this time plus its size divided by `MIN_RATE`. Then the "
        "connection is closed, as if the client had disconnected.",
        ("test_a_reader_that_stalls_is_cut_off_and_its_run_cancelled",),
    ),
    Bound(
        "MIN_RATE",
        "The lowest average rate at which a body must arrive and a response must be read.",
        ("test_a_reader_of_a_byte_a_second_is_not_waited_for",),
    ),
    Bound(
        "FRAMES_AT_ONCE",
        "Frames from one WebSocket client that are read in a row before other connections are served.",
        ("test_tiny_frames_are_read_in_turns",),
    ),
    Bound(
        "MESSAGE_FRAGMENTS",
        "Frames of one WebSocket message. If there are more, the WebSocket is closed with the close code 1008.",
        ("test_a_message_in_endless_fragments_is_a_policy_violation",),
    ),
    Bound(
        "UNSAID_FRAMES",
        "Frames about requests, such as errors, that wait for a WebSocket client that does not read. If there are "
        "more, the WebSocket is closed with the close code 1008.",
        ("test_a_client_that_floods_and_does_not_read_is_closed",),
    ),
    Bound(
        "UNSAID_BYTES",
        "Bytes of the frames that `UNSAID_FRAMES` counts. If there are more, the WebSocket is closed with the close"
        " code 1008. A single frame may be larger.",
        ("test_who_asks_and_withdraws_without_reading_is_closed",),
    ),
    Bound(
        "UNVERIFIED_SHARE",
        "If keys are configured: all connections that have not sent a valid key may together take a quarter (1 / "
        "`UNVERIFIED_SHARE`) of the connections that other clients do not use. If there are more, the oldest of "
        "them is closed.",
        ("test_strangers_of_many_addresses_have_a_quarter_of_what_is_left",),
    ),
    Bound(
        "CONTENT_ENCODINGS",
        "Encodings (such as gzip) of one body, one after another; a body with more gets 415.",
        ("test_what_cannot_be_read_is_refused",),
    ),
    Bound(
        "CONTENT_MEMBERS",
        "Compressed parts (gzip members, zstd frames) one after another in one body; a body with more gets 400.",
        ("test_a_body_of_many_members_is_refused",),
    ),
    Bound(
        "ZSTD_WINDOW_BYTES",
        "The memory for the window of a zstd body; a body with a larger window gets 400.",
        ("test_a_few_bytes_never_take_much_memory",),
    ),
    Bound(
        "MAX_PAGE_ITEMS",
        "Input items of a stored response on one page; a request for more gets 400.",
        ("test_what_is_wrong_is_refused",),
    ),
    Bound(
        "ISSUED_IDS",
        "Vendor ids (files, containers) that are remembered for each caller. If there are more, the least recently "
        "used are forgotten, and requests with them are refused.",
        ("test_the_least_recently_used_ids_are_forgotten",),
    ),
    Bound(
        "UNKNOWN_IDS",
        "Vendor ids in one request that the caller has not received from this process, so that other workers and "
        "replicas are asked about them. A request with more gets 400.",
        ("test_other_processes_are_asked_once_for_each_id_and_not_for_too_many",),
    ),
    Bound(
        "UNWRITTEN_BYTES",
        "Bytes of ended responses that do not fit into `stored_mb` and wait until Redis is reachable again. If "
        "there are more, the oldest are lost.",
        ("test_beyond_a_limit_of_bytes_the_oldest_are_lost_and_their_rows_ended",),
    ),
    Bound(
        "LINGERING_RESPONSES",
        "Responses that are kept for 10 s for clients of `llm_runtime.connect` whose connection broke. If there are"
        " more, the oldest are dropped.",
        ("test_of_answers_that_wait_for_their_clients_the_oldest_make_room",),
    ),
    Bound(
        "RECENT_RESPONSES",
        "Responses that a WebSocket remembers for `previous_response_id`. If there are more, the least recently "
        "used are forgotten.",
        ("test_a_connection_remembers_the_recently_used",),
    ),
    Bound(
        "max_answer_mb",
        "A response that is not streamed, by request type; an option of the provider "
        "(`[providers.NAME.max_answer_mb]`). A larger one fails with `answer_too_large`, and is not retried.",
        (
            "test_an_answer_of_the_limit_is_taken_and_one_byte_more_is_not",
            "test_vectors_that_come_as_a_stream_have_the_same_limit",
            "test_the_defaults_are_the_documented_ones",
        ),
        "a response that was too large was requested, and billed, three times; one of 61 MB blocked others for "
        "116 to 430 ms",
        "once; 21 to 31 ms",
    ),
    Bound(
        "ERROR_BODY_BYTES",
        "The bytes of the body of an error that are read; the rest is ignored.",
        ("test_of_an_error_only_the_beginning_is_read",),
    ),
    Bound(
        "MAX_NUMBERS",
        "Values in the JSON of an embedding response, and numbers of all its embeddings; one with more fails with "
        "`answer_too_large`.",
        (
            "test_an_answer_may_have_sixteen_million_numbers_and_no_more",
            "test_all_vectors_together_may_have_sixteen_million_numbers_and_no_more",
        ),
    ),
    Bound(
        "MAX_DIMENSIONS",
        "Numbers of one embedding; a response with a longer one fails.",
        ("test_dimensions_and_one_more",),
    ),
    Bound("JsonLimits.keys", "Members of all objects in the JSON together.", ("test_keys_and_one_more",)),
    Bound("JsonLimits.containers", "Lists and objects in the JSON.", ("test_lists_and_objects_and_one_more",)),
    Bound("JsonLimits.depth", "Nesting of lists and objects.", ("test_depth_and_one_more",)),
    Bound("JsonLimits.digits", "Digits of one number.", ("test_digits_of_a_number_and_one_more",)),
    Bound(
        "JsonLimits.slow_numbers",
        "Numbers with 23 or more digits, or with an exponent of three or more digits, which are slow to parse.",
        ("test_slow_numbers_and_one_more",),
    ),
)
"""In the order of the page."""

OTHERS = frozenset(
    (
        "CLOSE_SECONDS", "ECHOED_CHARACTERS", "ECHOED_INPUT_CHARACTERS", "EXHAUSTED_PAUSE_SECONDS",
        "GIVEN_UP_ROWS",
        "HOLD_SECONDS", "KEEPALIVE_IDLE_SECONDS", "ISSUED_AT_ONCE", "KEEPALIVE_INTERVAL_SECONDS", "LANE_NAME",
        "LATER_SECONDS", "LINGER_BYTES", "MIRROR_BEHIND_SECONDS", "MIRROR_UNFOLLOWED_SECONDS", "ORDER_SECONDS",
        "PAGE_ITEMS", "PARTING_SECONDS", "PUT_FAILURES", "RECEIVE_BYTES", "RECENT_BYTES", "REMNANTS_AT_ONCE",
        "RETRY_BYTES", "REPLICA_FLUSH_SECONDS", "REPLICA_IDLE_SECONDS",
        "REPLICA_START_SECONDS", "SHUTDOWN_SECONDS", "SSE_PING_SECONDS",
        "STORE_FLUSH_SECONDS", "STORE_REST_SECONDS", "STORE_WAIT_SECONDS",
        "TICK_SECONDS", "UNIX_PROBE_SECONDS", "UNSENT_BYTES", "VANISHED_SECONDS", "WRITE_BATCH_BYTES",
        "WRITE_PIECE_BYTES", "WS_PING_SECONDS",
    )
)  # fmt: skip
"""Constants that refuse nothing."""

PAGE = """\
# Limits of the server

The daemon has limits, so that no client can exhaust it. This page lists each limit, and what happens if a client
exceeds it:

* [Options](#options) are set under `[server]` in the configuration.
* [Fixed limits](#fixed-limits) cannot be configured. They are constants in `llm_runtime.server.limits`. Those that
  begin with `JsonLimits` are in `llm_protocol.codec.json`; a request whose JSON exceeds one of them gets 400.
* [Responses of providers](#responses-of-providers) are limited, too.
* [Measured](#measured) shows the effect of some limits.
* [Tests](#tests) names the tests of each limit. `bin/bench attack` runs a thousand attackers without a key against
  fifty streams of clients with a key.

A megabyte (MB) is 1,048,576 bytes. An *address* is an IPv4 address or an IPv6 network (/64). This page is generated
from `tests/support/bounds.py` by `bin/make-docs`.

Keep the limit of open files of the daemon's process at 200 or more above both `max_connections` + `max_runs` and
2 × `max_connections`. At its start, the daemon raises this limit as far as the system allows. If it is still too low,
the daemon lowers `max_connections` and `max_runs`: at most half of the open files are used for connections of clients,
the rest for connections to providers.

"""


def page() -> str:
    """``docs/limits.md``."""
    options = [bound for bound in BOUNDS if bound.is_option]
    answers = [bound for bound in BOUNDS if bound.is_of_answers]
    constants = [bound for bound in BOUNDS if not bound.is_option and not bound.is_of_answers]
    return (
        f"{PAGE}## Options\n\n{_table(options)}\n## Fixed limits\n\n{_table(constants, 'value')}"
        f"\n## Responses of providers\n\n{_table(answers)}"
        f"\n## Measured\n\n{_effects()}\n## Tests\n\n{_tests()}"
    )


def _table(bounds: list[Bound], column: str = "default") -> str:
    rows = "".join(f"| `{bound.name}` | {bound.value} | {bound.what} |\n" for bound in bounds)
    return f"| name | {column} | what it limits |\n|---|---|---|\n{rows}"


def _effects() -> str:
    rows = "".join(f"| `{bound.name}` | {bound.before} | {bound.after} |\n" for bound in BOUNDS if bound.before)
    return f"| limit | before | after |\n|---|---|---|\n{rows}"


def _tests() -> str:
    rows = "".join(f"| `{bound.name}` | {', '.join(f'`{test}`' for test in bound.tests)} |\n" for bound in BOUNDS)
    return f"| limit | tests |\n|---|---|\n{rows}"
