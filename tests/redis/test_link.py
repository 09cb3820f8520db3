"""A session with Redis that many share: calls one after the other, and none hangs when it ends."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, suppress
from typing import cast

import pytest
import trio
from trio.testing import MockClock

from llm_actors import redis_link
from llm_actors.redis import UNREACHABLE, RedisAwayError, RedisProblem, RedisScript, RedisServer
from llm_actors.redis_link import QUEUE_CALLS, QUEUE_SECONDS, RedisLink
from llm_actors.shared_responses import Ending, Put, SharedResponses
from llm_protocol.secret import Secret
from support.redis import Redis, redis
from support.sharing import PATIENT

SCRIPT = """
if ARGV[1] == 'count' then redis.call('INCR', KEYS[1]) end
return {ARGV[2] or '', redis.call('GET', KEYS[1]) or ''}
"""


@pytest.fixture
def server() -> Iterator[Redis]:
    with redis() as server:
        yield server


def link(server: Redis) -> RedisLink:
    first = (("k",), ("look",))
    return RedisLink(server.server(timeout_s=PATIENT), SCRIPT, what="numbers are", without="nobody counts", first=first)


async def test_calls_of_many_are_each_answered_their_own(server: Redis) -> None:
    made = link(server)
    seen: dict[str, bytes] = {}

    async def count(name: str) -> None:
        said, number = await made.call(("k",), "count", name)
        assert said.decode() == name
        seen[name] = number

    async with trio.open_nursery() as nursery:
        nursery.start_soon(made.run)
        await made.tried.wait()
        async with trio.open_nursery() as callers:
            for number in range(50):
                callers.start_soon(count, str(number))
        nursery.cancel_scope.cancel()
    assert sorted(map(int, seen.values())) == list(range(1, 51))


async def test_it_runs_again_and_calls_fail_at_once_in_between(server: Redis) -> None:
    made = link(server)
    with pytest.raises(RedisAwayError):
        await made.call(("k",), "count")
    for number in b"1", b"2":
        async with trio.open_nursery() as nursery:
            nursery.start_soon(made.run)
            with trio.fail_after(30):
                while not made.is_open:  # noqa: ASYNC110
                    await trio.sleep(0.005)
            assert (await made.call(("k",), "count"))[1] == number
            nursery.cancel_scope.cancel()
        with pytest.raises(RedisAwayError):
            await made.call(("k",), "count")
    assert made.sessions == 2


async def test_who_waits_is_told_when_the_session_ends(server: Redis) -> None:
    made = link(server)
    failed = 0

    async def call() -> None:
        nonlocal failed
        with pytest.raises(RedisAwayError):
            await made.call(("k",), "count")
        failed += 1

    async with trio.open_nursery() as nursery:
        nursery.start_soon(made.run)
        await made.tried.wait()
        server.freeze()
        try:
            async with trio.open_nursery() as callers:
                for _ in range(10):
                    callers.start_soon(call)
        finally:
            server.thaw()
        nursery.cancel_scope.cancel()
    assert failed == 10


async def test_more_bytes_than_may_wait_are_refused(server: Redis, monkeypatch: pytest.MonkeyPatch) -> None:
    """But for one call, however large."""
    monkeypatch.setattr(redis_link, "QUEUE_BYTES", 1_000)
    made = link(server)
    refused = 0

    async def call() -> None:
        nonlocal refused
        try:
            await made.call(("k",), "look", b"x" * 900)
        except RedisAwayError as exc:
            refused += exc.problem.sort == "queue"

    async with trio.open_nursery() as nursery:
        nursery.start_soon(made.run)
        await made.tried.wait()
        async with trio.open_nursery() as callers:
            for _ in range(5):
                callers.start_soon(call)
        assert refused >= 3
        assert len((await made.call(("k",), "look", b"x" * 5_000))[0]) == 5_000
        nursery.cancel_scope.cancel()


# -- a slow server, in virtual time ------------------------------------------------------------------------------------

NOWHERE = RedisServer(url=Secret("redis://127.0.0.1:1/0"))


@asynccontextmanager
async def slow_link(monkeypatch: pytest.MonkeyPatch, seconds: float) -> AsyncIterator[RedisLink]:
    """A link to a server that takes so long for each call. It returns what it is given."""

    class Slow:
        async def run_list(self, _: Sequence[str], arguments: Sequence[bytes]) -> list[bytes]:
            await trio.sleep(seconds)
            return list(arguments)

    async def session(_: RedisServer, __: str, use: Callable[[RedisScript], Awaitable[None]]) -> RedisProblem:
        await use(cast(RedisScript, Slow()))
        return RedisProblem(UNREACHABLE, "ended")

    monkeypatch.setattr(redis_link, "run_session", session)
    made = RedisLink(NOWHERE, "", what="numbers are", without="nobody counts", first=((), ()))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(made.run)
        await made.tried.wait()
        yield made
        nursery.cancel_scope.cancel()


async def call_in_vain(made: RedisLink) -> None:
    with suppress(RedisAwayError):
        await made.call((), b"")


async def test_an_urgent_call_waits_for_one_other_at_most(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also when no more calls may wait."""
    async with slow_link(monkeypatch, 1.0) as made, trio.open_nursery() as callers:
        for _ in range(QUEUE_CALLS + 1):
            callers.start_soon(call_in_vain, made)
        await trio.sleep(0.5)
        before = trio.current_time()
        assert await made.call((), b"now", is_urgent=True) == [b"now"]
        assert trio.current_time() - before <= 2.0
        callers.cancel_scope.cancel()


async def test_a_call_waits_for_a_limited_time_and_behind_a_limited_number(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    refused: list[tuple[str, float]] = []

    async def call() -> None:
        began = trio.current_time()
        try:
            await made.call((), b"")
        except RedisAwayError as exc:
            refused.append((exc.problem.sort, trio.current_time() - began))

    async with slow_link(monkeypatch, 1.0) as made:
        async with trio.open_nursery() as callers:
            for _ in range(QUEUE_CALLS + 44):
                callers.start_soon(call)
        assert {sort for sort, _ in refused} == {"queue"}
        assert sum(seconds < 0.5 for _, seconds in refused) in (43, 44), "at once"
        assert max(seconds for _, seconds in refused) == pytest.approx(QUEUE_SECONDS, abs=0.5)
        assert await made.call((), b"again") == [b"again"]


async def test_what_a_replica_writes_renews_its_heartbeat_and_does_not_bring_it_back(server: Redis) -> None:
    shared = SharedResponses(server.server(timeout_s=PATIENT), ttl_s=1000.0)
    put = Put("resp_" + "0" * 32, "", "generation", True, b"head", 0, 1, b"piece", Ending.OPEN)

    async def write() -> None:
        assert [each.is_done for each in await shared.put([put])] == [True]

    async def issue() -> None:
        await shared.issue("", [b"digest"], most=10)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(shared.link.run)
        await shared.link.tried.wait()
        [heartbeat] = [key for key in server.command("KEYS", "*replica:*").decode().split() if "replica:" in key]
        for use in write, issue:
            await shared.sync()
            server.command("PEXPIRE", heartbeat, "5000")
            await use()
            assert int(server.command("PTTL", heartbeat)[1:]) > 10_000
            server.command("DEL", heartbeat)
            await use()
            assert int(server.command("PTTL", heartbeat)[1:]) == -2
        nursery.cancel_scope.cancel()
