"""Each actor in turn crashes, now and then, always, or on start, while 50 streams and 50 requests a second run.

Who does not need it notices nothing; who does gets what docs/architecture.md ("When a service is not running") says.
When the crashes are over, everything works again and every book is at zero.
"""

from __future__ import annotations

import random
from functools import partial

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from llm_actors.cache import statistics as cache_statistics
from llm_actors.catalog import Candidate
from llm_actors.kernel import ChildStatus, GaveUp, Restart, StartFailed, TreeNode, lineage, task_child
from llm_actors.selector import CircuitState
from llm_actors.testing import ON_START, crashing, run_virtual
from llm_protocol.events import Failed
from llm_protocol.failures import FailureKind
from support.crashes import KINDS, loaded_runtime

SECONDS = 2.0

EVERY = pytest.mark.parametrize("every", [7, 1, ON_START], ids=["every-7th", "every", "on-start"])

NEEDS: dict[str, dict[str, set[str]]] = {
    "cache/cache": {},
    "selector/selector": {},
    "limiter/limiter": {"limited": {"parked"}},
    "catalog/catalog": {"listed": {"parked", "model_not_found"}},
    "b/provider": {"limited": {"crashed", "parked", "overloaded"}},
}
"""Who may be told something else than an answer, and what."""


@EVERY
@pytest.mark.parametrize("where", NEEDS)
async def test_who_does_not_need_it_notices_nothing(where: str, every: int, autojump_clock: MockClock) -> None:
    needs = NEEDS[where]
    with crashing(where, every) as crashes:
        async with loaded_runtime(lists=where != "catalog/catalog") as load:
            await load.run(SECONDS)
            parked, ready = load.runtime.parked_services(), load.runtime.is_ready()
            branch = find(load.runtime.tree(), where.partition("/")[0])
            metrics = await load.runtime.metrics()
            crashes.stop()
            load.lists = True
            await trio.sleep(61)  # the longest pause
            for kind in KINDS:
                assert await load.ask(kind, stream=True) == "ok"
            await load.settled()
            assert load.runtime.parked_services() == ()
            assert find(load.runtime.tree(), branch.name).status is ChildStatus.RUNNING

    assert crashes.crashed >= 1
    for kind, outcomes in load.outcomes.items():
        assert outcomes.total() > 20, kind
        assert set(outcomes) - {"ok"} <= needs.get(kind, set()), (kind, outcomes)
        if kind not in needs:
            # Who is covered waits for restarts of the first candidate, of up to 0.8 s each, and one quick retry.
            assert load.slowest[kind] < (4.5 if kind == "covered" else 1.1), kind
    # The tree, the metrics and readiness tell the truth.
    service = "providers/b" if branch.name == "b" else branch.name
    up = f'llm_runtime_actor_up{{actor="llm-runtime/core/{service}"}} {float(branch.status is not ChildStatus.PARKED)}'
    assert up in metrics.decode().splitlines()
    assert parked == ((branch.name,) if branch.status is ChildStatus.PARKED and service != "providers/b" else ())
    assert ready, "a and c can be asked"


@pytest.mark.parametrize(("where", "limited"), [("*/provider", ""), ("limiter/limiter", "abc")])
async def test_it_is_not_ready_while_nobody_can_be_asked(where: str, limited: str, autojump_clock: MockClock) -> None:
    with crashing(where, ON_START) as crashes:
        async with loaded_runtime(limited=limited) as load:
            assert not load.runtime.is_ready()
            crashes.stop()
            await trio.sleep(2)
            assert load.runtime.is_ready()


async def test_it_is_not_ready_while_the_orchestrator_waits_for_its_restart(autojump_clock: MockClock) -> None:
    with crashing("core/orchestrator", 1) as crashes:
        async with loaded_runtime() as load:
            assert await load.ask("plain", stream=False) == "crashed"  # twice, so the next restart is not immediate
            await wait_all_tasks_blocked()
            ready = load.runtime.is_ready()
            crashes.stop()
            await trio.sleep(1)
            assert (ready, load.runtime.is_ready()) == (False, True)


@pytest.mark.parametrize("seed", [0, 1])
def test_parking_and_unparking_with_the_circuit_breaker_on(seed: int) -> None:
    """The breaker keeps requests from a provider that crashes; its probes alone bring it to the parking, and back.

    The waits have a jitter. With long ones in a row, six crashes take more than the 30 s in which they are too many,
    and the parking comes late: so the draws and the order of tasks are repeatable.
    """
    before = random.getstate()
    random.seed(seed)
    try:
        run_virtual(_park_and_unpark, seed=seed)
    finally:
        random.setstate(before)


async def _park_and_unpark() -> None:
    seen: list[tuple[ChildStatus, CircuitState]] = []
    with crashing("b/provider", 1) as crashes:
        async with loaded_runtime() as load, trio.open_nursery() as nursery:

            async def ask_on() -> None:
                while True:
                    await load.ask("limited", stream=True)

            async def until(*wanted: object) -> None:
                """Look 20 times a second."""
                while not seen or seen[-1] != wanted:
                    await trio.sleep(0.05)
                    circuits = load.runtime._tree.selector.circuits
                    circuit = circuits.deployment(Candidate("b", "m-b"), trio.current_time())
                    seen.append((find(load.runtime.tree(), "b").status, circuit.state))

            nursery.start_soon(ask_on)
            with trio.fail_after(600):
                await until(ChildStatus.PARKED, CircuitState.OPEN)
                crashes.stop()
                await until(ChildStatus.RUNNING, CircuitState.CLOSED)
            nursery.cancel_scope.cancel()
            with trio.CancelScope(shield=True):
                assert await load.ask("limited", stream=True) == "ok"
                await load.settled()


# -- the orchestrator: without it nothing works, so its crashes are told and not hidden


async def test_a_crash_of_the_orchestrator_ends_the_runs_as_crashed_and_at_once(
    autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    """Not as a shutdown, and without a drain. A request that was not accepted yet is handed in again."""
    with crashing("core/orchestrator", 11) as crashes:
        async with loaded_runtime() as load, trio.open_nursery() as nursery:
            for _ in range(10):
                nursery.start_soon(partial(load.ask, "plain", stream=True))
            await trio.sleep(0.35)
            assert await load.ask("limited", stream=True) == "ok", "the one that it crashes with"
            assert load.outcomes["plain"] == {"crashed": 10}
            assert load.slowest["plain"] < 0.4
            crashes.stop()
            await load.settled()
            assert find(load.runtime.tree(), "orchestrator").restarts == 1
            assert find(load.runtime.tree(), "core").restarts == 0
    assert "shut" not in caplog.text


async def test_after_an_escalation_the_runtime_goes_on_with_what_it_knew(autojump_clock: MockClock) -> None:
    """Six crashes of the orchestrator take core down."""
    with crashing("core/orchestrator", 4) as crashes:
        async with loaded_runtime() as load:
            while find(load.runtime.tree(), "core").restarts == 0:
                async with trio.open_nursery() as nursery:
                    for kind in ("limited", "cached"):
                        nursery.start_soon(partial(load.ask, kind, stream=True))
                        await trio.sleep(0.2)
            crashes.stop()
            assert load.runtime.is_ready()
            known = load.runtime._tree.selector.known
            samples = known(Candidate("b", "m-b")).whole.mean.count
            for kind in KINDS:
                assert await load.ask(kind, stream=True) == "ok"
            await load.settled()
            assert known(Candidate("b", "m-b")).whole.mean.count > samples > 0
            assert (await cache_statistics(load.runtime._tree.services.cache)).memory.entries
    assert load.outcomes["limited"]["crashed"] > 0
    for outcomes in load.outcomes.values():
        assert set(outcomes) <= {"ok", "crashed"}
    assert max(load.slowest.values()) < 3.0


async def test_runs_that_end_because_the_whole_tree_gives_up_are_told_that_it_crashed(
    autojump_clock: MockClock,
) -> None:
    async def crash(task_status: trio.TaskStatus[None]) -> None:
        task_status.started()
        await trio.sleep(0.1)
        raise ValueError

    server = task_child("server", crash, restart=Restart.PERMANENT)
    with pytest.RaisesGroup(GaveUp, flatten_subgroups=True):
        async with loaded_runtime(servers=[server]) as load:
            run = await load.runtime.submit(load.request("plain"), stream=True)
            with run.follow():
                await trio.sleep(60)
    assert isinstance(run.log.end, Failed)
    assert run.log.end.failure.kind is FailureKind.CRASHED
    assert trio.current_time() < 2.0, "there is no drain"


@pytest.mark.parametrize("every", [7, 1], ids=["every-7th", "every"])
async def test_an_orchestrator_that_keeps_crashing_ends_the_runtime_with_the_cause(
    every: int, autojump_clock: MockClock
) -> None:
    with (
        crashing("core/orchestrator", every),
        pytest.RaisesGroup(GaveUp, flatten_subgroups=True) as caught,
    ):
        async with loaded_runtime() as load:
            await load.run(60)
    assert lineage(caught.value)[-1] == "InjectedCrash"
    assert trio.current_time() < 30
    for kind, outcomes in load.outcomes.items():
        assert set(outcomes) <= {"ok", "crashed"}, kind
        assert load.slowest[kind] < 10.0, kind


async def test_an_orchestrator_that_does_not_start_is_said_at_once(autojump_clock: MockClock) -> None:
    with (
        crashing("core/orchestrator", ON_START),
        pytest.RaisesGroup(StartFailed, flatten_subgroups=True) as caught,
    ):
        async with loaded_runtime():
            pytest.fail("it cannot have started")
    assert "llm-runtime/core/orchestrator: StartFailed" in lineage(caught.value)
    assert trio.current_time() == 0.0


def find(tree: TreeNode, name: str) -> TreeNode:
    todo = [tree]
    while todo:
        node = todo.pop(0)
        if node.name == name:
            return node
        todo.extend(node.children)
    raise LookupError(name)
