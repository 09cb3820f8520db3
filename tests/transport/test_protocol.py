"""What HTTP/1.1 allows is read in the one right way; what can be read in two ways is refused."""

from __future__ import annotations

from itertools import pairwise

import h11
import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st
from trio.testing import MockClock

from llm_actors.transport import (
    HttpRequest,
    ProtocolViolation,
    RequestRefused,
    TransportError,
    UnsupportedEncoding,
)
from llm_actors.transport.connection import ClientConnection
from llm_protocol.http1 import whole_chunks
from support.outgoing import ORIGIN, fetch, post, transport_to
from support.peer import Peer, flood, raw, reply

OK = b"HTTP/1.1 200 OK\r\n"
ONE = OK + b"content-length: 1\r\n\r\na"
CHUNKED = OK + b"transfer-encoding: chunked\r\n\r\n"


@pytest.mark.parametrize(
    ("answer", "status", "body"),
    [
        pytest.param(b"HTTP/1.1 100 C\r\n\r\n" + ONE, 200, b"a", id="100"),
        pytest.param(b"HTTP/1.1 103 E\r\nlink: x\r\n\r\n" * 3 + ONE, 200, b"a", id="103"),
        pytest.param(b"HTTP/1.1 204 No\r\ncontent-length: 4\r\n\r\nbody", 204, b"", id="204 with a body"),
        pytest.param(b"HTTP/1.1 304 No\r\ncontent-length: 4\r\n\r\n", 304, b"", id="304"),
        pytest.param(b"HTTP/1.1 999 ?\r\ncontent-length: 1\r\n\r\na", 999, b"a", id="999"),
        pytest.param(b"HTTP/1.1 200\r\ncontent-length: 1\r\n\r\na", 200, b"a", id="no reason"),
        pytest.param(OK + b"content-length: 1\r\ncontent-length: 1\r\n\r\na", 200, b"a", id="same length twice"),
        pytest.param(CHUNKED + b"1;x=y\r\na\r\n0\r\nt: x\r\n\r\n", 200, b"a", id="trailer"),
        pytest.param(OK + b"content-encoding: identity\r\ncontent-length: 1\r\n\r\na", 200, b"a", id="identity"),
        pytest.param(OK + b"content-encoding:\r\ncontent-length: 1\r\n\r\na", 200, b"a", id="empty encoding"),
    ],
)
async def test_oddities_are_read_right_and_not_smuggled_on(
    autojump_clock: MockClock, answer: bytes, status: int, body: bytes
) -> None:
    async with Peer(raw(answer), reply(b"next")) as peer, transport_to(peer) as transport:
        assert await fetch(transport) == (status, body)
        assert await fetch(transport) == (200, b"next")


VIOLATIONS = [
    pytest.param(OK + b"content-length: 1\r\ntransfer-encoding: chunked\r\n\r\n1\r\na\r\n0\r\n\r\n", id="CL+TE"),
    pytest.param(b"HTTP/1.0 200 OK\r\ntransfer-encoding: chunked\r\n\r\n1\r\na\r\n0\r\n\r\n", id="TE in HTTP/1.0"),
    pytest.param(OK + b"transfer-encoding: gzip, chunked\r\n\r\n", id="another transfer encoding"),
    pytest.param(OK + b"content-length: 1\r\ncontent-length: 2\r\n\r\na", id="two lengths"),
    pytest.param(OK + b"content-length: -1\r\n\r\n", id="negative length"),
    pytest.param(OK + b"content-length: 99999999999999999999999\r\n\r\n", id="absurd length"),
    pytest.param(CHUNKED + b"xyz\r\na\r\n0\r\n\r\n", id="bad chunk size"),
    pytest.param(CHUNKED + b"1\r\nabc\r\n0\r\n\r\n", id="chunk longer than said"),
    pytest.param(OK + b"x: y\r\n" * 8000 + b"\r\n", id="8000 headers"),
    pytest.param(OK + b"a: b\r\n" * 300 + b"content-length: 0\r\n\r\n", id="300 short headers"),
    pytest.param(OK + b"x: " + b"y" * 5 * 1024 * 1024, id="5 MiB header"),
    pytest.param(OK + b" folded: first\r\n\r\n", id="continuation first"),
    pytest.param(b"<html>hello</html>\r\n\r\n", id="HTTP/0.9"),
    pytest.param(b"\x16\x03\x01\x02\x00\x01\x00\r\n\r\n", id="TLS on the plain port"),
    pytest.param(b"HTTP/2 200 OK\r\n\r\n", id="HTTP/2 in words"),
    pytest.param(b"HTTP/1.1 1000 OK\r\n\r\n", id="status of four digits"),
    pytest.param(b"HTTP/1.1 101 S\r\nupgrade: x\r\nconnection: upgrade\r\n\r\n", id="101 that nobody asked for"),
    pytest.param(b"HTTP/1.1 100 C\r\n\r\n" * 100, id="100 for ever"),
]


@pytest.mark.parametrize("answer", VIOLATIONS)
async def test_what_can_be_read_in_two_ways_is_a_violation(autojump_clock: MockClock, answer: bytes) -> None:
    async with Peer(raw(answer), reply(b"next")) as peer, transport_to(peer) as transport:
        with pytest.raises(ProtocolViolation, match=r"^http://api.test: \w"), trio.fail_after(1):
            await fetch(transport)
        assert await fetch(transport) == (200, b"next")
        assert peer.connections == 2


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_redirect_is_an_answer_and_not_followed(autojump_clock: MockClock, status: int) -> None:
    async with Peer(reply(b"", status, {"location": "http://evil.test/"})) as peer, transport_to(peer) as transport:
        async with transport.send(post(headers={"authorization": "Bearer k"})) as response:
            assert response.status == status
            assert response.headers["location"] == "http://evil.test/"
        assert len(peer.requests) == 1


@pytest.mark.parametrize("encoding", ["gzip", "br", "deflate", "zstd", "GZIP", "identity, gzip", "x-unheard-of"])
async def test_compressed_body_is_refused_unread(autojump_clock: MockClock, encoding: str) -> None:
    head = f"HTTP/1.1 200 OK\r\ncontent-encoding: {encoding}\r\ntransfer-encoding: chunked\r\n\r\n".encode()
    bomb = b"10000\r\n" + bytes(0x10000) + b"\r\n"
    async with Peer([raw(head), flood(bomb, 10**6)]) as peer, transport_to(peer) as transport:
        with pytest.raises(UnsupportedEncoding) as caught:
            await fetch(transport)
        assert caught.value.status == 200
        assert peer.requests[0].headers["accept-encoding"] == "identity"


@pytest.mark.parametrize(
    "request_",
    [
        pytest.param(post(headers={"x": "a\r\nevil: b"}), id="CR LF in a value"),
        pytest.param(post(headers={"x": "a\nb"}), id="LF in a value"),
        pytest.param(post(headers={"x": "a\0b"}), id="NUL in a value"),
        pytest.param(post(headers={"x": "schlüssel"}), id="non-ASCII in a value"),
        pytest.param(post(headers={"x: y\r\nz": "a"}), id="CR LF in a name"),
        pytest.param(post(headers={"": "a"}), id="empty name"),
        pytest.param(post(headers={"Content-Length": "5"}), id="own framing"),
        pytest.param(post(headers={"transfer-encoding": "chunked"}), id="own encoding"),
        pytest.param(post(headers={"host": "evil.test"}), id="other host"),
        pytest.param(post(headers={"Accept-Encoding": "gzip"}), id="asks for compression"),
        pytest.param(post(target="/a b"), id="space in the target"),
        pytest.param(post(target="/a HTTP/1.1\r\nevil: b\r\n"), id="CR LF in the target"),
        pytest.param(post(target="/ä"), id="non-ASCII in the target"),
        pytest.param(post(target="http://evil.test/"), id="absolute target"),
        pytest.param(post(target="/a#b"), id="fragment"),
        pytest.param(HttpRequest("GET /x HTTP/1.1\r\n", ORIGIN, "/"), id="CR LF in the method"),
    ],
)
async def test_what_could_end_a_line_early_is_refused_before_any_byte(request_: HttpRequest) -> None:
    async with Peer() as peer, transport_to(peer) as transport:
        with pytest.raises(RequestRefused) as caught:
            await fetch(transport, request_)
        assert "evil" not in str(caught.value)
        assert peer.connections == 0


class ScriptedWire:
    """Hands out the given pieces, then the end of the stream."""

    def __init__(self, pieces: list[bytes]) -> None:
        self.pieces = pieces

    async def send_all(self, data: bytes, /) -> None:
        await trio.lowlevel.checkpoint()

    async def receive_some(self, max_bytes: int, /) -> bytes:
        await trio.lowlevel.checkpoint()
        return self.pieces.pop(0) if self.pieces else b""

    def is_quiet(self) -> bool:
        return not self.pieces

    def close(self) -> None:
        self.pieces.clear()


def read_through(pieces: list[bytes]) -> tuple[int, bytes, str]:
    """Status, body, and the name of the error that ended it, if one did."""

    async def read() -> tuple[int, bytes, str]:
        connection = ClientConnection(ORIGIN, ScriptedWire(list(pieces)))
        status, body = 0, b""
        try:
            response = await connection.ask(post(), b"")
            status = response.status
            while piece := await response.receive():
                body += piece
        except TransportError as exc:
            return status, body, type(exc).__name__
        return status, body, ""

    return trio.run(read)


def cut(data: bytes, places: list[int]) -> list[bytes]:
    bounds = [0, *sorted({place % len(data) for place in places} - {0}), len(data)]
    return [data[a:b] for a, b in pairwise(bounds)]


def chunks(body: bytes, sizes: list[int]) -> bytes:
    wire, at = b"", 0
    for size in [*sizes, len(body)]:
        if piece := body[at : at + size]:
            wire += b"%x\r\n%b\r\n" % (len(piece), piece)
        at += size
    return wire + b"0\r\n\r\n"


SIZES = st.lists(st.integers(1, 20), max_size=4)
PLACES = st.lists(st.integers(0, 2**10), max_size=8)
FRAMINGS = st.sampled_from(["length", "chunked", "until close"])


@given(st.binary(max_size=60), SIZES, PLACES, FRAMINGS)
def test_any_split_of_an_answer_gives_the_same_body(
    body: bytes, sizes: list[int], places: list[int], framing: str
) -> None:
    wires = {
        "length": OK + b"content-length: %d\r\n\r\n" % len(body) + body,
        "chunked": b"HTTP/1.1 100 C\r\n\r\n" + CHUNKED + chunks(body, sizes),
        "until close": b"HTTP/1.0 200 OK\r\n\r\n" + body,
    }
    assert read_through(cut(wires[framing], places)) == (200, body, "")


@given(st.binary(max_size=60), SIZES, PLACES)
def test_chunks_that_arrive_whole_give_the_same_body(body: bytes, sizes: list[int], places: list[int]) -> None:
    """Each chunk in a piece of its own, until a cut at an arbitrary place spoils it."""
    wire = chunks(body, sizes)
    ends, at = [len(CHUNKED)], 0
    while at < len(wire) - len(b"0\r\n\r\n"):
        size, _, _ = wire[at:].partition(b"\r\n")
        at += len(size) + int(size, 16) + 2 * len(b"\r\n")
        ends.append(len(CHUNKED) + at)
    assert read_through(cut(CHUNKED + wire, ends)) == (200, body, "")
    assert read_through(cut(CHUNKED + wire, [*ends, *places])) == (200, body, "")


@given(
    st.lists(st.sampled_from([b"1", b"2\r\n", b"\r\n", b"a", b"0", b"00a\r\n", b";x", b" ", b"0123456789"])).map(
        b"".join
    )
)
def test_what_is_taken_for_whole_chunks_is_so_to_h11(data: bytes) -> None:
    """Of two readings of the same bytes one would be an attacker's."""
    found = whole_chunks(data)
    peer = h11.Connection(h11.CLIENT)
    peer.send(h11.Request(method="GET", target="/", headers=[("host", "h")]))
    peer.send(h11.EndOfMessage())
    peer.receive_data(CHUNKED + data)
    assert isinstance(peer.next_event(), h11.Response)
    if found is not None:
        read = b""
        while isinstance(event := peer.next_event(), h11.Data):
            read += event.data
        assert (read, event, peer.trailing_data[0]) == (found, h11.NEED_DATA, b"")


@given(st.binary(min_size=1, max_size=40), SIZES, st.integers(0, 2**10))
def test_answer_cut_anywhere_is_never_taken_for_a_whole_one(body: bytes, sizes: list[int], place: int) -> None:
    """G5: every true prefix of a framed answer ends in Broken, with a prefix of the body."""
    wire = CHUNKED + chunks(body, sizes)
    status, got, error = read_through([piece for piece in [wire[: place % len(wire)]] if piece])
    assert error == "Broken"
    assert body.startswith(got)
    assert status in (0, 200)


@given(st.lists(st.binary(max_size=30), max_size=5))
def test_garbage_is_an_answer_or_a_typed_error(pieces: list[bytes]) -> None:
    """Nothing but our own errors comes out, whatever comes in."""
    read_through([OK, *filter(None, pieces)])
    read_through([CHUNKED, *filter(None, pieces)])
