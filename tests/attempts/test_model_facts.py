"""What is known of a model decides what it is shown, and whether it is asked at all."""

from __future__ import annotations

import msgspec
import trio
from trio.testing import MockClock

from llm_actors.run import Run
from llm_protocol.content import Image, Message, Reasoning, Text
from llm_protocol.model_facts import Capabilities
from llm_protocol.model_rules import ModelRules
from llm_protocol.policy import Attempts
from llm_protocol.wires.openai_chat import COMPATIBLE, OpenAIChat
from support.attempts import Asked, World, answer, status, world

ONCE = Attempts(max=1)
THOUGHT = (
    Message.of("user", "hi"),
    Message("assistant", (Reasoning(text="hm"), Text("hello"))),
    Message.of("user", "and?"),
)


def speaking(**facts: object) -> OpenAIChat:
    """A dialect whose models are known for these facts."""
    return OpenAIChat(COMPATIBLE, ModelRules(COMPATIBLE.kind, {"*": msgspec.convert(facts, Capabilities)}))


async def ask(w: World, *messages: Message) -> Asked:
    run = Run(msgspec.structs.replace(w.request(), messages=messages), stream=True)
    await w.hand_in(run)
    return await w.see(run, trio.current_time())


async def test_a_model_that_refuses_foreign_thoughts_is_not_shown_them_after_a_failure(
    autojump_clock: MockClock,
) -> None:
    dialects = {name: speaking(replay="same_model") for name in "ab"}
    async with world(a=[status(500)], b=[answer], attempts=ONCE, dialects=dialects) as w:
        asked = await ask(w, *THOUGHT)

    assert asked.outcomes() == ["a:server_error", "b:ok"]
    assert b"hm" in w["a"].requests[0].body, "asked first: they may be its own"
    assert b"hm" not in w["b"].requests[0].body
    assert b"hello" in w["b"].requests[0].body


async def test_others_are_shown_them(autojump_clock: MockClock) -> None:
    async with world(a=[status(500)], b=[answer], attempts=ONCE) as w:
        await ask(w, *THOUGHT)

    assert b"hm" in w["b"].requests[0].body


async def test_a_blind_model_is_passed_over_without_a_call(autojump_clock: MockClock) -> None:
    picture = Message("user", (Image(data=b"\x89PNG", media_type="image/png"),))
    async with world(a=[answer], b=[answer], dialects={"a": speaking(vision=False)}) as w:
        asked = await ask(w, picture)

    assert asked.outcomes() == ["b:ok"]
    assert w["a"].calls == 0
    assert list(asked.decision["passed_over"].values()) == ["unsupported"]
