"""The selector actor: observations in, a copy kept, and no harm done by its crash."""

from __future__ import annotations

import logging

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from llm_actors.kernel import Backoff, Strategy, Supervisor, running
from llm_actors.provider import AttemptResult
from llm_actors.selector import CircuitState, Selector, observe, selector_child
from llm_actors.selector.actor import OBSERVATIONS_WAITING
from llm_actors.testing import Crash, no_open_ends, with_faults
from llm_protocol.events import Failed, Finished
from llm_protocol.failures import FailureKind
from llm_protocol.requests import RequestType
from llm_protocol.response import FinishReason, Usage
from support.actors import CrashCast, member
from support.selecting import A, B, cost_of, failed, failure, success

CHAT = RequestType.CHAT
WELL = AttemptResult(end=Finished(reason=FinishReason.STOP), first_token_s=0.25, duration_s=1.25)
DOWN = AttemptResult(end=Failed(failure=failed(FailureKind.NETWORK)), duration_s=0.0)
CANCELLED = AttemptResult(end=Failed(failure=failed(FailureKind.CANCELLED)), duration_s=0.5)


async def test_what_attempts_showed_is_in_the_next_ranking(autojump_clock: MockClock) -> None:
    made = Selector(cost_of)
    child = selector_child(made)
    root = Supervisor([child])
    async with running(root):
        began = trio.current_time()
        await trio.sleep(1.25)
        observe(
            root.ref(child),
            A,
            WELL,
            began=began,
            request_type=CHAT,
            stream=True,
            usage=Usage(output_tokens=100),
            cost=1e-3,
        )
        await wait_all_tasks_blocked()
        performance = made.known(A)
        assert performance.first_token.mean.value == 0.25
        assert performance.latency_s(Usage(output_tokens=100)) == pytest.approx(1.25, rel=0.05)
        assert performance.cost_per_token.known == pytest.approx(1e-5)


async def test_a_cancelled_probe_frees_its_slot_on_the_way_out(autojump_clock: MockClock) -> None:
    made = Selector(cost_of)
    child = selector_child(made)
    root = Supervisor([child])
    async with running(root):
        ref = root.ref(child)
        for _ in range(5):
            observe(ref, A, DOWN, began=trio.current_time(), request_type=CHAT, stream=True)
        await trio.sleep(1.0)
        began = trio.current_time()
        assert made.admit(A, began) is None

        with trio.move_on_after(0.5):
            try:
                await trio.sleep_forever()
            finally:
                observe(ref, A, CANCELLED, began=began, request_type=CHAT, stream=True)
        assert made.admit(A, trio.current_time()) is None


async def test_g4_a_crash_costs_only_the_observation_in_hand(autojump_clock: MockClock) -> None:
    made = Selector(cost_of)
    child = with_faults(selector_child(made), {8: Crash()})
    root = Supervisor([child], backoff=Backoff.none())
    with no_open_ends():
        async with running(root):
            ref = root.ref(child)
            ref.cast(success(B, trio.current_time(), took=3.0))
            for _ in range(5):
                ref.cast(failure(A, trio.current_time()))
            await trio.sleep(0.5)
            assert made.circuits.deployment(A, trio.current_time()).state is CircuitState.OPEN
            await trio.sleep(10.0)
            for _ in range(2):
                ref.cast(failure(B, trio.current_time()))
            await wait_all_tasks_blocked()
            assert made.known(B).latency_s(Usage(input_tokens=1_000, output_tokens=300)) == pytest.approx(3.0, rel=0.05)
            assert made.known(B).bad.amount == 1.0, "the eighth message is lost"
            assert made.circuits.deployment(A, trio.current_time()).state is CircuitState.HALF_OPEN

            ref.cast(success(A, trio.current_time(), took=0.0))
            await wait_all_tasks_blocked()
            assert made.circuits.deployment(A, trio.current_time()).state is CircuitState.CLOSED


async def test_thirty_samples_in_one_instant_are_thirty_after_a_crash(autojump_clock: MockClock) -> None:
    made = Selector(cost_of)
    child = with_faults(selector_child(made), {31: Crash()})
    root = Supervisor([child], backoff=Backoff.none())
    async with running(root):
        for _ in range(32):
            root.ref(child).cast(success(A, 1.0))
        await wait_all_tasks_blocked()
        assert root.tree().children[0].restarts == 1
        assert made.known(A).whole.mean.count == 31, "the one in hand is lost"


async def test_after_a_clean_restart_an_open_breaker_is_still_open(autojump_clock: MockClock) -> None:
    made = Selector(cost_of)
    child = selector_child(made)
    branch = Supervisor([child, member("neighbour")], strategy=Strategy.ONE_FOR_ALL, backoff=Backoff.none())
    async with running(branch):
        for _ in range(5):
            branch.ref(child).cast(failure(A, 0.0))
        await wait_all_tasks_blocked()
        branch.ref("neighbour").cast(CrashCast())
        await wait_all_tasks_blocked()
        assert branch.tree().children[0].restarts == 1
        assert made.circuits.deployment(A, 0.1).state is CircuitState.OPEN


async def test_observing_never_fails_and_never_waits(autojump_clock: MockClock) -> None:
    """A flood displaces the oldest; an actor that has stopped makes a dead letter."""
    made = Selector(cost_of)
    child = selector_child(made)
    root = Supervisor([child])
    ref = root.ref(child)
    for number in range(OBSERVATIONS_WAITING + 10):  # the actor does not run yet
        ref.cast(success(A if number < 10 else B, 1.0))
    assert ref.statistics().dropped == 10
    async with running(root):
        await wait_all_tasks_blocked()
        assert made.known(A).whole.mean.count == 0
        assert made.known(B).whole.mean.count == OBSERVATIONS_WAITING
    observe(ref, A, WELL, began=0.0, request_type=CHAT, stream=True)
    assert ref.statistics().dead_letters == 1


async def test_a_refused_key_is_told_once_a_minute(autojump_clock: MockClock, caplog: pytest.LogCaptureFixture) -> None:
    """A fallback answers in its place: nobody else would notice."""
    caplog.set_level(logging.WARNING)
    child = selector_child(Selector(cost_of))
    root = Supervisor([child])
    async with running(root):
        for kind, wait in ((FailureKind.AUTH, 30), (FailureKind.QUOTA, 31), (FailureKind.QUOTA, 0)):
            root.ref(child).cast(failure(A, trio.current_time(), kind))
            root.ref(child).cast(failure(A, trio.current_time(), FailureKind.RATE_LIMITED))
            await trio.sleep(wait)
        await wait_all_tasks_blocked()
    assert caplog.messages == [
        f"{A}: the vendor refused the configured key",
        f"{A}: the provider's account has used up its quota or credit",
    ]


async def test_an_outage_is_logged_once_and_so_is_its_end(
    autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    made = Selector(cost_of)
    child = selector_child(made)
    root = Supervisor([child])
    async with running(root):
        ref = root.ref(child)
        for _ in range(5):
            ref.cast(failure(A, trio.current_time()))
        await wait_all_tasks_blocked()
        for outcome in (DOWN, DOWN, WELL):
            now = trio.current_time()
            await trio.sleep(made.circuits.deployment(A, now).free_in(now))
            began = trio.current_time()
            assert made.admit(A, began) is None
            observe(ref, A, outcome, began=began, request_type=CHAT, stream=True)
            await wait_all_tasks_blocked()
    told = [(record.levelname, record.message) for record in caplog.records if record.name.endswith("selector.actor")]
    assert told == [
        ("WARNING", "a/m: circuit open for 1.0 s: 5 failures in a row, the last: server_error"),
        ("INFO", "a/m responds again: the probe succeeded"),
    ]
