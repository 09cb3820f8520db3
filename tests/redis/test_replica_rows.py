"""The rows of stored responses: what replicas hear of each other when Redis or a connection is lost in between."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager

import pytest
import trio

from llm_actors.shared_responses import Ending, Put, RedisAwayError, ReplicaOrder, ResponseState, SharedResponses
from support.redis import Redis, redis
from support.sharing import PATIENT

BASE = "{llm-runtime}:"


@pytest.fixture
def server() -> Iterator[Redis]:
    with redis() as server:
        yield server


def shared(server: Redis) -> SharedResponses:
    return SharedResponses(server.server(timeout_s=PATIENT), ttl_s=1000.0)


@asynccontextmanager
async def session(*replicas: SharedResponses) -> AsyncIterator[None]:
    """A session of each."""
    async with trio.open_nursery() as nursery:
        for each in replicas:
            nursery.start_soon(each.link.run)
        with trio.fail_after(30):
            while not all(each.link.is_open for each in replicas):  # noqa: ASYNC110
                await trio.sleep(0.005)
        yield
        nursery.cancel_scope.cancel()


def begun(ending: Ending = Ending.OPEN) -> Put:
    return Put("resp_1", "", "generation", True, b"head", 0, 1, b"piece", ending)


def forget_replica(server: Redis, replica: SharedResponses) -> None:
    """Its heartbeat has run out."""
    assert server.command("DEL", f"{BASE}replica:{replica.replica}") == b":1\r\n"


async def running(reader: SharedResponses) -> bool:
    row = await reader.load("resp_1", "")
    assert row is not None
    assert row.state in (ResponseState.RUNNING, ResponseState.INTERRUPTED)
    return row.state is ResponseState.RUNNING


async def test_an_order_outlives_the_session_of_the_one_that_it_is_for(server: Redis) -> None:
    maker, other = shared(server), shared(server)
    async with session(other):
        async with session(maker):
            await maker.put([begun()])
        assert await other.cancel("resp_1", "")
        async with session(maker):
            assert (await maker.sync()).orders == [(ReplicaOrder.CANCEL, "resp_1")]
            assert (await maker.sync()).orders == []


async def test_an_order_is_given_again_when_its_answer_was_lost(server: Redis) -> None:
    maker, other = shared(server), shared(server)
    async with session(maker, other):
        await maker.put([begun()])
        assert await other.cancel("resp_1", "")
        server.freeze()
        with trio.move_on_after(0.1):
            await maker.sync()
        server.thaw()
        assert (await maker.sync()).orders == [(ReplicaOrder.CANCEL, "resp_1")]
        assert (await maker.sync()).orders == []


async def test_a_replica_that_comes_back_in_time_is_not_interrupted(server: Redis) -> None:
    """After an outage that was longer than the heartbeat, the first one back waits for the others."""
    maker, other = shared(server), shared(server)
    async with session(maker, other):
        await maker.put([begun()])
        assert await running(other)
        forget_replica(server, maker)
        assert await running(other)
        assert not (await maker.sync()).is_known
        assert (await maker.sync()).is_known
        forget_replica(server, maker)
        assert await running(other)
        server.command("SET", f"{BASE}missing:{maker.replica}", "1")
        assert not await running(other)
        [result] = await maker.put([begun()])
        assert result.is_lost


async def test_what_a_replica_that_left_did_not_complete_is_interrupted_at_once(server: Redis) -> None:
    maker, other = shared(server), shared(server)
    async with session(maker, other):
        await maker.put([begun()])
        await maker.leave()
        assert (await other.tail("resp_1", "generation", 0)).state is ResponseState.INTERRUPTED


async def test_a_redis_that_was_emptied_does_not_know_for_a_while(server: Redis) -> None:
    maker, other = shared(server), shared(server)
    async with session(maker, other):
        for question in (
            lambda: other.load("resp_1", ""),
            lambda: other.tail("resp_1", "generation", 0),
            lambda: other.state("resp_1"),
        ):
            with pytest.raises(RedisAwayError):
                await question()
        server.command("SET", f"{BASE}since", "0")
        assert await other.load("resp_1", "") is None
        assert (await other.tail("resp_1", "generation", 0)).state is ResponseState.MISSING
        assert await other.state("resp_1") is ResponseState.MISSING


async def test_what_cannot_be_shared_is_gone_with_its_replica(server: Redis) -> None:
    maker, other = shared(server), shared(server)
    async with session(maker, other):
        await maker.put([begun(Ending.UNSHARED)])
        server.command("SET", f"{BASE}since", "0")
        row = await other.load("resp_1", "")
        assert row is not None
        assert row.state is ResponseState.UNSHARED
        await maker.leave()
        assert await other.load("resp_1", "") is None
