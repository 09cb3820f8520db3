"""A raw WebSocket client: every byte is the test's own, so that it can be wrong on purpose."""

from __future__ import annotations

import json
import os
import struct
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import trio

from support.server import HttpClient, OpenServer

KEY = "dGhlIHNhbXBsZSBub25jZQ=="
TEXT, BINARY, CLOSE, PING, PONG, MORE = 0x1, 0x2, 0x8, 0x9, 0xA, 0x0
TERMINAL = ("response.completed", "response.failed", "response.incomplete", "error")


def handshake(path: str = "/v1/responses", *, host: str = "127.0.0.1", **headers: str) -> bytes:
    """The opening request; a header given as ``""`` is left away."""
    fields = {
        "host": host,
        "upgrade": "websocket",
        "connection": "Upgrade",
        "sec-websocket-version": "13",
        "sec-websocket-key": KEY,
    } | {name.replace("_", "-"): value for name, value in headers.items()}
    lines = [f"GET {path} HTTP/1.1", *(f"{name}: {value}" for name, value in fields.items() if value)]
    return "\r\n".join([*lines, "", ""]).encode()


def frame(opcode: int, payload: bytes = b"", *, fin: bool = True, masked: bool = True, rsv: int = 0) -> bytes:
    """One frame as a client sends it."""
    first = (0x80 if fin else 0) | rsv << 4 | opcode
    bit = 0x80 if masked else 0
    size = len(payload)
    if size < 126:
        head = struct.pack("!BB", first, bit | size)
    elif size < 65536:
        head = struct.pack("!BBH", first, bit | 126, size)
    else:
        head = struct.pack("!BBQ", first, bit | 127, size)
    if not masked:
        return head + payload
    mask = os.urandom(4)
    stretched = int.from_bytes((mask * (size // 4 + 1))[:size]) ^ int.from_bytes(payload)
    return head + mask + stretched.to_bytes(size)


@dataclass
class Frame:
    opcode: int
    payload: bytes
    fin: bool = True

    @property
    def code(self) -> int:
        """Of a close frame."""
        return int(struct.unpack("!H", self.payload[:2])[0]) if self.payload else 1005


class WsClient:
    """Reads frames; writes whatever it is told."""

    def __init__(self, http: HttpClient, left_over: bytes = b"") -> None:
        self.http = http
        self._unread = bytearray(left_over)

    async def send(self, *messages: Any) -> None:
        """Send text messages: objects as JSON, strings as they are."""
        texts = [each if isinstance(each, str) else json.dumps(each) for each in messages]
        await self.raw(b"".join(frame(TEXT, text.encode()) for text in texts))

    async def create(self, text: str = "hi", **fields: Any) -> None:
        await self.send({"type": "response.create", "model": "m", "input": text} | fields)

    async def raw(self, data: bytes) -> None:
        await self.http.send(data)

    async def frame(self) -> Frame | None:
        """The next frame; None at the end of the connection."""
        with trio.fail_after(100):
            head = await self._exactly(2)
            if head is None:
                return None
            assert head[1] < 128, "a server does not mask"
            size = head[1]
            if size >= 126:
                length = await self._exactly(2 if size == 126 else 8)
                assert length is not None
                size = int.from_bytes(length)
            payload = await self._exactly(size)
            assert payload is not None
            assert head[0] & 0x70 == 0, "there are no extensions"
            return Frame(head[0] & 0x0F, payload, head[0] >= 0x80)

    async def event(self) -> dict[str, Any]:
        """The next message, put together and decoded; pings in between are answered."""
        parts: list[bytes] = []
        while True:
            got = await self.frame()
            assert got is not None, "the connection ended"
            if got.opcode == PING:
                await self.raw(frame(PONG, got.payload))
                continue
            assert got.opcode == (MORE if parts else TEXT), (got.opcode, got.payload)
            parts.append(got.payload)
            if got.fin:
                found: dict[str, Any] = json.loads(b"".join(parts))
                return found

    async def response(self) -> list[dict[str, Any]]:
        """All events up to the next terminal one."""
        events = [await self.event()]
        while events[-1]["type"] not in TERMINAL:
            events.append(await self.event())
        return events

    async def close_code(self) -> int:
        """The code of the close frame, what comes before it skipped; 1006 without one."""
        try:
            while (got := await self.frame()) is not None:
                if got.opcode == CLOSE:
                    return got.code
        except (trio.BrokenResourceError, AssertionError):
            pass
        return 1006

    async def _exactly(self, size: int) -> bytes | None:
        while len(self._unread) < size:
            data = await self.http.stream.receive_some(65536)
            if not data:
                return None
            self._unread += data
        found = bytes(self._unread[:size])
        del self._unread[:size]
        return found


async def upgrade(http: HttpClient, request: bytes) -> WsClient:
    """Send a handshake and read its answer, which must be 101."""
    await http.send(request)
    data = b""
    while b"\r\n\r\n" not in data:
        got = await http.receive()
        assert got, data
        data += got
    head, _, rest = data.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 101"), head
    assert b"s3pPLMBiTxaQ9kYGzzhZRbK+xOo=" in head, "RFC 6455, 1.3"
    client = WsClient(http, rest)
    client.head = head  # type: ignore[attr-defined]
    return client


@asynccontextmanager
async def connected(server: OpenServer, **headers: str) -> AsyncIterator[WsClient]:
    """An open WebSocket, dropped at the end."""
    async with await server.connect() as http:
        yield await upgrade(http, handshake(**headers))


def text_of(events: Sequence[dict[str, Any]]) -> str:
    """The text that was streamed."""
    return "".join(each["delta"] for each in events if each["type"] == "response.output_text.delta")


def ids(events: Sequence[dict[str, Any]]) -> str:
    """The response's id."""
    found: str = events[0]["response"]["id"]
    return found
