"""Every event of every kind of response, over HTTP and WebSocket, against the types of OpenAI's newest SDK."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import trio

from llm_actors.run import Run
from llm_protocol.content import Image, Opaque, Part, Reasoning, Refusal, Text, ToolCall
from llm_protocol.events import (
    Failed,
    Finished,
    ItemKind,
    ItemStarted,
    MemberDelta,
    MemberDone,
    MemberFailed,
    MemberStarted,
    ReasoningDelta,
    Restarted,
    Started,
    TextDelta,
    ToolCallDelta,
    UsageReported,
)
from llm_protocol.failures import Failure, FailureKind
from llm_protocol.fold import item_events
from llm_protocol.response import FinishReason, Usage
from support.sdk import ROOT, SDKS, sdk_python
from support.server import Script, hanging, open_server
from support.ws import WsClient, connected, ids

SCRIPTS_AT = Path(__file__).with_name("scripts")
CHECKERS = {
    "openai_events.py": ("openai", SDKS["openai"]),
    "open_responses_events.py": ("open-responses", "openresponses-types>=2.4,<3"),
}
"""By script: its environment, and what is in it."""
PARTS: tuple[Part, ...] = (
    Reasoning(text="let me think", id="rs_1", encrypted="secret", dialect="openai_responses"),
    Reasoning(text="", id="t", signature="s", dialect="anthropic"),
    Text("héllo", extra={"openai_responses": {"annotations": [{"type": "url_citation", "url": "https://e.example/",
         "title": "t", "start_index": 0, "end_index": 2}]}}),
    Refusal("no"),
    ToolCall(id="call_1", name="f", arguments='{"a":1}'),
    Image(data=b"\x89PNG\r\n\x1a\n", media_type="image/png"),
    Opaque(dialect="openai_responses", value={"type": "web_search_call", "id": "ws_1", "status": "completed",
           "action": {"type": "search", "query": "q", "queries": ["q"], "sources": None}}),
)  # fmt: skip


def ended(reason: FinishReason | Failure, *parts: Part, unfinished: bool = False, counted: bool = True) -> Script:
    """An answer of these parts, perhaps with some that have no end, and how it ends."""

    async def script(run: Run) -> None:
        log = run.log
        log.append(Started(model="fake-1", provider="fake"))
        log.append(MemberStarted(member="a", request_id="r"))
        log.append(MemberDelta("a", "x"))
        log.append(MemberDone(member="a", usage=Usage(input_tokens=1)))
        log.append(MemberFailed(member="b", failure=Failure(kind=FailureKind.CANCELLED, message="late")))
        for event in item_events(0, Text("void")):
            log.append(event)
        log.append(Restarted())
        for index, part in enumerate(parts):
            for event in item_events(index, part, piece=3):
                log.append(event)
        if unfinished:
            at = len(parts)
            halves = ReasoningDelta(at, "hm"), TextDelta(at + 1, "so"), ToolCallDelta(at + 2, '{"b')
            kinds: tuple[ItemKind, ...] = ("reasoning", "text", "tool_call", "image")
            for place, kind in enumerate(kinds, at):
                log.append(ItemStarted(index=place, kind=kind, id=f"call_{place}", name="g"))
            for half in halves:
                log.append(half)
        if counted:
            log.append(UsageReported(Usage(input_tokens=3, output_tokens=2, cached_tokens=1, reasoning_tokens=1)))
        if isinstance(reason, Failure):
            log.append(Failed(failure=reason, response=run.folded(provider="fake")))
        else:
            log.append(Finished(reason=reason, response=run.folded(provider="fake")))

    return script


SCRIPTS: dict[str, Script] = {
    **{f"{reason}": ended(reason, *PARTS) for reason in FinishReason},
    **{f"{reason} in a text": ended(reason, Text("cut")) for reason in FinishReason},
    **{f"{reason} in a thought": ended(reason, Reasoning(text="cut")) for reason in FinishReason},
    **{f"{reason}, unfinished": ended(reason, *PARTS, unfinished=True) for reason in FinishReason},
    **{
        f"{kind}": ended(Failure(kind=kind, message="so", partial=True, retry_after=2.0), *PARTS, unfinished=True)
        for kind in FailureKind
    },
    "nothing": ended(FinishReason.STOP, counted=False),
    "failed with nothing": ended(Failure(kind=FailureKind.CRASHED, message="so"), counted=False),
}

CREATE: dict[str, Any] = {
    "model": "m",
    "input": "hi",
    "instructions": "be brief",
    "metadata": {"k": "v"},
    "temperature": 0.5,
    "tools": [{"type": "function", "name": "f", "parameters": {"type": "object"}, "strict": False}],
    "text": {"format": {"type": "json_schema", "name": "n", "schema": {"type": "object"}}},
    "reasoning": {"effort": "low", "summary": "auto"},
    "max_output_tokens": 100,
    "llm_runtime": {"stream_members": True},
}


async def all_of(name: str, script: Script) -> list[tuple[str, str, Any]]:
    """What is said of one response: over WebSocket, resumed from everywhere over HTTP, and whole."""
    found: list[tuple[str, str, Any]] = []
    async with open_server(script) as server, connected(server) as ws:
        await ws.create(**CREATE)
        events = await ws.response()
        found += [("websocket", f"{name}: event {place}", event) for place, event in enumerate(events)]
        if events[-1]["type"] == "error":
            return found
        url = f"/v1/responses/{ids(events)}"
        found.append(("body", f"{name}: GET", (await server.request("GET", url)).json))
        for after in (-1, events[-1]["sequence_number"] // 2, 10**6):
            rest = (await server.request("GET", f"{url}?stream=true&starting_after={after}")).events[:-1]
            found += [("http", f"{name}: after {after}: {place}", event) for place, event in enumerate(rest)]
        whole = await server.request("POST", "/v1/responses", CREATE)
        if whole.status == 200:
            found.append(("body", f"{name}: POST", whole.json))
    return found


async def of_waiting() -> list[tuple[str, str, Any]]:
    """What is said of responses that wait, are cancelled, run in the background, or are refused."""
    async with open_server(hanging) as server, connected(server) as ws:
        found: list[Any] = []

        async def until(kind: str, ws: WsClient = ws) -> dict[str, Any]:
            while (event := await ws.event())["type"] != kind:
                found.append(event)
            found.append(event)
            return event

        await ws.create(**CREATE)
        await until("response.output_text.delta")
        await ws.create(**CREATE, stream_id="a", background=True)
        await until("response.output_text.delta")
        await ws.create(**CREATE)
        waiting = ids([await until("response.queued")])
        bodies = [(await server.request("GET", f"/v1/responses/{waiting}")).json]
        await ws.send({"type": "response.cancel", "response_id": waiting})
        await until("response.incomplete")
        await ws.send({"type": "response.cancel", "stream_id": "a"})
        ended = ids([await until("response.incomplete")])
        bodies.append((await server.request("GET", f"/v1/responses/{ended}")).json)
        await ws.send({"type": "response.cancel", "response_id": "resp_none", "event_id": "e"})
        await until("error")
        await ws.create(previous_response_id="resp_none", stream_id="b")
        await until("error")
        await ws.send(
            {
                "type": "response.steer",
                "previous_response_id": ended,
                "input": [{"type": "message", "role": "user", "content": "so"}],
            }
        )
        assert (await until("response.steer.failed"))["steer"]["previous_response_id"] == ended
        await ws.create(generate=False, stream_id="b")
        await until("response.completed")
        begun = await server.request("POST", "/v1/responses", CREATE | {"background": True})
        bodies += [begun.json, (await server.request("POST", f"/v1/responses/{begun.json['id']}/cancel")).json]
        return [("websocket", f"waiting {place}", event) for place, event in enumerate(found)] + [
            ("body", f"waiting {place}", body) for place, body in enumerate(bodies)
        ]


@pytest.mark.time_limit(300)
async def test_every_event_is_one_that_the_newest_sdk_and_the_open_schema_describe() -> None:
    """The newest SDK of OpenAI, and the schema of Open Responses."""
    found = await of_waiting()
    for name, script in SCRIPTS.items():
        found += await all_of(name, script)
    lines = "".join(json.dumps(each) + "\n" for each in found).encode()
    for checker, (environment, package) in CHECKERS.items():
        python = await trio.to_thread.run_sync(sdk_python, environment, package)
        command = [python, str(SCRIPTS_AT / checker)]
        done = await trio.run_process(
            command, stdin=lines, capture_stdout=True, capture_stderr=True, check=False, cwd=ROOT / "tests"
        )
        assert done.returncode == 0, done.stderr.decode()
        assert int(done.stdout.split()[1]) > 1_000
