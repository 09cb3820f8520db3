"""A client that leaves in the same moment in which the server goes on."""

from __future__ import annotations

import socket

from llm_runtime.config import Server
from llm_runtime.server.connection import HttpConnection
from llm_runtime.server.http1 import RequestParser
from llm_runtime.server.request_context import RequestContext
from llm_runtime.server.session import serve
from llm_runtime.server.socket import Socket
from llm_runtime.server.state import ServerState
from support.server import FakeEngine, open_server
from support.ws import handshake


async def test_a_client_that_leaves_as_its_websocket_is_opened_is_no_crash() -> None:
    """The handshake was read; the client had gone before the answer to it was written."""
    async with open_server() as server:
        server_state = ServerState(Server(), {}, FakeEngine(server.engine.nursery))
        ours, theirs = socket.socketpair()
        theirs.close()
        connection = HttpConnection(Socket(ours, server_state.receiver), server_state)
        parser = RequestParser(Server().max_body_bytes)
        parser.feed(handshake())
        request = parser.next()
        assert request is not None

        await serve(server_state, RequestContext(connection, request), connection.socket, b"")

        assert connection.socket.closed
