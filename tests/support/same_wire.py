"""The daemon before a capturing fake of one vendor, and what that vendor's SDK knows."""

from __future__ import annotations

import json
import tomllib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from llm_protocol.secret import Secret
from llm_runtime.config import Config, Provider, Server
from llm_runtime.runtime import Runtime
from llm_runtime.server import ListenAddress, server_child
from support.drift import EXPLAINED, SURFACE, is_explained
from support.peer import Peer

SURFACES: dict[str, Any] = json.loads(SURFACE.read_text(encoding="utf-8"))
REASONS: dict[str, str] = tomllib.loads(EXPLAINED.read_text(encoding="utf-8"))


KINDS = {
    "openai chat": "openai",
    "openai responses": "openai",
    "openai embeddings": "openai",
    "openai images": "openai",
    "anthropic messages": "anthropic",
    "anthropic beta messages": "anthropic",
    "gemini generationConfig": "gemini",
    "cohere chat": "cohere",
    "cohere embed": "cohere",
    "cerebras chat": "cerebras",
}
"""The kind of provider for each endpoint."""
SAMPLES = {name: name.replace("generationConfig", "generateContent") for name in KINDS}
"""Which sample is the answer."""
_FUNCTION = {"name": "f", "parameters": {"type": "object", "properties": {}}}
_CHAT_TOOLS = {"tools": [{"type": "function", "function": _FUNCTION}]}
BESIDE: dict[tuple[str, str], dict[str, Any]] = {
    ("openai chat", "parallel_tool_calls"): _CHAT_TOOLS,
    ("cerebras chat", "parallel_tool_calls"): _CHAT_TOOLS,
    ("cerebras chat", "tools"): _CHAT_TOOLS,  # of whatever type, its SDK says
    ("openai responses", "parallel_tool_calls"): {"tools": [{"type": "function", **_FUNCTION}]},
}
"""What a parameter is sent with where its vendor refuses it alone."""
AGENTS = {"cerebras chat": {"user-agent": "Cerebras/Python 1.91.0"}}
"""How an SDK names itself where that decides what it is told."""
VERSIONED = ("openai", "cerebras")


@asynccontextmanager
async def daemon_before(vendor: Peer, kind: str) -> AsyncIterator[str]:
    """A daemon whose one provider is ``vendor``, with the model ``m``; its address."""
    base_url = vendor.url + ("/v1" if kind in VERSIONED else "")
    provider = Provider(kind=kind, base_url=base_url, api_key=Secret("sk-test"), models=("m",))
    addresses: list[ListenAddress] = []
    runtime = Runtime(
        Config(providers={"p": provider}),
        servers=lambda rt: server_child(Server(host="127.0.0.1", port=0, drain_s=1), rt, addresses.append),
    )
    async with runtime.running():
        yield addresses[0].url


def unexplained(lost: dict[str, str]) -> dict[str, str]:
    """What is not as it was, and has no reason in vendor_drift.toml."""
    return {name: what for name, what in lost.items() if not is_explained(name, REASONS)}


def cut(value: Any) -> Any:
    """A sample with one member in each list: a short answer."""
    match value:
        case dict():
            return {name: cut(inner) for name, inner in value.items()}
        case list():
            return [cut(inner) for inner in value[:1]]
        case _:
            return value
