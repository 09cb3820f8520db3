"""HTTP/1.1 from both ends: requests at the server and answers at the transport, each against h11 alone."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import h11
import trio

from fuzz.steps import pieces, step
from fuzz.target import Target
from llm_actors.transport.connection import ClientConnection
from llm_actors.transport.errors import TransportError
from llm_actors.transport.http1 import HttpRequest, Origin
from llm_runtime.server.http1 import Request, RequestParser
from llm_runtime.server.http_error import HttpError

MOST = 50
"""Requests on one connection that are looked at."""

# ---------------------------------------------------------------- the server


class Read(NamedTuple):
    """What a connection's bytes were read as, and how that ended."""

    requests: list[tuple[object, ...]]
    end: object


def check_server(data: bytes) -> None:
    """Any split gives the same requests, and they are what h11 reads."""
    at, body = (data or b"\0")[0], data[1:]
    whole = requests([body])
    assert whole.requests == by_h11(body, len(whole.requests))
    for cut in pieces(body, at):
        again = requests(cut)
        assert again.requests == whole.requests
        # Of a head that is too long it depends on the pieces which of its faults is seen first.
        assert again.end == whole.end or (isinstance(again.end, int) and isinstance(whole.end, int))


def requests(parts: Sequence[bytes]) -> Read:
    parser, found = RequestParser(), list[tuple[object, ...]]()
    for part in parts:
        parser.feed(part)
        try:
            while ((request := step(parser.next)) or parser.is_busy) and len(found) < MOST:
                if request is None:
                    continue
                found.append(told(request))
                if not request.keep_alive:
                    return Read(found, "close")
        except HttpError as refused:
            return Read(found, refused.status)
        assert not found or not parser.left_over() or parser.received
    return Read(found, "in body" if parser.in_body else "open")


def by_h11(body: bytes, most: int) -> list[tuple[object, ...]]:
    """The first ``most`` requests as h11 reads them, each by a fresh connection."""
    found: list[tuple[object, ...]] = []
    while len(found) < most:
        reader = h11.Connection(h11.SERVER)
        reader.receive_data(body)
        head = reader.next_event()
        assert isinstance(head, h11.Request), head
        fields: dict[str, str] = {}
        for raw, value in head.headers:
            name, text = raw.decode(), value.decode("latin-1")
            fields[name] = f"{fields[name]}, {text}" if name in fields else text
        content = b""
        while isinstance(event := reader.next_event(), h11.Data):
            content += event.data
        assert isinstance(event, h11.EndOfMessage), event
        kept = reader.their_state is not h11.MUST_CLOSE
        line = head.method.decode(), head.target.decode(), head.http_version.decode()
        found.append((*line, sorted(fields.items()), content, kept))
        body = bytes(reader.trailing_data[0])
    return found


def told(request: Request) -> tuple[object, ...]:
    # h11 tells equal lengths of one field, or of several, as one.
    fields = sorted(
        (name, value.split(",")[0].strip() if name == "content-length" else value)
        for name, value in request.headers.items()
    )
    return request.method, request.target, request.version, fields, request.body, request.keep_alive


REQUESTS = [
    b"GET /v1/models?x=1 HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer k\r\n\r\n",
    b"POST / HTTP/1.1\r\nhost: a\r\nContent-Length: 5\r\nConnection: keep-alive\r\n\r\nabcde"
    b"GET / HTTP/1.1\r\nHost:b\r\n\r\n",
    b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5;x=y\r\nabcde\r\n0\r\nT: u\r\n\r\n"
    b"GET / HTTP/1.0\r\n\r\n",
    b"GET / HTTP/1.1\r\nHost: a\r\nX:\t v \t\r\nX: w\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n\x81\x80",
    b"POST / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\ncontent-length: 005\r\n\r\nabcde",
    b"GET / HTTP/1.1\nHost: a\n\nCONNECT /a HTTP/1.1\r\nHost: a\r\n X: folded\r\n\r\n",
]

SERVER = Target("server", check_server, lambda: [b"\x80" + one for one in [*REQUESTS, b"".join(REQUESTS)]], prefix=1)

# ---------------------------------------------------------------- the transport


class Script:
    """A `Wire` whose peer says ``parts`` and closes."""

    def __init__(self, parts: Sequence[bytes]) -> None:
        self._parts = [part for part in parts if part]

    async def send_all(self, data: bytes) -> None:
        pass

    async def receive_some(self, max_bytes: int) -> bytes:
        return self._parts.pop(0) if self._parts else b""

    def is_quiet(self) -> bool:
        return not self._parts

    def close(self) -> None:
        pass


class Got(NamedTuple):
    """What an answer's reader sees."""

    head: tuple[object, ...] | None
    body: bytes
    error: str


ORIGIN = Origin("https", "vendor.example", 443)
METHODS = ("POST", "GET", "HEAD")


def check_answer(data: bytes) -> None:
    """Any split gives the same answer, which is the one that h11 reads, or one of our errors."""
    (chosen, at), body = data[:2].ljust(2, b"\0"), data[2:]
    method = METHODS[chosen % len(METHODS)]
    cuts = [[body], *pieces(body, at)]
    answers = trio.run(_exchanges, method, cuts)
    assert answers[1] == answers[0]
    assert answers[2] == answers[0]
    if not answers[0].error:
        assert answers[0] == answer_by_h11(method, body)


async def _exchanges(method: str, cuts: Sequence[Sequence[bytes]]) -> list[Got]:
    return [await _exchange(method, cut) for cut in cuts]


async def _exchange(method: str, parts: Sequence[bytes]) -> Got:
    connection, head, body = ClientConnection(ORIGIN, Script(parts)), None, b""
    try:
        response = await connection.ask(HttpRequest(method, ORIGIN, "/"), b"x")
        head = response.status, dict(response.headers)
        while part := await connection.receive():
            body += part
    except TransportError as exc:
        return Got(head, body, type(exc).__name__)
    connection.renew()
    return Got(head, body, "")


def answer_by_h11(method: str, data: bytes) -> Got:
    reader, head, body = h11.Connection(h11.CLIENT, 64 * 1024), None, b""
    reader.send(h11.Request(method=method, target="/", headers=[("host", "-")]))
    reader.send(h11.EndOfMessage())
    reader.receive_data(data)
    reader.receive_data(b"")
    while True:
        event = reader.next_event()
        if isinstance(event, h11.Response):
            fields: dict[str, str] = {}
            for name, value in event.headers:
                key, text = name.decode(), value.decode("latin-1")
                fields[key] = f"{fields[key]}, {text}" if key in fields else text
            head = event.status_code, fields
        elif isinstance(event, h11.Data):
            body += event.data
        elif isinstance(event, h11.EndOfMessage):
            return Got(head, body, "")


ANSWERS = [
    b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nabcde",
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nabcde\r\n3;x=y\r\nfgh\r\n0\r\nT: u\r\n\r\n",
    b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nabcde\r\nA\r\n0123456789\r\n"
    b"1\r\n.\r\n0\r\n\r\nHTTP/1.1 ",
    b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early\r\nLink: x\r\n\r\nHTTP/1.0 200 OK\r\n\r\nto the end",
    b"HTTP/1.1 204 No Content\r\nContent-Length: 3\r\n\r\nabc",
    b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nTransfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n",
    b"HTTP/1.1 429 Too Many\r\nRetry-After: 5\r\nX: a\r\nX: b\r\ncontent-length: 0\r\n\r\nHTTP/1.1 999 \r\n\r\n",
    b"HTTP/0.9 200\nX: folded\n  more\n\n<html>",
]

ANSWER = Target("answers", check_answer, lambda: [b"\0\x80" + one for one in ANSWERS], prefix=2)
