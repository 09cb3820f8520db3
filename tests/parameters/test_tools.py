"""Namespaces, hosted tools, and what they did in earlier turns, at targets that have them and at those that do not."""

from __future__ import annotations

from typing import Any

import pytest

from llm_protocol.codec.json import encode_json
from llm_protocol.content import HostedTool, Message, Opaque, Tool, ToolCall
from llm_protocol.errors import UnsupportedError
from llm_protocol.events import Event, Finished, ItemDone, ItemStarted, ToolCallDelta
from llm_protocol.model_facts import ModelRule
from llm_protocol.parameters import COMPATIBLE_RESPONSES, TARGETS, Adapted, RequestTarget, adapt
from llm_protocol.parameters.custom_tools import read_tool
from llm_protocol.requests import ChatRequest
from llm_protocol.response import FinishReason
from llm_protocol.wires.responses import OpenAIResponsesServer

RESPONSES = "openai_responses"
CRM = {
    "type": "namespace",
    "name": "crm",
    "description": "Customers.",
    "tools": [
        {"type": "function", "name": "find", "description": "Find one.", "parameters": {"type": "object"}},
        {"type": "custom", "name": "query", "description": "SQL."},
    ],
}
SHOP = {"type": "namespace", "name": "mcp__shop__", "tools": [{"type": "function", "name": "find"}]}
FLAT = [target for target in TARGETS if target != "responses"]
EVERY_FLAT = pytest.mark.parametrize("target", FLAT)


def asked(**body: Any) -> ChatRequest:
    found = OpenAIResponsesServer().decode_request("/v1/responses", encode_json({"model": "m", "input": "hi", **body}))
    assert isinstance(found.request, ChatRequest)
    return found.request


def adapted(request: ChatRequest, target: RequestTarget | str) -> Adapted:
    return adapt(request, TARGETS[target] if isinstance(target, str) else target, ModelRule())


def chat(found: Adapted) -> ChatRequest:
    assert isinstance(found.request, ChatRequest)
    return found.request


def told(found: Adapted) -> list[tuple[str, str]]:
    return [(each.parameter, each.action) for each in found.adjusted]


def restored(found: Adapted, *events: Event) -> list[Event]:
    out = list(events)
    for make in found.filters:
        out = make().feed(out)
    return out


# ---------------------------------------------------------------- namespaces


@EVERY_FLAT
def test_tools_of_a_namespace_become_functions_and_their_calls_come_back(target: str) -> None:
    found = adapted(asked(tools=[CRM, SHOP, {"type": "function", "name": "crm__find"}]), target)
    tools = {tool.name: tool for tool in chat(found).tools if isinstance(tool, Tool)}
    assert {"crm__find", "crm__find_", "mcp__shop__find"} <= tools.keys()
    assert tools["crm__find_"].description == "Customers.\n\nFind one."
    assert ("tools[0]", "rewritten") in told(found)
    assert ("tools[1]", "rewritten") in told(found)

    call = ToolCall(id="c1", name="crm__find_", arguments='{"id":1}')
    started, delta, done, *_ = restored(
        found,
        ItemStarted(index=0, kind="tool_call", id="c1", name="crm__find_"),
        ToolCallDelta(0, '{"id":1}'),
        ItemDone(index=0, part=call),
        Finished(reason=FinishReason.TOOL_CALLS),
    )
    assert isinstance(started, ItemStarted)
    assert started.name == "find"
    assert delta == ToolCallDelta(0, '{"id":1}')
    assert isinstance(done, ItemDone)
    assert done.part == ToolCall(id="c1", name="find", arguments='{"id":1}', extra={RESPONSES: {"namespace": "crm"}})

    own = ToolCall(id="c2", name="crm__find")
    assert restored(found, ItemDone(index=0, part=own)) == [ItemDone(index=0, part=own)]


def test_a_custom_tool_of_a_namespace_comes_back_as_a_custom_call() -> None:
    found = adapted(asked(tools=[CRM]), "anthropic")
    call = ToolCall(id="c1", name="crm__query", arguments='{"input":"select 1"}')
    done = restored(found, ItemDone(index=0, part=call))[-1]
    assert isinstance(done, ItemDone)
    assert isinstance(done.part, Opaque)
    assert done.part.value["type"] == "custom_tool_call"
    assert (done.part.value["namespace"], done.part.value["name"]) == ("crm", "query")
    assert done.part.value["input"] == "select 1"


@EVERY_FLAT
def test_calls_of_the_conversation_get_the_same_name(target: str) -> None:
    items = [
        {"role": "user", "content": "hi"},
        {"type": "function_call", "call_id": "c1", "name": "find", "namespace": "crm", "arguments": "{}"},
        {"type": "function_call_output", "call_id": "c1", "output": "Ada"},
        {"type": "function_call", "call_id": "c2", "name": "gone", "namespace": "old", "arguments": "{}"},
        {"type": "function_call_output", "call_id": "c2", "output": "x"},
    ]
    found = chat(adapted(asked(tools=[CRM], input=items), target))
    calls = [part for message in found.messages for part in message.content if isinstance(part, ToolCall)]
    assert [(call.name, call.extra) for call in calls] == [("crm__find", None), ("old__gone", None)]


@EVERY_FLAT
def test_tools_that_the_conversation_adds_are_offered(target: str) -> None:
    """As Codex does with GPT-6: all of its tools are an item of the input."""
    added = {"type": "additional_tools", "role": "developer", "tools": [CRM, {"type": "function", "name": "wait"}]}
    items = [added, {"role": "user", "content": "hi"}]
    found = adapted(asked(input=items), target)
    names = {tool.name for tool in chat(found).tools if isinstance(tool, Tool)}
    names |= {custom.name for tool in chat(found).tools if (custom := read_tool(tool)) is not None}
    assert names == {"crm__find", "crm__query", "wait"}
    assert [message.role for message in chat(found).messages] == ["user"]


def test_openai_gets_tools_in_the_conversation_where_they_are() -> None:
    added = {"type": "additional_tools", "role": "developer", "tools": [CRM]}
    found = adapted(asked(input=[added, {"role": "user", "content": "hi"}]), "responses")
    assert found.adjusted == ()
    assert chat(found).tools == ()
    assert chat(found).messages[0].content == (Opaque(dialect=RESPONSES, value=added),)


def test_openai_gets_namespaces_as_they_are() -> None:
    items = [{"type": "function_call", "call_id": "c1", "name": "find", "namespace": "crm", "arguments": "{}"}]
    found = adapted(asked(tools=[CRM], input=items, tool_choice={"type": "function", "name": "find"}), "responses")
    assert found.adjusted == ()
    assert chat(found).tools == (HostedTool(dialect=RESPONSES, value=CRM),)
    assert chat(found).messages[0].content == (
        ToolCall(id="c1", name="find", arguments="{}", extra={RESPONSES: {"namespace": "crm"}}),
    )


def test_one_of_a_namespace_can_be_demanded() -> None:
    found = chat(adapted(asked(tools=[CRM], tool_choice={"type": "function", "name": "find"}), "anthropic"))
    assert found.tool_choice is not None
    assert found.tool_choice.name == "crm__find"


def test_a_servers_own_responses_api_gets_functions_only() -> None:
    body = asked(tools=[CRM, {"type": "custom", "name": "patch"}, {"type": "web_search"}])
    found = adapted(body, COMPATIBLE_RESPONSES)
    assert [tool.name for tool in chat(found).tools if isinstance(tool, Tool)] == ["crm__find", "crm__query", "patch"]
    assert len(chat(found).tools) == 3
    assert ("tools[2]", "left_out") in told(found)


# ---------------------------------------------------------------- hosted tools

ANTHROPIC_SEARCH = {"type": "web_search_20250305", "name": "web_search"}
WHERE = {"type": "approximate", "country": "DE"}
MAPPED = [
    (RESPONSES, {"type": "web_search"}, "anthropic", ANTHROPIC_SEARCH),
    (RESPONSES, {"type": "web_search_preview", "search_context_size": "low"}, "gemini", {"googleSearch": {}}),
    (
        RESPONSES,
        {"type": "web_search", "filters": {"allowed_domains": ["a.org"]}, "user_location": WHERE},
        "anthropic",
        ANTHROPIC_SEARCH | {"allowed_domains": ["a.org"], "user_location": WHERE},
    ),
    ("anthropic", ANTHROPIC_SEARCH | {"max_uses": 5}, "responses", {"type": "web_search"}),
    (
        "anthropic",
        ANTHROPIC_SEARCH | {"allowed_domains": ["a.org"]},
        "responses",
        {"type": "web_search", "filters": {"allowed_domains": ["a.org"]}},
    ),
    ("gemini", {"googleSearch": {}}, "responses", {"type": "web_search"}),
    ("gemini", {"codeExecution": {}}, "responses", {"type": "code_interpreter", "container": {"type": "auto"}}),
    (
        RESPONSES,
        {"type": "code_interpreter", "container": {"type": "auto"}},
        "anthropic",
        {"type": "code_execution_20250825", "name": "code_execution"},
    ),
    ("anthropic", {"type": "code_execution_20260120", "name": "code_execution"}, "gemini", {"codeExecution": {}}),
    # A restriction that the other cannot keep, or files that it does not have.
    (RESPONSES, {"type": "web_search", "external_web_access": False}, "anthropic", None),
    (RESPONSES, {"type": "web_search", "filters": {"allowed_domains": ["a.org"]}}, "gemini", None),
    ("anthropic", ANTHROPIC_SEARCH | {"blocked_domains": ["a.org"]}, "responses", None),
    (RESPONSES, {"type": "code_interpreter", "container": "cntr_1"}, "anthropic", None),
    (RESPONSES, {"type": "code_interpreter", "container": {"type": "auto", "file_ids": ["f"]}}, "gemini", None),
    (RESPONSES, {"type": "file_search", "vector_store_ids": ["vs_1"]}, "gemini", None),
    (RESPONSES, {"type": "image_generation"}, "anthropic", None),
    (RESPONSES, {"type": "web_search"}, "openai", None),
    (RESPONSES, {"type": "web_search"}, "cohere", None),
]


@pytest.mark.parametrize(("dialect", "value", "target", "said"), MAPPED)
def test_a_hosted_tool_at_another_vendor(
    dialect: str, value: dict[str, Any], target: str, said: dict[str, Any] | None
) -> None:
    request = ChatRequest(
        model="m", messages=(Message.of("user", "hi"),), tools=(HostedTool(dialect=dialect, value=value),)
    )
    found = adapted(request, target)
    tools = [tool.value for tool in chat(found).tools if isinstance(tool, HostedTool)]
    assert tools == ([] if said is None else [said])
    assert told(found) == ([("tools[0]", "left_out")] if said is None else [])


def test_a_function_of_the_same_name_comes_first() -> None:
    found = adapted(asked(tools=[{"type": "function", "name": "web_search"}, {"type": "web_search"}]), "anthropic")
    assert [type(tool) for tool in chat(found).tools] == [Tool]
    assert told(found) == [("tools[1]", "left_out")]


def test_it_is_refused_by_name_only_where_it_is_demanded() -> None:
    body: dict[str, Any] = {"tools": [{"type": "file_search", "vector_store_ids": ["vs_1"]}]}
    assert told(adapted(asked(**body), "anthropic")) == [("tools[0]", "left_out")]
    for choice in ("required", {"type": "file_search"}):
        with pytest.raises(UnsupportedError) as caught:
            adapted(asked(**body, tool_choice=choice), "anthropic")
        assert caught.value.failure.param in ("tools", "tool_choice")
