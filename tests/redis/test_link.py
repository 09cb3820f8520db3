"""A session with Redis that many share: calls one after the other, and none hangs when it ends."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import trio

from llm_actors import redis_link
from llm_actors.redis import RedisAwayError
from llm_actors.redis_link import RedisLink
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
