"""What a request needs of a model: who is chosen, who is passed over before a call, and what another model is shown."""

from __future__ import annotations

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
from llm_protocol.model_facts import ModelRule
from llm_protocol.model_rules import rule_of
from llm_protocol.needs import Needs, has, needs_of, refuse_unseen, without_thinking
from llm_protocol.requests import ChatRequest, EmbeddingRequest, Parameters

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
    with pytest.raises(UnsupportedError, match=r"messages\[1\].content\[1\]: m takes no pictures") as caught:
        refuse_unseen(blind, shown)
    assert caught.value.failure.param == "messages[1].content[1]"
    refuse_unseen(unknown, shown)
    refuse_unseen(blind, chat())


def test_one_rule_for_a_users_turn_and_a_tools_result() -> None:
    in_result = Message("tool", (ToolResult(call_id="c", content=(Text("see"), PICTURE)),))
    with pytest.raises(UnsupportedError) as caught:
        refuse_unseen(ModelRule(vision=False), chat(HI, in_result))
    assert caught.value.failure.param == "messages[1].content[0].content[1]"


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
    with pytest.raises(UnsupportedError, match=f"takes no {what}"):
        refuse_unseen(lacking, shown)


def test_a_document_of_text_needs_nothing() -> None:
    shown = chat(Message("user", (Document(text="plain"),)))
    assert needs_of(shown) == Needs()
    refuse_unseen(ModelRule(documents=False), shown)


def test_another_model_is_not_shown_what_one_thought() -> None:
    call = ToolCall(id="c", name="f")
    thought: tuple[Part, ...] = (Reasoning(text="hm", signature="s"), Text("a"), call)
    said = chat(HI, Message("assistant", thought), Message("assistant", (Reasoning(text="hm"),)))
    bare = without_thinking(said)
    assert isinstance(bare, ChatRequest)
    assert bare.messages == (HI, Message("assistant", (Text("a"), call)))
    assert without_thinking(EmbeddingRequest(model="m", inputs=("x",))).model == "m"
