"""One HTTP/1.1 connection: requests one after the other over one wire, read by h11.

h11 decides what the peer's bytes mean and whose turn it is; only chunks that arrive whole need no telling (see
``chunks``). This file moves bytes, and turns every way of going wrong into one of our errors. A connection is used
again only when that is proven harmless: request fully sent, body framed by the message itself and read to its end,
nothing left over. In any other case it is closed, so that no byte of one answer can become part of another.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Final

import h11
import trio

from llm_actors.transport.chunks import whole_chunks
from llm_actors.transport.errors import (
    WIRE_ERRORS,
    Broken,
    ProtocolViolation,
    TransportError,
    UnsupportedEncoding,
    protocol_reason,
    wire_reason,
)
from llm_actors.transport.request import Origin
from llm_actors.transport.response import Headers, HttpResponse
from llm_actors.transport.wire import CHUNK_BYTES, Wire

MAX_HEADER_BYTES: Final = 64 * 1024  # status line and headers of one answer
MAX_HEADERS: Final = 256
MAX_INTERIM_ANSWERS: Final = 16  # 1xx before the real one
LISTEN_WHILE_SENDING_BYTES: Final = 32 * 1024  # smaller requests fit into the sockets' buffers and are never stuck
STALE_SECONDS: Final = 1.0  # see Stale

_ENCODINGS: Final = frozenset((b"gzip", b"br", b"deflate", b"zstd", b"compress"))
_END: Final = h11.EndOfMessage()


class Stale(Broken):
    """A kept connection that the server gave up while nobody looked: our request crossed its close on the way.

    Sending the request again is safe then, because the server closed before it read it. That cannot be seen from
    here for certain, so all signs have to agree: the connection had been used before, not one byte was answered,
    and the end came within ``STALE_SECONDS`` of the request, as it does when it was under way already. A server
    that took the request, worked on it and died looks different: it takes longer.
    """

    def __init__(self, origin: Origin, reason: str) -> None:
        super().__init__(origin, reason, answered=False)


class ClientConnection:
    """Owned by one exchange at a time. Nothing here waits with a limit of its own: the caller's scope has it."""

    __slots__ = (
        "_answered", "_asked_at", "_ended", "_eof", "_exchanges", "_failure", "_framed", "_h11",
        "_in_whole_chunks", "_response", "_sent", "_starved", "_wire", "origin",
    )  # fmt: skip

    def __init__(self, origin: Origin, wire: Wire) -> None:
        self.origin = origin
        self._wire = wire
        self._h11 = h11.Connection(h11.CLIENT, MAX_HEADER_BYTES)
        self._exchanges = 0
        self._reset()

    def _reset(self) -> None:
        self._asked_at = trio.current_time()
        self._sent = False  # the whole request has been handed to the kernel
        self._answered = False  # at least one byte of the answer is here
        self._eof = False
        self._starved = False  # h11 has nothing left to parse
        self._ended = False  # the body's end has been read
        self._framed = False  # the message itself says where its body ends
        self._in_whole_chunks = False  # every piece of the body held whole chunks, so the next one begins with one
        self._failure: TransportError | None = None
        self._response: HttpResponse | None = None

    async def ask(self, method: str, payload: bytes) -> HttpResponse:
        """Send one encoded request and wait for the head of its answer.

        Raises :class:`Stale`, Broken, ProtocolViolation or UnsupportedEncoding. After an error or a cancel the
        connection is only good for ``close``.
        """
        self._reset()
        self._exchanges += 1
        self._h11.send(_request_as_h11_counts_it(method))
        self._h11.send(_END)
        if len(payload) > LISTEN_WHILE_SENDING_BYTES:
            await self._send_while_listening(method, payload)
        else:
            await self._send(payload)
        return self._response or await self._receive_head(method)

    async def receive(self) -> bytes:
        """The next piece of the body as it arrives (at most about 128 KiB), or ``b""`` after its proper end.

        Always a cancellation point; gives way to other tasks whenever it has to wait for the network.
        Raises Broken when the body was cut, ProtocolViolation when it is malformed; every time if called again.
        """
        while not self._ended:
            if self._starved:
                try:
                    came = await self._wire.receive_some(CHUNK_BYTES)
                except WIRE_ERRORS as exc:
                    raise self._cut(exc) from exc
                if self._in_whole_chunks and (body := whole_chunks(came)):
                    return body  # h11 need not know: its next byte is the next chunk's first
                self._in_whole_chunks = False
                self._feed(came)
            else:
                await trio.lowlevel.checkpoint_if_cancelled()
            if data := self._parse_body():
                return data
        await trio.lowlevel.checkpoint_if_cancelled()
        return b""

    def renew(self) -> bool:
        """Make ready for another request, if this exchange left no doubt; tells whether it did."""
        if self._failure is None and self._response is not None and not self._ended:
            self._parse_what_is_here()
        if not (self._sent and self._ended and self._framed and not self._h11.trailing_data[0]):
            return False
        if self._h11.our_state is not h11.DONE or self._h11.their_state is not h11.DONE:
            return False  # one side said "connection: close"
        self._h11.start_next_cycle()
        self._response = None
        return True

    def is_quiet(self) -> bool:
        return self._wire.is_quiet()

    def close(self) -> None:
        self._wire.close()
        self._response = self._failure = None  # they lead back here, and only the garbage collector would find out

    async def _send(self, payload: bytes) -> None:
        try:
            await self._wire.send_all(payload)
        except WIRE_ERRORS:
            return  # the server may have said why before it closed, and reading tells how it ended in any case
        self._sent = True

    async def _send_while_listening(self, method: str, payload: bytes) -> None:
        """Send, but stop when an error answer comes first: a server that answers 413 may never read the rest."""

        async def listen() -> None:
            try:
                self._response = await self._receive_head(method)
            except TransportError as exc:
                self._failure = exc
            if self._failure or (self._response and self._response.status >= 400):
                nursery.cancel_scope.cancel()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(listen)
            await self._send(payload)
            if self._sent:
                nursery.cancel_scope.cancel()
        if self._failure:
            raise self._failure

    async def _receive_head(self, method: str) -> HttpResponse:
        interim = 0
        while True:
            event = self._next_event()
            if event is h11.NEED_DATA:
                try:
                    came = await self._wire.receive_some(CHUNK_BYTES)
                except WIRE_ERRORS as exc:
                    raise self._cut(exc) from exc
                self._feed(came)
            elif type(event) is h11.Response:
                self._response = self._judge(event, method)
                return self._response
            else:  # 100, 103 and their kind
                interim += 1
                if interim > MAX_INTERIM_ANSWERS:
                    raise ProtocolViolation(self.origin, f"more than {MAX_INTERIM_ANSWERS} interim answers")

    def _judge(self, head: h11.Response, method: str) -> HttpResponse:
        """Refuse heads that h11 accepts and we do not."""
        raw = list(head.headers)
        names = {name for name, _ in raw}
        chunked = b"transfer-encoding" in names
        if len(raw) > MAX_HEADERS:
            raise ProtocolViolation(self.origin, f"the answer has more than {MAX_HEADERS} headers")
        if chunked and b"content-length" in names:
            raise ProtocolViolation(self.origin, "the answer has both Transfer-Encoding and Content-Length")
        if chunked and head.http_version != b"1.1":
            raise ProtocolViolation(self.origin, "Transfer-Encoding in an answer of HTTP/1.0")
        if b"content-encoding" in names:
            self._refuse_encodings(head.status_code, raw)
        # Servers get the bodies of these wrong; nobody can tell a stray body from the next answer.
        bodiless = method == "HEAD" or head.status_code in (204, 304)
        self._framed = (chunked or b"content-length" in names) and not bodiless
        self._in_whole_chunks = chunked and whole_chunks(self._h11.trailing_data[0]) is not None
        return HttpResponse(head.status_code, Headers(raw), self.origin, self.receive)

    def _refuse_encodings(self, status: int, raw: list[tuple[bytes, bytes]]) -> None:
        for name, value in raw:
            encoding = value.strip().lower()
            if name == b"content-encoding" and encoding != b"identity":
                shown = encoding.decode() if encoding in _ENCODINGS else "unknown"
                reason = f"the answer ({status}) is compressed ({shown}) though only identity was accepted"
                raise UnsupportedEncoding(self.origin, reason, status=status)

    def _parse_body(self) -> bytes:
        """All of the body that is here. What arrived before a fault is handed over before the fault is raised."""
        parts: list[bytearray | bytes] = []
        if self._failure is None:
            try:
                self._parse_into(parts)
            except TransportError as exc:
                self._failure = exc
                self._starved = False
        if self._failure is not None and not parts:
            raise self._failure
        return b"".join(parts)

    def _parse_into(self, parts: list[bytearray | bytes]) -> None:
        while True:
            event = self._next_event()
            if type(event) is h11.Data:
                parts.append(event.data)
            elif event is h11.NEED_DATA:
                self._starved = True
                return
            else:
                self._ended = True
                return

    def _parse_what_is_here(self) -> None:
        """A reader that left at the vendor's end marker may have left just the terminating chunk unread."""
        try:
            self._parse_into([])
        except TransportError as exc:
            self._failure = exc

    def _next_event(self) -> object:
        try:
            return self._h11.next_event()
        except h11.RemoteProtocolError as exc:
            # Raised below, outside of this block: h11's error quotes the peer's bytes and must not be chained to ours.
            reason = protocol_reason(exc)
            exc.__traceback__ = None  # h11's error refers to itself through its frames, and through them to us
        if self._eof:
            raise self._broken("closed in the middle of the answer" if self._answered else "closed before an answer")
        raise ProtocolViolation(self.origin, reason)

    def _cut(self, exc: Exception) -> Broken:
        self._failure = failure = self._broken(wire_reason(exc))
        return failure

    def _feed(self, data: bytes) -> None:
        self._h11.receive_data(data)
        self._starved = False
        if data:
            self._answered = True
        else:
            self._eof = True

    def _broken(self, reason: str) -> Broken:
        fresh = trio.current_time() - self._asked_at <= STALE_SECONDS
        if self._exchanges > 1 and not self._answered and fresh:
            return Stale(self.origin, reason)
        return Broken(self.origin, reason, answered=self._answered)


@lru_cache(maxsize=16)
def _request_as_h11_counts_it(method: str) -> h11.Request:
    """What h11 needs to know of a request: that one was sent, and its method.

    Our head is written and checked in ``request.encode``; to have h11 check it again costs more than all the rest
    of sending.
    """
    return h11.Request(method=method, target="/", headers=[("host", "-"), ("content-length", "0")])
