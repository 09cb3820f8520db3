"""Which workers hang, as their parent judges it."""

from __future__ import annotations

import pytest
import trio
from trio.testing import MockClock

from llm_runtime.workers.parent import SILENT_SECONDS, START_SECONDS, WATCH_SECONDS, HangWatch
from llm_runtime.workers.process import WorkerProcess


def worker(*, is_ready: bool = True) -> WorkerProcess:
    one = WorkerProcess(1, None, ready=lambda _: None, asked=lambda _: None)
    one.is_ready = is_ready
    return one


async def found(*workers: WorkerProcess, seconds: float) -> list[str]:
    """What a parent finds that looks for so long, until it finds something."""
    watch = HangWatch(trio.current_time())
    for _ in range(round(seconds / WATCH_SECONDS)):
        await trio.sleep(WATCH_SECONDS)
        if hanging := watch.look(workers, trio.current_time()):
            return [words for _, words in hanging]
    return []


async def test_a_silent_worker_hangs(autojump_clock: MockClock) -> None:
    one = worker()
    assert await found(one, seconds=SILENT_SECONDS) == []
    assert await found(one, seconds=2) == ["has not responded for 30 s"]


async def test_a_worker_has_longer_to_start(autojump_clock: MockClock) -> None:
    one = worker(is_ready=False)
    assert await found(one, seconds=START_SECONDS) == []
    assert await found(one, seconds=2) == ["has not started within 120 s"]


async def test_one_that_has_ended_does_not_hang(autojump_clock: MockClock) -> None:
    one = worker(is_ready=False)
    one.code = 1
    assert await found(one, seconds=2 * START_SECONDS) == []


@pytest.mark.parametrize("is_ready", [True, False])
async def test_a_parent_that_stood_still_itself_has_heard_nothing(is_ready: bool, autojump_clock: MockClock) -> None:
    """SIGSTOP, a machine that was suspended: what the workers say is read after it has looked at them."""
    one = worker(is_ready=is_ready)
    watch = HangWatch(trio.current_time())
    await trio.sleep(1000)
    assert watch.look([one], trio.current_time()) == []
    assert await found(one, seconds=SILENT_SECONDS) == []
    assert await found(one, seconds=START_SECONDS) != []
