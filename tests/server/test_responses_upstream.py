"""Clients of the Responses API in front of a vendor that has it: nothing is lost on the way there, nor back."""

from __future__ import annotations

import json
from typing import Any

import pytest

from llm_protocol.requests import LLMProvider
from support.callers import Served, served
from support.peer import Script, chunked, reply, sse
from support.transcripts import Recording, read_sse, recordings
from support.upstream import END, HELLO, JSON

PNG = "data:image/png;base64,iVBORw0KGgo="
CODEX: dict[str, Any] = {
    "model": "cheap/small",
    "instructions": "You are a coding agent.",
    "input": [
        {"type": "message", "role": "developer", "content": [{"type": "input_text", "text": "a", "more": 1}]},
        {
            "type": "message",
            "role": "user",
            "content": [
                {"type": "input_text", "text": "look"},
                {"type": "input_image", "image_url": PNG, "detail": "high"},
                {"type": "input_image", "file_id": "file-1"},
                {"type": "input_file", "filename": "a.pdf", "file_data": "data:application/pdf;base64,JVBERi0="},
            ],
        },
        {
            "type": "reasoning",
            "id": "rs_1",
            "summary": [{"type": "summary_text", "text": "Hm."}],
            "encrypted_content": "gAAA",
        },
        {"type": "function_call", "call_id": "c1", "name": "find", "namespace": "crm", "arguments": '{"a":1}'},
        {"type": "function_call_output", "call_id": "c1", "output": "found"},
        {"type": "custom_tool_call", "id": "ctc_1", "call_id": "c2", "name": "apply_patch", "input": "*** Begin"},
        {"type": "custom_tool_call_output", "call_id": "c2", "output": "done"},
        {"type": "web_search_call", "id": "ws_1", "status": "completed", "action": {"type": "search", "query": "q"}},
        {"type": "tool_search_call", "call_id": "c3", "execution": "client", "arguments": {}, "status": "completed"},
        {"type": "tool_search_output", "call_id": "c3", "execution": "client", "tools": [], "status": "completed"},
        {"type": "compaction", "encrypted_content": "x"},
        {
            "type": "message",
            "role": "assistant",
            "phase": "commentary",
            "content": [
                {
                    "type": "output_text",
                    "text": "a",
                    "annotations": [
                        {"type": "url_citation", "url": "https://a.org", "title": "A", "start_index": 0, "end_index": 1}
                    ],
                }
            ],
        },
        {"type": "message", "role": "user", "content": "go on"},
    ],
    "tools": [
        {
            "type": "function",
            "name": "shell",
            "description": "d",
            "strict": False,
            "parameters": {"type": "object"},
            "defer_loading": True,
        },
        {
            "type": "custom",
            "name": "apply_patch",
            "description": "p",
            "format": {"type": "grammar", "syntax": "lark", "definition": "start: x"},
        },
        {"type": "web_search", "external_web_access": False},
        {"type": "namespace", "name": "crm", "description": "d", "tools": [{"type": "function", "name": "find"}]},
        {"type": "tool_search", "execution": "client", "description": "d", "parameters": {}},
        {"type": "mcp", "server_label": "s", "server_url": "https://mcp.example", "require_approval": "never"},
        {"type": "brand_new"},
    ],
    "tool_choice": "auto",
    "parallel_tool_calls": True,
    "reasoning": {"effort": "high", "summary": "auto", "mode": "standard", "context": "auto"},
    "include": ["reasoning.encrypted_content", "web_search_call.action.sources"],
    "prompt_cache_key": "key",
    "prompt_cache_retention": "24h",
    "prompt_cache_options": {"ttl": "24h"},
    "text": {
        "verbosity": "low",
        "format": {"type": "json_schema", "name": "n", "schema": {"type": "object"}, "strict": True},
    },
    "service_tier": "priority",
    "truncation": "auto",
    "max_tool_calls": 3,
    "max_output_tokens": 100,
    "top_logprobs": 2,
    "safety_identifier": "somebody",
    "user": "me",
    "client_metadata": {"installation": "1"},
    "context_management": [{"type": "compaction"}],
    "access_programs": ["a"],
    "brand_new": {"a": 1},
    "store": False,
}
"""What Codex sends, and more that OpenAI's SDK can say."""

ITEM = {
    "type": "message",
    "id": "msg_1",
    "role": "assistant",
    "status": "completed",
    "content": [{"type": "output_text", "text": "Hello", "annotations": [], "logprobs": []}],
}
ANSWER: dict[str, Any] = {
    "id": "resp_1",
    "object": "response",
    "created_at": 1,
    "model": "small",
    "status": "completed",
    "output": [ITEM],
    "usage": {"input_tokens": 3, "output_tokens": 2, "total_tokens": 5},
}


def serving(vendor: Script, kind: LLMProvider = LLMProvider.OPENAI) -> Any:
    return served(vendor=vendor, kind=kind, responses=True, me={"vendor_ids": ("file-*",)})


def sent(s: Served) -> dict[str, Any]:
    """What the vendor was asked last."""
    request = s.vendors["cheap"].requests[-1]
    assert request.target == "/v1/responses"
    found: dict[str, Any] = json.loads(request.body)
    return found


async def test_nothing_of_a_request_is_lost() -> None:
    async with serving(reply(json.dumps(ANSWER).encode(), headers=JSON)) as s:
        answer = await s.ask("me", "POST", "/v1/responses", CODEX)
        assert answer.status == 200, answer.json
        assert answer.json["llm_runtime"].get("adjusted", []) == []
        asked = sent(s)

    assert asked == {**CODEX, "model": "small"}


async def test_what_is_for_the_daemon_does_not_go_on() -> None:
    async with serving(reply(json.dumps(ANSWER).encode(), headers=JSON)) as s:
        first = await s.ask("me", "POST", "/v1/responses", {"model": "cheap/small", "input": "hi"})
        second = await s.ask(
            "me",
            "POST",
            "/v1/responses",
            {"model": "cheap/small", "input": "and?", "previous_response_id": first.json["id"], "store": True}
            | {"metadata": {"team": "a"}},
        )
        assert second.json["metadata"] == {"team": "a"}
        asked = sent(s)

    assert asked["store"] is False, "the daemon stores, and nobody else"
    assert asked.keys() == {"model", "input", "store"}
    assert [item["role"] for item in asked["input"]] == ["user", "assistant", "user"]


async def test_items_with_the_vendors_ids_can_be_referred_to() -> None:
    """As the AI SDK does with all earlier items of stored responses, reasoning and searches included."""
    reasoning = {"type": "reasoning", "id": "rs_abc", "summary": [], "encrypted_content": "gAAA"}
    search = {"type": "web_search_call", "id": "ws_abc", "status": "completed", "action": {"type": "search"}}
    answer = ANSWER | {"output": [reasoning, search, ITEM]}
    async with served(
        vendor=reply(json.dumps(answer).encode(), headers=JSON),
        kind=LLMProvider.OPENAI,
        responses=True,
        me={},
        other={},
    ) as s:
        made = (await s.ask("me", "POST", "/v1/responses", {"model": "cheap/small", "input": "hi"})).json["output"]
        assert [item["id"] for item in made[:2]] == ["rs_abc", "ws_abc"]
        again = {
            "model": "cheap/small",
            "input": [
                {"role": "user", "content": "hi"},
                *({"type": "item_reference", "id": item["id"]} for item in made),
                {"role": "user", "content": "and?"},
            ],
        }
        assert (await s.ask("me", "POST", "/v1/responses", again)).status == 200
        _, *said, _ = sent(s)["input"]
        assert said[:2] == [reasoning, search]
        assert said[2]["content"] == "Hello"
        refused = await s.ask("other", "POST", "/v1/responses", again)
        assert (refused.status, refused.json["error"]["code"]) == (404, "item_not_found")


async def test_a_compatible_server_without_the_api_is_asked_over_chat() -> None:
    async with served(vendor=sse(*HELLO, *END), me={}) as s:  # see Peer: nothing is at /responses
        for _ in range(2):
            answer = await s.ask("me", "POST", "/v1/responses", {"model": "cheap/small", "input": "hi"})
            assert answer.json["output"][0]["content"][0]["text"] == "Hello there"
            (attempt,) = answer.json["llm_runtime"]["decision"]["attempts"]
            assert attempt["wire"] == "openai_chat"
        assert [each.target for each in s.vendors["cheap"].requests] == ["/v1/chat/completions"] * 2


# ---------------------------------------------------------------- recorded answers

RECORDED = [each for each in recordings("openai", "responses") if each.values[0].path.endswith("/responses")]


def plain(item: dict[str, Any]) -> dict[str, Any]:
    """What an item says, without what is ours to say (ids), and as it is said once (a summary's parts)."""
    match item["type"]:
        case "message":
            content = [
                {name: value for name, value in part.items() if value not in (None, [])} for part in item["content"]
            ]
            return {"type": "message", "content": content}
        case "function_call":
            return {name: item[name] for name in ("type", "call_id", "name", "arguments")}
        case "reasoning":
            text = "\n\n".join(part["text"] for part in item["summary"])
            return {"type": "reasoning", "text": text, "encrypted": item.get("encrypted_content")}
        case _:
            return item


def check_same(told: dict[str, Any], recorded: dict[str, Any]) -> None:
    assert [plain(item) for item in told["output"]] == [plain(item) for item in recorded["output"]]
    for field in ("status", "incomplete_details", "service_tier"):
        if recorded.get(field) is not None:
            assert told[field] == recorded[field], field
    counts = recorded.get("usage")
    if counts and counts["total_tokens"]:
        for name, value in counts.items():
            said = told["usage"][name]
            assert (said == said | value) if isinstance(value, dict) else said == value, name


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("recording", RECORDED)
async def test_recorded_answers_come_through(recording: Recording, stream: bool) -> None:
    """Whether the client wants it streamed or not, and whichever way the vendor said it."""
    is_streamed = not recording.body.lstrip().startswith("{")
    if is_streamed:
        events = read_sse(recording.body)
        ends = ("response.completed", "response.incomplete")
        # Each time that OpenAI tells an item, its encrypted content is another one.
        done = {event["item"]["id"]: event["item"] for event in events if event["type"] == "response.output_item.done"}
        bodies = [event["response"] for event in events if event["type"] in ends]
        bodies[0]["output"] = [done.get(item["id"], item) for item in bodies[0]["output"]]
        vendor: Script = chunked(recording.body.encode(), headers={"content-type": "text/event-stream"})
    else:
        bodies = [json.loads(recording.body)]
        vendor = reply(recording.body.encode(), headers=JSON)
    (recorded,) = bodies
    async with serving(vendor) as s:
        body = {"model": "cheap/small", "input": "hi", "stream": stream, "tools": recorded.get("tools") or []}
        answer = await s.ask("me", "POST", "/v1/responses", body)
        assert answer.status == 200, answer.body
    if stream:
        events = read_sse(answer.body.decode())
        assert [event["sequence_number"] for event in events] == sorted(event["sequence_number"] for event in events)
        told = events[-1]["response"]
        assert [each["item"] for each in events if each["type"] == "response.output_item.done"] == told["output"]
    else:
        told = answer.json
    check_same(told, recorded)
