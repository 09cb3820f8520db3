"""What each vendor's client gets from the fake when nothing goes wrong."""

import base64
import json
import struct
from typing import Any

import pytest
from trio.testing import MockClock

from llm_protocol.content import Message, ResponseFormat, Text, Tool, ToolCall, ToolChoice, ToolResult
from llm_protocol.failures import FailureKind
from llm_protocol.requests import ChatRequest, EmbeddingRequest, ImageRequest, LLMProvider, Parameters
from llm_protocol.response import FinishReason
from llm_runtime.fake import FakeProvider, FakeToolCall, ScriptRule
from llm_runtime.fake.answers import picture, vector
from support.faking import KEY, SPEAKERS, ask, chat, failure, folded, models
from support.server import HttpClient, Reply

EVERY = pytest.mark.parametrize("kind", SPEAKERS)
BOTH = pytest.mark.parametrize("stream", [False, True])
SCHEMA = {
    "type": "object",
    "properties": {"city": {"type": "string"}, "days": {"type": "integer"}},
    "required": ["city", "days"],
    "additionalProperties": False,
}
WEATHER = Tool(name="weather", description="The weather.", parameters=SCHEMA)


async def raw(fake: FakeProvider, method: str, target: str, body: object = None, **headers: str) -> Reply:
    async with HttpClient(await fake.dial("fake.test", 80)) as client:
        return await client.request(method, target, body, **headers)


@EVERY
@BOTH
async def test_a_chat_gets_its_own_words_back_and_the_tokens_counted(
    autojump_clock: MockClock, kind: LLMProvider, stream: bool
) -> None:
    async with FakeProvider() as fake:
        answer = folded(await ask(fake, kind, chat(), stream=stream))
        assert answer.content == "You said: Hello there, friend."
        assert answer.finish_reason is FinishReason.STOP
        assert answer.model in ("m", "")
        assert answer.usage
        assert (answer.usage.input_tokens, answer.usage.output_tokens) == (5, 8)
        (seen,) = fake.journal.requests
        assert (seen.kind, seen.model, seen.stream, seen.status) == (kind, "m", stream, 200)


@EVERY
@BOTH
async def test_a_tool_that_must_be_called_is_called_and_its_result_is_heard(
    autojump_clock: MockClock, kind: LLMProvider, stream: bool
) -> None:
    question = Message.of("user", "Oslo")
    async with FakeProvider() as fake:
        required = ChatRequest(
            model="m", messages=(question,), tools=(WEATHER,), tool_choice=ToolChoice("named", "weather")
        )
        first = folded(await ask(fake, kind, required, stream=stream))
        (call,) = first.tool_calls
        assert (call.name, call.parsed()) == ("weather", {"city": "Oslo", "days": 1})
        assert first.finish_reason is FinishReason.TOOL_CALLS
        result = ToolResult(call_id=call.id, name="weather", content=(Text('{"sky": "blue"}'),))
        back = ChatRequest(
            model="m",
            messages=(question, Message("assistant", (call,)), Message("tool", (result,))),
            tools=(WEATHER,),
        )
        last = folded(await ask(fake, kind, back, stream=stream))
        assert last.content.startswith("The tool said: ")
        assert "blue" in last.content


@EVERY
@BOTH
async def test_a_rule_calls_tools_until_their_results_are_there(
    autojump_clock: MockClock, kind: LLMProvider, stream: bool
) -> None:
    """Two calls at once, one with its own arguments; the same rule does not call again after the result."""
    calls = (FakeToolCall(name="weather", arguments={"city": "Rome", "days": 2}), FakeToolCall(name="weather"))
    async with FakeProvider(ScriptRule(tool_calls=calls)) as fake:
        request = ChatRequest(model="m", messages=(Message.of("user", "Oslo"),), tools=(WEATHER,))
        made = folded(await ask(fake, kind, request, stream=stream)).tool_calls
        assert [call.parsed()["city"] for call in made] == ["Rome", "Oslo"]
        assert len({call.id for call in made}) == 2
        results = tuple(ToolResult(call_id=call.id, name=call.name, content=(Text("fine"),)) for call in made)
        turns = (*request.messages, Message("assistant", made), Message("tool", results))
        after = folded(await ask(fake, kind, ChatRequest(model="m", messages=turns, tools=(WEATHER,)), stream=stream))
        assert not after.tool_calls


@EVERY
async def test_json_fits_its_schema(autojump_clock: MockClock, kind: LLMProvider) -> None:
    wanted = ResponseFormat(type="json_schema", name="trip", schema=SCHEMA)
    async with FakeProvider() as fake:
        answer = folded(await ask(fake, kind, chat("Oslo", response_format=wanted), stream=False))
        assert json.loads(answer.content) == {"city": "Oslo", "days": 1}


@EVERY
async def test_the_scripted_answer_is_given(autojump_clock: MockClock, kind: LLMProvider) -> None:
    async with FakeProvider(ScriptRule(contains="friend", text="No.", finish_reason=FinishReason.LENGTH)) as fake:
        answer = folded(await ask(fake, kind, chat(), stream=True))
        assert (answer.content, answer.finish_reason) == ("No.", FinishReason.LENGTH)


@EVERY
async def test_max_output_tokens_are_kept(autojump_clock: MockClock, kind: LLMProvider) -> None:
    async with FakeProvider() as fake:
        request = chat(parameters=Parameters(max_output_tokens=2))
        answer = folded(await ask(fake, kind, request, stream=True))
        assert (answer.content, answer.finish_reason) == ("You said", FinishReason.LENGTH)


@pytest.mark.parametrize("kind", [LLMProvider.ANTHROPIC, LLMProvider.GEMINI, LLMProvider.COHERE, LLMProvider.CEREBRAS])
@BOTH
async def test_scripted_reasoning_is_reasoning(autojump_clock: MockClock, kind: LLMProvider, stream: bool) -> None:
    async with FakeProvider(ScriptRule(reasoning="Let me think.")) as fake:
        assert folded(await ask(fake, kind, chat(), stream=stream)).reasoning == "Let me think."


@pytest.mark.parametrize(
    "kind", [LLMProvider.OPENAI, LLMProvider.OPENAI_COMPATIBLE, LLMProvider.GEMINI, LLMProvider.COHERE]
)
async def test_vectors_depend_on_their_text_alone(autojump_clock: MockClock, kind: LLMProvider) -> None:
    async with FakeProvider() as fake:
        request = EmbeddingRequest(model="e", inputs=("one", "two", "one"), dimensions=8, input_type="search_query")
        if kind in (LLMProvider.OPENAI, LLMProvider.OPENAI_COMPATIBLE):
            request = EmbeddingRequest(model="e", inputs=request.inputs, dimensions=8)
        answer = folded(await ask(fake, kind, request, stream=False))
        assert answer.embeddings == (vector("one", 8), vector("two", 8), vector("one", 8))


@pytest.mark.parametrize("kind", [LLMProvider.OPENAI, LLMProvider.OPENAI_COMPATIBLE, LLMProvider.GEMINI])
async def test_pictures_are_valid_png(autojump_clock: MockClock, kind: LLMProvider) -> None:
    async with FakeProvider() as fake:
        answer = folded(await ask(fake, kind, ImageRequest(model="i", prompt="a cat"), stream=False))
        assert [image.data for image in answer.images] == [picture("a cat0")]
        assert answer.images[0].media_type == "image/png"


@EVERY
async def test_models_are_listed(autojump_clock: MockClock, kind: LLMProvider) -> None:
    async with FakeProvider() as fake:
        assert [model.id for model in await models(fake, kind)] == ["fake-chat", "fake-embed", "fake-image"]


@EVERY
async def test_a_wrong_key_is_refused_as_the_vendor_does(autojump_clock: MockClock, kind: LLMProvider) -> None:
    async with FakeProvider(key="another") as fake:
        refused = failure(await ask(fake, kind, chat(), stream=True))
        assert refused.kind is FailureKind.AUTH
        assert refused.upstream_status == (400 if kind is LLMProvider.GEMINI else 401)
    async with FakeProvider(key=KEY) as fake:
        assert folded(await ask(fake, kind, chat(), stream=True)).content


async def test_one_port_tells_vendors_apart_without_a_mount(autojump_clock: MockClock) -> None:
    """Where a path is shared, by the headers and query that their clients send."""
    async with FakeProvider() as fake:
        await raw(fake, "GET", "/v1/models")
        await raw(fake, "GET", "/v1/models?limit=20", anthropic_version="2023-06-01")
        await raw(fake, "GET", "/v1/models?pageSize=5", x_goog_api_key="k")
        await raw(fake, "GET", "/v1/models?page_size=5")
        await raw(fake, "GET", "/v1/models", user_agent="Cerebras/Python 1.0")
        await raw(fake, "GET", "/openai_compatible/v1/models")
        await raw(fake, "POST", "/v2/chat", {"model": "m", "messages": [{"role": "user", "content": "hi"}]})
        await raw(fake, "POST", "/v1beta/models/m:generateContent", {"contents": [{"parts": [{"text": "hi"}]}]})
        assert [seen.kind for seen in fake.journal.requests] == [
            "openai", "anthropic", "gemini", "cohere", "cerebras", "openai_compatible", "cohere", "gemini",
        ]  # fmt: skip
        assert {seen.status for seen in fake.journal.requests} == {200}


async def test_with_a_kind_only_that_vendor_is_there(autojump_clock: MockClock) -> None:
    async with FakeProvider(kind=LLMProvider.ANTHROPIC) as fake:
        body = {"model": "m", "messages": [{"role": "user", "content": "hi"}]}
        refused = await raw(fake, "POST", "/v1/chat/completions", body)
        assert (refused.status, refused.json["error"]["type"]) == (404, "not_found_error")
        assert (await raw(fake, "GET", "/v1/models", anthropic_version="v")).json["has_more"] is False


async def test_what_a_vendor_has_not_is_not_there(autojump_clock: MockClock) -> None:
    async with FakeProvider() as fake:
        refused = await raw(fake, "POST", "/cerebras/v1/embeddings", {"model": "m", "input": "hi"})
        assert refused.status == 404
        assert "message" in refused.json  # flat, as Cerebras says it


async def test_a_malformed_request_is_told_in_the_vendors_shape(autojump_clock: MockClock) -> None:
    async with FakeProvider() as fake:
        openai = await raw(fake, "POST", "/v1/chat/completions", {"model": "m", "messages": "hi"})
        assert (openai.status, openai.json["error"]["param"]) == (400, "messages")
        anthropic = await raw(fake, "POST", "/v1/messages", b"{", anthropic_version="2023-06-01")
        assert (anthropic.status, anthropic.json["error"]["type"]) == (400, "invalid_request_error")
        without = await raw(fake, "POST", "/v1/messages", b"{}")
        assert without.json["error"]["message"] == "anthropic-version: header is required"
        gemini = await raw(fake, "POST", "/v1beta/models/m:generateContent", {})
        assert gemini.json["error"]["status"] == "INVALID_ARGUMENT"


async def test_a_response_that_is_not_kept_is_not_continued_in_silence(autojump_clock: MockClock) -> None:
    async with FakeProvider() as fake:
        body = {"model": "m", "input": "and then?", "previous_response_id": "resp_1"}
        refused = await raw(fake, "POST", "/v1/responses", body)
        assert (refused.status, refused.json["error"]["param"]) == (400, "previous_response_id")


async def test_one_model_can_be_looked_up(autojump_clock: MockClock) -> None:
    async with FakeProvider() as fake:
        assert (await raw(fake, "GET", "/v1/models/fake-chat")).json["id"] == "fake-chat"
        assert (await raw(fake, "GET", "/v1beta/models/fake-chat")).json["name"] == "models/fake-chat"
        assert (await raw(fake, "GET", "/v1/models/no-such")).status == 404


async def test_gemini_streams_a_json_array_to_those_who_do_not_ask_for_events(autojump_clock: MockClock) -> None:
    async with FakeProvider() as fake:
        body = {"contents": [{"parts": [{"text": "hi"}]}]}
        members = (await raw(fake, "POST", "/v1beta/models/m:streamGenerateContent", body)).json
        pieces = [part["text"] for member in members for part in member["candidates"][0]["content"].get("parts", [])]
        assert "".join(pieces) == "You said: hi"
        assert members[-1]["candidates"][0]["finishReason"] == "STOP"


async def test_openai_embeddings_come_as_base64_too(autojump_clock: MockClock) -> None:
    async with FakeProvider() as fake:
        body = {"model": "e", "input": "one", "dimensions": 4, "encoding_format": "base64"}
        found = (await raw(fake, "POST", "/v1/embeddings", body)).json["data"][0]["embedding"]
        assert struct.unpack("<4f", base64.b64decode(found)) == vector("one", 4)


async def test_a_call_is_whole_json_whatever_the_limit(autojump_clock: MockClock) -> None:
    async with FakeProvider(ScriptRule(tool_calls=(FakeToolCall(name="weather"),))) as fake:
        request = chat("Oslo", tools=(WEATHER,), parameters=Parameters(max_output_tokens=1))
        (call,) = folded(await ask(fake, LLMProvider.OPENAI, request, stream=True)).tool_calls
        assert isinstance(call, ToolCall)
        assert call.parsed() == {"city": "Oslo", "days": 1}


@pytest.mark.parametrize(
    ("model", "more", "status"),
    [
        ("gpt-5-pro", {}, 404),
        ("gpt-6-luna", {"tools": (WEATHER,), "parameters": Parameters(reasoning_effort="low")}, 400),
        ("gpt-6-astra", {"tools": (WEATHER,)}, 400),
    ],
)
async def test_openais_chat_api_refuses_what_only_its_other_api_has(
    autojump_clock: MockClock, model: str, more: dict[str, Any], status: int
) -> None:
    request = chat(model=model, **more)
    async with FakeProvider() as fake:
        refused = await ask(fake, LLMProvider.OPENAI, request, stream=False, wire="chat")
        assert failure(refused).kind is FailureKind.UNSUPPORTED
        assert failure(refused).upstream_status == status
        answered = await ask(fake, LLMProvider.OPENAI, request, stream=False)
        assert folded(answered).content.startswith("You said")
        assert [each.path for each in fake.journal.requests] == ["/openai/v1/chat/completions", "/openai/v1/responses"]
        # Others than OpenAI have these names, too, and no such limits.
        assert folded(await ask(fake, LLMProvider.OPENAI_COMPATIBLE, request, stream=False, wire="chat")).content
