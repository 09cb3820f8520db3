"""Cached responses of several processes in one Redis, and requests that wait for an equal one of another process."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager

import msgspec
import pytest
import trio

import llm_runtime
from llm_actors.cache.entry import Entry
from llm_actors.cache.redis_tier import VALUE_BYTES, RedisTier
from llm_protocol import content
from llm_protocol.policy import CachePolicy, Policy
from llm_protocol.requests import ChatRequest, LLMProvider
from llm_runtime.config import Config, Provider
from support.caching import key
from support.peer import Call, Peer, Step, reply
from support.redis import Redis, redis
from support.sharing import PATIENT
from support.upstream import JSON, whole


@pytest.fixture
def server() -> Iterator[Redis]:
    with redis() as server:
        yield server


@asynccontextmanager
async def tier(server: Redis, *, ttl_s: float = 100.0) -> AsyncIterator[RedisTier]:
    made = RedisTier(server.server(timeout_s=PATIENT), ttl_s=ttl_s, read_s=PATIENT)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(made.run)
        await made._link.tried.wait()
        yield made
        made.finish()


async def until_stored(made: RedisTier, count: int) -> None:
    with trio.fail_after(30):
        while made.statistics().stored < count:  # noqa: ASYNC110  (a real server tells nobody)
            await trio.sleep(0.002)


async def test_what_one_process_stores_another_finds_with_its_age(server: Redis) -> None:
    async with tier(server) as one, tier(server) as other:
        one.write(Entry(key(1), b"\xff\x00one"))
        await until_stored(one, 1)
        found = await other.read([key(2), key(1)])
        assert {name: entry.value for name, entry in found.items()} == {key(1): b"\xff\x00one"}
        assert 0 <= found[key(1)].age_s < 5
        assert (other.statistics().hits, other.statistics().misses) == (1, 1)


async def test_an_entry_expires_in_redis(server: Redis) -> None:
    async with tier(server, ttl_s=77.0) as one:
        one.write(Entry(key(1), b"one"))
        await until_stored(one, 1)
        left = server.command("PTTL", f"{{llm-runtime}}:cache:{key(1).hex()}")
        assert 70_000 < int(left[1:]) <= 77_000


async def test_too_large_a_response_is_not_written(server: Redis) -> None:
    async with tier(server) as one:
        one.write(Entry(key(1), b"x" * (VALUE_BYTES + 1)))
        assert one.statistics().dropped == 1
        one.write(Entry(key(2), b"x" * VALUE_BYTES))
        await until_stored(one, 1)
        assert set(await one.read([key(1), key(2)])) == {key(2)}


async def test_one_process_makes_what_is_missing_until_it_has_stored_it_or_given_up(server: Redis) -> None:
    async with tier(server) as one, tier(server) as other:
        assert await one.claim(key(1)) == (None, True)
        assert await other.claim(key(1)) == (None, False)
        other.release(key(1))  # not its own
        assert await other.claim(key(1)) == (None, False)
        one.write(Entry(key(1), b"one"))
        one.release(key(1))
        await until_stored(one, 1)
        found, is_ours = await other.claim(key(1))
        assert found is not None
        assert (found.value, is_ours) == (b"one", False)
        assert await one.claim(key(2)) == (None, True)
        one.release(key(2))
        with trio.fail_after(30):
            while not (await other.claim(key(2))).is_ours:  # noqa: ASYNC110
                await trio.sleep(0.002)


async def test_a_process_does_not_wait_for_itself(server: Redis) -> None:
    """As for a request and a stream of it, which are two calls without Redis, too."""
    async with tier(server) as one, tier(server) as other:
        assert await one.claim(key(1)) == (None, True)
        assert await one.claim(key(1)) == (None, True)
        assert await other.claim(key(1)) == (None, False)


async def test_many_large_entries_are_found(server: Redis) -> None:
    names = [key(number) for number in range(300)]
    async with tier(server) as one:
        for name in names:
            one.write(Entry(name, bytes(20_000)))
        await until_stored(one, len(names))
        found = await one.read(names)
        assert list(found) == names
        assert one._link.sessions == 1


async def test_a_full_redis_is_read_and_not_written(server: Redis) -> None:
    """It evicts nothing: then everybody makes what is missing, over the same connection."""
    async with tier(server) as one:
        one.write(Entry(key(1), b"one"))
        await until_stored(one, 1)
        assert server.command("CONFIG", "SET", "maxmemory", "1") == b"+OK\r\n"
        one.write(Entry(key(2), b"two"))
        with trio.fail_after(30):
            while not one.statistics().dropped:  # noqa: ASYNC110
                await trio.sleep(0.002)
        assert set(await one.read([key(1), key(2)])) == {key(1)}
        assert await one.claim(key(3)) == (None, True)
        async with tier(server) as other:
            assert set(await other.read([key(1)])) == {key(1)}
    assert one._link.sessions == other._link.sessions == 1
    assert one.statistics().errors == 0


async def test_while_redis_is_away_nothing_is_found_and_everybody_makes_it(
    server: Redis, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    async with tier(server) as one:
        server.kill()
        for _ in range(3):
            assert await one.read([key(1)]) == {}
            assert await one.claim(key(1)) == (None, True)
        one.write(Entry(key(1), b"one"))
    lines = [record.getMessage() for record in caplog.records if record.name == "llm_actors.redis_link"]
    assert len(lines) == 2, lines
    assert "until it is reachable again, this process uses only its own cache" in lines[1]


# -- whole runtimes ----------------------------------------------------------------------------------------------------


@asynccontextmanager
async def runtimes(
    server: Redis, peer: Peer, caplog: pytest.LogCaptureFixture, **policy: object
) -> AsyncIterator[list[llm_runtime.Runtime]]:
    provider = Provider(kind=LLMProvider.OPENAI_COMPATIBLE, base_url=f"{peer.url}/v1", models=("m",))
    cache = msgspec.convert({"enabled": True, "redis": True} | policy, CachePolicy)
    caplog.set_level(logging.INFO)
    config = Config(providers={"fake": provider}, cache=cache, redis=server.server(timeout_s=PATIENT))
    async with llm_runtime.open_runtime(config) as one, llm_runtime.open_runtime(config) as other:
        with trio.fail_after(30):
            while caplog.text.count("cached responses are in Redis") < 2:  # noqa: ASYNC110
                await trio.sleep(0.005)
        yield [one, other]


async def stored(runtime: llm_runtime.Runtime) -> int:
    cache = (await runtime.statistics()).cache
    assert cache is not None
    assert cache.redis is not None
    return cache.redis.stored


def chat(text: str = "hi", **policy: object) -> ChatRequest:
    made = msgspec.convert(policy, Policy) if policy else None
    return ChatRequest(messages=(content.Message.of("user", text),), policy=made)


async def test_another_process_answers_from_the_cache(server: Redis, caplog: pytest.LogCaptureFixture) -> None:
    async with Peer(reply(whole(), headers=JSON)) as peer, runtimes(server, peer, caplog) as (one, other):
        await one.send(chat())
        with trio.fail_after(30):
            while not await stored(one):  # noqa: ASYNC110
                await trio.sleep(0.005)
        assert (await other.send(chat())).decision["cache"] == "hit"
        assert len(peer.requests) == 1


def held(free: trio.Event, step: Step) -> Step:
    async def answer(call: Call) -> None:
        await free.wait()
        await step(call)

    return answer


async def test_equal_requests_of_two_processes_are_one_call(server: Redis, caplog: pytest.LogCaptureFixture) -> None:
    free = trio.Event()
    async with Peer(held(free, reply(whole(), headers=JSON))) as peer, runtimes(server, peer, caplog) as (one, other):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(one.send, chat())
            await peer.until(lambda: len(peer.requests) == 1)
            nursery.start_soon(other.send, chat())
            await trio.sleep(0.3)
            assert len(peer.requests) == 1
            free.set()
        assert len(peer.requests) == 1


async def test_a_request_waits_for_another_process_no_longer_than_it_may(
    server: Redis, caplog: pytest.LogCaptureFixture
) -> None:
    free = trio.Event()
    answers = held(free, reply(whole("one"), headers=JSON)), reply(whole("two"), headers=JSON)
    async with Peer(*answers) as peer, runtimes(server, peer, caplog, flight_wait_s=0.3) as (one, other):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(one.send, chat())
            await peer.until(lambda: len(peer.requests) == 1)
            assert (await other.send(chat())).content == "two"
            free.set()


async def test_a_stream_does_not_wait_for_another_process(server: Redis, caplog: pytest.LogCaptureFixture) -> None:
    free = trio.Event()
    answers = held(free, reply(whole("one"), headers=JSON)), reply(whole("two"), headers=JSON)
    async with Peer(*answers) as peer, runtimes(server, peer, caplog) as (one, other):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(one.send, chat())
            await peer.until(lambda: len(peer.requests) == 1)
            with trio.fail_after(30):
                async with other.stream_request(chat()) as stream:
                    assert "".join([piece async for piece in stream.text()]) == "two"
            free.set()


async def test_when_the_first_fails_the_next_process_makes_it(server: Redis, caplog: pytest.LogCaptureFixture) -> None:
    free = trio.Event()
    answers = held(free, reply(b'{"error": {"message": "no"}}', 400, JSON)), reply(whole("two"), headers=JSON)
    async with Peer(*answers) as peer, runtimes(server, peer, caplog) as (one, other):
        async with trio.open_nursery() as nursery:

            async def first() -> None:
                with pytest.raises(llm_runtime.LLMClientError):
                    await one.send(chat())

            nursery.start_soon(first)
            await peer.until(lambda: len(peer.requests) == 1)

            async def second() -> None:
                assert (await other.send(chat())).content == "two"

            nursery.start_soon(second)
            await trio.sleep(0.2)
            free.set()
        assert len(peer.requests) == 2
