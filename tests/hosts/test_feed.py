"""The two ends of a stream, and when a host is woken."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import cast

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from llm_actors.run import Run
from llm_protocol.errors import RequestCancelledError, ShuttingDownError
from llm_protocol.events import Event, Failed, Finished, Started, TextDelta
from llm_protocol.failures import Failure, FailureKind
from llm_protocol.requests import AnyRequest, ChatRequest
from llm_protocol.response import FinishReason
from llm_runtime.hosts.actions import TurnEnd
from llm_runtime.hosts.feed import BATCHES_AHEAD, BATCHES_LEFT, Feed, Received
from llm_runtime.trio_requests import TrioRequests

REQUEST = ChatRequest(model="m", messages=())
TEXT = TextDelta(0, "x")


class OneRun:
    """A runtime of one run, whose log the test writes."""

    def __init__(self) -> None:
        self.run = Run(REQUEST, stream=True)

    async def submit_stream(self, request: AnyRequest) -> Run:
        await trio.lowlevel.checkpoint()
        assert request is REQUEST
        return self.run


class Fed:
    """A feed that runs, and what the host has received."""

    def __init__(self, turn_end: TurnEnd) -> None:
        self.runtime = OneRun()
        self.log = self.runtime.run.log
        self.told: list[str] = []
        self.received = Received(REQUEST)
        self.feed = Feed(REQUEST, self.received, turn_end, lambda wake: wake(), lambda: self.told.append("wake"))

    def resume(self) -> None:
        self.told.append("resume")
        self.feed.go_on()

    async def go(self) -> None:
        await self.feed.run(cast("TrioRequests", self.runtime))
        self.told.append("ended")

    def read(self) -> list[Event]:
        return list(iter(self.next, None))

    def next(self) -> Event | None:
        return self.received.next(self.resume)


@asynccontextmanager
async def feeding() -> AsyncIterator[Fed]:
    turn_end = TurnEnd()
    trio.lowlevel.add_instrument(turn_end)
    fed = Fed(turn_end)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(fed.go)
        await wait_all_tasks_blocked()
        yield fed
        nursery.cancel_scope.cancel()
    trio.lowlevel.remove_instrument(turn_end)


async def test_the_events_of_one_turn_are_one_batch_with_deltas_joined() -> None:
    async with feeding() as fed:
        for event in (Started(), TEXT, TEXT, TEXT):
            fed.log.append(event)
        assert fed.read() == [], "nothing is sent within the turn"
        await trio.lowlevel.checkpoint()
        assert fed.told == ["wake", "wake"]
        assert fed.read() == [Started(), TextDelta(0, "xxx")]


async def test_the_last_events_and_the_end_of_the_call_are_one_wake_up() -> None:
    async with feeding() as fed:
        fed.log.append(TEXT)
        end = Finished(reason=FinishReason.STOP)
        fed.log.append(end)
        await wait_all_tasks_blocked()
        assert fed.told == ["wake", "ended"]
        assert fed.read() == [TEXT, end]
        assert fed.received.has_ended
        assert fed.log.followers == 0


async def test_a_host_that_takes_nothing_has_a_bounded_number_of_batches() -> None:
    async with feeding() as fed:
        for _ in range(2 * BATCHES_AHEAD):
            fed.log.append(TEXT)
            await trio.lowlevel.checkpoint()
        assert fed.told == ["wake"] * (1 + BATCHES_AHEAD)
        for _ in range(BATCHES_AHEAD - BATCHES_LEFT - 1):
            fed.next()
        assert "resume" not in fed.told
        fed.next()
        assert fed.told[-2:] == ["resume", "wake"], "the feed goes on before the host has nothing left"
        rest = fed.read()
        assert rest == [*[TEXT] * BATCHES_LEFT, TextDelta(0, "x" * BATCHES_AHEAD)]
        assert fed.told.count("resume") == 1


async def test_the_end_is_sent_to_a_host_that_takes_nothing() -> None:
    async with feeding() as fed:
        for _ in range(2 * BATCHES_AHEAD):
            fed.log.append(TEXT)
            await trio.lowlevel.checkpoint()
        fed.log.append(Failed(failure=Failure(kind=FailureKind.CANCELLED, message="cancelled")))
        await wait_all_tasks_blocked()
        with pytest.raises(RequestCancelledError):
            fed.read()
        assert fed.received.has_ended


async def test_what_arrived_before_the_runtime_stopped_is_sent() -> None:
    async with feeding() as fed:
        fed.log.append(TEXT)
        end = Finished(reason=FinishReason.STOP)
        fed.log.append(end)
    assert fed.read() == [TEXT, end]


def test_what_was_received_can_be_read_after_the_runtime_has_ended() -> None:
    def resume() -> None:
        raise ShuttingDownError("the runtime is not running")

    received = Received(REQUEST)
    for _ in range(BATCHES_AHEAD):
        received.add([TEXT])
    assert not received.has_room()
    assert list(iter(lambda: received.next(resume), None)) == [TEXT] * BATCHES_AHEAD
    assert not received.has_ended


def test_a_host_that_takes_batches_while_the_feed_looks_for_room_is_not_forgotten() -> None:
    resumed: list[None] = []
    received = Received(REQUEST)
    for _ in range(BATCHES_AHEAD):
        received.add([TEXT])
    assert not received.has_room()
    while not resumed:
        assert received.next(lambda: resumed.append(None)) is not None
    assert received.has_room()
    assert len(list(iter(lambda: received.next(lambda: resumed.append(None)), None))) == BATCHES_LEFT
    assert len(resumed) == 1


async def test_the_response_so_far_has_the_events_that_were_taken() -> None:
    async with feeding() as fed:
        fed.log.append(Started(provider="p"))
        fed.log.append(TEXT)
        await trio.lowlevel.checkpoint()
        assert fed.next() == Started(provider="p")
        assert fed.received.response.output == ()
        fed.read()
        assert fed.received.response.provider == "p"


async def test_what_the_tasks_of_one_turn_have_for_another_thread_is_one_call_at_its_end() -> None:
    turn_end, called = TurnEnd(), list[str]()
    trio.lowlevel.add_instrument(turn_end)

    async def task(name: str) -> None:
        turn_end.call(lambda: called.append(name))
        assert called == []

    async with trio.open_nursery() as nursery:
        nursery.start_soon(task, "a")
        nursery.start_soon(task, "b")
    await trio.lowlevel.checkpoint()
    assert sorted(called) == ["a", "b"]
    turn_end.call(lambda: called.append("last"))
    trio.lowlevel.remove_instrument(turn_end)
    turn_end.close()
    turn_end.call(lambda: called.append("at once"))
    assert called[2:] == ["last", "at once"]
