"""The whole path: cancelled at every step, with a retry, a failover, a hedge and followers of one flight.

The first candidate fails twice, the second is late, the third is asked beside it and answers. Whatever the moment,
all books are at zero afterwards, every log has an end, and whoever stayed has the whole answer.
"""

from __future__ import annotations

import threading

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from llm_actors.orchestrator import candidates
from llm_actors.provider import Prepared, adapted_to
from llm_actors.provider.spec import ProviderWires
from llm_actors.run import Run
from llm_actors.testing import nothing_left, run_virtual
from llm_actors.threads import LARGE_AT_ONCE, LARGE_BYTES, run_large
from llm_protocol.failures import FailureKind
from llm_protocol.policy import Limits
from llm_protocol.requests import AnyRequest
from support.attempts import ANSWER, Asked, World, answer, answering, status, world
from support.peer import pause

DEADLINE = 60.0
LATE = 2.0


class _CancelAt(trio.abc.Instrument):
    """Counts the steps of all tasks from `arm` on, and at one of them cancels all that was given out by `scope`."""

    def __init__(self, step: int) -> None:
        self._scopes: list[trio.CancelScope] = []
        self.steps = 0
        self._step = step
        self._armed = False

    def scope(self) -> trio.CancelScope:
        self._scopes.append(trio.CancelScope())
        return self._scopes[-1]

    def arm(self, armed: bool) -> None:
        self._armed = armed

    def after_task_step(self, task: trio.lowlevel.Task) -> None:
        self.steps += self._armed
        if self._armed and self.steps == self._step:
            for scope in self._scopes:
                scope.cancel(reason=f"at step {self._step}")


async def _ask(w: World, scope: trio.CancelScope, got: list[Asked], cache: str) -> None:
    with scope:
        got.append(await w.ask(hedge=True, deadline_s=DEADLINE, cache=cache))


def _run(step: int, callers: int, leaving: int, cache: str) -> int:
    """One run, in which the first ``leaving`` of ``callers`` leave at ``step``; 0: never. Return the steps it took."""
    bomb = _CancelAt(step)

    async def scenario() -> None:
        late, prompt = answering(late=30), answering(late=0.5, gap=0.1)
        async with nothing_left(), world(a=[status(500)], b=[late], c=[prompt]) as w:
            w.season("b", usual=LATE)
            got: list[Asked] = []
            bomb.arm(True)
            async with trio.open_nursery() as nursery:
                for number in range(callers):
                    scope = bomb.scope() if number < leaving else trio.CancelScope()
                    nursery.start_soon(_ask, w, scope, got, cache)
            bomb.arm(False)
            await w.settled()
            assert all(_has_ended(run) for run in w.runs)
            assert len(got) >= callers - leaving
            assert all(asked.text == asked.response.content == ANSWER for asked in got)
            if len(got) == callers:
                assert sorted(got[0].outcomes()) == ["a:server_error", "a:server_error", "b:cancelled", "c:ok"]
            assert w.calls <= 4, "one flight for all"
            await _still_works(w)

    run_virtual(scenario, seed=step, instruments=[bomb])
    return bomb.steps


def _has_ended(run: Run) -> bool:
    """With an end; or it was never accepted, and nobody was told anything."""
    return run.log.end is not None or not run.log.events


async def _still_works(w: World) -> None:
    """Nothing that was cancelled is in the way of the next: no slot, no lease, no probe, no place in line."""
    async with trio.open_nursery() as nursery:
        for _ in range(4):  # as many as c has slots
            nursery.start_soon(_whole, w)
    await w.settled()


async def _whole(w: World) -> None:
    asked = await w.ask(model="c/m-c")
    assert (asked.text, asked.took < 2) == (ANSWER, True)


@pytest.mark.parametrize(
    ("callers", "leaving", "cache"),
    [(1, 1, "off"), (3, 3, "read"), (3, 1, "read")],
    ids=["alone", "all of a flight", "the leader of a flight"],
)
def test_cancelled_at_any_step_everything_is_given_back(callers: int, leaving: int, cache: str) -> None:
    steps = _run(0, callers, leaving, cache)
    assert steps > 50
    for step in range(1, steps + 1):
        _run(step, callers, leaving, cache)


async def test_a_leader_out_of_time_leaves_the_flight_to_who_has_more(autojump_clock: MockClock) -> None:
    async with world(a=[answering(late=4)]) as w:
        got: list[Asked] = []

        async def one(deadline: float) -> None:
            got.append(await w.ask(cache="read", deadline_s=deadline))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(one, 2)
            await trio.sleep(1)
            nursery.start_soon(one, 10)
        await w.settled()

    leader, follower = got
    assert leader.failure is not None
    assert (leader.failure.kind, leader.took) == (FailureKind.DEADLINE, 2)
    assert follower.text == ANSWER
    assert w["a"].calls == 1


async def test_a_retry_past_the_leaders_deadline_is_made_for_a_follower_with_more(autojump_clock: MockClock) -> None:
    """What the leader has no time for must not cost those who have."""
    async with world(a=[[pause(1), status(429, retry_after="5")], answer]) as w:
        got: dict[float, Asked] = {}

        async def one(deadline: float) -> None:
            got[deadline] = await w.ask(cache="read", deadline_s=deadline)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(one, 3)
            await trio.sleep(0.5)
            nursery.start_soon(one, 30)
        await w.settled()

    leader = got[3].failure
    assert leader is not None
    assert (leader.kind, got[3].took) == (FailureKind.DEADLINE, 3)
    assert (got[30].text, got[30].outcomes()) == (ANSWER, ["a:rate_limited", "a:ok"])
    assert w["a"].calls == 2


async def test_a_follower_out_of_time_is_told_how_far_the_flight_had_come(autojump_clock: MockClock) -> None:
    async with world(a=[status(401)], b=[answering(late=10)]) as w:
        asked = await w.ask(cache="read", deadline_s=3)
        await w.settled()

    assert asked.failure is not None
    assert (
        asked.failure.message
        == "no complete response within the request's deadline of 3 s; a/m-a: no; b/m-b: unfinished"
    )
    assert asked.outcomes() == ["a:auth", "b:unfinished"]
    assert asked.decision["cache"] == "miss"


async def test_who_leaves_while_a_large_request_is_checked_for_the_next_candidate_keeps_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """On the real clock: a virtual one would jump while threads work."""
    gate = threading.Event()

    async def hold_thread() -> None:
        await run_large(LARGE_BYTES, gate.wait, 30.0)

    def occupy() -> None:
        for _ in range(LARGE_AT_ONCE):
            nursery.start_soon(hold_thread)

    def adapt_and_occupy(wires: ProviderWires, request: AnyRequest) -> Prepared:
        """After the first candidate, the second has to wait for a thread. Its place is taken by then."""
        if request.model == "m-a" and len(w.runs) > 1:
            trio.from_thread.run_sync(occupy)
        return adapted_to(wires, request)

    monkeypatch.setattr(candidates, "adapted_to", adapt_and_occupy)
    limits = {"a": Limits(requests_per_minute=1), "b": Limits(requests_per_minute=100)}
    async with world(limits=limits, a=[answer], b=[answer]) as w, trio.open_nursery() as nursery:
        assert (await w.ask()).text == ANSWER
        run = await w.submit(prompt="x" * LARGE_BYTES)
        await wait_all_tasks_blocked(0.1)
        assert (await w.statistics()).leases == 1
        run.cancel("the caller has left")
        gate.set()
        asked = await w.see(run, trio.current_time())
        assert asked.failure is not None
        assert asked.failure.kind is FailureKind.CANCELLED
        await w.settled()
        assert (w["a"].calls, w["b"].calls) == (1, 0)
