"""The clients of the daemon in a storm, with raw sockets: SSE, WebSocket, and one that floods."""

from __future__ import annotations

import socket
import struct
from functools import partial
from typing import final

import msgspec
import trio

from bench._storm.plan import FLOOD_PATIENCE_SECONDS, FLOOD_SECONDS, FLOODERS, Call, Slot
from bench._storm.score import Ended, Score, call_once, watch_lag
from support.ws import MORE, PING, PONG, TEXT, frame, handshake

SSE_GOES = ("client", "disconnect", "reset")
WEBSOCKET_GOES = ("disconnect", "reset")
"""How a client leaves without the daemon's help."""

ENDS = {
    "response.completed": "whole",
    "response.failed": "failed",
    "response.incomplete": "incomplete",
    "error": "failed",
}


class _Error(msgspec.Struct, frozen=True):
    code: str | None = None


class _Delta(msgspec.Struct, frozen=True):
    content: str = ""


class _Choice(msgspec.Struct, frozen=True):
    delta: _Delta = _Delta()
    finish_reason: str | None = None


class _Chunk(msgspec.Struct, frozen=True):
    choices: tuple[_Choice, ...] = ()
    error: _Error | None = None


class _Response(msgspec.Struct, frozen=True):
    error: _Error | None = None


class _Event(msgspec.Struct, frozen=True):
    type: str
    delta: object = None
    error: _Error | None = None
    response: _Response | None = None


_CHUNK = msgspec.json.Decoder(_Chunk)
_EVENT = msgspec.json.Decoder(_Event)


def close(stream: trio.SocketStream, *, with_reset: bool = False) -> None:
    """Close at once, with an RST or a FIN."""
    if with_reset:
        stream.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    stream.socket.close()


def post(call: Call, key: str, *, stream: bool = True) -> bytes:
    """The HTTP request for a call."""
    body: dict[str, object] = {"model": call.model, "messages": [{"role": "user", "content": call.prompt}]}
    if stream:
        body["stream"] = True
    if call.leaves == "deadline":
        body["llm_runtime"] = {"deadline_s": call.leaves_after}
    data = msgspec.json.encode(body)
    return (
        b"POST /v1/chat/completions HTTP/1.1\r\nhost: 127.0.0.1\r\nauthorization: Bearer %s\r\n%s"
        b"content-type: application/json\r\ncontent-length: %d\r\n\r\n%s"
        % (key.encode(), b"" if stream else b"connection: close\r\n", len(data), data)
    )


def unchunked(buffer: bytearray) -> tuple[bytes, bool]:
    """Take the whole chunks from the head of ``buffer``: their bodies, and whether the last one was among them."""
    bodies, at, is_last = [], 0, False
    while not is_last and (line := buffer.find(b"\r\n", at)) >= 0:
        size = int(buffer[at:line], 16)
        end = line + 2 + size + 2
        if end > len(buffer):
            break
        bodies.append(bytes(buffer[line + 2 : line + 2 + size]))
        at, is_last = end, size == 0
    del buffer[:at]
    return b"".join(bodies), is_last


async def sse(port: int, key: str, ended: Ended) -> None:
    """One call over HTTP, on a connection of its own."""
    stream = await trio.open_tcp_stream("127.0.0.1", port)
    try:
        await stream.send_all(post(ended.call, key))
        ended.outcome = await _read_sse(stream, ended)
    finally:
        close(stream, with_reset=not ended.outcome and ended.call.leaves == "reset")


async def _read_sse(stream: trio.SocketStream, ended: Ended) -> str:
    buffer, text, outcome, is_last = bytearray(), b"", "cut", False
    while b"\r\n\r\n" not in buffer:
        if not (data := await stream.receive_some(65_536)):
            return "no answer"
        buffer += data
    head, _, rest = bytes(buffer).partition(b"\r\n\r\n")
    if not head.startswith(b"HTTP/1.1 200"):
        return f"failed {head[9:12].decode()}"
    buffer = bytearray(rest)
    while True:
        body, is_last = unchunked(buffer)
        now, said = trio.current_time(), ""
        *events, text = (text + body).split(b"\n\n")
        for event in events:
            if event.startswith(b"data: [DONE]") or not event.startswith(b"data: "):
                continue
            chunk = _CHUNK.decode(event[6:])
            if chunk.error is not None:
                outcome = f"failed {chunk.error.code}"
            for choice in chunk.choices:
                said += choice.delta.content or ""
                if choice.finish_reason:
                    outcome = "whole" if choice.finish_reason == "stop" else choice.finish_reason
        if said:
            ended.add(said, now)
        if is_last:
            return outcome
        if not (data := await stream.receive_some(65_536)):
            return "cut"
        buffer += data


@final
class WebSocket:
    """One connection, for one call after the other."""

    def __init__(self, port: int, key: str) -> None:
        self._port = port
        self._key = key
        self._stream: trio.SocketStream | None = None
        self._buffer = bytearray()
        self._message = bytearray()

    async def call(self, ended: Ended) -> None:
        """One call. When it is cancelled, the connection is closed or reset."""
        call = ended.call
        try:
            stream = self._stream or await self._connect()
            create = {"type": "response.create", "model": call.model, "input": call.prompt, "store": False}
            if call.leaves == "deadline":
                create["llm_runtime"] = {"deadline_s": call.leaves_after}
            await stream.send_all(frame(TEXT, msgspec.json.encode(create)))
            if call.leaves != "client":
                ended.outcome = await self._read(stream, ended)
                return
            with trio.move_on_after(call.leaves_after):
                ended.outcome = await self._read(stream, ended)
            if not ended.outcome:
                await stream.send_all(frame(TEXT, b'{"type":"response.cancel"}'))
                ended.outcome = await self._read(stream, ended)
                if ended.outcome == "whole":  # they crossed, and the cancel will be answered with an error
                    self.close()
        except trio.Cancelled:
            self.close(with_reset=call.leaves == "reset")
            raise
        except (OSError, trio.BrokenResourceError):
            self.close()
            raise

    def close(self, *, with_reset: bool = False) -> None:
        """Close the connection, without a word."""
        if self._stream is not None:
            close(self._stream, with_reset=with_reset)
            self._stream = None

    async def _connect(self) -> trio.SocketStream:
        stream = self._stream = await trio.open_tcp_stream("127.0.0.1", self._port)
        self._buffer.clear()
        self._message.clear()
        await stream.send_all(handshake(authorization=f"Bearer {self._key}"))
        while b"\r\n\r\n" not in self._buffer:
            data = await stream.receive_some(65_536)
            if not data:
                raise OSError("no handshake")
            self._buffer += data
        assert self._buffer.startswith(b"HTTP/1.1 101"), self._buffer
        del self._buffer[: self._buffer.index(b"\r\n\r\n") + 4]
        return stream

    async def _read(self, stream: trio.SocketStream, ended: Ended) -> str:
        while True:
            now, said = trio.current_time(), ""
            for opcode, payload in self._frames():
                if opcode == PING:
                    await stream.send_all(frame(PONG, payload))
                elif opcode == TEXT:
                    event = _EVENT.decode(payload)
                    if event.type == "response.output_text.delta":
                        said += str(event.delta)
                    elif event.type in ENDS:
                        if said:
                            ended.add(said, now)
                        error = event.error or (event.response and event.response.error)
                        return ENDS[event.type] + (f" {error.code}" if error else "")
            if said:
                ended.add(said, now)
            data = await stream.receive_some(65_536)
            if not data:
                raise OSError("cut")
            self._buffer += data

    def _frames(self) -> list[tuple[int, bytes]]:
        """The whole messages that are there, joined from their fragments; a server does not mask."""
        found, buffer, at = [], self._buffer, 0
        while len(buffer) >= at + 2:
            size, start = buffer[at + 1], at + 2
            if size >= 126:
                start = at + (4 if size == 126 else 10)
                size = int.from_bytes(buffer[at + 2 : start])
            if len(buffer) < start + size:
                break
            opcode, payload = buffer[at] & 0x0F, bytes(buffer[start : start + size])
            if opcode in (MORE, TEXT):
                self._message += payload
                if buffer[at] & 0x80:  # the last fragment
                    found.append((TEXT, bytes(self._message)))
                    self._message.clear()
            else:
                found.append((opcode, payload))
            at = start + size
        del buffer[:at]
        return found


@final
class Clients:
    """All clients of one storm."""

    def __init__(self, port: int, seed: int, keys: dict[str, str], score: Score) -> None:
        self._port = port
        self._seed = seed
        self._keys = keys
        self._score = score

    async def run(self, slots: list[Slot], seconds: float) -> None:
        """Call for so long, and wait until the last call has ended."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(watch_lag, self._score)
            async with trio.open_nursery() as calling:
                end = trio.current_time() + seconds
                for slot in slots:
                    calling.start_soon(self._slot, slot, end)
                for number in range(FLOODERS):
                    calling.start_soon(self._flood, number, end)
            nursery.cancel_scope.cancel()

    async def _slot(self, slot: Slot, end: float) -> None:
        key = self._keys["main"]
        websocket = WebSocket(self._port, key) if slot.number % 2 else None
        way = websocket.call if websocket else partial(sse, self._port, key)
        for wait, call in slot.calls(self._seed):
            await trio.sleep(wait)
            if trio.current_time() >= end:
                break
            await call_once(self._score, call, way, goes=call.leaves in (WEBSOCKET_GOES if websocket else SSE_GOES))
        if websocket is not None:
            websocket.close()

    async def _flood(self, number: int, end: float) -> None:
        request = post(Call(number, "slow", 1, 1), self._keys["flood"], stream=False).replace(b"storm", b"flood")
        while trio.current_time() < end:
            outcome = "left"
            with trio.move_on_after(FLOOD_PATIENCE_SECONDS):
                try:
                    async with await trio.open_tcp_stream("127.0.0.1", self._port) as stream:
                        await stream.send_all(request)
                        told = b"".join([bytes(piece) async for piece in stream])
                    outcome = told[9:12].decode() or "cut"
                except (OSError, trio.BrokenResourceError) as exc:
                    outcome = type(exc).__name__
            self._score.flood[outcome] += 1
            await trio.sleep(FLOOD_SECONDS - trio.current_time() % FLOOD_SECONDS)
