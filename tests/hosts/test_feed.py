"""The host's end of a stream, and when a host is woken."""

from __future__ import annotations

import trio

from llm_protocol.errors import ShuttingDownError
from llm_protocol.events import Started, TextDelta
from llm_protocol.requests import ChatRequest
from llm_runtime.hosts.feed import BATCHES_AHEAD, BATCHES_TOLD, Received
from llm_runtime.hosts.turn_end import TurnEnd


def test_what_has_come_can_be_read_after_the_runtime_has_ended() -> None:
    def take(count: int) -> None:
        raise ShuttingDownError("the runtime is not running")

    received = Received(ChatRequest(model="m", messages=()), take)
    started, text = Started(), TextDelta(0, "Hello")
    received.add([started])
    for _ in range(BATCHES_AHEAD):
        received.add([text])
    assert [received.next() for _ in range(BATCHES_AHEAD + 2)] == [started, *[text] * BATCHES_AHEAD, None]
    assert not received.has_ended


def test_what_was_taken_is_told_before_the_feed_has_to_wait_and_not_for_every_batch() -> None:
    told: list[int] = []
    received = Received(ChatRequest(model="m", messages=()), told.append)
    for _ in range(BATCHES_AHEAD):
        received.add([TextDelta(0, "x")])
    for _ in range(BATCHES_AHEAD):
        received.next()
    assert told == [BATCHES_TOLD] * (BATCHES_AHEAD // BATCHES_TOLD)
    assert sum(told) == BATCHES_AHEAD


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
