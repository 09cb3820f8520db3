"""Response heads and chunked bodies: whatever is read, h11 reads just so."""

from __future__ import annotations

import h11
import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm_actors.transport.http1 import MAX_HEADERS, IncompleteResponse, ResponseReader
from llm_protocol.http1 import CHUNK_LINE_BYTES, HEAD_BYTES, BadHttp, ChunkedBody, read_response_head

OK = b"HTTP/1.1 200 OK\r\n"
CHUNKED = OK + b"transfer-encoding: chunked\r\n\r\n"

LINES = st.sampled_from(
    [b"HTTP/1.1 200 OK", b"HTTP/1.1 200", b"HTTP/1.0 429 ", b"HTTP/1.1 103 x", b"HTTP/1.1 204 No", b"HTTP/2 200 OK"]
)
FIELDS = st.tuples(
    st.sampled_from([b"content-length", b"Connection", b"x-a", b"X-A", b"transfer-encoding", b"x a", b"", b" x"]),
    st.sampled_from([b":", b": ", b":\t", b" :", b""]),
    st.sampled_from([b"", b"0", b"3", b"3, 3", b"-1", b"close", b"a, Close", b"chunked", b"\x01", b"\xe9 x", b"a\rb"]),
    st.sampled_from([b"\r\n", b"\r\n", b"\n", b" \r\n", b"\r\n  more\r\n"]),
).map(b"".join)
BODIES = st.sampled_from([b"", b"abc", b"3\r\nabc\r\n0\r\n\r\n", b"abcHTTP/1.1 ", b"1;x\r\na\r\n0\r\nt: u\r\n\r\nHTTP"])


def by_h11(data: bytes, method: str) -> tuple[int, dict[str, str], bytes, bool]:
    """Status, fields, body, and whether the connection may be used again."""
    reader = h11.Connection(h11.CLIENT)
    reader.send(h11.Request(method=method, target="/", headers=[("host", "h")]))
    reader.send(h11.EndOfMessage())
    reader.receive_data(data)
    reader.receive_data(b"")
    while isinstance(head := reader.next_event(), h11.InformationalResponse):
        pass
    assert isinstance(head, h11.Response), head
    fields: dict[str, str] = {}
    for name, value in head.headers:
        key, text = name.decode(), value.decode("latin-1")
        fields[key] = f"{fields[key]}, {text}" if key in fields else text
    body = b""
    while isinstance(event := reader.next_event(), h11.Data):
        body += event.data
    assert isinstance(event, h11.EndOfMessage), event
    return head.status_code, fields, body, reader.their_state is h11.DONE


@given(LINES, st.lists(FIELDS, max_size=4), BODIES, st.sampled_from(["POST", "HEAD"]))
def test_what_we_read_h11_reads_alike(line: bytes, fields: list[bytes], body: bytes, method: str) -> None:
    data = line + b"\r\n" + b"".join(fields) + b"\r\n" + body
    reader = ResponseReader(method)
    reader.feed(data)
    reader.feed(b"")
    got = b""
    try:
        head = reader.read_head()
        while not reader.ended:
            got += reader.read_body()
    except (BadHttp, IncompleteResponse):
        return
    assert head is not None
    status, headers, expected, kept = by_h11(data, method)
    assert (head.status, got) == (status, expected)
    assert {**head.headers, "content-length": ""} == {**headers, "content-length": ""}, "h11 joins equal lengths"
    assert kept or not (reader.keeps and reader.framed)


CHUNK_PIECES = [b"1", b"2\r\n", b"\r\n", b"a", b"0", b"00a\r\n", b";x", b" ", b"0123456789", b"\n", b"t: u\r\n"]


@given(st.lists(st.sampled_from(CHUNK_PIECES), max_size=12).map(b"".join), st.integers(1, 7))
def test_chunks_are_read_as_h11_reads_them_however_they_arrive(data: bytes, step: int) -> None:
    chunks, buffer, got = ChunkedBody(), bytearray(), b""
    try:
        for at in range(0, len(data), step):
            buffer += data[at : at + step]
            while parts := chunks.read(buffer, 1):
                got += b"".join(parts)
    except BadHttp:
        return
    peer = h11.Connection(h11.CLIENT)
    peer.send(h11.Request(method="GET", target="/", headers=[("host", "h")]))
    peer.send(h11.EndOfMessage())
    peer.receive_data(CHUNKED + data)
    assert isinstance(peer.next_event(), h11.Response)
    expected = b""
    while isinstance(event := peer.next_event(), h11.Data):
        expected += event.data
    assert got == expected
    assert chunks.ended == isinstance(event, h11.EndOfMessage)
    if chunks.ended:
        assert bytes(buffer) == peer.trailing_data[0]


@given(st.binary(max_size=50), st.integers(1, 9))
def test_a_fault_comes_behind_all_content(body: bytes, most: int) -> None:
    """A reader gets the content before the fault, then the fault, each time it asks."""
    chunks, buffer, got = ChunkedBody(), bytearray(), b""
    for at in range(0, len(body), 7):
        piece = body[at : at + 7]
        buffer += b"%x\r\n%b\r\n" % (len(piece), piece)
    buffer += b"zz\r\n"
    while got != body:
        parts = chunks.read(buffer, most)
        assert parts
        got += b"".join(parts)
    for _ in range(2):
        with pytest.raises(BadHttp, match="illegal chunk header"):
            chunks.read(buffer, most)


@pytest.mark.parametrize("more", [0, 1])
def test_bounds_of_lines_and_trailers(more: int) -> None:
    def read(data: bytes) -> bool:
        chunks = ChunkedBody()
        try:
            chunks.read(bytearray(data))
        except BadHttp:
            return False
        return chunks.ended

    extension = b"x" * (CHUNK_LINE_BYTES - len(b"0;\r\n") + more)
    assert read(b"0;%b\r\n\r\n" % extension) is not bool(more)
    trailer = b"t:%b\r\n" % (b"x" * (HEAD_BYTES - len(b"t:\r\n\r\n") + more))
    assert read(b"0\r\n%b\r\n" % trailer) is not bool(more)
    reader = ResponseReader("GET")
    reader.feed(OK + b"a: b\r\n" * (MAX_HEADERS + more) + b"\r\n")
    if more:
        with pytest.raises(BadHttp, match="more than 256 headers"):
            reader.read_head()
    else:
        assert reader.read_head() is not None


@pytest.mark.parametrize("data", [b"HTTP/0.9 200 OK\r\n\r\n", b"HTTP/3.0 200 OK\r\n\r\n", b"ICY 200 OK\r\n\r\n"])
def test_other_protocols_are_refused(data: bytes) -> None:
    with pytest.raises(BadHttp):
        read_response_head(data)
