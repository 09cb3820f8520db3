"""The clients of the storm of reloads, and their provider."""

from __future__ import annotations

import json
import socket
import ssl
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from random import Random

import h11
import trio

from support.peer import Call
from support.server import HttpClient, Reply
from support.upstream import JSON, chunk, whole, word

WORDS = 24
WORD_SECONDS = 0.1
"""A stream has so many words, so far apart."""

KILLED_SECONDS = 10.0
"""How long after a kill those who had begun before it may find their connections broken."""

BROKEN = (OSError, trio.BrokenResourceError, h11.RemoteProtocolError, AssertionError)
"""What a client sees of a connection that is cut off."""


@dataclass
class ReloadTally:
    """What came of it."""

    done: Counter[str] = field(default_factory=Counter)
    asked: Counter[str] = field(default_factory=Counter)
    broken: int = 0
    """Requests that the killed worker took with it."""
    memory: list[int] = field(default_factory=list)
    """Bytes of all processes, once a second."""
    problems: list[str] = field(default_factory=list)


class TlsClient(HttpClient):
    """An `HttpClient` over TLS."""

    def __init__(self, stream: trio.SSLStream[trio.SocketStream]) -> None:
        super().__init__(stream)  # type: ignore[arg-type]  # it sends and receives likewise
        self._tls = stream

    def close(self) -> None:
        self._tls.transport_stream.socket.close()

    def serial(self) -> str:
        """Of the certificate that the server has shown."""
        return str((self._tls.getpeercert() or {})["serialNumber"])


@asynccontextmanager
async def connected(port: int, context: ssl.SSLContext) -> AsyncIterator[TlsClient]:
    """A connection to the daemon."""
    sock = trio.socket.socket(socket.AF_INET)
    await sock.connect(("127.0.0.1", port))
    stream = trio.SSLStream(trio.SocketStream(sock), context, server_hostname="localhost")
    client = TlsClient(stream)
    try:
        await stream.do_handshake()
        yield client
    finally:
        client.close()


@dataclass
class ReloadClients:
    """``streams`` at a time and ``rate`` requests a second. What they know may be changed at any time."""

    random: Random
    context: ssl.SSLContext
    tally: ReloadTally
    port: int = 0
    key: str = ""
    """The key that they send."""
    written: int = 0
    """The generation of the provider's key in its file."""
    acknowledged: int = 0
    """The one that a reload has reported."""
    uses_extra: bool = False
    """Whether the second provider is there."""
    is_stopping: bool = False
    killed_at: float = -1e9
    _waiting: Counter[str] = field(default_factory=Counter)
    """Of each key and model, the requests without the head of an answer."""
    _answered: trio.Event = field(default_factory=trio.Event)
    """There is one more head."""

    def start(self, nursery: trio.Nursery, streams: int, rate: int) -> None:
        """Stream and ask until they are stopped."""
        for number in range(streams):
            nursery.start_soon(self._stream_again_and_again, number / streams * WORDS * WORD_SECONDS)
        for _ in range(rate):
            nursery.start_soon(self._ask_every_second)

    async def are_answered(self, what: str) -> None:
        """Wait until no request with this key or model waits for the head of its answer."""
        while self._waiting[what]:
            await self._answered.wait()

    def complain(self, what: str) -> None:
        """Something went wrong."""
        self.tally.problems.append(what)

    @property
    def headers(self) -> dict[str, str]:
        """Those of a request now."""
        return {"authorization": f"Bearer {self.key}"}

    async def provider(self, call: Call) -> None:
        """Answer, and look at the key."""
        assert call.request is not None
        body = json.loads(call.request.body)
        known = int(body["messages"][-1]["content"].removeprefix("g"))
        used = int(call.request.headers["authorization"].rpartition("-")[2])
        if not known <= used <= self.written:
            self.complain(f"a request that knew of key {known} used key {used}, of {self.written}")
        if not body.get("stream"):
            text = whole("right")
            head = f"HTTP/1.1 200 OK\r\ncontent-type: {JSON['content-type']}\r\ncontent-length: {len(text)}\r\n\r\n"
            await call.send(head.encode() + text)
            return
        await call.send(b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n")
        pieces = [chunk({"role": "assistant"}), *(word(f"w{number} ") for number in range(WORDS))]
        for piece in (*pieces, chunk(finish="stop"), "[DONE]"):
            data = f"data: {piece}\n\n".encode()
            await call.send(b"%x\r\n%b\r\n" % (len(data), data))
            await trio.sleep(WORD_SECONDS)
        await call.send(b"0\r\n\r\n")

    async def _stream_again_and_again(self, after_s: float) -> None:
        await trio.sleep(after_s)
        while not self.is_stopping:
            await self._guarded("stream", self._stream)

    async def _ask_every_second(self) -> None:
        await trio.sleep(self.random.random())
        while not self.is_stopping:
            before = trio.current_time()
            await self._guarded("request", self._ask)
            await trio.sleep(max(0.0, before + 1 - trio.current_time()))

    async def _guarded(self, what: str, ask: Callable[[], Awaitable[None]]) -> None:
        """Ask once. What breaks off is the killed worker's, if it breaks off then."""
        self.tally.asked[what] += 1
        began = trio.current_time()
        try:
            with trio.fail_after(30):
                await ask()
        except (*BROKEN, trio.TooSlowError) as exc:
            if began <= self.killed_at <= trio.current_time() <= self.killed_at + KILLED_SECONDS:
                self.tally.broken += 1
                return
            self.complain(f"a {what} was lost: {type(exc).__name__}: {exc}")

    def _model(self) -> str:
        return "extra/m" if self.uses_extra and self.random.random() < 0.3 else "main/m"

    async def _asked(self, client: TlsClient, path: str, body: Mapping[str, object]) -> Reply:
        """Ask, and return the answer."""
        sent = (self.key, str(body["model"]))
        self._waiting.update(sent)
        try:
            await client.begin("POST", path, body, **self.headers)
            head = await client.head()
        finally:
            self._waiting.subtract(sent)
            self._answered.set()
            self._answered = trio.Event()
        return Reply(head.status, head.headers, await client.rest())

    async def _stream(self) -> None:
        async with connected(self.port, self.context) as client:
            body = {"model": self._model(), "input": f"g{self.acknowledged}", "stream": True, "store": False}
            reply = await self._asked(client, "/v1/responses", body)
        if reply.status != 200:
            self.complain(f"a stream was refused: {reply.status} {reply.body[:300]!r}")
            return
        text = "".join(each["delta"] for each in reply.events[:-1] if each["type"] == "response.output_text.delta")
        if text != "".join(f"w{number} " for number in range(WORDS)):
            self.complain(f"a stream ended so: {reply.body[-600:]!r}")

    async def _ask(self) -> None:
        async with connected(self.port, self.context) as client:
            messages = [{"role": "user", "content": f"g{self.acknowledged}"}]
            body = {"model": self._model(), "messages": messages}
            reply = await self._asked(client, "/v1/chat/completions", body)
        if reply.status != 200 or reply.json["choices"][0]["message"]["content"] != "right":
            self.complain(f"a request was answered: {reply.status} {reply.body[:300]!r}")
