"""The Redis tier, with a link that answers as the test says."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trio
import trio.testing
from trio.testing import MockClock

from llm_actors.cache import redis_tier
from llm_actors.cache.redis_tier import FLIGHT_MAX_SECONDS, FLIGHT_SECONDS, READ_SECONDS, RedisTier
from llm_actors.redis import RedisServer
from llm_protocol.secret import Secret
from support.caching import key

Answer = Callable[[Sequence[str], tuple[Any, ...]], Awaitable[list[bytes]]]

CLAIMED = [b"", b"", b"ours"]


class Link:
    """A link that notes what it is asked."""

    def __init__(self, answer: Answer) -> None:
        self.is_open = True
        self.calls: list[tuple[float, str, list[str]]] = []
        self._answer = answer

    def asked(self, what: str) -> list[list[str]]:
        """The keys of all calls of this kind."""
        return [keys for _, kind, keys in self.calls if kind == what]

    async def run(self) -> None:
        await trio.sleep_forever()

    async def call(self, keys: Sequence[str], *arguments: Any) -> list[bytes]:
        self.calls.append((trio.current_time(), arguments[0], list(keys)))
        await trio.lowlevel.checkpoint()
        return await self._answer(keys, arguments)


@asynccontextmanager
async def tier(monkeypatch: pytest.MonkeyPatch, answer: Answer) -> AsyncIterator[tuple[RedisTier, Link]]:
    link = Link(answer)
    monkeypatch.setattr(redis_tier, "RedisLink", lambda *_, **__: link)
    made = RedisTier(RedisServer(url=Secret("redis://nowhere")), ttl_s=100.0)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(made.run)
        yield made, link
        nursery.cancel_scope.cancel()


async def claimed(_: Sequence[str], arguments: tuple[Any, ...]) -> list[bytes]:
    return CLAIMED if arguments[0] == "claim" else []


async def test_many_entries_are_read_in_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    async def answer(keys: Sequence[str], _: tuple[Any, ...]) -> list[bytes]:
        return [b"1.0", b"value"] * min(3, len(keys))

    wanted = [key(number) for number in range(8)]
    async with tier(monkeypatch, answer) as (made, link):
        assert list(await made.read(wanted)) == wanted
        assert [len(each) for each in link.asked("get")] == [8, 5, 2]


async def test_a_slow_lookup_returns_what_it_has_found(
    monkeypatch: pytest.MonkeyPatch, autojump_clock: MockClock
) -> None:
    async def answer(*_: Any) -> list[bytes]:
        await trio.sleep(READ_SECONDS * 0.4)
        return [b"1.0", b"value"]

    async with tier(monkeypatch, answer) as (made, _):
        began = trio.current_time()
        assert set(await made.read([key(1), key(2), key(3)])) == {key(1), key(2)}
        assert trio.current_time() - began == pytest.approx(READ_SECONDS)


@pytest.mark.parametrize("answer", [[], [b"1.0", b"one", b"2.0", b"two"]], ids=["none", "too many"])
async def test_a_wrong_number_of_entries_is_no_entry(monkeypatch: pytest.MonkeyPatch, answer: list[bytes]) -> None:
    async def say(*_: Any) -> list[bytes]:
        return answer

    async with tier(monkeypatch, say) as (made, _):
        assert await made.read([key(1)]) == {}
        assert made.statistics().errors == 1


async def test_a_flight_whose_end_was_lost_is_not_renewed_for_ever(
    monkeypatch: pytest.MonkeyPatch, autojump_clock: MockClock
) -> None:
    async with tier(monkeypatch, claimed) as (made, link):
        began = trio.current_time()
        assert await made.claim(key(1)) == (None, True)
        await trio.sleep(FLIGHT_MAX_SECONDS * 2)
        last = max(at for at, kind, _ in link.calls if kind == "renew") - began
        assert FLIGHT_MAX_SECONDS - FLIGHT_SECONDS < last < FLIGHT_MAX_SECONDS


async def test_a_claim_that_is_cancelled_is_given_back(
    monkeypatch: pytest.MonkeyPatch, autojump_clock: MockClock
) -> None:
    async def answer(_: Sequence[str], arguments: tuple[Any, ...]) -> list[bytes]:
        if arguments[0] == "claim":
            await trio.sleep(1)
        return []

    async with tier(monkeypatch, answer) as (made, link):
        with trio.move_on_after(0.5):
            await made.claim(key(1))
        await trio.testing.wait_all_tasks_blocked()
        assert len(link.asked("release")) == 1


async def test_a_flight_that_is_claimed_again_is_not_ended(
    monkeypatch: pytest.MonkeyPatch, autojump_clock: MockClock
) -> None:
    async with tier(monkeypatch, claimed) as (made, link):
        await made.claim(key(1))
        made.release(key(1))
        made._flights[key(1)] = trio.current_time() + 1  # claimed again before its end was written
        await trio.testing.wait_all_tasks_blocked()
        assert not link.asked("release")
