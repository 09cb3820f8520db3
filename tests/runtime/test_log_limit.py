"""``log_limit_mb``: how long an answer may be, end to end."""

from __future__ import annotations

import msgspec
import pytest

from llm_actors.run.log import EVENT_BYTES
from llm_protocol.errors import LogLimitError
from llm_protocol.policy import AnswerLimits
from llm_protocol.requests import ChatRequest, CodeRequest, EmbeddingRequest, ImageRequest, LLMProvider
from llm_runtime.config import Config, Provider, Server
from llm_runtime.opening import open_runtime
from llm_runtime.runtime import Runtime
from support.peer import Peer, sse
from support.upstream import END, chunk, word

MIB = 1024 * 1024


def config(peer: Peer, log_limit_mb: float) -> Config:
    provider = Provider(kind=LLMProvider.OPENAI_COMPATIBLE, base_url=f"{peer.url}/v1", models=("m",))
    return Config(server=Server(log_limit_mb=log_limit_mb), providers={"fake": provider})


@pytest.mark.parametrize("over", [0, 1])
async def test_an_answer_of_the_limit_and_one_byte_more(over: int) -> None:
    """Beside the text, four events: who answers, the item, its text and its end."""
    limit = 64 * 1024
    text = "x" * (limit - 4 * EVENT_BYTES + over)
    script = sse(chunk({"role": "assistant", "content": ""}), word(text), *END)
    async with Peer(script) as peer, open_runtime(config(peer, limit / MIB)) as rt:
        if over:
            with pytest.raises(LogLimitError):
                await _read(rt)
        else:
            assert await _read(rt) == text


async def _read(rt: Runtime) -> str:
    async with rt.stream("Say x.") as answer:
        return "".join([text async for text in answer.text()])


async def test_65000_tokens_are_answered_whole() -> None:
    """They failed at their very end, delivered and paid for."""
    words = [word(f"w{number} ") for number in range(65_000)]
    async with Peer(sse(chunk({"role": "assistant", "content": ""}), *words, *END)) as peer:
        async with open_runtime(config(peer, 1)) as rt:
            assert (await _read(rt)).endswith("w64999 ")


def test_pictures_have_room_for_what_a_provider_may_send() -> None:
    provider = Provider(
        kind=LLMProvider.OPENAI_COMPATIBLE,
        base_url="http://127.0.0.1:9/v1",
        max_answer_mb=AnswerLimits(image_generation=100.0),
    )
    runtime = Runtime(Config(server=Server(log_limit_mb=2), providers={"p": provider}))
    limits = [
        runtime._log_limit_bytes(request)
        for request in (
            ChatRequest(messages=()),
            CodeRequest(instruction="x"),
            EmbeddingRequest(inputs=("x",)),
            ImageRequest(prompt="x"),
            msgspec.structs.replace(ChatRequest(messages=()), model="p/an-image-model"),
        )
    ]

    assert [limit // MIB for limit in limits] == [2, 2, 2, 100, 100]
