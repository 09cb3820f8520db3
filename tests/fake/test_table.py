"""Vendors x request types x (whole, streamed), through a runtime with its server: each works end to end against the
fake provider, or is refused with the documented error before any call. The README prints the same table.
"""

from __future__ import annotations

import base64
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trio

from llm_protocol.errors import UnsupportedError
from llm_protocol.requests import LLMProvider, RequestType
from llm_protocol.secret import Secret
from llm_runtime.config import Config, Provider, Server
from llm_runtime.fake import FakeProvider, Fault, ScriptRule
from llm_runtime.fake.answers import picture, vector
from llm_runtime.runtime import Runtime
from llm_runtime.server import ListenAddress, server_child
from support.faking import KEY
from support.offers import NEVER_STREAMED, TITLES, TYPES, Offer, offer
from support.server import HttpClient, Reply

PATHS = {
    RequestType.CHAT: "/v1/chat/completions",
    RequestType.COMPLETION: "/v1/completions",
    RequestType.EMBEDDING: "/v1/embeddings",
    RequestType.IMAGE_GENERATION: "/v1/images/generations",
    RequestType.CODE_GENERATION: "/v1/code/generations",
}
BODIES: dict[RequestType, dict[str, Any]] = {
    RequestType.CHAT: {"messages": [{"role": "user", "content": "Once upon"}]},
    RequestType.COMPLETION: {"prompt": "Once upon"},
    RequestType.EMBEDDING: {"input": ["Once upon"]},
    RequestType.IMAGE_GENERATION: {"prompt": "Once upon"},
    RequestType.CODE_GENERATION: {"instruction": "fibonacci", "language": "python"},
}
CODE = ScriptRule(contains="fibonacci", text="```python\ndef fib(): ...\n```")
HTTP_CASES = [(kind, each, stream) for kind in TITLES for each in PATHS for stream in (False, True)]


class Endpoint:
    """A runtime with all vendors, each faked, and clients for it."""

    def __init__(self, runtime: Runtime, fake: FakeProvider, address: ListenAddress) -> None:
        self.runtime = runtime
        self.fake = fake
        self.address = address

    async def ask(self, kind: LLMProvider, request_type: RequestType, *, stream: bool) -> Reply:
        body = {"model": f"{kind}/m", **BODIES[request_type]} | ({"stream": True} if stream else {})
        async with HttpClient(await trio.open_tcp_stream(self.address.host, self.address.port)) as client:
            return await client.request("POST", PATHS[request_type], body)


@asynccontextmanager
async def server() -> AsyncIterator[Endpoint]:
    async with FakeProvider(CODE, key=KEY) as fake:
        providers = {
            kind.value: Provider(kind=kind, base_url=fake.base_url(kind), api_key=Secret(KEY), models=("m",))
            for kind in TITLES
        }
        addresses: list[ListenAddress] = []
        config = Server(port=0, drain_s=0.5)
        runtime = Runtime(Config(providers=providers), servers=lambda own: server_child(config, own, addresses.append))
        async with runtime.running():
            yield Endpoint(runtime, fake, addresses[0])


def said(reply: Reply, request_type: RequestType, *, stream: bool) -> str:
    """The text, or the first picture or vector, of an answer."""
    if stream:
        assert reply.events[-1] == "[DONE]"
        choices = [choice for event in reply.events[:-1] for choice in event["choices"]]
        return "".join(choice.get("text") or choice.get("delta", {}).get("content") or "" for choice in choices)
    match request_type:
        case RequestType.CHAT | RequestType.CODE_GENERATION:
            return str(reply.json["choices"][0]["message"]["content"])
        case RequestType.COMPLETION:
            return str(reply.json["choices"][0]["text"])
        case RequestType.EMBEDDING:
            return json.dumps(reply.json["data"][0]["embedding"])
        case _:
            return str(reply.json["data"][0]["b64_json"])


def expected(kind: LLMProvider, request_type: RequestType) -> str:
    match request_type:
        case RequestType.COMPLETION if offer(kind, request_type) is Offer.NATIVE:
            return "You wrote: Once upon"
        case RequestType.CODE_GENERATION:
            return "def fib(): ..."  # without the fences that the fake puts around it
        case RequestType.CHAT | RequestType.COMPLETION:
            return "You said: Once upon"
        case RequestType.EMBEDDING:
            return json.dumps(list(vector("Once upon", 16)))
        case _:
            return base64.b64encode(picture("Once upon0")).decode()


@pytest.mark.parametrize(("kind", "request_type", "stream"), HTTP_CASES)
async def test_it_works_end_to_end_or_is_refused_before_any_call(
    kind: LLMProvider, request_type: RequestType, stream: bool
) -> None:
    async with server() as opened:
        reply = await opened.ask(kind, request_type, stream=stream)
        if stream and request_type in NEVER_STREAMED:
            assert (reply.status, reply.json["error"]["param"]) == (400, "stream")
            assert opened.fake.journal.asked == 0
        elif offer(kind, request_type) is Offer.REFUSED:
            assert (reply.status, reply.json["error"]["code"]) == (400, "unsupported_parameter")
            able = [other.value for other in TITLES if offer(other, request_type) is not Offer.REFUSED]
            assert reply.json["error"]["message"].endswith(f"these providers do: {', '.join(able)}")
            assert opened.fake.journal.asked == 0
        else:
            assert reply.status == 200, reply.body
            assert said(reply, request_type, stream=stream).strip() == expected(kind, request_type)
            assert [seen.kind for seen in opened.fake.journal.requests] == [kind]
            assert opened.fake.journal.requests[0].stream is stream


@pytest.mark.parametrize("kind", TITLES)
@pytest.mark.parametrize(
    ("status", "told", "code"),
    [(400, 400, "invalid_request"), (401, 424, "provider_auth"), (404, 404, "model_not_found")],
)
async def test_what_cannot_get_better_is_one_call_and_a_typed_error(
    kind: LLMProvider, status: int, told: int, code: str
) -> None:
    """Through the whole system."""
    async with server() as opened:
        opened.fake.script(ScriptRule(status=status))
        reply = await opened.ask(kind, RequestType.CHAT, stream=True)
        assert (reply.status, reply.json["error"]["code"]) == (told, code)
        assert opened.fake.journal.asked == 1


@pytest.mark.parametrize("kind", TITLES)
@pytest.mark.parametrize("stream", [False, True])
async def test_when_the_client_leaves_the_vendor_is_left_within_a_second(kind: LLMProvider, stream: bool) -> None:
    body = {"model": f"{kind}/m", **BODIES[RequestType.CHAT], "stream": stream}
    async with server() as opened:
        opened.fake.script(ScriptRule(fault=Fault.STALL))
        async with HttpClient(await trio.open_tcp_stream(opened.address.host, opened.address.port)) as client:
            await client.begin("POST", PATHS[RequestType.CHAT], body)
            with trio.fail_after(5):
                await opened.fake.journal.until(lambda journal: journal.open == 1)
        with trio.fail_after(1):
            await opened.fake.journal.until(lambda journal: journal.left == 1)


async def test_the_embedded_api_refuses_alike() -> None:
    async with server() as opened:
        with pytest.raises(UnsupportedError, match="does not support embedding"):
            await opened.runtime.embed("Once upon", model="anthropic/m")
        assert opened.fake.journal.asked == 0


def test_the_table_has_every_type_of_request() -> None:
    assert set(TYPES) == set(RequestType) == {*PATHS, RequestType.CODE_GENERATION}
