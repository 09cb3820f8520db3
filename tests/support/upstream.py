"""A provider actor in front of a scripted peer, and the chat wire's pieces to script it with."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import msgspec
import trio

from llm_actors.kernel import MailboxSpec
from llm_actors.provider import (
    AttemptResult,
    Endpoint,
    Generate,
    KeyRenewer,
    ProviderActor,
    ProviderMessage,
    ProviderRef,
    ProviderSpec,
    wires_of,
)
from llm_actors.testing import LoneActor, alone
from llm_protocol.content import Message
from llm_protocol.events import Event
from llm_protocol.fold import Fold
from llm_protocol.model_rules import ModelRules, WireSetting
from llm_protocol.policy import AnswerLimits, Timeouts
from llm_protocol.requests import AnyRequest, ChatRequest, LLMProvider
from llm_protocol.secret import Secret
from llm_protocol.vendors import VENDORS
from support.peer import Peer

CANARY = "sk-CANARY-do-not-print"
REQUEST = ChatRequest(model="m", messages=(Message.of("user", "Say hello."),))


def chunk(delta: object = None, finish: str | None = None, **more: object) -> str:
    """One event of a chat stream."""
    choice = {"index": 0, "delta": {} if delta is None else delta, "finish_reason": finish}
    body = {"id": "c1", "object": "chat.completion.chunk", "created": 1, "model": "m", "choices": [choice], **more}
    return msgspec.json.encode(body).decode()


def word(text: str) -> str:
    """A piece of text."""
    return chunk({"content": text})


HELLO = (chunk({"role": "assistant", "content": ""}), word("Hello"), word(" there"))
END = (chunk(finish="stop"), "[DONE]")


def whole(text: str = "Hello there", finish: str = "stop") -> bytes:
    """A whole answer's body."""
    choice = {"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": finish}
    usage = {"prompt_tokens": 5, "completion_tokens": 2, "total_tokens": 7}
    return msgspec.json.encode(
        {"id": "c1", "object": "chat.completion", "created": 1, "model": "m", "choices": [choice], "usage": usage}
    )


JSON = {"content-type": "application/json"}


class Asked:
    """What one attempt gave: its events and its outcome."""

    def __init__(self) -> None:
        self.events: list[Event] = []
        self.outcome: AttemptResult | None = None

    @property
    def text(self) -> str:
        parts = Fold().add_all(self.events).parts()
        return "".join(getattr(part, "text", None) or "" for part in parts)


class Upstream:
    """The provider actor under test."""

    def __init__(self, lone: LoneActor[ProviderMessage]) -> None:
        self.lone = lone

    @property
    def ref(self) -> ProviderRef:
        return self.lone.ref

    async def ask(self, request: AnyRequest = REQUEST, *, stream: bool = True, asked: Asked | None = None) -> Asked:
        asked = asked or Asked()
        asked.outcome = await self.ref.call(Generate(request=request, stream=stream, sink=asked.events.append))
        return asked


def spec(
    url: str = "http://api.test/v1",
    timeouts: Timeouts | None = None,
    slots: int = 8,
    max_answer: AnswerLimits | None = None,
    kind: LLMProvider = LLMProvider.OPENAI_COMPATIBLE,
    wire: WireSetting = "auto",
) -> ProviderSpec:
    return ProviderSpec(
        name="fake",
        vendor=VENDORS[kind],
        wires=wires_of(VENDORS[kind], ModelRules(kind), wire),
        endpoint=Endpoint(url),
        key=Secret(CANARY),
        timeouts=timeouts or Timeouts(),
        max_concurrency=slots,
        max_answer=max_answer or AnswerLimits(),
    )


@asynccontextmanager
async def upstream(
    peer: Peer,
    timeouts: Timeouts | None = None,
    *,
    slots: int = 8,
    waiting: int = 64,
    max_answer: AnswerLimits | None = None,
    renewer: KeyRenewer | None = None,
    kind: LLMProvider = LLMProvider.OPENAI_COMPATIBLE,
    wire: WireSetting = "auto",
) -> AsyncIterator[Upstream]:
    """Run a provider actor that reaches ``peer``. Afterwards no connection to it is open."""
    provider = spec(timeouts=timeouts, slots=slots, max_answer=max_answer, kind=kind, wire=wire)
    if renewer is not None:
        provider = msgspec.structs.replace(provider, key=None, renewer=renewer)
    actor = ProviderActor(provider, dial=peer.dial)
    async with alone(actor, name="fake", mailbox=MailboxSpec(waiting)) as lone:
        yield Upstream(lone)
    with trio.fail_after(1):
        await peer.until(lambda: peer.open_connections == peer.open_requests == 0)
