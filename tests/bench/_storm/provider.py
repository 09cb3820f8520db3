"""The fake provider of the storm: thousands of chunks a second from one process, each on time.

One task writes to all sockets that are due, with one system call each: a task and a timer for every stream would cost
more than the daemon under test. It also measures how late chunks are sent, because that delays what the clients see.

``GET /stats`` returns its counters as JSON. The first line on stdout is the port.
"""

from __future__ import annotations

import heapq
import json
import os
import re
import socket
import struct
import sys
from collections import Counter
from itertools import count
from math import inf
from typing import final

import trio

from bench._storm.plan import CRASH, token

CRASH_MARK = "\u2620"
"""The decoder under test crashes when it reads this (`bench._storm.sabotage`)."""

TICK_SECONDS = 0.001
"""What is due within so long is written together."""

PROMPT = re.compile(rb"storm (\d+) (\d+) ([0-9.e+]+) (\w+) (\d+)")
LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)

HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
START = b'{"id":"c1","object":"chat.completion.chunk","created":1,"model":"m","choices":[{"index":0,"delta":'
END = (
    b"data: " + START + b'{},"finish_reason":"stop"}]}\n\n'
    b'data: {"id":"c1","object":"chat.completion.chunk","created":1,"model":"m","choices":[],'
    b'"usage":{"prompt_tokens":5,"completion_tokens":6,"total_tokens":11}}\n\ndata: [DONE]\n\n'
)
WHOLE = (
    b'{"id":"c1","object":"chat.completion","created":1,"model":"m","choices":[{"index":0,"message":'
    b'{"role":"assistant","content":"Hello there."},"finish_reason":"stop"}],'
    b'"usage":{"prompt_tokens":5,"completion_tokens":6,"total_tokens":11}}'
)
ERRORS = {
    "500": (b"500 Internal Server Error", b"", b'{"error":{"message":"no","type":"server_error"}}'),
    "429": (b"429 Too Many Requests", b"retry-after: 0.2\r\n", b'{"error":{"message":"no","type":"rate_limit_error"}}'),
}
LAST_WORDS = {
    "truncate": b"",
    "garbage": b"data: <html>\n\n",
    "error": b'data: {"error":{"message":"no","type":"server_error"}}\n\n',
}


def chunk(data: bytes) -> bytes:
    """One HTTP chunk."""
    return b"%x\r\n%s\r\n" % (len(data), data) if data else b""


def delta(text: str) -> bytes:
    """The chunk of one token."""
    return chunk(b"data: " + START + b'{"content":"%s"},"finish_reason":null}]}\n\n' % text.encode())


@final
class Stream:
    """One answer that is being given."""

    def __init__(self, stream: trio.SocketStream, number: int, tokens: int, per_second: float) -> None:
        self.fd = stream.socket.fileno()
        self.done = trio.Event()
        self.is_broken = False
        self._number = number
        self._tokens = tokens
        self.gap = 1 / per_second
        self._next = 0
        self._unsent = b""
        self._socket = stream.socket
        self._fault = ""
        self._fault_at = tokens

    def fail_at(self, fault: str, at: int) -> None:
        """End with ``fault`` in the place of the token ``at``."""
        self._fault, self._fault_at = fault, at

    def step(self) -> bool:
        """Write what comes next; whether there is more to come."""
        if self.done.is_set():
            return False
        if self._unsent:
            data = self._unsent
        elif self._next < self._fault_at:
            data = delta(token(self._number, self._next))
            self._next += 1
        elif self._fault:
            return self._break()
        else:
            data = chunk(END) + b"0\r\n\r\n"
            self._next += 1
        self._write(data)
        if self._next > self._tokens and not self._unsent:
            self.done.set()
        return not self.done.is_set()

    def _break(self) -> bool:
        """Do what is wrong; the stream is over, except for one that stalls."""
        if self._fault == "stall":
            return False  # until the other side leaves
        if self._fault in LAST_WORDS:
            self._write(chunk(LAST_WORDS[self._fault]) + b"0\r\n\r\n")
        elif self._fault == CRASH:
            self._write(delta(CRASH_MARK))
            return False
        else:
            self.is_broken = True
            if self._fault == "reset":
                self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.done.set()
        return False

    def _write(self, data: bytes) -> None:
        try:
            self._unsent = data[os.write(self.fd, data) :]
        except BlockingIOError:
            self._unsent = data
        except OSError:
            self.is_broken = True
            self.done.set()


@final
class Provider:
    """All connections, and the task that writes to them."""

    def __init__(self) -> None:
        self.seen: Counter[str] = Counter()
        self.late: Counter[int] = Counter()
        self._failed: set[int] = set()
        self._due: list[tuple[float, int, Stream]] = []
        self._order = count()
        self._work = trio.Event()

    async def pace(self) -> None:
        """Write each chunk at its time."""
        while True:
            now = trio.current_time()
            while self._due and self._due[0][0] <= now + TICK_SECONDS / 2:
                at, order, stream = heapq.heappop(self._due)
                self.late[max(0, int((now - at) * 1000))] += 1
                if stream.step():
                    heapq.heappush(self._due, (at + stream.gap, order, stream))
                now = trio.current_time()
            next_at = self._due[0][0] if self._due else inf
            with trio.move_on_at(max(next_at, now + TICK_SECONDS)):
                await self._work.wait()
            if self._work.is_set():
                self._work = trio.Event()

    def begin(self, stream: Stream) -> None:
        """The first chunk comes at once."""
        heapq.heappush(self._due, (trio.current_time(), next(self._order), stream))
        self._work.set()

    async def serve(self, stream: trio.SocketStream) -> None:
        """One connection of a client."""
        try:
            async with stream:
                buffer = b""
                while True:
                    while b"\r\n\r\n" not in buffer:
                        data = await stream.receive_some(65_536)
                        if not data:
                            return
                        buffer += data
                    head, _, rest = buffer.partition(b"\r\n\r\n")
                    found = LENGTH.search(head)
                    length = int(found[1]) if found else 0
                    while len(rest) < length:
                        rest += await stream.receive_some(65_536)
                    body, buffer = rest[:length], rest[length:]
                    if not await self._answer(stream, head, body):
                        return
        except OSError:
            return
        except trio.BrokenResourceError:
            return

    async def _answer(self, stream: trio.SocketStream, head: bytes, body: bytes) -> bool:
        """Answer one request; whether the connection is still good."""
        if head.startswith(b"GET"):
            told = json.dumps({"seen": self.seen, "late": self.late}).encode()
            await stream.send_all(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n%s" % (len(told), told))
            return True
        self.seen["asked"] += 1
        found = PROMPT.search(body)
        if found is None:
            head = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n" % len(WHOLE)
            await stream.send_all(head + WHOLE)
            self.seen["whole"] += 1
            return True
        number, tokens, per_second = int(found[1]), int(found[2]), float(found[3])
        fault, at = found[4].decode(), int(found[5])
        if number in self._failed and fault != CRASH:
            fault = "none"  # a second attempt is answered
        if fault in ERRORS:
            self._failed.add(number)
            status, more, said = ERRORS[fault]
            answer = b"HTTP/1.1 %s\r\ncontent-type: application/json\r\n%scontent-length: %d\r\n\r\n%s"
            await stream.send_all(answer % (status, more, len(said), said))
            return True
        return await self._stream(stream, Stream(stream, number, tokens, per_second), fault, at)

    async def _stream(self, stream: trio.SocketStream, answer: Stream, fault: str, at: int) -> bool:
        if fault != "none":
            self._failed.add(answer._number)
            answer.fail_at(fault, at)
        await stream.send_all(HEAD)
        self.seen["open"] += 1
        self.begin(answer)
        has_left = False

        async def watch(scope: trio.CancelScope) -> None:
            nonlocal has_left
            try:
                has_left = not await stream.receive_some(1)
            except (trio.BrokenResourceError, OSError):
                has_left = True
            answer.done.set()
            scope.cancel()

        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(watch, nursery.cancel_scope)
                await answer.done.wait()
                nursery.cancel_scope.cancel()
        finally:
            answer.done.set()
            self.seen["open"] -= 1
            self.seen["left" if has_left else "whole" if fault == "none" else "broken"] += 1
        return not (has_left or answer.is_broken)


async def main() -> None:
    provider = Provider()
    (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1", backlog=4096)
    print(listener.socket.getsockname()[1], flush=True)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(provider.pace)
        await trio.serve_listeners(provider.serve, [listener])


if __name__ == "__main__":
    try:
        trio.run(main)
    except* KeyboardInterrupt:
        sys.exit(130)
