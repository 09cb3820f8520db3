"""Whether all choices can come in one response: how many candidates are looked at for it."""

from __future__ import annotations

from types import SimpleNamespace
from typing import cast

import pytest

from llm_actors.catalog import Candidate
from llm_actors.orchestrator import candidates, gives_choices
from llm_actors.orchestrator.routing import Router
from llm_actors.orchestrator.services import Services
from llm_protocol.codec.fields import unsupported
from llm_protocol.content import Message
from llm_protocol.requests import AnyRequest, ChatRequest


@pytest.mark.parametrize(
    ("refused", "found", "looked_at"),
    [
        ({}, True, "abc"),
        ({"a": "tools"}, True, "abc"),
        ({"b": "n"}, False, "ab"),
        ({"a": "tools", "b": "tools", "c": "tools"}, False, "abc"),
    ],
)
async def test_one_candidate_without_n_decides(
    monkeypatch: pytest.MonkeyPatch, refused: dict[str, str], found: bool, looked_at: str
) -> None:
    looked: list[str] = []
    sizes: list[AnyRequest] = []

    def adapted_to(provider: str, request: AnyRequest) -> None:
        looked.append(provider)
        if provider in refused:
            raise unsupported(refused[provider], "no")

    def size(request: AnyRequest) -> int:
        sizes.append(request)
        return 0

    monkeypatch.setattr(candidates, "size_of", size)
    three = [Candidate(provider, "m") for provider in "abc"]
    monkeypatch.setattr(candidates, "adapted_to", adapted_to)
    services = cast(Services, SimpleNamespace(wires={provider: provider for provider in "abc"}))
    router = cast(Router, SimpleNamespace(route=lambda _: SimpleNamespace(candidates=three)))
    request = ChatRequest(model="m", messages=(Message.of("user", "hi"),), n=3)
    assert await gives_choices(services, router, request) is found
    assert ("".join(looked), sizes) == (looked_at, [request])
