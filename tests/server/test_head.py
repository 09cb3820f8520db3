"""The head that we read ourselves: only what h11 reads just so, and only what can be read in one way."""

from __future__ import annotations

import h11
import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm_runtime.server.fast_head import FastHead, plain_head
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


@given(LINES, st.lists(FIELDS, max_size=4), ENDS, st.booleans())
def test_what_we_read_h11_reads_alike(line: bytes, fields: list[bytes], end: bytes, host: bool) -> None:
    data = line + b"\r\n" + (b"host: h\r\n" if host else b"") + b"".join(fields) + end
    found = plain_head(data, LIMIT)
    if found is None:
        return
    (method, target, headers, length), size = found
    reader = h11.Connection(h11.SERVER)
    reader.receive_data(data[:size] + b"." * length)
    event = reader.next_event()
    assert isinstance(event, h11.Request)
    assert (method.encode(), target.encode(), b"1.1") == (event.method, event.target, event.http_version)
    assert [(name.encode(), value.encode()) for name, value in headers.items()] == list(event.headers)
    body = b""
    while isinstance(event := reader.next_event(), h11.Data):
        body += event.data
    assert isinstance(event, h11.EndOfMessage)
    assert len(body) == length
    assert reader.their_state is h11.DONE, "and the connection can be kept"


def test_a_common_head_is_read() -> None:
    headers = {"host": "a:1", "content-length": "12", "connection": "Keep-Alive"}
    assert plain_head(PLAIN + b"and more", LIMIT) == (FastHead("POST", "/v1/x?y=z", headers, 12), len(PLAIN))


@pytest.mark.parametrize(
    "data",
    [
        PLAIN[:-1],
        PLAIN.replace(b"Host: a:1\r\n", b""),
        PLAIN.replace(b"Host: a:1\r\n", b"host: a\r\nHost: b\r\n"),
        PLAIN.replace(b"Keep-Alive", b"close"),
        PLAIN.replace(b"Keep-Alive", b"upgrade"),
        PLAIN.replace(b"12", b"1" * 10),
        PLAIN.replace(b"12", b"12, 12"),
        PLAIN.replace(b"connection", b"transfer-encoding"),
        PLAIN.replace(b"connection", b"expect"),
        PLAIN.replace(b"connection:", b"connection :"),
        PLAIN.replace(b"a:1\r\n", b"a:1\n"),
        PLAIN.replace(b"a:1\r\n", b"a:1\r\n folded\r\n"),
        PLAIN.replace(b"/v1", b"http://a/v1"),
        PLAIN.replace(b"HTTP/1.1", b"HTTP/1.0"),
        PLAIN.replace(b"a:1", b"a" * LIMIT),
    ],
)
def test_all_else_is_left_to_h11(data: bytes) -> None:
    assert plain_head(data, LIMIT) is None


def test_a_parser_reads_both_kinds_on_one_connection() -> None:
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
