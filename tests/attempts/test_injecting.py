"""Cancellation at every point of the way from the vendor's socket to the follower, also between data and its reader.

A victim asks, beside a bystander. At one point after the other, until there are no more, something happens to the
victim: its caller leaves, its run is cancelled or its deadline passes. Whatever the moment: nothing crashes, is
restarted, rests or is refused; the books are at zero; and the bystander's answer is whole.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import trio

from llm_actors.run import Run
from llm_actors.testing import Injector, Order, nothing_left, run_virtual
from llm_protocol.policy import Limits
from support.attempts import ANSWER, World, answering, world
from support.harm import assert_unharmed, nothing_logged

GAP = 0.001
LATE = 1.0


class Victim:
    """Whoever something happens to."""

    def __init__(self, w: World, options: dict[str, Any], point: Callable[[], None]) -> None:
        self._w = w
        self._options = options
        self._point = point
        self.scope = trio.CancelScope()
        self.run: Run | None = None

    async def ask(self) -> None:
        stream = self._options.get("stream", True)
        self.run = Run(self._w.request(**{k: v for k, v in self._options.items() if k != "stream"}), stream=stream)
        with self.scope:
            await self._w.hand_in(self.run)
            with self.run.follow(wake=self._point) as follower:
                while await follower.next():
                    pass

    def leave(self) -> None:
        self.scope.cancel()

    def cancel(self) -> None:
        if self.run is not None:
            self.run.cancel("a test says so")

    def expire(self) -> None:
        if self.run is not None:
            self.run.scope.deadline = trio.current_time()


HAPPENINGS: dict[str, Callable[[Victim], None]] = {
    "the caller leaves": Victim.leave,
    "the run is cancelled": Victim.cancel,
    "the deadline passes": Victim.expire,
}

Options = dict[str, Any]
SCENARIOS: dict[str, tuple[Options, Limits, dict[str, Any]]] = {
    "streamed": ({}, Limits(max_concurrency=4), {"a": [answering(gap=GAP)]}),
    "all at once": ({}, Limits(max_concurrency=4), {"a": [answering()]}),
    "whole": ({"stream": False}, Limits(max_concurrency=4), {"a": [answering(late=GAP)]}),
    "waits in line": ({}, Limits(max_concurrency=1), {"a": [answering(gap=GAP)]}),
    "shared": ({"cache": "read"}, Limits(max_concurrency=4), {"a": [answering(gap=GAP)]}),
    "several hedged": (
        {"hedge": True},
        Limits(max_concurrency=4),
        {"a": [answering(late=LATE + 1)], "b": [answering(late=GAP, gap=GAP)]},
    ),
    "several raced": (
        {"strategy": "race", "members": ("a/m-a", "b/m-b")},
        Limits(max_concurrency=4),
        {"a": [answering(gap=GAP)], "b": [answering(gap=GAP)]},
    ),
    "several on a panel": (
        {"strategy": "panel", "members": ("a/m-a", "b/m-b"), "synthesiser": "longest", "stream_members": True},
        Limits(max_concurrency=4),
        {"a": [answering(gap=GAP)], "b": [answering(gap=GAP)]},
    ),
}


@pytest.mark.parametrize("order", Order, ids=lambda order: order.value)
@pytest.mark.parametrize("happening", HAPPENINGS)
@pytest.mark.parametrize("scenario", SCENARIOS)
def test_whatever_happens_to_one_request_nothing_else_notices(scenario: str, happening: str, order: Order) -> None:
    options, limits, vendors = SCENARIOS[scenario]
    happen = HAPPENINGS[happening]
    injector = Injector()
    step = (6 if scenario.startswith("several") else 2) * (1 if order is Order.OLDEST_FIRST else 2)

    async def main() -> None:
        async with nothing_left(), world(limits=limits, **vendors) as w:
            await w.ask(**options)
            tasks = w.task_count()
            for at in injector.every_point(step):
                same = options | {"prompt": f"Count from {at}."}  # one that is not in the cache yet
                victim = Victim(w, same, injector.point)
                if options.get("hedge"):
                    w.season("a", usual=LATE)
                with injector.at(at, lambda: happen(victim)):  # noqa: B023  (called within the block)
                    async with trio.open_nursery() as nursery:
                        nursery.start_soon(victim.ask)
                        asked = await w.ask(**same)
                    await w.settled()
                assert (at, asked.text, asked.response.content) == (at, ANSWER, ANSWER)
                if options.get("hedge"):
                    assert sorted(asked.outcomes()) == ["a:cancelled", "b:ok"]
                assert victim.run is None or victim.run.log.end is not None or not victim.run.log.events
                assert_unharmed(w.tree)
                assert w.task_count() == tasks
            assert injector.points > 50
            if scenario == "streamed" and order is Order.OLDEST_FIRST:
                assert w.tree.services.metrics.late_events > 0, "data came in the very pass of the cancellation"

    with nothing_logged():
        run_virtual(main, seed=order, instruments=[injector])
