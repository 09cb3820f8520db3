"""Request heads: whatever is read, h11 reads just so; what can be read in two ways is refused."""

from __future__ import annotations

import h11
import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm_protocol.http1 import BadHttp, RequestHead, body_length, find_head, is_kept_alive, read_request_head
from llm_runtime.server.http1 import RequestParser

LIMIT = 1024
PLAIN = b"POST /v1/x?y=z HTTP/1.1\r\nHost: a:1\r\nContent-Length:  12 \r\nconnection: Keep-Alive\r\n\r\n"

LINES = st.sampled_from(
    [
        b"GET / HTTP/1.1",
        b"POST /a?b=c#d HTTP/1.1",
        b"G@T / HTTP/1.1",
        b"GET  / HTTP/1.1",
        b"GET * HTTP/1.1",
        b"GET / HTTP/1.0",
    ]
)
NAMES = st.sampled_from(
    [
        b"host",
        b"Host",
        b"content-length",
        b"Content-Length",
        b"connection",
        b"transfer-encoding",
        b"expect",
        b"x-a",
        b"x a",
        b"",
        b"upgrade",
    ]
)
VALUES = st.sampled_from(
    [
        b"a",
        b"",
        b" ",
        b"\t",
        b"0",
        b"7",
        b"+7",
        b"7, 7",
        b"-1",
        b"1_0",
        b"keep-alive",
        b"close",
        b"chunked",
        b"a\nb",
        b"a\rb",
        b"\x00",
        b"\xe9",
        b"a\x7f",
        b"a  b",
    ]
)
ENDS = st.sampled_from([b"\r\n", b"\r\n", b"\r\n", b"\n", b"\r\n ", b"\r\r\n"])
FIELDS = st.tuples(NAMES, st.sampled_from([b":", b": ", b" :", b":\t", b""]), VALUES, ENDS).map(b"".join)


def by_h11(data: bytes) -> tuple[h11.Connection, h11.Request]:
    reader = h11.Connection(h11.SERVER)
    reader.receive_data(data)
    head = reader.next_event()
    assert isinstance(head, h11.Request), head
    return reader, head


@given(LINES, st.lists(FIELDS, max_size=4), ENDS, st.booleans())
def test_what_we_read_h11_reads_alike(line: bytes, fields: list[bytes], end: bytes, host: bool) -> None:
    data = bytearray(line + b"\r\n" + (b"host: h\r\n" if host else b"") + b"".join(fields) + end)
    try:
        size = find_head(data, limit=LIMIT)
        head = read_request_head(data[:size]) if size else None
        length = body_length(head.headers, head.version) if head else None
    except BadHttp:
        return
    if head is None:
        return
    body = b"0\r\n\r\n" if length == -1 else b"." * (length or 0)
    reader, expected = by_h11(bytes(data[:size]) + body)
    assert (head.method.encode(), head.target.encode(), head.version.encode()) == (
        expected.method,
        expected.target,
        expected.http_version,
    )
    headers: dict[str, str] = {}
    for name, value in expected.headers:
        key, text = name.decode(), value.decode("latin-1")
        headers[key] = f"{headers[key]}, {text}" if key in headers else text
    assert list(head.headers) == list(headers)
    assert {**head.headers, "content-length": ""} == {**headers, "content-length": ""}, "h11 joins equal lengths"
    got = b""
    while isinstance(event := reader.next_event(), h11.Data):
        got += event.data
    assert isinstance(event, h11.EndOfMessage)
    assert len(got) == max(length or 0, 0)
    assert reader.their_state is not h11.MUST_CLOSE or not is_kept_alive(head.headers, head.version)


@pytest.mark.parametrize("more", [b"", b"GET"])
def test_a_common_head_is_read(more: bytes) -> None:
    headers = {"host": "a:1", "content-length": "12", "connection": "Keep-Alive"}
    size = find_head(bytearray(PLAIN + more), limit=LIMIT)
    assert size == len(PLAIN)
    assert read_request_head(PLAIN) == RequestHead("POST", "/v1/x?y=z", "1.1", headers)


@pytest.mark.parametrize(
    ("data", "status"),
    [
        (PLAIN.replace(b"Host: a:1\r\n", b""), 400),
        (PLAIN.replace(b"Host: a:1\r\n", b"host: a\r\nHost: b\r\n"), 400),
        (PLAIN.replace(b"connection:", b"connection :"), 400),
        (PLAIN.replace(b"a:1\r\n", b"a:1\n"), 400),
        (PLAIN.replace(b"a:1\r\n", b"a:1\r\n folded\r\n"), 400),
        (PLAIN.replace(b"a:1", b"a\x01"), 400),
        (PLAIN.replace(b"/v1", b"http://a/v1"), 400),
        (PLAIN.replace(b"HTTP/1.1", b"HTTP/2.0"), 505),
        (b"\r\n" + PLAIN, 400),
        (b"\x16\x03\x01", 400),
        (PLAIN.replace(b"a:1", b"a" * LIMIT), 431),
    ],
)
def test_what_can_be_read_in_two_ways_is_refused(data: bytes, status: int) -> None:
    with pytest.raises(BadHttp) as caught:
        read_request_head(data[: find_head(bytearray(data), limit=LIMIT)])
    assert caught.value.status == status


@pytest.mark.parametrize(
    ("fields", "status"),
    [
        ({"content-length": "1, 2"}, 400),
        ({"content-length": "+1"}, 400),
        ({"content-length": "1" * 21}, 400),
        ({"content-length": "1", "transfer-encoding": "chunked"}, 400),
        ({"transfer-encoding": "gzip, chunked"}, 501),
    ],
)
def test_a_body_of_doubtful_length_is_refused(fields: dict[str, str], status: int) -> None:
    with pytest.raises(BadHttp) as caught:
        body_length(fields, "1.1")
    assert caught.value.status == status


def test_a_head_ends_at_one_place_however_it_arrives() -> None:
    for step in range(1, len(PLAIN)):
        data, searched, found = bytearray(), 0, 0
        for at in range(0, len(PLAIN), step):
            data += PLAIN[at : at + step]
            found = find_head(data, searched, LIMIT)
            searched = len(data)
        assert found == len(PLAIN)


def test_a_parser_reads_both_kinds_of_body_on_one_connection() -> None:
    chunked = b"POST /c HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n"
    parser = RequestParser()
    parser.feed(PLAIN + b"123456789012" + chunked + PLAIN)
    bodies = []
    while (request := parser.next()) is not None:
        bodies.append(request.body)
    assert bodies == [b"123456789012", b"abc"]
    assert parser.in_body
    parser.feed(b"210987654321rest")
    request = parser.next()
    assert request is not None
    assert (request.body, parser.left_over(), parser.received) == (b"210987654321", b"rest", 4)
