"""A runtime with several providers, each with a script of its own, for the strategies that ask them together."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import trio

import llm_runtime
from llm_actors.run import Run
from llm_protocol.content import Message
from llm_protocol.policy import Attempts, Policy, Timeouts
from llm_protocol.requests import ChatRequest, LLMProvider
from llm_protocol.secret import Secret
from llm_runtime.config import Config, Provider
from support.peer import Peer, Script, reply, sse
from support.upstream import CANARY, chunk, word

USAGE = {"prompt_tokens": 5, "completion_tokens": 2, "total_tokens": 7}
"""What every answer of `says` takes."""


def says(*pieces: str, gap: float = 0.0) -> Script:
    """A streamed answer with usage; ``gap`` seconds before each event."""
    end = [chunk(finish="stop"), chunk(choices=[], usage=USAGE), "[DONE]"]
    return sse(*map(word, pieces), *end, gap=gap)


def broken(status: int = 500) -> Script:
    return reply(b'{"error":{"message":"no"}}', status, {"content-type": "application/json"})


def provider(url: str, **more: Any) -> Provider:
    return Provider(
        kind=LLMProvider.OPENAI_COMPATIBLE,
        base_url=f"{url}/v1",
        api_key=Secret(CANARY),
        models=("m",),
        timeouts=Timeouts(connect=2, first_token=5, idle=5, total=20),
        **more,
    )


class Panel:
    """The running system: ``rt`` and, by name, the peers behind it."""

    def __init__(self, rt: llm_runtime.Runtime, peers: Mapping[str, Peer]) -> None:
        self.rt = rt
        self.peers = peers

    def bodies(self, name: str) -> list[Any]:
        """The requests that ``name`` was sent."""
        return [json.loads(seen.body) for seen in self.peers[name].requests]

    async def run(self, request: ChatRequest, *, stream: bool = True) -> Run:
        """A run, followed to its end."""
        run = await self.rt.submit(request, stream=stream)
        with run.follow() as follower:
            while await follower.next():
                pass
        return run


@asynccontextmanager
async def running(
    routes: Mapping[str, Policy] | None = None, *, settings: Callable[[Config], Config] = lambda it: it, **scripts: Script
) -> AsyncIterator[Panel]:
    """Providers named as the keywords, each with its scripts. Afterwards nothing is open at any of them."""
    async with AsyncExitStack() as stack:
        peers = {
            name: await stack.enter_async_context(Peer(*(script if isinstance(script, list) else [script])))
            for name, script in scripts.items()
        }
        config = Config(
            providers={name: provider(peer.url) for name, peer in peers.items()},
            routes=dict(routes or {}),
            attempts=Attempts(max=1),
        )
        async with llm_runtime.open_runtime(settings(config)) as rt:
            yield Panel(rt, peers)
        for peer in peers.values():
            with trio.fail_after(1):
                await peer.until(lambda peer=peer: peer.open_connections == 0)  # type: ignore[misc]


def chat(text: str = "What is it?", **policy: Any) -> ChatRequest:
    """A question with a policy of its own."""
    return ChatRequest(messages=(Message.of("user", text),), policy=Policy(**policy))
