"""Which of OpenAI's two APIs an attempt takes, and what is learned of servers that have only one."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest
import trio
import trio.testing

from llm_actors.provider import ProviderWires, wires_of
from llm_actors.provider.spec import CHAT_SECONDS, MAX_MODELS
from llm_protocol.content import HostedTool, Message, Tool
from llm_protocol.events import Failed, Finished
from llm_protocol.failures import Failure, FailureKind
from llm_protocol.model_facts import Capabilities
from llm_protocol.model_rules import ModelRules, WireSetting
from llm_protocol.requests import ChatRequest, CodeRequest, EmbeddingRequest, LLMProvider, Parameters
from llm_protocol.response import FinishReason
from llm_protocol.vendors import VENDORS
from support.peer import Call, Peer, Step, reply, sse
from support.upstream import END, HELLO, JSON, Asked, upstream, whole, word

CHAT, RESPONSES = "openai_chat", "openai_responses"
TOOLS = (Tool(name="f"),)
HERE = Parameters(wire=RESPONSES)
SEARCH = (HostedTool(dialect="anthropic", value={"type": "web_search_20250305", "name": "web_search"}),)


def chat(model: str = "gpt-4.1", **more: Any) -> ChatRequest:
    return ChatRequest(model=model, messages=(Message.of("user", "Hi."),), **more)


def wires(
    kind: str = "openai", setting: WireSetting = "auto", rules: dict[str, Capabilities] | None = None
) -> ProviderWires:
    return wires_of(VENDORS[kind], ModelRules(VENDORS[kind].facts_key, rules), setting)


@pytest.mark.parametrize(
    ("request_", "wire"),
    [
        (chat(), CHAT),
        (chat(parameters=Parameters(wire="anthropic")), CHAT),
        (chat(parameters=HERE), RESPONSES),
        (chat(parameters=Parameters(extra={RESPONSES: {"truncation": "auto"}})), RESPONSES),
        (chat(parameters=Parameters(extra={RESPONSES: {}, CHAT: {}})), CHAT),
        (chat("gpt-5-pro"), RESPONSES),
        (CodeRequest(model="gpt-5.3-codex", instruction="A loop."), RESPONSES),
        (chat("gpt-6-astra"), CHAT),
        (chat("gpt-6-astra", tools=TOOLS), RESPONSES),
        (chat("gpt-6-luna", tools=TOOLS), RESPONSES),
        (chat("gpt-6-luna", tools=TOOLS, parameters=Parameters(reasoning_effort="none")), CHAT),
        (chat("gpt-6-luna", tools=TOOLS, parameters=Parameters(reasoning_budget=0)), CHAT),
        (chat("gpt-5.4", tools=TOOLS), CHAT),
        (chat("gpt-5.4", tools=TOOLS, parameters=Parameters(reasoning_effort="low")), RESPONSES),
        (chat("gpt-5.4", tools=TOOLS, parameters=Parameters(extra={CHAT: {"reasoning_effort": "low"}})), RESPONSES),
        (chat(tools=SEARCH), RESPONSES),
        (chat(tools=(HostedTool(dialect=CHAT, value={"type": "custom", "custom": {"name": "f"}}),)), CHAT),
        (chat("gpt-audio-2", parameters=HERE), CHAT),
        (EmbeddingRequest(model="text-embedding-3-small", inputs=("x",), parameters=HERE), CHAT),
    ],
)
def test_the_wire_of_an_attempt(request_: ChatRequest, wire: str) -> None:
    assert wires().of(request_).name == wire


def test_a_provider_can_be_held_to_one_wire() -> None:
    assert wires(setting="responses").of(chat()).name == RESPONSES
    assert wires(setting="chat").of(chat("gpt-5-pro", parameters=HERE)).name == CHAT
    assert wires("azure").of(chat(parameters=HERE)).name == RESPONSES
    for kind in ("cerebras", "anthropic", "mistral"):
        assert wires(kind).of(chat(parameters=HERE)).name == VENDORS[kind].client().name


def test_what_the_configuration_says_of_a_model_counts() -> None:
    assert wires("openai_compatible", rules={"mine": Capabilities(wire="responses")}).of(chat("mine")).name == RESPONSES
    assert wires(rules={"gpt-*": Capabilities(wire="chat")}).of(chat(parameters=HERE)).name == CHAT


def test_compatible_servers_are_not_asked_for_hosted_tools() -> None:
    assert wires("openai_compatible").of(chat(tools=SEARCH)).name == CHAT


def test_who_has_the_responses_api_can_be_chosen_for_tools_with_reasoning() -> None:
    for setting, has in (("auto", True), ("responses", True), ("chat", False)):
        rules = ModelRules("openai")
        wires_of(VENDORS["openai"], rules, setting)  # type: ignore[arg-type]
        assert rules.has_responses is has


def test_it_is_said_in_words() -> None:
    assert wires().in_words("gpt-4.1") == ""
    assert wires().in_words("gpt-6-luna") == "uses the Responses API if the request has tools and the model reasons"
    assert wires(setting="responses").in_words("gpt-4.1") == "uses the Responses API"
    assert wires(setting="chat").in_words("gpt-4.1") == "uses the chat API only"


# ---------------------------------------------------------------- what is learned


def test_a_server_without_it_is_left_alone_for_an_hour() -> None:
    now = 0.0
    vendor = VENDORS["openai_compatible"]
    one = ProviderWires(vendor.client(), vendor.responses_client(), vendor.responses_target, clock=lambda: now)
    asked = chat(parameters=HERE)
    gone = Failed(failure=Failure(kind=FailureKind.MODEL_NOT_FOUND, message="?", upstream_status=404))
    assert one.instead_of(one.of(asked), gone) is one.usual
    assert one.instead_of(one.usual, gone) is None
    assert one.instead_of(one.of(asked), Finished(reason=FinishReason.STOP)) is None
    one.learn(one.usual, "m")
    assert one.of(asked) is one.usual
    assert one.in_words("m") == "uses the chat API, because its server has no Responses API"
    now = CHAT_SECONDS
    assert one.of(asked).name == RESPONSES


def test_models_that_are_learned_are_bounded() -> None:
    one = wires()
    for number in range(3 * MAX_MODELS):
        responses = one.of(chat(parameters=HERE))
        one.learn(responses, f"m{number}")
        assert one.of(chat(f"m{number}")) is responses
    assert len(one._needing) <= MAX_MODELS


def answered(text: str = "Hello there") -> Step:
    item = {"type": "message", "id": "msg_1", "role": "assistant", "status": "completed"}
    item["content"] = [{"type": "output_text", "text": text, "annotations": []}]  # type: ignore[assignment]
    body = {"id": "resp_1", "object": "response", "model": "m", "status": "completed", "output": [item]}
    usage = {"input_tokens": 3, "output_tokens": 2, "total_tokens": 5}
    return reply(json.dumps(body | {"usage": usage}).encode(), headers=JSON)


def targets(peer: Peer) -> list[str]:
    return [each.target.removeprefix("/v1/") for each in peer.requests]


def ended_well(asked: Asked) -> bool:
    return asked.outcome is not None and isinstance(asked.outcome.end, Finished)


@pytest.mark.parametrize("status", [404, 405, 501])
async def test_a_server_without_it_is_asked_over_chat_at_once(
    status: int, autojump_clock: trio.testing.MockClock
) -> None:
    chats = sse(*HELLO, *END)
    async with (
        Peer(reply(b"404 page not found", status), chats, chats, responses=True) as peer,
        upstream(peer) as provider,
    ):
        for _ in range(2):
            asked = await provider.ask(chat("m", parameters=HERE))
            assert ended_well(asked)
            assert asked.text == "Hello there"
            assert asked.outcome
            assert asked.outcome.wire == CHAT

    assert targets(peer) == ["responses", "chat/completions", "chat/completions"]


@pytest.mark.parametrize("stream", [True, False])
async def test_a_server_that_answers_every_path_as_its_chat_is_asked_over_chat_at_once(
    stream: bool, autojump_clock: trio.testing.MockClock
) -> None:
    """What it says there is not taken for a response; of a stream the first event is enough, and it is read no more."""

    async def begun(call: Call) -> None:
        await sse(word("Hello"), end=False)(call)
        await trio.sleep_forever()

    wrong: Step
    if stream:
        wrong, right = begun, sse(*HELLO, *END)
    else:
        wrong = right = reply(whole(), headers=JSON)
    async with Peer(wrong, right, right, responses=True) as peer, upstream(peer) as provider:
        for _ in range(2):
            asked = await provider.ask(chat("m", parameters=HERE), stream=stream)
            assert ended_well(asked)
            assert asked.text == "Hello there"
            assert asked.outcome
            assert asked.outcome.wire == CHAT
            assert asked.outcome.duration_s < 1

    assert targets(peer) == ["responses", "chat/completions", "chat/completions"]


async def test_a_model_that_is_not_there_says_nothing_of_the_server(autojump_clock: trio.testing.MockClock) -> None:
    gone = reply(b'{"error":{"message":"The model m does not exist","code":404}}', 404)
    other = reply(b'{"error":{"message":"over chat neither","code":404}}', 404)
    async with Peer(gone, other, answered(), responses=True) as peer, upstream(peer) as provider:
        asked = await provider.ask(chat("m", parameters=HERE), stream=False)
        assert asked.outcome
        assert isinstance(asked.outcome.end, Failed)
        assert asked.outcome.end.failure.kind is FailureKind.MODEL_NOT_FOUND
        assert "does not exist" in asked.outcome.end.failure.message
        assert asked.outcome.wire == RESPONSES
        assert ended_well(await provider.ask(chat("n", parameters=HERE), stream=False))

    assert targets(peer) == ["responses", "chat/completions", "responses"]


async def test_other_errors_are_told_as_they_are(autojump_clock: trio.testing.MockClock) -> None:
    async with Peer(reply(b'{"error":"busy"}', 503), responses=True) as peer, upstream(peer) as provider:
        asked = await provider.ask(chat("m", parameters=HERE), stream=False)
        assert not ended_well(asked)

    assert targets(peer) == ["responses"]


async def test_who_is_held_to_it_is_not_asked_over_chat(autojump_clock: trio.testing.MockClock) -> None:
    async with (
        Peer(reply(b"", 404), responses=True) as peer,
        upstream(peer, wire="responses") as provider,
    ):
        assert not ended_well(await provider.ask(chat("m"), stream=False))

    assert targets(peer) == ["responses"]


REFUSALS = [
    (400, "Function tools with reasoning_effort are not supported for gpt-9 in /v1/chat/completions. "
          "Please use /v1/responses instead.", "reasoning_effort"),
    (404, "This model is only supported in v1/responses and not in v1/chat/completions.", "model"),
]  # fmt: skip


@pytest.mark.parametrize(("status", "words", "param"), REFUSALS)
async def test_a_model_that_only_the_responses_api_has_is_learned(
    status: int, words: str, param: str, autojump_clock: trio.testing.MockClock
) -> None:
    error = {"error": {"message": words, "type": "invalid_request_error", "param": param, "code": None}}
    refused = reply(msgspec.json.encode(error), status, JSON)
    async with (
        Peer(refused, answered(), responses=True) as peer,
        upstream(peer, kind=LLMProvider.OPENAI) as provider,
    ):
        for _ in range(2):
            asked = await provider.ask(chat("gpt-9", tools=TOOLS, parameters=Parameters(reasoning_effort="none")))
            assert ended_well(asked)
            assert asked.text == "Hello there"

    assert targets(peer) == ["chat/completions", "responses", "responses"]
