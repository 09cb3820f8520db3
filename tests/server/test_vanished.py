"""Clients that vanish without a word: the kernel is told to look for them."""

from __future__ import annotations

import socket

import pytest
import trio

from llm_runtime.server.receiver import Receiver
from llm_runtime.server.socket import Socket

NOTICED_SECONDS = 45


@pytest.mark.skipif(not hasattr(socket, "TCP_USER_TIMEOUT"), reason="Linux has these options under these names")
async def test_the_kernel_breaks_a_connection_whose_peer_has_vanished_within_45_seconds() -> None:
    """A test of what happens then needs a network to cut: here are the options that make it happen."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        with socket.create_connection(listener.getsockname()):
            raw, _ = listener.accept()
            accepted = Socket(raw, Receiver())

            def option(name: str) -> int:
                return raw.getsockopt(socket.IPPROTO_TCP, getattr(socket, name))

            assert raw.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
            idle, interval = option("TCP_KEEPIDLE"), option("TCP_KEEPINTVL")
            assert option("TCP_USER_TIMEOUT") + interval * 1000 <= NOTICED_SECONDS * 1000, "noticed by the probe after"
            assert idle + option("TCP_KEEPCNT") * interval <= NOTICED_SECONDS, "where there is no such option"
            assert option("TCP_NODELAY")
            accepted.close()
            await trio.lowlevel.checkpoint()
