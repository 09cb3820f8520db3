"""The fake provider for programs: it has listening sockets, a script and a journal."""

from __future__ import annotations

import socket
import ssl
from collections.abc import Sequence
from types import TracebackType
from typing import Self, final

import trio

from llm_protocol.dialect import ModelInfo
from llm_protocol.secret import Secret
from llm_protocol.vendor import VendorTable
from llm_protocol.vendors import VENDORS
from llm_runtime.fake.connection import FakeConnection
from llm_runtime.fake.journal import Journal
from llm_runtime.fake.replies import Replies
from llm_runtime.fake.script import Script, ScriptRule
from llm_runtime.fake.vendors import fakeable
from llm_runtime.server.listener import bind


def fake_model(name: str) -> ModelInfo:
    """Return a model for the list of models."""
    return ModelInfo(id=name, created=1_767_225_600, owned_by="fake", context_window=128_000, max_output_tokens=16_384)


MODELS = tuple(map(fake_model, ("fake-chat", "fake-embed", "fake-image")))
"""The models in the fake's model list. Requests for other models are answered too."""

MAX_CONNECTIONS = 10_000
"""The most open connections. One more is closed at once."""


@final
class FakeProvider:
    """A fake provider that runs during an ``async with`` block.

    ``rules`` decide the responses. ``kind``: imitate only this vendor. ``key``: refuse requests without this key.
    ``port`` 0: any free port. ``models``: the model list. ``vendors``: the vendors that it can imitate. Leaving the
    block closes all connections at once. The constructor raises `UnknownVendorError`; entering the block raises
    `CannotListenError`.
    """

    def __init__(
        self,
        *rules: ScriptRule,
        kind: str | None = None,
        key: str | None = None,
        host: str = "127.0.0.1",
        port: int = 0,
        tls: ssl.SSLContext | None = None,
        models: Sequence[ModelInfo] = MODELS,
        vendors: VendorTable = VENDORS,
    ) -> None:
        self.vendors = fakeable(vendors)
        only = None if kind is None else self.vendors[kind]
        self._replies = Replies(Script(rules), self.vendors, only, None if key is None else Secret(key), models)
        self._host = host
        self._tls = tls
        self.port = port

    async def __aenter__(self) -> Self:
        found = await bind(self._host, self.port)
        self.port = found[0].getsockname()[1]
        listeners = [trio.SocketListener(trio.socket.from_stdlib_socket(each)) for each in found]
        self.journal = Journal()
        self._manager = trio.open_nursery()
        self._nursery = await self._manager.__aenter__()
        await self._nursery.start(trio.serve_listeners, self._serve, listeners)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        # An exception of the block propagates unwrapped. Only a bug of the fake comes out of the nursery.
        self._nursery.cancel_scope.cancel("the fake is stopped")
        await self._manager.__aexit__(None, None, None)

    @property
    def url(self) -> str:
        """The URL that it listens at, without a path."""
        host = f"[{self._host}]" if ":" in self._host else self._host
        return f"{'https' if self._tls else 'http'}://{host}:{self.port}"

    def base_url(self, kind: str) -> str:
        """Return the base URL for a client of ``kind``. Its path names the vendor."""
        return f"{self.url}/{kind}{'' if self.vendors[kind].wire.versioned_paths else '/v1'}"

    def script(self, *rules: ScriptRule) -> None:
        """Replace the rules, and reset their counts."""
        self._replies.script = Script(rules)

    async def dial(self, host: str, port: int) -> trio.SocketStream:  # noqa: ARG002
        """Return a connection to the fake, whatever the address. It is a socket pair, so it works with a mocked
        clock.
        """
        await trio.lowlevel.checkpoint()
        ours, theirs = (trio.SocketStream(trio.socket.from_stdlib_socket(end)) for end in socket.socketpair())
        self._nursery.start_soon(self._serve, ours)
        return theirs

    async def _serve(self, raw: trio.SocketStream) -> None:
        if self.journal.connections >= MAX_CONNECTIONS:
            raw.socket.close()
            return
        stream: trio.abc.Stream = raw
        if self._tls is not None:
            stream = trio.SSLStream(raw, self._tls, server_side=True, https_compatible=True)
        await FakeConnection(stream, raw, self._replies, self.journal).serve()
