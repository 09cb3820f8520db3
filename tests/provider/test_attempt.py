"""One attempt at a provider: what a misbehaving peer becomes. The provider actor is real, the peer is scripted."""

from __future__ import annotations

import logging

import msgspec
import pytest
import trio
import trio.testing

from llm_actors.provider import Generate, ProviderActor, list_models
from llm_actors.run import RunLog
from llm_actors.testing import alone
from llm_protocol.content import Message, Opaque
from llm_protocol.errors import LLMClientError
from llm_protocol.events import Failed, Finished
from llm_protocol.failures import Failure, FailureKind
from llm_protocol.policy import Timeouts
from support.peer import Call, Peer, Script, Step, chunked, close, flood, pause, raw, reply, reset, sse, stall
from support.upstream import CANARY, END, HELLO, JSON, REQUEST, Asked, spec, upstream, whole, word

SSE_HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
LIMITS = Timeouts(connect=1, first_token=5, idle=3, total=20)


def failure(asked: Asked) -> Failure:
    assert asked.outcome is not None
    assert isinstance(asked.outcome.end, Failed)
    assert asked.outcome.end.failure.provider == "fake"
    assert CANARY not in repr(asked.outcome)
    return asked.outcome.end.failure


async def test_a_streamed_answer_arrives_as_events_and_ends_as_a_success(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with Peer(sse(*HELLO, *END, gap=0.5)) as peer, upstream(peer) as provider:
        asked = await provider.ask()

    assert asked.text == "Hello there"
    assert asked.outcome is not None
    assert isinstance(asked.outcome.end, Finished)
    assert asked.outcome.first_token_s == pytest.approx(1.0)
    assert peer.requests[0].headers["authorization"] == f"Bearer {CANARY}"
    assert CANARY not in peer.requests[0].target


async def test_a_whole_answer_is_the_same_events(autojump_clock: trio.testing.MockClock) -> None:
    async with Peer(reply(whole(), headers=JSON)) as peer, upstream(peer) as provider:
        asked = await provider.ask(stream=False)

    assert asked.text == "Hello there"
    assert isinstance(asked.outcome and asked.outcome.end, Finished)


async def test_the_connection_is_kept_after_a_streamed_answer(autojump_clock: trio.testing.MockClock) -> None:
    async with Peer(sse(*HELLO, *END)) as peer, upstream(peer) as provider:
        for _ in range(3):
            await provider.ask()

        assert peer.connections == 1


@pytest.mark.parametrize(
    "behind",
    [[stall()], [pause(0.05), raw(b"nonsense")], [pause(0.05), close()]],
    ids=["nothing", "nonsense", "the end of the connection"],
)
@pytest.mark.parametrize("left", [10.0, 0.05], ids=["in time", "just before the deadline"])
async def test_what_is_whole_stays_whole_whatever_comes_behind_it(
    behind: list[Step], left: float, autojump_clock: trio.testing.MockClock
) -> None:
    """The end of the body is waited for only so that the connection can be kept."""
    timeouts = Timeouts(connect=1, first_token=30, idle=30, total=20)
    script = [pause(timeouts.total - left), sse(*HELLO, *END, end=False), *behind]
    async with Peer(script) as peer, upstream(peer, timeouts) as provider:
        asked = await provider.ask()

    assert asked.text == "Hello there"
    assert isinstance(asked.outcome and asked.outcome.end, Finished)


# How a stream can go wrong after its head; then the kind it must become, and whether text had been delivered.
BROKEN: dict[str, tuple[Script, FailureKind, bool]] = {
    "accepts, then silence": (stall(), FailureKind.TIMEOUT_FIRST_TOKEN, False),
    "head, then silence": ([raw(SSE_HEAD), stall()], FailureKind.TIMEOUT_FIRST_TOKEN, False),
    "chunks, then silence": ([sse(*HELLO, end=False), stall()], FailureKind.TIMEOUT_IDLE, True),
    "chunks, then comments for ever": (
        [sse(*HELLO, end=False), raw([b"8\r\n: ping\n\n\r\n"] * 1000, gap=1.0)],
        FailureKind.TIMEOUT_IDLE,
        True,
    ),
    "a drip": (sse(*HELLO, *[word("x")] * 100, gap=1.0), FailureKind.TIMEOUT_TOTAL, True),
    "FIN in mid-chunk": ([sse(*HELLO, end=False), raw(b"40\r\ndata: {"), close()], FailureKind.NETWORK, True),
    "no end marker": (sse(*HELLO), FailureKind.TRUNCATED, True),
    "nothing at all": (sse(), FailureKind.TRUNCATED, False),
    "error in the stream": (
        sse(*HELLO, '{"error":{"message":"overloaded","type":"server_error","code":503}}'),
        FailureKind.SERVER_ERROR,
        True,
    ),
    "garbage in the stream": (sse(*HELLO, '{"choices": [[['), FailureKind.PROTOCOL, True),
    "HTML instead of a stream": (
        reply(b"<html>Bad gateway</html>", headers={"content-type": "text/html"}),
        FailureKind.PROTOCOL,
        False,
    ),
    "an empty body": (reply(b"", headers=JSON), FailureKind.TRUNCATED, False),
    "an unasked encoding": (
        [
            raw(b"HTTP/1.1 200 OK\r\ncontent-encoding: gzip\r\ntransfer-encoding: chunked\r\n\r\n"),
            flood(b"\0" * 65536, 99),
        ],
        FailureKind.PROTOCOL,
        False,
    ),
    "HTTP/0.9": (raw(b"hello\r\n\r\n"), FailureKind.PROTOCOL, False),
    "a redirect": (
        reply(b"", status=302, headers={"location": "http://evil.test/"}),
        FailureKind.PROTOCOL,
        False,
    ),
}


@pytest.mark.parametrize("case", BROKEN)
async def test_a_broken_stream_is_never_a_success(case: str, autojump_clock: trio.testing.MockClock) -> None:
    script, kind, partial = BROKEN[case]
    async with Peer(script) as peer, upstream(peer, LIMITS) as provider:
        before = trio.current_time()
        asked = await provider.ask()

        assert trio.current_time() - before <= LIMITS.total + 1
    assert failure(asked).kind is kind
    assert failure(asked).partial is partial
    assert asked.text.startswith("Hello there") if partial else asked.text == ""
    assert len(peer.requests) == 1


async def test_a_reset_in_mid_stream_is_a_network_failure_with_the_text_so_far() -> None:
    async with Peer([sse(*HELLO, end=False), pause(0.01), reset()]) as peer:
        async with alone(ProviderActor(spec(peer.url + "/v1"))) as lone:
            asked = Asked()
            asked.outcome = await lone.ref.call(Generate(request=REQUEST, stream=True, sink=asked.events.append))

    assert failure(asked).kind is FailureKind.NETWORK
    assert asked.text == "Hello there"


STATUSES = {
    400: FailureKind.BAD_REQUEST,
    401: FailureKind.AUTH,
    403: FailureKind.AUTH,
    404: FailureKind.MODEL_NOT_FOUND,
    413: FailureKind.CONTEXT_LENGTH,
    422: FailureKind.BAD_REQUEST,
    429: FailureKind.RATE_LIMITED,
    500: FailureKind.SERVER_ERROR,
    503: FailureKind.OVERLOADED,
}


@pytest.mark.parametrize("status", STATUSES)
async def test_a_status_is_one_attempt_and_a_typed_failure(status: int, autojump_clock: trio.testing.MockClock) -> None:
    """And a vendor that echoes the key does not get it printed."""
    body = b'{"error":{"message":"bad key %s","type":"t","code":null}}' % CANARY.encode()
    async with Peer(reply(body, status=status, headers=JSON)) as peer, upstream(peer) as provider:
        asked = await provider.ask()

        assert len(peer.requests) == 1
    assert failure(asked).kind is STATUSES[status]
    assert failure(asked).upstream_status == status


async def test_cancelling_the_caller_closes_the_vendors_connection(autojump_clock: trio.testing.MockClock) -> None:
    """Down to the socket, at any point."""
    scripts: list[Script] = [stall(), [raw(SSE_HEAD), stall()], [sse(*HELLO, end=False), stall()]]
    for script in scripts:
        async with Peer(script) as peer, upstream(peer) as provider:
            with trio.move_on_after(1):
                await provider.ask()
            with trio.fail_after(1):
                await peer.until(lambda peer=peer: peer.aborted == 1 and peer.open_connections == 0)  # type: ignore[misc]


async def test_slots_bound_what_is_in_flight_and_the_rest_waits(autojump_clock: trio.testing.MockClock) -> None:
    most = 0

    async def watch(call: Call) -> None:
        nonlocal most
        most = max(most, call.peer.open_requests)
        await trio.sleep(1)

    async with Peer([watch, sse(*HELLO, *END)]) as peer, upstream(peer, slots=2) as provider:
        async with trio.open_nursery() as nursery:
            for _ in range(6):
                nursery.start_soon(provider.ask)

        assert most == 2
        assert len(peer.requests) == 6


async def test_an_answer_larger_than_the_log_is_a_failure_of_its_own_kind(
    autojump_clock: trio.testing.MockClock,
) -> None:

    async with Peer(sse(*HELLO, *[word("x" * 100)] * 100, *END)) as peer, upstream(peer) as provider:
        log = RunLog(limit_bytes=2_000)
        outcome = await provider.ref.call(Generate(request=REQUEST, stream=True, sink=log.append))

    assert isinstance(outcome.end, Failed)
    assert outcome.end.failure.kind is FailureKind.LOG_LIMIT


async def test_a_request_the_dialect_cannot_say_never_leaves(autojump_clock: trio.testing.MockClock) -> None:

    request = msgspec.structs.replace(REQUEST, messages=(Message("user", (Opaque(dialect="other", value={}),)),))
    async with Peer() as peer, upstream(peer) as provider:
        asked = await provider.ask(request)

        assert not peer.requests
    assert failure(asked).kind is FailureKind.UNSUPPORTED


async def test_a_line_break_in_the_model_or_user_never_reaches_a_header(
    autojump_clock: trio.testing.MockClock,
) -> None:

    async with Peer(sse(*HELLO, *END)) as peer, upstream(peer) as provider:
        await provider.ask(REQUEST.to("m\r\nx-evil: 1"))

        assert "x-evil" not in peer.requests[0].headers


async def test_the_model_list_comes_from_the_vendor_with_its_failure_typed(
    autojump_clock: trio.testing.MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    listing = b'{"object":"list","data":[{"id":"m1","object":"model"},{"id":"m2","object":"model"}]}'
    scripts = (reply(listing, headers=JSON), reply(b"{}", status=401, headers=JSON))
    async with Peer(*scripts) as peer, upstream(peer) as provider:
        assert [model.id for model in await list_models(provider.ref)] == ["m1", "m2"]
        with pytest.raises(LLMClientError) as caught:
            await list_models(provider.ref)

    assert caught.value.failure.kind is FailureKind.AUTH
    assert CANARY not in caplog.text
    assert not [record for record in caplog.records if record.levelno >= logging.ERROR]


async def test_chunked_with_a_trailing_pause_still_ends_at_the_marker(autojump_clock: trio.testing.MockClock) -> None:
    """The answer is over at the vendor's end marker, whenever the body ends."""
    events = [f"data: {event}\n\n".encode() for event in (*HELLO, *END)]
    late = chunked(*events, headers={"content-type": "text/event-stream"}, end=False)
    async with Peer([late, stall()]) as peer, upstream(peer) as provider:
        before = trio.current_time()
        asked = await provider.ask()

        assert trio.current_time() - before < 1
    assert isinstance(asked.outcome and asked.outcome.end, Finished)


async def test_a_request_that_went_out_twice_is_told(autojump_clock: trio.testing.MockClock) -> None:
    """A kept connection that closes with the request on it costs a second call, and the record says so."""
    async with Peer(sse(*HELLO, *END), close(), sse(*HELLO, *END)) as peer, upstream(peer) as provider:
        outcomes = [(await provider.ask()).outcome for _ in range(2)]

        assert [outcome.resent for outcome in outcomes if outcome] == [False, True]
        assert len(peer.requests) == 3
