"""The whole runtime with its server, and callers with keys: three vendors, each counts how often it is asked."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any, NamedTuple

import trio

from llm_protocol.policy import Limits, Policy
from llm_protocol.requests import LLMProvider
from llm_protocol.secret import Secret
from llm_runtime.config import Config, Key, Provider, Server
from llm_runtime.runtime import Runtime
from llm_runtime.server import ListenAddress, server_child
from support.peer import Peer, Script, reply
from support.server import HttpClient, Reply
from support.upstream import JSON, whole
from support.ws import WsClient, handshake, upgrade

VENDORS = {"cheap": "small", "fair": "middle", "dear": "big"}
"""Each with its one model."""


SERVER = Server(port=0, drain_s=1)


class Served(NamedTuple):
    """A daemon in this process. A caller's key is ``sk-`` and its name."""

    address: ListenAddress
    vendors: Mapping[str, Peer]

    async def ask(self, caller: str, method: str, path: str, body: Any = None, **headers: str) -> Reply:
        async with await self.connect() as client:
            return await client.request(method, path, body, authorization=f"Bearer sk-{caller}", **headers)

    async def connect(self) -> HttpClient:
        return HttpClient(await trio.open_tcp_stream(self.address.host, self.address.port))

    @asynccontextmanager
    async def websocket(self, caller: str, **headers: str) -> AsyncIterator[WsClient]:
        async with await self.connect() as http:
            yield await upgrade(http, handshake(authorization=f"Bearer sk-{caller}", **headers))

    def asked(self) -> dict[str, int]:
        """How often each vendor was asked."""
        return {name: len(peer.requests) for name, peer in self.vendors.items() if peer.requests}


@asynccontextmanager
async def served(
    *,
    routes: Mapping[str, Policy] | None = None,
    limits: Mapping[str, Limits] | None = None,
    vendor: Script | None = None,
    kind: LLMProvider = LLMProvider.OPENAI_COMPATIBLE,
    more: Mapping[str, Mapping[str, Any]] | None = None,
    server: Server = SERVER,
    responses: bool = False,
    **keys: dict[str, Any],
) -> AsyncIterator[Served]:
    """``keys`` are callers with the fields of their `Key`, ``limits`` those of vendors; each is of ``kind`` and answers
    ``vendor``; ``more`` has other fields of their `Provider`. See `Peer` for ``responses``.
    """
    addresses: list[ListenAddress] = []
    async with AsyncExitStack() as stack:
        vendors = {
            name: await stack.enter_async_context(
                Peer(vendor or reply(whole(f"by {name}"), headers=JSON), responses=responses)
            )
            for name in VENDORS
        }
        providers = {
            name: Provider(
                **{
                    "kind": kind,
                    "base_url": f"{peer.url}/v1",
                    "models": (VENDORS[name],),
                    "limits": (limits or {}).get(name, Limits()),
                    **(more or {}).get(name, {}),
                }
            )
            for name, peer in vendors.items()
        }
        callers = {name: Key(secret=Secret(f"sk-{name}"), **fields) for name, fields in keys.items()}
        config = Config(server=server, providers=providers, keys=callers, routes=dict(routes or {}))
        runtime = Runtime(
            config, servers=lambda rt: server_child(config.server, rt, addresses.append, keys=config.keys)
        )
        async with runtime.running():
            yield Served(addresses[0], vendors)
