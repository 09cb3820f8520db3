"""The whole path: real clients, a server, the tree, and vendors at the wire."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import trio

from llm_actors.orchestrator import accept
from llm_actors.run import Run
from llm_protocol.requests import AnyRequest
from llm_runtime.config import Server
from llm_runtime.server import ListenAddress, server_child
from support.attempts import World, world
from support.server import FakeEngine, OpenServer


@dataclass
class TreeEngine(FakeEngine):
    """Hands requests to the orchestrator of a world."""

    world: World | None = None

    async def submit(
        self,
        request: AnyRequest,
        *,
        stream: bool,
        background: bool = False,
        since: float | None = None,
        response_id: str | None = None,
    ) -> Run:
        assert self.world is not None
        run = Run(request, stream=stream, background=background, response_id=response_id, started_at=since)
        self.runs.append(run)
        await accept(self.world.tree.orchestrator, run)
        return run


@asynccontextmanager
async def served(**options: Any) -> AsyncIterator[tuple[World, OpenServer]]:
    """A `world` with a server in front. ``options`` are those of `world`."""
    addresses: list[ListenAddress] = []
    async with trio.open_nursery() as nursery:
        engine = TreeEngine(nursery)
        branches = server_child(Server(port=0, drain_s=0.5), engine, addresses.append)
        async with world(branches=branches, **options) as w:
            engine.world = w
            server = OpenServer(addresses[-1], engine, w.tree.root)
            try:
                yield w, server
            finally:
                for client in server.clients:
                    client.close()
