"""One request and its answer: what is written, what is read, and what becomes of the connection."""

from __future__ import annotations

import contextlib
import gc
import sys

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from llm_actors.transport import BodyTooLarge, HttpRequest, HttpResponse, Transport, TransportError, parse_url
from llm_actors.transport.connection import ClientConnection
from support.outgoing import ORIGIN, fetch, post, transport_to
from support.peer import Call, Peer, chunked, close, flood, pause, raw, reply, sse, stall


async def test_request_arrives_as_given_with_our_framing(autojump_clock: MockClock) -> None:
    async with Peer(reply(b"ok")) as peer, transport_to(peer) as transport:
        request = post(b'{"a":1}', target="/v1/x?beta=1", headers={"Authorization": "Bearer k", "x-a": "b c"})
        assert await fetch(transport, request) == (200, b"ok")
        seen = peer.requests[0]
        assert (seen.method, seen.target, seen.body) == ("POST", "/v1/x?beta=1", b'{"a":1}')
        assert seen.headers == {
            "host": "api.test",
            "accept-encoding": "identity",
            "authorization": "Bearer k",
            "x-a": "b c",
            "content-length": "7",
        }


async def test_a_get_says_nothing_of_a_length(autojump_clock: MockClock) -> None:
    async with Peer(reply(b"ok")) as peer, transport_to(peer) as transport:
        assert await fetch(transport, HttpRequest("GET", ORIGIN, "/v1/models")) == (200, b"ok")
        assert dict(peer.requests[0].headers) == {"host": "api.test", "accept-encoding": "identity"}


async def test_headers_are_found_in_any_case_and_repeated_ones_are_joined(autojump_clock: MockClock) -> None:
    answer = b"HTTP/1.1 429 Slow\r\nRetry-After: 3\r\nX-A: 1\r\nx-a: 2\r\ncontent-length: 0\r\n\r\n"
    async with Peer(raw(answer)) as peer, transport_to(peer) as transport, transport.send(post()) as response:
        assert response.status == 429
        assert response.headers["retry-AFTER"] == "3"
        assert response.headers.get("X-a") == "1, 2"
        assert response.headers.get("absent") is None
        assert "3" not in repr(response.headers)


async def test_pieces_are_handed_over_as_they_arrive(autojump_clock: MockClock) -> None:
    async with Peer(sse("one", "two", gap=5)) as peer, transport_to(peer) as transport:
        start = trio.current_time()
        async with transport.send(post()) as response:
            assert await response.receive() == b"data: one\n\n"
            assert trio.current_time() - start == 5
            assert await response.receive() == b"data: two\n\n"
            assert await response.receive() == b""
            assert await response.receive() == b""


async def test_a_request_is_let_go_of_once_its_answer_begins(autojump_clock: MockClock) -> None:
    """A prompt may be large, and its answer take minutes."""
    body = b'{"prompt":"long"}'
    before = sys.getrefcount(body)
    async with Peer(sse("one")) as peer, transport_to(peer) as transport, transport.send(post(body)):
        assert sys.getrefcount(body) == before


async def test_connection_is_kept_after_a_whole_answer(autojump_clock: MockClock) -> None:
    async with Peer(reply(b"1"), chunked(b"2"), reply(status=500)) as peer, transport_to(peer) as transport:
        assert [await fetch(transport) for _ in range(3)] == [(200, b"1"), (200, b"2"), (500, b"")]
        assert [seen.connection for seen in peer.requests] == [1, 1, 1]
        statistics = transport.statistics()
        assert (statistics.opened_total, statistics.reused_total, statistics.idle) == (1, 2, 1)


@pytest.mark.http1
async def test_connection_is_kept_when_only_the_terminating_chunk_was_left_unread(autojump_clock: MockClock) -> None:
    """A reader stops at the vendor's end marker; what is here already is enough to know that the body ended."""
    whole = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n6\r\n[DONE]\r\n0\r\n\r\n"
    async with Peer(raw(whole)) as peer, transport_to(peer) as transport:
        for _ in range(2):
            async with transport.send(post()):
                pass
        assert peer.connections == 1


async def test_connection_is_closed_when_the_body_was_not_read(autojump_clock: MockClock) -> None:
    async with Peer([chunked(b"x", end=False), stall()]) as peer, transport_to(peer) as transport:
        async with transport.send(post()) as response:
            assert await response.receive() == b"x"
        assert transport.statistics().open == 0
        await peer.until(lambda: peer.aborted == 1)


@pytest.mark.parametrize("answer", [b"HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 2\r\n\r\nok"])
async def test_connection_is_closed_when_the_server_says_so(autojump_clock: MockClock, answer: bytes) -> None:
    async with Peer(raw(answer)) as peer, transport_to(peer) as transport:
        assert await fetch(transport) == (200, b"ok")
        assert transport.statistics().open == 0


@pytest.mark.http1
@pytest.mark.parametrize(("method", "status"), [("POST", 204), ("POST", 304), ("HEAD", 200)])
async def test_connection_is_closed_after_an_answer_without_body(
    autojump_clock: MockClock, method: str, status: int
) -> None:
    """Servers that send a body all the same would have it taken for the next answer."""
    answer = f"HTTP/1.1 {status} -\r\ncontent-length: 4\r\n\r\n".encode()
    async with Peer(raw([answer, b"evil"], gap=1), reply(b"next")) as peer, transport_to(peer) as transport:
        assert await fetch(transport, HttpRequest(method, ORIGIN, "/")) == (status, b"")
        assert transport.statistics().open == 0
        assert await fetch(transport) == (200, b"next")


@pytest.mark.http1
async def test_body_that_ends_with_the_connection_is_read_to_its_end(autojump_clock: MockClock) -> None:
    answer = raw(b"HTTP/1.0 200 OK\r\n\r\nall of it")
    async with Peer([answer, close()]) as peer, transport_to(peer) as transport:
        assert await fetch(transport) == (200, b"all of it")
        assert transport.statistics().open == 0


async def test_most_recent_connection_is_used_first_and_the_surplus_is_closed(autojump_clock: MockClock) -> None:
    async with Peer([pause(1), reply()]) as peer, transport_to(peer, max_idle_per_origin=2) as transport:
        async with trio.open_nursery() as nursery:
            for _ in range(4):
                nursery.start_soon(fetch, transport)
        assert transport.statistics().idle == 2
        await fetch(transport)
        await fetch(transport)
        assert peer.requests[-1].connection == peer.requests[-2].connection


async def test_connection_idle_for_too_long_is_not_used(autojump_clock: MockClock) -> None:
    async with Peer(reply()) as peer, transport_to(peer, idle_seconds=50) as transport:
        await fetch(transport)
        await trio.sleep(49)
        await fetch(transport)
        await trio.sleep(50)
        await fetch(transport)
        assert [seen.connection for seen in peer.requests] == [1, 1, 2]


async def test_connections_of_one_origin_are_not_used_for_another(autojump_clock: MockClock) -> None:
    async with Peer(reply()) as peer, transport_to(peer) as transport:
        for host in ("a.test", "b.test"):
            await fetch(transport, post(origin=parse_url(f"http://{host}")[0]))
        assert [seen.connection for seen in peer.requests] == [1, 2]


async def test_read_stops_at_its_limit(autojump_clock: MockClock) -> None:
    endless = [raw(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n"), flood(b"4\r\nabcd\r\n", 10**6)]
    async with Peer(endless) as peer, transport_to(peer) as transport:
        with pytest.raises(BodyTooLarge):
            async with transport.send(post()) as response:
                await response.read(limit=1000)


async def test_read_refuses_a_declared_length_past_its_limit_before_reading(autojump_clock: MockClock) -> None:
    promise = raw(b"HTTP/1.1 200 OK\r\ncontent-length: 1001\r\n\r\n")
    async with Peer([promise, stall()]) as peer, transport_to(peer) as transport:
        with pytest.raises(BodyTooLarge):
            async with transport.send(post()) as response:
                await response.read(limit=1000)


@pytest.mark.http1
@pytest.mark.parametrize("size", [10, 8 * 1024 * 1024])
async def test_error_answer_is_read_though_the_server_does_not_read_the_request(
    autojump_clock: MockClock, size: int
) -> None:
    """A 413 may come, and the server may stop reading, while we still send."""
    answer = b"HTTP/1.1 413 Too Large\r\ncontent-length: 5\r\n\r\nlarge"
    async with Peer(greeting=[raw(answer), pause(0.5)]) as peer, transport_to(peer) as transport:
        start = trio.current_time()
        async with transport.send(post(bytes(size))) as response:
            assert response.status == 413
            assert await response.read() == b"large"
        assert trio.current_time() == start, "it was read at once"
        if size > 10:
            assert transport.statistics().open == 0, "the request was not sent in full"


@pytest.mark.http1
async def test_error_answer_is_read_though_the_server_closed_on_the_request(autojump_clock: MockClock) -> None:
    answer = b"HTTP/1.1 401 No\r\ncontent-length: 2\r\n\r\nno"

    async def read_a_little(call: Call) -> None:
        await call.stream.receive_some(10)

    async with Peer(greeting=[raw(answer), read_a_little, close()]) as peer, transport_to(peer) as transport:
        assert await fetch(transport, post(bytes(8 * 1024 * 1024))) == (401, b"no")


async def test_large_request_is_sent_whole_and_its_connection_kept(autojump_clock: MockClock) -> None:
    body = bytes(range(256)) * 8192
    async with Peer(reply(b"ok")) as peer, transport_to(peer) as transport:
        assert await fetch(transport, post(body)) == (200, b"ok")
        assert await fetch(transport, post(body)) == (200, b"ok")
        assert peer.requests[0].body == body
        assert peer.connections == 1


async def test_closed_transport_refuses_requests_and_closes_those_under_way_at_their_end(
    autojump_clock: MockClock,
) -> None:
    async with Peer([pause(1), reply()]) as peer, transport_to(peer) as transport:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(fetch, transport)
            await wait_all_tasks_blocked()
            await transport.aclose()
        assert transport.statistics().open == 0
        with pytest.raises(trio.ClosedResourceError):
            await fetch(transport)


async def test_answer_is_closed_with_its_block(autojump_clock: MockClock) -> None:
    """G18: whoever keeps it must not read the next answer on the same connection."""
    async with Peer(reply(b"mine"), reply(b"yours")) as peer, transport_to(peer) as transport:
        async with transport.send(post()) as mine:
            await mine.read()
        async with transport.send(post()) as yours:
            with pytest.raises(trio.ClosedResourceError):
                await mine.receive()
            assert await yours.read() == b"yours"
        assert peer.connections == 1


async def test_exchanges_leave_no_cycles_for_the_garbage_collector(autojump_clock: MockClock) -> None:
    """Neither a kept, nor a closed, nor a broken one."""
    scripts = (
        reply(b"kept"),
        [chunked(b"left", end=False), stall()],
        [chunked(b"cut", end=False), close()],
        raw(b"no HTTP\r\n\r\n"),
    )
    async with Peer(*scripts) as peer, transport_to(peer) as transport:
        gc.collect()
        gc.disable()
        gc.set_debug(gc.DEBUG_SAVEALL)
        try:
            await fetch(transport)
            async with transport.send(post()) as response:
                await response.receive()
            del response
            for _ in range(2):
                with contextlib.suppress(TransportError):
                    await fetch(transport)
            await transport.aclose()
            gc.collect()
            assert [found for found in gc.garbage if isinstance(found, ClientConnection | HttpResponse)] == []
        finally:
            gc.set_debug(0)
            gc.garbage.clear()
            gc.enable()


def test_constructor_needs_neither_a_run_nor_a_network() -> None:
    assert Transport().statistics().open == 0


def test_request_shows_neither_headers_nor_query_nor_body() -> None:
    request = HttpRequest("POST", ORIGIN, "/v1/x?key=CANARY", {"a": "CANARY"}, b"CANARY")
    assert repr(request) == "<HttpRequest POST http://api.test/v1/x 6 B>"


@pytest.mark.parametrize(
    ("url", "origin", "base"),
    [
        ("https://api.example.com/v1/", "https://api.example.com", "/v1"),
        ("http://127.0.0.1:8080", "http://127.0.0.1:8080", ""),
        ("http://[::1]:8080/x", "http://[::1]:8080", "/x"),
        ("HTTPS://API.example.com:443", "https://api.example.com", ""),
    ],
)
def test_base_url_is_split(url: str, origin: str, base: str) -> None:
    parsed, path = parse_url(url)
    assert (str(parsed), path) == (origin, base)


@pytest.mark.parametrize(
    "url",
    [
        "api.example.com",
        "ftp://a",
        "https://",
        "https://u:p@a",
        "https://a?x",
        "https://a/#x",
        "https://ä.de",
        "http://a:x",
    ],
)
def test_base_url_that_could_be_misread_is_refused(url: str) -> None:
    with pytest.raises(ValueError, match=r"\w"):
        parse_url(url)
