"""What a replica writes to Redis, and what it does when Redis is slow, away or full: no socket, and virtual time."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trio
import trio.testing
from trio.testing import MockClock

from llm_actors.redis import UNREACHABLE, RedisAwayError, RedisProblem, RedisServer
from llm_actors.redis_link import QUEUE_SECONDS, Argument
from llm_actors.run import Run
from llm_actors.shared_responses import SharedResponses
from llm_actors.shared_responses.responses import FOLLOWED_AT_ONCE
from llm_protocol.content import Message
from llm_protocol.dialect import ClientRequest
from llm_protocol.requests import ChatRequest
from llm_protocol.secret import Secret
from llm_protocol.wires.responses import ResponseOptions
from llm_runtime.config import ServerLimits
from llm_runtime.server import unwritten
from llm_runtime.server.http_error import HttpError
from llm_runtime.server.replicas import Replicas
from llm_runtime.server.response_store import ResponseStore, StoredResponse
from support.server import add_text, begin_text, end_text

REQUEST = ChatRequest(model="m", messages=(Message.of("user", "hi"),))


class FakeRedis:
    """Takes the calls of a link, and keeps what was put."""

    def __init__(self) -> None:
        self.is_away = False
        self.calls: list[tuple[str, tuple[Argument, ...]]] = []
        self.rows: dict[str, str] = {}
        """The ending of each row that was put."""
        self.before: Callable[[str, Sequence[Argument]], Awaitable[None]] | None = None
        """Called, and awaited, before each call."""

    async def call(self, keys: Sequence[str], *arguments: Argument, **_: object) -> list[bytes]:
        await trio.lowlevel.checkpoint()
        what = str(arguments[0])
        if self.before is not None:
            await self.before(what, arguments)
        if self.is_away:
            raise RedisAwayError(RedisProblem(UNREACHABLE, "away"))
        self.calls.append((what, arguments))
        if what == "put":
            rows = [key.rpartition(":")[2] for key in keys if ":response:" in key]
            first = len(arguments) - 8 * len(rows)
            for number, row in enumerate(rows):
                self.rows[row] = str(arguments[first + 8 * number + 7])
            return [b"ok"] * len(rows)
        return {"order": [b"ok"], "sync": [b"1"]}.get(what, [])

    def count(self, what: str) -> int:
        """How often this was called."""
        return sum(each == what for each, _ in self.calls)


class Maker:
    """A replica and its Redis."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *, ttl_s: float = 1000.0, **limits: Any) -> None:
        self.redis = FakeRedis()
        self.store = ResponseStore(ServerLimits(**limits))
        shared = SharedResponses(RedisServer(url=Secret("redis://127.0.0.1:1/0")), ttl_s=ttl_s)
        monkeypatch.setattr(shared.link, "call", self.redis.call)
        monkeypatch.setattr(shared.link, "run", trio.sleep_forever)
        shared.link.tried.set()
        self.replicas = Replicas(shared, self.store, lambda _: None)

    def begin(self, size: int = 10) -> StoredResponse:
        """A response of this replica that runs."""
        run = Run(REQUEST, stream=True)
        begin_text(run)
        stored = StoredResponse(run, ClientRequest(REQUEST), ResponseOptions(), REQUEST.messages, size)
        self.store.put(stored)
        self.replicas.keep(stored)
        return stored

    def complete(self, text: str = "text") -> StoredResponse:
        """One that has ended."""
        stored = self.begin()
        add_text(stored.run, text)
        end_text(stored.run)
        self.store.tick(trio.current_time())
        return stored

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        async with trio.open_nursery() as nursery:
            await nursery.start(lambda task_status: self.replicas.run(task_status=task_status))
            yield
            nursery.cancel_scope.cancel()


@pytest.fixture
def maker(monkeypatch: pytest.MonkeyPatch) -> Maker:
    return Maker(monkeypatch)


async def test_what_is_deleted_while_others_are_packed_is_not_written(
    autojump_clock: MockClock, maker: Maker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its own packing may be what is waited for, or that of an earlier one."""
    packing, packed = trio.Event(), trio.Event()

    async def slow(_: int, function: Callable[..., bytes], *args: Any) -> bytes:
        packing.set()
        await packed.wait()
        return function(*args)

    monkeypatch.setattr(unwritten, "run_large", slow)
    first, second, third = maker.begin(), maker.begin(), maker.begin()
    async with maker.running():
        await packing.wait()
        for stored in first, second:
            await maker.replicas.forget(stored.id, "")
            maker.store.drop(stored)
        packed.set()
        await trio.sleep(1)
        assert maker.redis.rows == {third.id: ""}


async def test_a_bug_in_one_exchange_is_logged_and_the_next_one_goes_on(
    autojump_clock: MockClock, maker: Maker, caplog: pytest.LogCaptureFixture
) -> None:
    async def bug(what: str, _: Sequence[Argument]) -> None:
        maker.redis.before = None
        raise KeyError(what)

    maker.redis.before = bug
    stored = maker.begin()
    async with maker.running():
        await trio.sleep(10)
        assert maker.redis.rows == {stored.id: ""}
    assert caplog.text.count("internal error while writing responses to Redis") == 1


async def test_a_deletion_that_is_cancelled_leaves_the_response_with_its_writer(
    autojump_clock: MockClock, maker: Maker
) -> None:
    async def frozen(what: str, _: Sequence[Argument]) -> None:
        if what == "order":
            await trio.sleep_forever()

    stored = maker.begin()
    async with maker.running():
        await trio.sleep(1)
        maker.redis.before = frozen
        with trio.move_on_after(1):
            await maker.replicas.forget(stored.id, "")
        end_text(stored.run)
        await trio.sleep(1)
        assert maker.redis.rows == {stored.id: "e"}


async def test_a_deletion_while_redis_is_away_is_refused_and_the_response_is_written_later(
    autojump_clock: MockClock, maker: Maker
) -> None:
    stored = maker.begin()
    maker.redis.is_away = True
    async with maker.running():
        with pytest.raises(HttpError):
            await maker.replicas.forget(stored.id, "")
        maker.redis.is_away = False
        await trio.sleep(1)
        assert maker.redis.rows == {stored.id: ""}


async def test_the_ids_of_a_vendor_that_one_caller_receives_are_few_commands(
    autojump_clock: MockClock, maker: Maker
) -> None:
    for number in range(2_500):
        maker.replicas.issue("alice", [b"%d" % number])
    maker.replicas.issue("bob", [b"1", b"1"])
    async with maker.running():
        await trio.sleep(1)
    written = [arguments for what, arguments in maker.redis.calls if what == "issue"]
    assert len(written) == 4
    assert {each for arguments in written for each in arguments if isinstance(each, bytes)} == {
        b"%d" % number for number in range(2_500)
    }


async def test_what_memory_has_no_room_for_while_redis_is_away_is_written_when_it_is_back(
    autojump_clock: MockClock,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    maker = Maker(monkeypatch, stored_mb=0)
    maker.redis.is_away = True
    async with maker.running():
        made = [maker.complete() for _ in range(100)]
        maker.store.tick(trio.current_time())
        assert all(each.is_gone for each in made)
        with pytest.raises(HttpError):
            await maker.replicas.bring(made[0].id, "")
        await trio.sleep(10)
        maker.redis.is_away = False
        await trio.sleep(1)
        assert maker.redis.rows == {each.id: "e" for each in made}


async def test_beyond_a_limit_of_bytes_the_oldest_are_lost_and_their_rows_ended(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(unwritten, "UNWRITTEN_BYTES", 100_000)
    maker = Maker(monkeypatch, stored_mb=0)
    begun = maker.begin()
    async with maker.running():
        await trio.sleep(1)
        maker.redis.is_away = True
        end_text(begun.run)
        maker.store.tick(trio.current_time())
        made = [maker.complete("x" * 10_000) for _ in range(50)]
        maker.store.tick(trio.current_time())
        await trio.sleep(1)
        pending = [each for each in made if maker.replicas.live.get(each.id) is not None]
        assert 1 < len(pending) <= 10
        assert pending == made[-len(pending) :]
        maker.redis.is_away = False
        await trio.sleep(1)
        assert [maker.redis.rows.get(each.id) for each in pending] == ["e"] * len(pending)
        assert maker.redis.rows[begun.id] == "i"
    assert caplog.text.count("other replicas cannot read some responses") == 1


async def test_what_has_expired_while_redis_was_away_is_not_written(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    maker = Maker(monkeypatch, ttl_s=5.0, stored_mb=0)
    maker.redis.is_away = True
    async with maker.running():
        stored = maker.complete()
        maker.store.tick(trio.current_time())
        await trio.sleep(7)
        maker.redis.is_away = False
        await trio.sleep(1)
        assert maker.replicas.live.get(stored.id) is None
        assert maker.redis.rows == {stored.id: "i"}


async def test_a_change_that_redis_does_not_take_in_time_stops_no_other(
    autojump_clock: MockClock, maker: Maker, caplog: pytest.LogCaptureFixture
) -> None:
    """Its own replica keeps it."""

    async def too_slow(what: str, arguments: Sequence[Argument]) -> None:
        if what == "put" and sum(len(each) for each in arguments if isinstance(each, bytes)) > 2_000_000:
            await trio.sleep(2)
            raise RedisAwayError(RedisProblem(UNREACHABLE, "no reply within 2000 ms"))

    maker.redis.before = too_slow
    large, small = maker.complete("x" * 3_000_000), maker.complete()
    async with maker.running():
        await trio.sleep(4)
        assert maker.redis.rows == {small.id: "e"}
        await trio.sleep(10)
        assert maker.redis.rows == {small.id: "e", large.id: "l"}
        assert maker.store.find_any(large.id) is large
        assert not large.is_shared
    assert caplog.text.count("attempts to write it to Redis failed") == 1


async def test_an_orderly_end_waits_a_moment_for_redis_to_be_back(autojump_clock: MockClock, maker: Maker) -> None:
    async with maker.running(), trio.open_nursery() as nursery:
        await trio.sleep(1)
        maker.redis.is_away = True
        stored = maker.complete()

        async def back() -> None:
            await trio.sleep(1.5)
            maker.redis.is_away = False

        nursery.start_soon(back)
        await maker.replicas.flush()
        assert maker.redis.rows == {stored.id: "e"}
        assert maker.redis.calls[-1][0] == "leave"
        maker.replicas.wake()
        await trio.sleep(5)
        assert maker.redis.calls[-1][0] == "leave", "it has left"


async def test_an_orderly_end_does_not_wait_for_long(autojump_clock: MockClock, maker: Maker) -> None:
    maker.redis.is_away = True
    maker.complete()
    async with maker.running():
        began = trio.current_time()
        await maker.replicas.flush()
        assert trio.current_time() - began < 3


async def test_who_reads_waits_its_turn_for_a_while_only(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    shared = SharedResponses(RedisServer(url=Secret("redis://none")), ttl_s=1000.0)
    waiting = 0

    async def call(*_: object, **__: object) -> list[bytes]:
        nonlocal waiting
        waiting += 1
        await trio.sleep_forever()
        raise AssertionError

    monkeypatch.setattr(shared.link, "call", call)
    async with trio.open_nursery() as nursery:
        for _ in range(FOLLOWED_AT_ONCE):
            nursery.start_soon(shared.tail, "resp_", "generation", 0)
        await trio.testing.wait_all_tasks_blocked()
        begun = trio.current_time()
        with pytest.raises(RedisAwayError, match="reading 32 responses of other replicas already"):
            await shared.tail("resp_", "generation", 0)
        assert (trio.current_time() - begun, waiting) == (QUEUE_SECONDS, FOLLOWED_AT_ONCE)
        nursery.cancel_scope.cancel()


async def test_an_empty_answer_of_redis_is_no_answer(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    shared = SharedResponses(RedisServer(url=Secret("redis://none")), ttl_s=1000.0)

    async def call(*_: object, **__: object) -> list[bytes]:
        await trio.lowlevel.checkpoint()
        return []

    monkeypatch.setattr(shared.link, "call", call)
    with pytest.raises(RedisAwayError, match="is invalid"):
        await shared.sync()
