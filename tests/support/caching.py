"""Answers, keys and clocks for the tests of the cache."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from hashlib import blake2b

from llm_actors.cache.clock import MachineClock
from llm_actors.cache.file_tier import FileTier
from llm_actors.cache.key import CacheKey
from llm_protocol.content import Text
from llm_protocol.response import FinishReason, LLMResponse, Usage

DAY = 86_400.0


def key(name: object) -> CacheKey:
    """A key as good as any."""
    return CacheKey(blake2b(str(name).encode(), digest_size=32).digest())


def answer(text: str = "42", reason: FinishReason | None = FinishReason.STOP) -> LLMResponse:
    """A whole answer."""
    return LLMResponse(
        request_id="req_first",
        provider="openai",
        model="gpt-x",
        content=text,
        output=(Text(text),) if text else (),
        usage=Usage(input_tokens=3, output_tokens=1),
        cost=0.25,
        finish_reason=reason,
    )


class Clock:
    """A machine whose clocks the test turns. ``time`` passes on both; ``wall`` is what the wall clock is wrong by."""

    def __init__(self) -> None:
        self.time = 1000.0
        self.error = 0.0
        self.switched_on = 900.0
        self.boot = "first boot"

    def machine(self) -> MachineClock:
        return MachineClock(lambda: self.time - self.switched_on, lambda: self.time + self.error + 1.8e9, self.boot)

    def reboot(self, *, seconds: float) -> None:
        """Switch the machine off for a while."""
        self.time += seconds
        self.switched_on = self.time
        self.boot += "'"


@contextmanager
def file_tier(
    path: object, *, clock: Clock | None = None, ttl_s: float = 100.0, max_bytes: int = 2_000_000
) -> Iterator[FileTier]:
    """A file tier, closed at the end."""
    tier = FileTier(str(path), max_bytes=max_bytes, ttl_s=ttl_s, clock=(clock or Clock()).machine())
    try:
        yield tier
    finally:
        tier.close()
