"""The server's side of HTTP/2 below a `Peer`, which goes on to read and write HTTP/1.1.

So the same scripts answer in both. A request comes out as HTTP/1.1 bytes; what is written is read as an HTTP/1.1 answer
and goes on as frames, as far as the client's windows allow. A stream that the client resets is the end of the input.
"""

from __future__ import annotations

import h2.config
import h2.connection
import h2.events
import h2.exceptions
import trio

from llm_actors.transport.http1 import ResponseReader
from llm_protocol.http1 import BadHttp

_CONFIG = h2.config.H2Configuration(client_side=False, header_encoding="latin-1")
_NOT_IN_HTTP2 = ("connection", "transfer-encoding", "keep-alive")


class Http2Side(trio.abc.Stream):
    """A stream of HTTP/1.1 over ``below``, which carries HTTP/2."""

    def __init__(self, below: trio.abc.Stream) -> None:
        self.below = below
        self.h2 = h2.connection.H2Connection(_CONFIG)
        self.h2.initiate_connection()
        self.stream_id = 0
        self.resets = 0
        self.pongs = 0
        self._unread = bytearray()
        self._over = False
        self._reader: ResponseReader | None = None
        self._begun = self._closes = self._closed = False
        self._moved = trio.Event()
        self.sending = trio.StrictFIFOLock()

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        await self.flush()  # a reader that was cancelled left what its frames had to be answered with
        while not self._unread and not self._over:
            if not await self.read_frames():
                return b""
        data = bytes(self._unread)
        self._unread.clear()
        return data

    async def read_frames(self) -> bool:
        """Read what has come, and answer what is about the connection; whether there was anything."""
        data = await self.below.receive_some(65536)
        if not data or self._closed:  # the library would take all that comes after its goodbye for a fault
            return bool(data)
        try:
            for event in self.h2.receive_data(bytes(data)):
                self._read(event)
        except h2.exceptions.ProtocolError as exc:
            raise trio.BrokenResourceError from exc
        self._moved.set()
        self._moved = trio.Event()
        await self.flush()
        return True

    def _read(self, event: h2.events.Event) -> None:
        match event:
            case h2.events.RequestReceived():
                self.stream_id = event.stream_id or 0
                fields = [(_text(name), _text(value)) for name, value in event.headers or ()]
                said = dict(fields)
                lines = [f"{said[':method']} {said[':path']} HTTP/1.1", f"host: {said[':authority']}"]
                lines += [f"{name}: {value}" for name, value in fields if not name.startswith(":")]
                self._unread += "\r\n".join(lines).encode("latin-1") + b"\r\n\r\n"
                self._reader, self._begun = ResponseReader(said[":method"]), False
            case h2.events.DataReceived():
                self._unread += event.data or b""
                self.h2.acknowledge_received_data(event.flow_controlled_length or 0, event.stream_id or 0)
            case h2.events.StreamReset():
                self.resets += 1
                self._over = True
            case h2.events.PingAckReceived():
                self.pongs += 1

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        """What is no HTTP goes out as it is."""
        reader = self._reader
        if reader is None:
            await self.below.send_all(data)
            return
        reader.feed(bytes(data))
        try:
            await self._send_answer(reader)
        except BadHttp:
            await self.below.send_all(data)

    async def _send_answer(self, reader: ResponseReader) -> None:
        if not self._begun:
            head = reader.read_head()
            if head is None:
                return
            self._begun = True
            self._closes = head.headers.get("connection") == "close"
            fields = [(name, value) for name, value in head.headers.items() if name not in _NOT_IN_HTTP2]
            self.h2.send_headers(self.stream_id, [(":status", str(head.status)), *fields], reader.ended)
            await self.flush()
            if reader.ended:
                await self._end()
                return
        while piece := reader.read_body():
            await self._send_body(piece)
        if reader.ended:
            self.h2.end_stream(self.stream_id)
            await self._end()

    async def _send_body(self, data: bytes) -> None:
        while data:
            room = min(self.h2.local_flow_control_window(self.stream_id), self.h2.max_outbound_frame_size)
            if room <= 0:
                await self._moved.wait()
                continue
            self.h2.send_data(self.stream_id, data[:room])
            data = data[room:]
            await self.flush()

    async def _end(self) -> None:
        if self._closes:
            self.h2.close_connection()
            self._closed = True
        await self.flush()

    async def flush(self) -> None:
        async with self.sending:
            await trio.lowlevel.checkpoint_if_cancelled()  # before anything is taken, which would be lost
            if data := self.h2.data_to_send():
                await self.below.send_all(data)

    async def wait_send_all_might_not_block(self) -> None:
        await trio.lowlevel.checkpoint()

    async def aclose(self) -> None:
        await self.below.aclose()


def _text(value: str | bytes) -> str:
    return value if isinstance(value, str) else value.decode("latin-1")
