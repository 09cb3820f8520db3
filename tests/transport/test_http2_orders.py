"""What arrives over HTTP/2 in the same instant as an upload ends, in different orders of the tasks."""

from __future__ import annotations

import h2.config
import h2.connection
import h2.events
import pytest
import trio

from llm_actors.testing import run_virtual
from llm_actors.transport import HttpRequest
from llm_actors.transport.http1 import StreamedBody
from llm_actors.transport.http2 import Http2Connection
from support.outgoing import ORIGIN

PING_ACK = b"\x00\x00\x08\x06\x01"
"""The beginning of an acknowledgement of a ping, as a frame."""


class PingAtTheEnd:
    """The wire to a server that sends a ping when it has the whole request, and responds when the ping is answered."""

    def __init__(self) -> None:
        self._server = h2.connection.H2Connection(h2.config.H2Configuration(client_side=False))
        self._server.initiate_connection()
        self._news = trio.Event()

    async def send_all(self, data: bytes) -> None:
        await trio.lowlevel.checkpoint_if_cancelled()
        for event in self._server.receive_data(data):
            if isinstance(event, h2.events.StreamEnded):
                self._server.ping(bytes(8))
            elif isinstance(event, h2.events.PingAckReceived):
                self._server.send_headers(1, [(":status", "200")], end_stream=True)
        self._news.set()
        await trio.lowlevel.cancel_shielded_checkpoint()

    async def receive_some(self, max_bytes: int) -> bytes:
        while not (data := self._server.data_to_send(max_bytes)):
            await self._news.wait()
            self._news = trio.Event()
        return data

    def is_quiet(self) -> bool:
        return False

    def close(self) -> None:
        """Nothing is open."""


@pytest.mark.parametrize("seed", range(20))
def test_a_ping_that_arrives_as_the_upload_ends_is_answered(seed: int) -> None:
    """Its acknowledgement was cancelled, and nothing could be sent any more: the request waited for its time limit."""
    pieces = [b"", b"x"]

    async def receive() -> bytes:
        await trio.sleep(1)
        return pieces.pop()

    async def upload() -> int:
        request = HttpRequest("POST", ORIGIN, "/upload", {}, StreamedBody(receive, 1))
        with trio.fail_after(10):
            return (await Http2Connection(ORIGIN, PingAtTheEnd()).ask(request, b"")).status

    assert run_virtual(upload, seed=seed) == 200


class PingsDuringTheEnd:
    """The wire to a server that has sent three pings by the end of the upload. An acknowledgement takes a second."""

    def __init__(self) -> None:
        self._server = h2.connection.H2Connection(h2.config.H2Configuration(client_side=False))
        self._server.initiate_connection()
        self._pings = 3
        self._news = trio.Event()

    async def send_all(self, data: bytes) -> None:
        await trio.sleep(1 if PING_ACK in data else 0)
        for event in self._server.receive_data(data):
            if isinstance(event, h2.events.StreamEnded):
                self._server.send_headers(event.stream_id, [(":status", "200")], end_stream=True)
        self._news.set()

    async def receive_some(self, max_bytes: int) -> bytes:
        """Without a checkpoint, as over TLS if several records have arrived together."""
        if self._pings:
            self._pings -= 1
            self._server.ping(bytes(8))
        while not (data := self._server.data_to_send(max_bytes)):
            await self._news.wait()
            self._news = trio.Event()
        return data

    def is_quiet(self) -> bool:
        return True

    def close(self) -> None:
        """Nothing is open."""


@pytest.mark.parametrize("seed", range(5))
def test_an_acknowledgement_is_not_cut_off_by_the_end_of_the_upload(seed: int) -> None:
    """It was cut off in its middle, and the connection was kept: the next request was not sent, and waited forever."""
    pieces = [b"", b"x"]

    async def receive() -> bytes:
        if len(pieces) == 2:
            await trio.sleep(0.5)
        return pieces.pop()

    async def two_requests() -> list[int]:
        connection = Http2Connection(ORIGIN, PingsDuringTheEnd())
        upload = HttpRequest("POST", ORIGIN, "/upload", {}, StreamedBody(receive, 1))
        statuses = []
        for request in (upload, HttpRequest("GET", ORIGIN, "/", {}, b"")):
            with trio.fail_after(10):
                statuses.append((await connection.ask(request, b"")).status)
            assert connection.renew()
        return statuses

    assert run_virtual(two_requests, seed=seed) == [200, 200]
