"""A tool loop, as a program writes it, gives every vendor back what that vendor wants to see."""

from __future__ import annotations

import pytest

from llm_runtime import Config, LLMProvider, Message, Provider, Runtime, Secret, Tool, ToolCall, open_runtime
from llm_runtime.fake import FakeProvider, FakeToolCall, ScriptRule

TURNS = 5
WEATHER = Tool(name="weather", parameters={"type": "object", "properties": {"city": {"type": "string"}}})
CALLS = (
    FakeToolCall(name="weather", arguments={"city": "Oslo"}),
    FakeToolCall(name="weather", arguments={"city": "Rome"}),
)
RULES = (
    ScriptRule(tool_calls=CALLS, reasoning="Both, then.", text="Let me look.", times=1),
    ScriptRule(tool_calls=CALLS, reasoning="Once more.", after_tool=True, times=TURNS - 2),
)
KINDS: list[LLMProvider] = [kind for kind in LLMProvider if kind is not LLMProvider.LOCAL]


async def turn(rt: Runtime, messages: list[Message], *, model: str, stream: bool) -> tuple[ToolCall, ...]:
    if stream:
        async with rt.stream(messages, model=model, tools=[WEATHER]) as answer:
            async for _ in answer:
                pass
        response = answer.response
    else:
        response = await rt.chat(messages, model=model, tools=[WEATHER])
    messages.append(response.message)
    return response.tool_calls


async def loop(rt: Runtime, models: list[str], *, stream: bool) -> list[Message]:
    """Five turns; the models take turns, too."""
    messages = [Message.of("system", "Be short."), Message.of("user", "How is the weather in Oslo and in Rome?")]
    for at in range(TURNS):
        calls = await turn(rt, messages, model=models[at % len(models)], stream=stream)
        if calls:
            messages.append(Message("tool", tuple(call.result(f"{call.parsed()['city']} {at}.") for call in calls)))
    return messages


def config(fake: FakeProvider) -> Config:
    return Config(
        providers={
            kind: Provider(kind=kind, base_url=fake.base_url(kind), api_key=Secret("any"), models=("m",))
            for kind in KINDS
        }
    )


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("kind", KINDS)
async def test_five_turns_with_two_calls_each(kind: LLMProvider, stream: bool) -> None:
    async with FakeProvider(*RULES) as fake, open_runtime(config(fake)) as rt:
        messages = await loop(rt, [f"{kind}/m"], stream=stream)

    assert [message.role for message in messages[2:]] == ["assistant", "tool"] * (TURNS - 1) + ["assistant"]
    assert messages[-1].text == "The tool said: Oslo 3.Rome 3."


@pytest.mark.parametrize("first", KINDS)
async def test_a_conversation_moves_from_vendor_to_vendor_between_its_turns(first: LLMProvider) -> None:
    """Ids, reasoning and signatures of one are no obstacle to the next."""
    at = KINDS.index(first)
    models = [f"{kind}/m" for kind in (*KINDS[at:], *KINDS[:at])]
    async with FakeProvider(*RULES) as fake, open_runtime(config(fake)) as rt:
        messages = await loop(rt, models, stream=False)

    assert messages[-1].text == "The tool said: Oslo 3.Rome 3."
