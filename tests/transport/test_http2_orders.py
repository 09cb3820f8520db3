"""What arrives over HTTP/2 in the same instant as an upload ends, in different orders of the tasks."""

from __future__ import annotations

import h2.config
import h2.connection
import h2.events
import pytest
import trio

from llm_actors.testing import run_virtual
from llm_actors.transport import HttpRequest
from llm_actors.transport.http2 import Http2Connection
from llm_actors.transport.request import StreamedBody
from support.outgoing import ORIGIN


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
