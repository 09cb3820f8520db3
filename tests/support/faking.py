"""A provider actor in front of the fake provider, over socket pairs: no network, any clock."""

from __future__ import annotations

import trio

from llm_actors.kernel import MailboxSpec
from llm_actors.provider import Endpoint, Generate, ProviderActor, ProviderSpec, list_models, wires_of
from llm_actors.testing import alone
from llm_actors.transport import TlsTrust
from llm_protocol.content import Message
from llm_protocol.dialect import ModelInfo
from llm_protocol.events import Failed, Finished
from llm_protocol.failures import Failure
from llm_protocol.fold import Fold
from llm_protocol.model_rules import ModelRules, WireSetting
from llm_protocol.policy import Timeouts
from llm_protocol.requests import AnyRequest, ChatRequest, LLMProvider
from llm_protocol.response import LLMResponse
from llm_protocol.secret import Secret
from llm_protocol.vendors import VENDORS
from llm_runtime.fake import FakeProvider
from support.upstream import Asked

KEY = "sk-CANARY-do-not-print"
SPEAKERS = tuple(kind for kind in LLMProvider if not VENDORS[kind].local)


def chat(text: str = "Hello there, friend.", model: str = "m", **more: object) -> ChatRequest:
    return ChatRequest(model=model, messages=(Message.of("user", text),), **more)  # type: ignore[arg-type]


def spec(
    fake: FakeProvider,
    kind: LLMProvider,
    timeouts: Timeouts | None = None,
    trust: TlsTrust | None = None,
    wire: WireSetting = "auto",
) -> ProviderSpec:
    """What the configuration ``kind = …, base_url = fake.base_url(kind)`` becomes."""
    return ProviderSpec(
        name="faked",
        vendor=VENDORS[kind],
        wires=wires_of(VENDORS[kind], ModelRules(VENDORS[kind].facts_key), wire),
        endpoint=Endpoint(fake.base_url(kind)),
        key=Secret(KEY),
        trust=trust,
        timeouts=timeouts or Timeouts(),
    )


async def ask(
    fake: FakeProvider,
    kind: LLMProvider,
    request: AnyRequest,
    *,
    stream: bool,
    timeouts: Timeouts | None = None,
    tcp: bool = False,
    trust: TlsTrust | None = None,
    wire: WireSetting = "auto",
) -> Asked:
    """One request through a provider actor of its own; afterwards none of it is left."""
    asked = Asked()
    actor = ProviderActor(spec(fake, kind, timeouts, trust, wire), dial=None if tcp else fake.dial)
    async with alone(actor, name="faked", mailbox=MailboxSpec(8)) as lone:
        asked.outcome = await lone.ref.call(Generate(request=request, stream=stream, sink=asked.events.append))
    with trio.fail_after(5):
        await fake.journal.until(lambda journal: journal.connections == journal.open == 0)
    return asked


async def models(fake: FakeProvider, kind: LLMProvider) -> tuple[ModelInfo, ...]:
    actor = ProviderActor(spec(fake, kind), dial=fake.dial)
    async with alone(actor, name="faked", mailbox=MailboxSpec(8)) as lone:
        return await list_models(lone.ref)


def folded(asked: Asked) -> LLMResponse:
    """The whole answer; fails the test when it did not end well."""
    assert asked.outcome
    assert isinstance(asked.outcome.end, Finished), asked.outcome.end
    fold = Fold().add_all([*asked.events, asked.outcome.end])
    return fold.response(request_id="r", response_id="x", provider="faked", model="m")


def failure(asked: Asked) -> Failure:
    """How it failed; fails the test when it did not."""
    assert asked.outcome
    assert isinstance(asked.outcome.end, Failed), folded(asked)
    return asked.outcome.end.failure
