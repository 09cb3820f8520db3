"""How large an answer may be: each limit, and one byte more."""

from __future__ import annotations

import msgspec
import pytest
import trio.testing

from llm_actors.provider import list_models
from llm_actors.provider.call import ERROR_BODY_BYTES
from llm_protocol.content import Message
from llm_protocol.errors import AnswerTooLargeError
from llm_protocol.events import Failed, Finished
from llm_protocol.failures import FailureKind, Step
from llm_protocol.policy import AnswerLimits
from llm_protocol.requests import AnyRequest, ChatRequest, EmbeddingRequest, ImageRequest, RequestType
from support.peer import Peer, chunked, raw, reply
from support.upstream import JSON, REQUEST, Asked, upstream, whole

MIB = 1024 * 1024
PICTURE = msgspec.json.encode({"data": [{"b64_json": "iVBORw0KGgo="}]})
VECTOR = msgspec.json.encode({"data": [{"embedding": [0.5, 1.0]}]})
DRAWING = ChatRequest(model="an-image-model", messages=(Message.of("user", "a cat"),))
CASES: dict[str, tuple[AnyRequest, bytes]] = {
    RequestType.CHAT: (REQUEST, whole()),
    RequestType.EMBEDDING: (EmbeddingRequest(model="m", inputs=("x",)), VECTOR),
    RequestType.IMAGE_GENERATION: (ImageRequest(model="m", prompt="x"), PICTURE),
    "a chat model that draws": (DRAWING, whole()),
}


def kind_of(asked: Asked) -> FailureKind | None:
    assert asked.outcome is not None
    return asked.outcome.end.failure.kind if isinstance(asked.outcome.end, Failed) else None


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("declared", [True, False])
@pytest.mark.parametrize("case", CASES)
async def test_an_answer_of_the_limit_is_taken_and_one_byte_more_is_not(
    case: str, declared: bool, stream: bool, autojump_clock: trio.testing.MockClock
) -> None:
    request, body = CASES[case]
    kind = RequestType.IMAGE_GENERATION if request is DRAWING else request.request_type
    limits = AnswerLimits(**{kind: 100_000 / MIB})
    for size, expected in ((100_000, None), (100_001, FailureKind.ANSWER_TOO_LARGE)):
        padded = body + b" " * (size - len(body))
        script = reply(padded, headers=JSON) if declared else chunked(padded[:50_000], padded[50_000:], headers=JSON)
        async with Peer(script) as peer, upstream(peer, max_answer=limits) as provider:
            asked = await provider.ask(request, stream=stream)

        assert kind_of(asked) is expected
        assert len(peer.requests) == 1


async def test_vectors_that_come_as_a_stream_have_the_same_limit(autojump_clock: trio.testing.MockClock) -> None:
    request, body = CASES[RequestType.EMBEDDING]
    limits = AnswerLimits(embedding=100_000 / MIB)
    for size, expected in ((100_000, None), (100_001, FailureKind.ANSWER_TOO_LARGE)):
        script = reply(body + b" " * (size - len(body)), headers={"content-type": "text/plain"})
        async with Peer(script) as peer, upstream(peer, max_answer=limits) as provider:
            assert kind_of(await provider.ask(request, stream=True)) is expected


def test_the_defaults_are_the_documented_ones() -> None:
    limits = AnswerLimits()
    assert {kind: limits.bytes_for(kind) // MIB for kind in RequestType} == {
        RequestType.CHAT: 3,
        RequestType.COMPLETION: 3,
        RequestType.CODE_GENERATION: 3,
        RequestType.EMBEDDING: 64,
        RequestType.IMAGE_GENERATION: 64,
    }


def test_it_is_not_asked_for_again() -> None:
    """It is made by then, and billed."""
    assert AnswerTooLargeError("x").failure.rule.step is Step.STOP


async def test_of_an_error_only_the_beginning_is_read(autojump_clock: trio.testing.MockClock) -> None:
    """A proxy's long page is still the error that its status says."""
    for size in (ERROR_BODY_BYTES, ERROR_BODY_BYTES + 1):
        async with Peer(reply(b"x" * size, status=503)) as peer, upstream(peer) as provider:
            assert kind_of(await provider.ask()) is FailureKind.OVERLOADED


async def test_a_length_of_many_digits_is_too_large(autojump_clock: trio.testing.MockClock) -> None:
    head = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %b\r\n\r\n" % (b"9" * 19)
    async with Peer(raw(head)) as peer, upstream(peer) as provider:
        assert kind_of(await provider.ask(stream=False)) is FailureKind.ANSWER_TOO_LARGE


async def test_a_model_list_that_is_too_large_is_an_error_of_its_own(autojump_clock: trio.testing.MockClock) -> None:
    async with Peer(reply(b" " * (16 * MIB + 1), headers=JSON)) as peer, upstream(peer) as provider:
        with pytest.raises(AnswerTooLargeError):
            await list_models(provider.ref)


async def test_an_answer_within_the_limits_ends_well(autojump_clock: trio.testing.MockClock) -> None:
    async with Peer(reply(whole(), headers=JSON)) as peer, upstream(peer) as provider:
        asked = await provider.ask(stream=False)

    assert asked.outcome is not None
    assert isinstance(asked.outcome.end, Finished)
