"""What a request needs of a model: who is chosen, who is passed over before a call, and what another model is shown."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest

from llm_protocol.content import (
    Audio,
    Document,
    Image,
    Message,
    Part,
    Reasoning,
    Text,
    Tool,
    ToolCall,
    ToolChoice,
    ToolResult,
)
from llm_protocol.errors import UnsupportedError
from llm_protocol.model_facts import Capabilities, ModelRule
from llm_protocol.model_rules import ModelRules, Needs, has, needs_of, refuse_incapable, rule_of, without_thinking
from llm_protocol.requests import ChatRequest, EmbeddingRequest, Parameters
from llm_protocol.vendors import VENDORS
from llm_protocol.wires.openai_chat import OPENAI, OpenAIChat

PDF = Document(data=b"%PDF-1.7")
SOUND = Audio(data=b"RIFF", media_type="audio/wav")
PICTURE = Image(data=b"x", media_type="image/png")
HI = Message.of("user", "hi")
TOOLS = (Tool(name="f"),)


def chat(*messages: Message, **more: Any) -> ChatRequest:
    return ChatRequest(model="m", messages=messages or (HI,), **more)


def test_what_a_request_needs() -> None:
    assert needs_of(chat()) == Needs()
    assert needs_of(EmbeddingRequest(inputs=("x",))) == Needs()
    assert needs_of(chat(tools=TOOLS, tool_choice=ToolChoice("required"))) == Needs(tools=True, forced=True)
    assert needs_of(chat(parameters=Parameters(reasoning_effort="low"))).reasoning
    assert not needs_of(chat(parameters=Parameters(reasoning_effort="none", reasoning_budget=0))).reasoning
    result = ToolResult(call_id="c", content=(PICTURE,))
    for part in (PICTURE, result):
        assert needs_of(chat(Message("user", (part,)))).vision


@pytest.mark.parametrize(
    ("model", "needs", "can"),
    [
        ("gpt-6-astra", Needs(tools=True), False),
        ("gpt-6-luna", Needs(tools=True), True),
        ("gpt-6-luna", Needs(tools=True, reasoning=True), False),
        ("gpt-6-luna", Needs(vision=True, reasoning=True), True),
        ("gpt-5.2", Needs(tools=True, reasoning=True), True),
        ("gpt-3.5-turbo", Needs(vision=True), False),
        ("unheard-of", Needs(tools=True, forced=True, reasoning=True, vision=True), True),
    ],
)
def test_which_model_has_it(model: str, needs: Needs, can: bool) -> None:
    assert has(rule_of("openai", model), needs) is can


def test_a_picture_for_a_model_that_is_blind_is_refused_where_it_stands() -> None:
    blind, unknown = ModelRule(vision=False), ModelRule()
    shown = chat(HI, Message("user", (Text("see"), PICTURE)))
    with pytest.raises(UnsupportedError, match=r"messages\[1\].content\[1\]: m does not accept pictures") as caught:
        refuse_incapable(blind, shown)
    assert caught.value.failure.param == "messages[1].content[1]"
    refuse_incapable(unknown, shown)
    refuse_incapable(blind, chat())


def test_what_a_tools_result_has_is_left_to_the_vendor_and_counts_for_the_choice_of_a_model() -> None:
    in_result = chat(HI, Message("tool", (ToolResult(call_id="c", content=(Text("see"), PICTURE)),)))
    refuse_incapable(ModelRule(vision=False), in_result)
    assert needs_of(in_result).vision
    assert not has(ModelRule(vision=False), needs_of(in_result))


@pytest.mark.parametrize(
    ("part", "column", "what"),
    [(PICTURE, "vision", "pictures"), (PDF, "documents", "PDF documents"), (SOUND, "audio", "audio")],
)
def test_each_sense_has_its_column(part: Part, column: str, what: str) -> None:
    shown = chat(Message("user", (part,)))
    assert needs_of(shown) == Needs(**{column: True})
    lacking = msgspec.structs.replace(ModelRule(), **{column: False})
    assert not has(lacking, needs_of(shown))
    assert has(ModelRule(), needs_of(shown)), "what is not known is left to the vendor"
    with pytest.raises(UnsupportedError, match=f"does not accept {what}"):
        refuse_incapable(lacking, shown)


def test_a_document_of_text_needs_nothing() -> None:
    shown = chat(Message("user", (Document(text="plain"),)))
    assert needs_of(shown) == Needs()
    refuse_incapable(ModelRule(documents=False), shown)


def test_another_model_is_not_shown_what_one_thought() -> None:
    call = ToolCall(id="c", name="f")
    thought: tuple[Part, ...] = (Reasoning(text="hm", signature="s"), Text("a"), call)
    said = chat(HI, Message("assistant", thought), Message("assistant", (Reasoning(text="hm"),)))
    bare = without_thinking(said)
    assert isinstance(bare, ChatRequest)
    assert bare.messages == (HI, Message("assistant", (Text("a"), call)))
    assert without_thinking(EmbeddingRequest(model="m", inputs=("x",))).model == "m"


def test_tools_for_a_model_that_calls_none() -> None:
    asked = chat(tools=TOOLS)
    without = ModelRule(tools=False)
    assert not has(without, needs_of(asked))
    with pytest.raises(UnsupportedError, match="tools: m does not support tools") as caught:
        refuse_incapable(without, asked)
    assert caught.value.failure.param == "tools"
    refuse_incapable(ModelRule(), asked)
    refuse_incapable(without, chat())


def test_what_is_never_done_need_not_be_forbidden() -> None:
    """OpenAI's older reasoning models call one tool at a time, and refuse the parameter."""
    for wanted, adjusted in ((False, []), (True, ["parallel_tool_calls"])):
        asked = chat(tools=TOOLS, parameters=Parameters(parallel_tool_calls=wanted)).to("o3")
        adapted = OpenAIChat(OPENAI).adapt(asked)
        assert adapted.request.parameters.parallel_tool_calls is None
        assert [each.parameter for each in adapted.adjusted] == adjusted
    kept = OpenAIChat(OPENAI).adapt(chat(tools=TOOLS, parameters=Parameters(parallel_tool_calls=False)).to("gpt-4o"))
    assert kept.request.parameters.parallel_tool_calls is False


def test_a_beginning_is_marked_where_the_vendor_wants_that() -> None:
    begun = chat(HI, Message.of("assistant", "Once upon")).to("mistral-large-latest")
    for kind, marked in (("mistral", True), ("openai", None), ("groq", None), ("deepseek", None)):
        dialect = VENDORS[kind].client()
        body = json.loads(dialect.encode_request(dialect.adapt(begun).request, stream=False).body)
        assert body["messages"][-1].get("prefix") is marked
    dialect = VENDORS["mistral"].client()
    whole = json.loads(dialect.encode_request(dialect.adapt(chat().to("m")).request, stream=False).body)
    assert "prefix" not in whole["messages"][-1]
    said = ModelRules("deepseek", {"*": Capabilities(prefill=True)})
    dialect = VENDORS["deepseek"].client(said)
    body = json.loads(dialect.encode_request(dialect.adapt(begun).request, stream=False).body)
    assert body["messages"][-1]["prefix"] is True
