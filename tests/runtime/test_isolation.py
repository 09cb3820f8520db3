"""A fault in one provider's actor ends one request there, and nothing elsewhere."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import msgspec
import pytest
import trio

from llm_actors.kernel import running
from llm_actors.orchestrator import accept
from llm_actors.provider import Endpoint, ProviderSpec, ProviderWires
from llm_actors.run import Run
from llm_protocol.content import Message
from llm_protocol.dialect import StreamDecoder
from llm_protocol.errors import LLMClientError
from llm_protocol.events import Failed, Finished
from llm_protocol.failures import FailureKind
from llm_protocol.policy import AttemptsPatch, Policy
from llm_protocol.requests import AnyRequest, ChatRequest, LLMProvider
from llm_protocol.vendors import VENDORS
from llm_protocol.wires.openai_chat import COMPATIBLE, OpenAIChat
from llm_runtime.config import Config
from llm_runtime.providers import supervised
from llm_runtime.tree import Tree
from support.peer import Peer, sse
from support.upstream import END, HELLO, word


class Buggy(OpenAIChat):  # type: ignore[misc]  # final, but for this bug
    """A dialect with a bug that one payload triggers."""

    def stream_decoder(self, request: AnyRequest) -> StreamDecoder:
        if request.model == "crash":
            raise RuntimeError("a bug of ours")
        return super().stream_decoder(request)


def spec(name: str, peer: Peer, dialect: OpenAIChat) -> ProviderSpec:
    endpoint = Endpoint(f"{peer.url}/v1")
    return ProviderSpec(
        name=name,
        vendor=VENDORS[LLMProvider.OPENAI_COMPATIBLE],
        wires=ProviderWires(dialect),
        endpoint=endpoint,
        models=("m", "crash"),
    )


@asynccontextmanager
async def tree(slow: Peer, fast: Peer) -> AsyncIterator[Tree]:
    made = Tree(
        Config(),
        [
            supervised(spec("good", slow, OpenAIChat(COMPATIBLE))),
            supervised(spec("buggy", fast, Buggy(COMPATIBLE))),
        ],
        lambda *_: None,
    )
    async with running(made.root):
        yield made


async def ask(made: Tree, model: str, text: str = "hi", attempts: int = 1, deadline_s: float | None = None) -> Run:
    once = Policy(attempts=AttemptsPatch(max=attempts), deadline_s=deadline_s)
    run = Run(ChatRequest(model=model, messages=(Message.of("user", text),), policy=once), stream=True)
    await accept(made.orchestrator, run)
    with run.follow() as follower:
        while await follower.next():
            pass
    return run


async def test_a_crashing_provider_actor_leaves_another_providers_streams_alone() -> None:
    streams: list[Run] = []
    async with Peer(sse(*HELLO, *[word("x")] * 20, *END, gap=0.01)) as slow, Peer(sse(*HELLO, *END)) as fast:
        async with tree(slow, fast) as made, trio.open_nursery() as nursery:

            async def listen() -> None:
                streams.append(await ask(made, "good/m"))

            for _ in range(20):
                nursery.start_soon(listen)
            kinds = []
            for number in range(6):
                crashed = await ask(made, "buggy/crash", f"poison {number}", deadline_s=0.9)
                assert isinstance(crashed.log.end, Failed)
                kinds.append(crashed.log.end.failure.kind)
            # The sixth is not even asked: the circuit is open for longer than it can wait.
            assert kinds == [FailureKind.CRASHED] * 5 + [FailureKind.OVERLOADED]
            with trio.fail_after(5):
                assert isinstance((await ask(made, "buggy/m", attempts=3)).log.end, Finished)

    assert len(streams) == 20
    assert all(isinstance(run.log.end, Finished) for run in streams)


async def test_a_payload_that_crashed_twice_is_refused_the_third_time() -> None:
    async with Peer() as slow, Peer(sse(*HELLO, *END)) as fast, tree(slow, fast) as made:
        kinds = []
        for _ in range(3):
            run = await ask(made, "buggy/crash", "the same payload")
            assert isinstance(run.log.end, Failed)
            kinds.append(run.log.end.failure.kind)

        assert kinds == [FailureKind.CRASHED, FailureKind.CRASHED, FailureKind.BAD_REQUEST]
        assert len(fast.requests) == 2


async def test_a_run_is_refused_when_the_orchestrator_stops_and_its_log_stays_empty() -> None:
    async with Peer() as slow, Peer() as fast:
        async with tree(slow, fast) as made:
            pass
        run = Run(ChatRequest(model="good/m", messages=(Message.of("user", "hi"),)), stream=True)
        with pytest.raises(LLMClientError) as caught:
            await accept(made.orchestrator, run)

    assert caught.value.failure.kind is FailureKind.SHUTTING_DOWN
    assert msgspec.json.encode(run.log.events) == b"[]"
