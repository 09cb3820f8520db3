"""Every cell of the table through the daemon: asked over HTTP in the words of each wire, looked for at the vendor."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager
from typing import Any, NamedTuple

import pytest
import trio

from llm_protocol.parameters.requested import value_at
from llm_protocol.parameters.rows import Cell, Parameter
from llm_protocol.parameters.targets import TARGETS
from llm_protocol.policy import Attempts
from llm_protocol.secret import Secret
from llm_runtime.config import Config, Provider, Server
from llm_runtime.runtime import Runtime
from llm_runtime.server import ListenAddress, server_child
from support.parameter_cells import COMMON, MODELS, OWN, PLACES, body_with, common_body
from support.peer import Peer, reply
from support.server import HttpClient, Reply
from support.upstream import JSON, whole

pytestmark = pytest.mark.time_limit(120)

KINDS: dict[str, dict[str, Any]] = {
    "openai": {"kind": "openai", "wire": "chat"},
    "responses": {"kind": "openai", "wire": "responses"},
    "cerebras": {"kind": "cerebras"},
    "compatible": {"kind": "openai_compatible", "wire": "chat"},
    "anthropic": {"kind": "anthropic"},
    "gemini": {"kind": "gemini"},
    "cohere": {"kind": "cohere"},
}
"""The provider for each target; the local model is a process of its own, and speaks as a compatible server does."""

_TEXT = {"type": "text", "text": "hello"}
ANSWERS: dict[str, Any] = {
    "responses": {
        "id": "resp_1",
        "object": "response",
        "status": "completed",
        "model": "m",
        "output": [{"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "hello"}]}],
        "usage": {"input_tokens": 1, "output_tokens": 1, "total_tokens": 2},
    },
    "anthropic": {
        "id": "msg_1",
        "type": "message",
        "role": "assistant",
        "model": "m",
        "content": [_TEXT],
        "stop_reason": "end_turn",
        "usage": {"input_tokens": 1, "output_tokens": 1},
    },
    "gemini": {"candidates": [{"content": {"parts": [{"text": "hello"}], "role": "model"}, "finishReason": "STOP"}]},
    "cohere": {"id": "1", "finish_reason": "COMPLETE", "message": {"role": "assistant", "content": [_TEXT]}},
}


class Case(NamedTuple):
    """One parameter in the words of one wire."""

    row: Parameter
    wire: str
    path: str
    body: dict[str, Any]


def cases() -> Iterator[Case]:
    """Each row over each wire that has it."""
    for row in OWN:
        for wire, path in row.wires.items():
            yield Case(row, wire, path, body_with(wire, path, row.example))
    for row in COMMON:
        wire, body = common_body(row)
        yield Case(row, wire, row.wires[wire], body)


@asynccontextmanager
async def daemon(target: str) -> AsyncIterator[tuple[HttpClient, Peer, str]]:
    """A client of a daemon whose one provider speaks as ``target``, that provider, and its model."""
    model = MODELS.get(target, "m")
    answer = json.dumps(ANSWERS[target]).encode() if target in ANSWERS else whole("hello")
    addresses: list[ListenAddress] = []
    server = Server(port=0, drain_s=1)
    async with Peer(reply(answer, headers=JSON), responses=True) as peer:
        base = peer.url if target in ("anthropic", "gemini", "cohere") else f"{peer.url}/v1"
        provider = Provider(base_url=base, api_key=Secret("sk-vendor"), models=(model,), **KINDS[target])
        config = Config(server=server, providers={"p": provider}, attempts=Attempts(max=1))
        runtime = Runtime(config, servers=lambda rt: server_child(server, rt, addresses.append))
        async with runtime.running():
            async with HttpClient(await trio.open_tcp_stream(addresses[0].host, addresses[0].port)) as client:
                yield client, peer, model


def told_in(got: Reply) -> dict[str, str]:
    """What the header says was changed: parameter and action."""
    items = got.headers.get("x-llm-runtime-adjusted", "")
    return {item.split('"')[1]: item.split("action=")[1].split(";")[0] for item in items.split(", ") if item}


def fault(case: Case, target: str, got: Reply, sent: Mapping[str, Any] | None) -> str | None:
    """What is not as the cell says; ``None``: all of it is."""
    cell: Cell = case.row.cell(TARGETS[target])
    told = told_in(got).get(case.path)
    if cell.action == "refuse":
        error = json.loads(got.body)
        if got.status != 400 or sent is not None or case.path not in json.dumps(error):
            return f"is to be refused by name before any call, and is {got.status} {got.body[:200]!r}"
        return None
    if got.status != 200 or sent is None:
        return f"is {got.status} {got.body[:200]!r}"
    name = case.row.wires.get("openai_chat" if target == "cerebras" else TARGETS[target].wire)
    found = None if name is None else value_at(sent, name)
    match cell.action:
        case "send" if case.row.field is None and (found is None or told is not None):
            return f"is to be sent, and is {found!r} there, told as {told}"
        case "send" if told not in (None, "translated"):
            return f"is to be sent, and is told as {told}"
        case "leave out" if told != "left_out":
            return f"is to be left out, and is told as {told}"
        case "emulate" if told != "emulated":
            return f"is to be emulated, and is told as {told}"
        case "translate" if case.row.field is None and (told is None) is not (found == case.row.example):
            return f"is to be translated, and is {found!r} there, told as {told}"
        case "translate" if case.row.field is not None and told != "translated":
            return f"is to be translated, and is told as {told}"
        case _:
            return None


@pytest.mark.parametrize("target", KINDS)
async def test_every_cell_is_as_the_table_says(target: str) -> None:
    faults: list[str] = []
    count = 0
    async with daemon(target) as (client, peer, model):
        for case in cases():
            count += 1
            before = len(peer.requests)
            path = PLACES[case.wire][0].format(model=f"p/{model}")
            got = await client.request("POST", path, {"model": f"p/{model}", **case.body})
            calls = peer.requests[before:]
            sent = json.loads(calls[-1].body) if calls else None
            if (wrong := fault(case, target, got, sent)) is not None:
                faults.append(f"{case.row.name} over {case.wire} {wrong}")
    assert not faults, "\n".join([f"{len(faults)} of {count} at {target}:", *faults])
