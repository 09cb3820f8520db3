"""Whatever is wrong with a real Redis, requests go on with the limits of this process.

Added by the server is never more than its ``timeout_s``, and next to nothing once it is known to be away; it is said
once in the log, and within 5 seconds of its coming back the limits are shared again.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator

import pytest
import trio

from llm_actors import redis as client
from llm_actors.limiter import LimiterRef, reserve, statistics
from llm_protocol.policy import Limits
from support.ledger import used
from support.redis import Redis, redis
from support.sharing import PATIENT, claim, kept, replica, spend, until_shared

LIMITS = {"a": Limits(requests_per_minute=60_000, tokens_per_minute=60_000_000)}

TIMEOUT = 0.1
SLACK = 0.4
"""Of a machine that does other things, too."""

AWAY = "is unavailable"
SHARED = "limits are shared"


@pytest.fixture
def server() -> Iterator[Redis]:
    with redis() as server:
        yield server


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    """It is tried again sooner than in life; and everything that is logged is seen."""
    monkeypatch.setattr("llm_actors.redis_link.AWAY_SECONDS", 0.1)
    caplog.set_level(logging.DEBUG)


def said(caplog: pytest.LogCaptureFixture) -> list[str]:
    """What the limiter logged, shortened. Nothing comes of the client, and no traceback."""
    assert not [record for record in caplog.records if record.name.startswith("coredis") or record.exc_info]
    texts = [
        record.getMessage()
        for record in caplog.records
        if record.name.startswith(("llm_actors.limiter", "llm_actors.redis_link"))
    ]
    return [AWAY if AWAY in text else SHARED if SHARED in text else text for text in texts]


async def worst_claim(ref: LimiterRef, *, during_s: float) -> float:
    worst, end = 0.0, trio.current_time() + during_s
    while trio.current_time() < end:
        worst = max(worst, await claim(ref))
        await trio.sleep(0.01)
    return worst


async def test_down_at_the_start(server: Redis, caplog: pytest.LogCaptureFixture) -> None:
    server.kill()
    begun = trio.current_time()
    async with replica(server.server(), LIMITS) as ref:
        assert trio.current_time() - begun < client.CONNECT_SECONDS + SLACK
        assert not (await statistics(ref)).shared
        assert await worst_claim(ref, during_s=0.3) < TIMEOUT
        server.start()
        assert await until_shared(ref) < 5
        await spend(ref)
        assert used(kept(server, "a")["r"]) == 1
    assert said(caplog) == [AWAY, SHARED]


async def test_dies_later_and_comes_back(server: Redis, caplog: pytest.LogCaptureFixture) -> None:
    """It comes back empty, and the script is there again."""
    async with replica(server.server(timeout_s=PATIENT), LIMITS) as ref:
        await claim(ref)
        server.kill()
        assert await worst_claim(ref, during_s=0.5) < TIMEOUT + SLACK
        assert not (await statistics(ref)).shared
        server.start()
        assert await until_shared(ref) < 5
        await spend(ref)
        assert used(kept(server, "a")["r"]) == 1
    assert said(caplog) == [SHARED, AWAY, SHARED]


async def test_frozen_later_and_thawed(server: Redis, caplog: pytest.LogCaptureFixture) -> None:
    """One command's patience, then none."""
    async with replica(server.server(), LIMITS) as ref:
        await claim(ref)
        server.freeze()
        try:
            assert TIMEOUT * 0.9 <= await claim(ref) < TIMEOUT + SLACK
            assert not (await statistics(ref)).shared
            assert await worst_claim(ref, during_s=0.3) < TIMEOUT
        finally:
            server.thaw()
        assert await until_shared(ref) < 5
    assert set(said(caplog)) == {SHARED, AWAY}


async def test_frozen_at_the_start_and_at_the_end(
    server: Redis, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It neither keeps anyone from starting for long, nor from stopping."""
    monkeypatch.setattr(client, "CONNECT_SECONDS", 0.3)
    server.freeze()
    try:
        begun = trio.current_time()
        async with replica(server.server(), LIMITS) as ref:
            assert 0.25 < trio.current_time() - begun < 0.3 + SLACK
            assert await worst_claim(ref, during_s=0.3) < TIMEOUT
            begun = trio.current_time()
        assert trio.current_time() - begun < SLACK
    finally:
        server.thaw()
    assert said(caplog) == [AWAY]


async def test_stopped_while_it_waits_for_an_answer(server: Redis) -> None:
    """The limiter stops at once, and who waits is told."""
    async with replica(server.server(timeout_s=5.0), LIMITS) as ref:
        await claim(ref)
        server.freeze()
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(claim, ref)
                await trio.sleep(0.05)
                begun = trio.current_time()
                nursery.cancel_scope.cancel()
            assert trio.current_time() - begun < SLACK
        except BaseException:
            server.thaw()
            raise
        begun = trio.current_time()
    server.thaw()
    assert trio.current_time() - begun < SLACK


async def test_slow_for_a_second(caplog: pytest.LogCaptureFixture) -> None:
    with redis("--enable-debug-command", "yes") as server:
        await slow_for_a_second(server)
    assert set(said(caplog)) == {SHARED, AWAY}


async def slow_for_a_second(server: Redis) -> None:
    async with replica(server.server(), LIMITS) as ref:
        await claim(ref)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(trio.to_thread.run_sync, server.command, "DEBUG", "SLEEP", "1")
            await trio.sleep(0.05)
            assert await claim(ref) < TIMEOUT + SLACK
            assert await worst_claim(ref, during_s=0.3) < TIMEOUT
        assert await until_shared(ref) < 5


async def test_a_flushed_server_and_a_flushed_script_are_not_noticed(
    server: Redis, caplog: pytest.LogCaptureFixture
) -> None:
    """A new account has used nothing, but this process keeps its own window."""
    limits = {"a": Limits(requests_per_minute=60)}
    async with replica(server.server(timeout_s=PATIENT), limits) as ref:
        (await reserve(ref, ("a",), tokens=1)).settle(None)
        await trio.sleep(0.1)
        assert server.command("FLUSHALL").startswith(b"+OK")
        assert server.command("SCRIPT", "FLUSH").startswith(b"+OK")
        (await reserve(ref, ("a",), tokens=1)).settle(None)
        assert used(kept(server, "a")["r"]) == 1
        assert (await statistics(ref)).providers["a"].requests_left == 58
        assert (await statistics(ref)).shared
    assert said(caplog) == [SHARED]


@pytest.mark.parametrize("how", ["read-only replica", "out of memory", "no write"])
async def test_a_server_on_which_one_cannot_write_is_away_and_said_once(
    how: str, server: Redis, caplog: pytest.LogCaptureFixture
) -> None:
    """Also one that has become so, and it is not taken for well every time that it answers."""
    bad, good = {
        "read-only replica": (("REPLICAOF", "127.0.0.1", "1"), ("REPLICAOF", "NO", "ONE")),
        "out of memory": (("CONFIG", "SET", "maxmemory", "1"), ("CONFIG", "SET", "maxmemory", "0")),
        "no write": (("ACL", "SETUSER", "default", "-hset"), ("ACL", "SETUSER", "default", "+hset")),
    }[how]
    async with replica(server.server(timeout_s=PATIENT), LIMITS) as ref:
        await claim(ref)
        assert server.command(*bad).startswith(b"+OK")
        assert await worst_claim(ref, during_s=0.5) < TIMEOUT + SLACK
        assert not (await statistics(ref)).shared
        assert server.command(*good).startswith(b"+OK")
        assert await until_shared(ref) < 5
    assert said(caplog) == [SHARED, AWAY, SHARED]


@pytest.mark.parametrize("user", ["", ":c4nary@", "someone:c4nary@"])
async def test_a_refused_login_is_said_once_and_without_the_password(
    user: str, caplog: pytest.LogCaptureFixture
) -> None:
    with redis("--requirepass", "other") as server:
        address = server.server(user=user)
        async with replica(address, LIMITS) as ref:
            assert await worst_claim(ref, during_s=0.3) < TIMEOUT
            assert not (await statistics(ref)).shared
    assert said(caplog) == [AWAY]
    assert "c4nary" not in caplog.text + repr(address) + address.name


async def test_a_password_is_percent_encoded_in_an_address() -> None:
    with redis("--requirepass", "p@ss/w:rd%") as server:
        async with replica(server.server(user=":p%40ss%2Fw%3Ard%25@", timeout_s=PATIENT), LIMITS) as ref:
            assert (await statistics(ref)).shared
            await claim(ref)
            assert (await statistics(ref)).shared


async def test_a_command_that_is_done_too_late_is_charged_once(server: Redis) -> None:
    """A frozen server does what it was asked when it wakes up; the request has gone long since."""
    async with replica(server.server(), LIMITS) as ref:
        await claim(ref)
        await trio.sleep(0.05)
        server.freeze()
        try:
            room = await reserve(ref, ("a",), tokens=5)
        finally:
            server.thaw()
        await until_shared(ref)
        room.settle(None)
        await claim(ref)
        await trio.sleep(0.05)
        assert used(kept(server, "a")["r"]) in (0, 1), "it was done, or not; but once"
