"""How many tokens a prompt has: by the vendor where it counts, else by our estimate."""

from __future__ import annotations

import json

import msgspec
import pytest
import trio.testing

import llm_runtime
from llm_protocol.content import Message
from llm_protocol.errors import ModelNotFoundError
from llm_protocol.requests import ChatRequest, LLMProvider, Parameters
from llm_protocol.response import TokenCount
from llm_protocol.secret import Secret
from llm_runtime.config import Config, Provider
from support.peer import Peer, Script, reply, reset, stall
from support.upstream import JSON

REQUEST = ChatRequest(model="p/m", messages=(Message.of("user", "Say hello to everybody."),))
ESTIMATE = 10
COUNTING = {
    LLMProvider.ANTHROPIC: ("/v1/messages/count_tokens", b'{"input_tokens": 7}'),
    LLMProvider.GEMINI: ("/v1beta/models/m:countTokens", b'{"totalTokens": 7, "promptTokensDetails": []}'),
}


async def counted(kind: LLMProvider, *scripts: Script) -> tuple[TokenCount, Peer]:
    async with Peer(*scripts) as peer:
        provider = Provider(kind=kind, base_url=peer.url, api_key=Secret("k"), models=("m",))
        async with llm_runtime.open_runtime(Config(providers={"p": provider})) as rt:
            return await rt.count_tokens(REQUEST), peer


@pytest.mark.parametrize("kind", COUNTING)
async def test_a_vendor_that_counts_is_asked(kind: LLMProvider) -> None:
    path, body = COUNTING[kind]
    found, peer = await counted(kind, reply(body, headers=JSON))
    assert found == TokenCount(7, estimated=False)
    assert peer.requests[0].target == path
    sent = json.loads(peer.requests[0].body)
    assert "max_tokens" not in sent
    assert "stream" not in sent
    assert "Say hello to everybody." in str(sent)


@pytest.mark.parametrize("kind", [LLMProvider.OPENAI_COMPATIBLE, LLMProvider.COHERE])
async def test_one_that_does_not_is_not(kind: LLMProvider) -> None:
    found, peer = await counted(kind, reply(b"{}", headers=JSON))
    assert found == TokenCount(ESTIMATE, estimated=True)
    assert peer.requests == []


@pytest.mark.parametrize("kind", COUNTING)
@pytest.mark.parametrize(
    "script",
    [
        reply(b'{"error": {"message": "no"}}', status=404, headers=JSON),
        reply(b'{"error": {"message": "no"}}', status=401, headers=JSON),
        reply(b'{"input_tokens": "7"}', headers=JSON),
        reply(b"nonsense", headers=JSON),
        reset(),
        stall(),
    ],
)
async def test_what_the_vendor_cannot_tell_is_estimated(
    kind: LLMProvider, script: Script, autojump_clock: trio.testing.MockClock
) -> None:
    found, _ = await counted(kind, script)
    assert found == TokenCount(ESTIMATE, estimated=True)


async def test_an_unknown_model_has_no_count() -> None:
    provider = Provider(kind=LLMProvider.COHERE, base_url="http://127.0.0.1:1", api_key=Secret("k"), models=("m",))
    async with llm_runtime.open_runtime(Config(providers={"p": provider})) as rt:
        with pytest.raises(ModelNotFoundError):
            await rt.count_tokens(ChatRequest(model="nobody's", messages=REQUEST.messages))


@pytest.mark.parametrize(("wire", "target"), [("openai_responses", "/responses/input_tokens"), ("openai_chat", None)])
async def test_openai_counts_what_goes_over_its_responses_api(wire: str, target: str | None) -> None:
    request = msgspec.structs.replace(REQUEST, parameters=Parameters(wire=wire))
    async with Peer(reply(b'{"input_tokens": 7}', headers=JSON)) as peer:
        provider = Provider(kind=LLMProvider.OPENAI, base_url=peer.url, api_key=Secret("k"), models=("m",))
        async with llm_runtime.open_runtime(Config(providers={"p": provider})) as rt:
            found = await rt.count_tokens(request)
        assert [each.target for each in peer.requests] == ([target] if target else [])
        assert found == (TokenCount(7, estimated=False) if target else TokenCount(ESTIMATE, estimated=True))
