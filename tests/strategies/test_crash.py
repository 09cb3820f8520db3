"""A crash of one member's actor."""

from __future__ import annotations

from typing import Any

import trio

from llm_actors.kernel import running
from llm_actors.orchestrator import accept
from llm_actors.provider import Endpoint, ProviderSpec, ProviderWires
from llm_actors.run import Run
from llm_protocol.content import Message
from llm_protocol.dialect import StreamDecoder
from llm_protocol.events import MemberDelta
from llm_protocol.policy import AttemptsPatch, Policy
from llm_protocol.requests import AnyRequest, ChatRequest, LLMProvider
from llm_protocol.response import Usage
from llm_protocol.vendors import VENDORS
from llm_protocol.wires.openai_chat import COMPATIBLE, OpenAIChat
from llm_runtime.config import Config
from llm_runtime.providers import supervised
from llm_runtime.tree import Tree
from support.panels import saying
from support.peer import Peer

KIND = LLMProvider.OPENAI_COMPATIBLE


class Buggy(OpenAIChat):  # type: ignore[misc]  # final, but for this bug
    """A dialect with a bug: its actor crashes."""

    def stream_decoder(self, request: AnyRequest) -> StreamDecoder:
        raise RuntimeError("a bug of ours")


def spec(name: str, peer: Peer, dialect: OpenAIChat) -> ProviderSpec:
    return ProviderSpec(
        name=name,
        vendor=VENDORS[KIND],
        wires=ProviderWires(dialect),
        endpoint=Endpoint(f"{peer.url}/v1"),
        models=(f"m-{name}",),
    )


async def test_a_crash_of_one_members_actor_leaves_the_others_streams_untouched() -> None:
    words = [f"w{number} " for number in range(30)]
    async with Peer(saying(*words, gap=0.01, usage=Usage())) as good, Peer(saying("never seen", usage=Usage())) as bad:
        parts = [
            supervised(spec("good", good, OpenAIChat(COMPATIBLE))),
            supervised(spec("bad", bad, Buggy(COMPATIBLE))),
            supervised(spec("fine", good, OpenAIChat(COMPATIBLE))),
        ]
        tree = Tree(Config(), parts, lambda *_: None)
        members = ("good/m-good", "bad/m-bad", "fine/m-fine")
        policy = Policy(
            strategy="panel", members=members, synthesiser="none", stream_members=True, attempts=AttemptsPatch(max=1)
        )
        async with running(tree.root):
            run = Run(ChatRequest(messages=(Message.of("user", "hi"),), policy=policy), stream=True)
            await accept(tree.orchestrator, run)
            with trio.fail_after(5), run.follow() as follower:
                while await follower.next():
                    pass

    assert run.log.end is not None
    assert run.log.end.response is not None
    response = run.log.end.response
    told: list[dict[str, Any]] = response.decision["members"]
    assert {each["member"]: each["outcome"] for each in told} == {
        "good/m-good": "ok",
        "bad/m-bad": "crashed",
        "fine/m-fine": "ok",
    }
    for name in ("good/m-good", "fine/m-fine"):
        streamed = [event.text for event in run.log.events if isinstance(event, MemberDelta) and event.member == name]
        assert streamed == words
    assert response.content == "".join(words)
