"""Several models at one provider: what one of them suffers is not the others' trouble."""

from __future__ import annotations

import errno

import pytest
import trio
from trio.testing import MockClock

from attempts.test_faults import FAULTS, Fault
from llm_actors.catalog import Candidate
from llm_actors.selector import CircuitState
from llm_actors.selector.breaker import FAILURES_IN_A_ROW, CircuitBreaker
from llm_actors.selector.performance import Performance
from llm_protocol.failures import RULES, FailureKind, Step
from llm_protocol.policy import Limits
from support.attempts import ANSWER, Asked, Vendor, World, answer, by_model, status, world
from support.peer import Call, Script

ROUTE = ("a/m-a", "a/m-b")
ROOM = Limits(max_concurrency=64)
SLOW = {FailureKind.TIMEOUT_FIRST_TOKEN, FailureKind.TIMEOUT_IDLE, FailureKind.TIMEOUT_TOTAL}
REQUESTS = 60
LONGEST = 2.2
"""Seconds: a Retry-After of 2 s is waited out with its jitter, as it is where two providers are at hand."""


def is_failed_over(fault: Fault) -> bool:
    """Whether it is one model's, another may follow it, and it does not take its time."""
    return not fault.dial and not fault.delivers and fault.kind not in SLOW and RULES[fault.kind].step is not Step.STOP


async def ask_all(w: World, *, requests: int, at_once: int, stream: bool) -> list[Asked]:
    asked: list[Asked] = []
    left = iter(range(requests))

    async def worker() -> None:
        for _ in left:
            each = await w.ask(stream=stream, candidates=ROUTE, select="order")
            asked.append(each)

    async with trio.open_nursery() as nursery:
        for _ in range(at_once):
            nursery.start_soon(worker)
    return asked


@pytest.mark.parametrize("at_once", [1, 15])
@pytest.mark.parametrize("fault", [fault for fault in FAULTS if is_failed_over(fault)], ids=lambda fault: fault.name)
async def test_a_second_model_of_the_provider_is_as_good_as_a_second_provider(
    fault: Fault, at_once: int, autojump_clock: MockClock
) -> None:
    async with world(a=[by_model(a=fault.script, b=answer)], models=("m-a", "m-b"), limits=ROOM) as w:
        asked = await ask_all(w, requests=REQUESTS, at_once=at_once, stream=fault.stream is not False)
        await w.settled()
    assert [each.response.content for each in asked if each.failure is None] == [ANSWER] * REQUESTS
    assert max(each.took for each in asked) <= LONGEST


async def test_an_outage_of_one_model_of_three_leaves_the_others_untouched_and_it_is_used_again(
    autojump_clock: MockClock,
) -> None:
    down = True

    async def ill(call: Call) -> None:
        await (status(500) if down else answer)(call)

    said: Script = by_model(a=ill, b=answer, c=answer)
    recovered_at = used_again_at = trio.current_time()
    async with world(a=[said], models=("m-a", "m-b", "m-c"), limits=ROOM) as w:
        for second in range(150):
            if second == 60:
                down, recovered_at = False, trio.current_time()
            began = trio.current_time()
            for model in ("b", "c"):
                asked = await w.ask(candidates=(f"a/m-{model}",))
                assert (asked.failure, asked.took) == (None, 0.0)
            asked = await w.ask(candidates=("a/m-a", "a/m-b"), select="order")
            assert asked.failure is None
            if not down and asked.outcomes()[-1] == "a:ok" and used_again_at <= recovered_at:
                used_again_at = began if asked.response.model == "m-a" else 0.0
            await trio.sleep(1.0)
        circuits, now = w.tree.selector.circuits, trio.current_time()
        assert circuits.deployment(Candidate("a", "m-a"), now).state is CircuitState.CLOSED
        assert circuits.provider("a", now).state is CircuitState.CLOSED
        await w.settled()
    assert 0.0 <= used_again_at - recovered_at <= 30.0


@pytest.mark.parametrize("code", [401, 403])
async def test_a_lone_model_is_asked_although_its_key_was_refused_before(code: int, autojump_clock: MockClock) -> None:
    """The pause is ours. Whoever repairs the key need not wait for its end."""
    async with world(a=[status(code), answer]) as w:
        assert (await w.ask()).failure is not None
        asked = await w.ask()
    assert (asked.failure, asked.calls) == (None, 1)


class Starved(Vendor):
    """One that cannot be connected to: this process has no free descriptor."""

    async def dial(self, host: str, port: int) -> trio.SocketStream:
        self.failed_dials += 1
        raise OSError(errno.EMFILE, "Too many open files")


async def test_a_process_without_descriptors_does_not_blame_the_provider(autojump_clock: MockClock) -> None:
    async with world(a=Starved(answer)) as w:
        for _ in range(2 * FAILURES_IN_A_ROW):
            asked = await w.ask()
            assert asked.failure is not None
            assert asked.failure.kind is FailureKind.OUT_OF_RESOURCES
            assert asked.calls == 3, "it is tried again"
        circuits, now = w.tree.selector.circuits, trio.current_time()
        assert circuits.deployment(Candidate("a", "m-a"), now) == circuits.provider("a", now) == CircuitBreaker()
        assert w.tree.selector.known(Candidate("a", "m-a")) == Performance()


async def test_a_retry_after_of_one_model_does_not_hold_the_other(autojump_clock: MockClock) -> None:
    limited = by_model(a=status(429, retry_after="20"), b=answer)
    async with world(a=[limited], models=("m-a", "m-b")) as w:
        await w.ask(candidates=("a/m-a",), deadline_s=5.0)
        asked = await w.ask(candidates=("a/m-b",))
        assert (asked.failure, asked.took) == (None, 0.0)
        waited = await w.ask(candidates=("a/m-a",), deadline_s=5.0)
        assert waited.failure is not None
        assert waited.calls == 0, "the vendor's word holds, for the model it was about"
