"""Callers share the vendor's account, and never what another of them keeps there."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import pytest

from llm_actors.run import Run
from llm_protocol.codec.fields import bad_request
from llm_protocol.content import HostedTool
from llm_protocol.errors import BadRequestError
from llm_protocol.events import Finished
from llm_protocol.requests import ChatRequest, LLMProvider, Parameters
from llm_protocol.response import FinishReason, LLMResponse
from llm_protocol.secret import Secret
from llm_runtime.config import Key
from llm_runtime.server import issued_ids
from llm_runtime.server.issued_ids import IssuedIds
from support.callers import Served, served
from support.peer import Script, reply, sse
from support.upstream import JSON

MESSAGE: dict[str, Any] = {
    "model": "cheap/small",
    "max_tokens": 10,
    "messages": [{"role": "user", "content": "hi"}],
}
ANSWER: dict[str, Any] = {
    "id": "msg_1",
    "type": "message",
    "role": "assistant",
    "model": "small",
    "content": [
        {"type": "text", "text": "made"},
        {
            "type": "bash_code_execution_tool_result",
            "tool_use_id": "srvtoolu_1",
            "content": {
                "type": "bash_code_execution_result",
                "stdout": "",
                "stderr": "",
                "return_code": 0,
                "content": [{"type": "bash_code_execution_output", "file_id": "file_1"}],
            },
        },
    ],
    "stop_reason": "end_turn",
    "stop_sequence": None,
    "container": {"id": "container_1", "expires_at": "2027-01-01T00:00:00Z"},
    "usage": {"input_tokens": 1, "output_tokens": 1},
}


def _streamed() -> Script:
    def event(kind: str, **fields: Any) -> str:
        return json.dumps({"type": kind, **fields})

    events = [event("message_start", message=ANSWER | {"content": [], "stop_reason": None, "container": None})]
    for at, block in enumerate(ANSWER["content"]):
        begun = block | {"text": ""} if block["type"] == "text" else block
        events.append(event("content_block_start", index=at, content_block=begun))
        if block["type"] == "text":
            events.append(event("content_block_delta", index=at, delta={"type": "text_delta", "text": "made"}))
        events.append(event("content_block_stop", index=at))
    delta = {"stop_reason": "end_turn", "stop_sequence": None, "container": ANSWER["container"]}
    events += [event("message_delta", delta=delta, usage={"output_tokens": 1}), event("message_stop")]
    return sse(*events)


USES: dict[str, dict[str, Any]] = {
    "container": {"container": "container_1"},
    "container with skills": {"container": {"id": "container_1", "skills": []}},
    "file": {
        "messages": [
            {
                "role": "user",
                "content": [{"type": "document", "source": {"type": "file", "file_id": "file_1"}}],
            }
        ]
    },
    "upload": {"messages": [{"role": "user", "content": [{"type": "container_upload", "file_id": "file_1"}]}]},
}


async def _use(daemon: Served, caller: str, fields: Mapping[str, Any]) -> tuple[int, str]:
    got = await daemon.ask(caller, "POST", "/v1/messages", {**MESSAGE, **fields})
    return got.status, "" if got.status == 200 else json.loads(got.body)["error"]["message"]


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
@pytest.mark.parametrize("use", USES)
async def test_an_id_is_of_use_to_whoever_was_given_it(use: str, stream: bool) -> None:
    script = _streamed() if stream else reply(json.dumps(ANSWER).encode(), headers=JSON)
    async with served(kind=LLMProvider.ANTHROPIC, vendor=script, alice={}, bob={}) as daemon:
        status, refused = await _use(daemon, "alice", USES[use])
        assert status == 400
        assert "was not issued to this key" in refused
        assert daemon.asked() == {}
        made = await daemon.ask("alice", "POST", "/v1/messages", {**MESSAGE, "stream": stream})
        assert made.status == 200
        assert b"container_1" in made.body
        assert await _use(daemon, "bob", USES[use]) == (400, refused)
        count = await daemon.ask("bob", "POST", "/v1/messages/count_tokens", {**MESSAGE, **USES[use]})
        assert count.status == 400
        assert daemon.asked() == {"cheap": 1}
        again = await daemon.ask("alice", "POST", "/v1/messages", {**MESSAGE, **USES[use], "stream": stream})
        assert again.status == 200
        assert daemon.asked() == {"cheap": 2}


async def test_without_keys_everything_is_sent_on() -> None:
    async with served(kind=LLMProvider.ANTHROPIC, vendor=reply(json.dumps(ANSWER).encode(), headers=JSON)) as daemon:
        assert await _use(daemon, "", USES["file"]) == (200, "")


async def test_a_key_may_be_allowed_more() -> None:
    """What the operator has put into the account for this caller."""
    vendor = reply(json.dumps(ANSWER).encode(), headers=JSON)
    async with served(kind=LLMProvider.ANTHROPIC, vendor=vendor, alice={"vendor_ids": ("file_*",)}) as daemon:
        assert (await _use(daemon, "alice", USES["container"]))[0] == 400
        assert await _use(daemon, "alice", USES["file"]) == (200, "")


FILE = "https://generativelanguage.googleapis.com/v1beta/files/abc"
PICTURE = {"parts": [{"fileData": {"mimeType": "image/png", "fileUri": FILE}}], "role": "model"}
DRAWN = {"candidates": [{"content": PICTURE, "finishReason": "STOP"}], "usageMetadata": {"promptTokenCount": 1}}


def _picture(url: str) -> dict[str, Any]:
    return {"input": [{"role": "user", "content": [{"type": "input_image", "image_url": url}]}]}


async def test_over_a_websocket_as_over_http() -> None:
    """A file of the vendor's, and a response of the runtime's own."""
    async with served(kind=LLMProvider.GEMINI, vendor=sse(json.dumps(DRAWN)), alice={}, bob={}) as daemon:
        async with daemon.websocket("alice") as alice, daemon.websocket("bob") as bob:
            await alice.create(model="cheap/small")
            made = (await alice.response())[-1]
            assert made["type"] == "response.completed"
            for url in (FILE, "files/abc"):
                await bob.create(model="cheap/small", **_picture(url))
                refused = await bob.event()
                assert (refused["type"], refused["status"]) == ("error", 400)
                assert refused["error"]["message"].startswith("url: 'files/abc' was not issued to this key; ")
            await bob.create(model="cheap/small", previous_response_id=made["response"]["id"])
            refused = await bob.event()
            assert refused["error"]["code"] == "previous_response_not_found"
            assert daemon.asked() == {"cheap": 1}
            await alice.create(model="cheap/small", **_picture("files/abc"))
            assert (await alice.response())[-1]["type"] == "response.completed"
            await alice.create(model="cheap/small", previous_response_id=made["response"]["id"])
            assert (await alice.response())[-1]["type"] == "response.completed"
            assert daemon.asked() == {"cheap": 3}
        for caller, status in (("bob", 400), ("alice", 200)):
            for body in (_picture(FILE), {"input": "go on", "previous_response_id": made["response"]["id"]}):
                got = await daemon.ask(caller, "POST", "/v1/responses", {"model": "cheap/small", **body})
                assert got.status == status, got.body


def _asked(vendor_id: str, caller: str = "alice") -> ChatRequest:
    return ChatRequest(messages=(), caller=caller, parameters=Parameters(extra={"anthropic": {"container": vendor_id}}))


async def test_the_least_recently_used_ids_are_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(issued_ids, "ISSUED_IDS", 2)
    issued = IssuedIds({"alice": Key(secret=Secret("sk-alice"))})
    issued.note("alice", ["one", "two"])
    issued.check(_asked("one"))
    issued.note("alice", ["three"])
    issued.check(_asked("one"))
    with pytest.raises(BadRequestError) as caught:
        issued.check(_asked("two"))
    advice = "the daemon's operator can allow it in keys.NAME.vendor_ids"
    message = f"container: 'two' was not issued to this key; {advice}"
    assert str(caught.value) == str(bad_request("container", message))


async def test_other_processes_are_asked_once_for_each_id_and_not_for_too_many(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def asked(count: int) -> ChatRequest:
        ids = [f"vs_{number}" for number in range(count)] * 3
        tool = HostedTool(dialect="openai", value={"type": "file_search", "vector_store_ids": ids})
        return ChatRequest(messages=(), caller="alice", tools=(tool,))

    monkeypatch.setattr(issued_ids, "UNKNOWN_IDS", 5)
    issued = IssuedIds({"alice": Key(secret=Secret("sk-alice"))})
    assert issued.unissued(asked(5)) == [f"vs_{number}" for number in range(5)]
    with pytest.raises(BadRequestError, match="more than 5 ids"):
        issued.unissued(asked(6))
    issued.note("alice", ["vs_3"])
    assert len(issued.unissued(asked(6))) == 5


async def test_a_run_that_has_ended_before_it_is_watched() -> None:
    """A response of the cache ends while it is being accepted."""
    issued = IssuedIds({"alice": Key(secret=Secret("sk-alice"))})
    run = Run(_asked("container_1"), stream=False)
    response = LLMResponse(
        request_id="r", provider="p", model="m", extra={"anthropic": {"body": {"container": {"id": "container_1"}}}}
    )
    run.finish(Finished(reason=FinishReason.STOP), response)
    issued.watch(run)
    issued.check(_asked("container_1"))
