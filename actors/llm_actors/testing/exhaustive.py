"""Run a scenario with one fault at every checkpoint or await, one after the other.

`cancel_at_every_checkpoint` runs a scenario once to count its steps, then once more for each step, cancelled at that
step. `raise_at_every_await` does the same with exceptions: the scenario wraps its awaits in the `Fuse` it is given.
In both cases the scenario must end and leave nothing behind.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Protocol, TypeVar, final

import trio

from llm_actors.testing.leaks import nothing_left
from llm_actors.testing.virtual import run_virtual

SCENARIO_SECONDS = 3600.0
"""Virtual seconds after which a scenario counts as hanging."""

T = TypeVar("T")


class ScenarioHangs(AssertionError):  # noqa: N818  (it says what happened)
    """The scenario did not end within `SCENARIO_SECONDS`."""


@final
class _CancelAt(trio.abc.Instrument):
    """Counts the steps of all tasks, and cancels `scope` at one of them."""

    def __init__(self, step: int) -> None:
        self.steps = 0
        self.scope = trio.CancelScope()
        self._step = step

    def after_task_step(self, task: trio.lowlevel.Task) -> None:  # noqa: ARG002
        self.steps += 1
        if self.steps == self._step:
            self.scope.cancel(reason=f"cancelled at checkpoint {self._step}")


def cancel_at_every_checkpoint(scenario: Callable[[trio.CancelScope], Awaitable[object]], *, seed: int = 0) -> int:
    """Run `scenario(scope)` with `scope` cancelled at its k-th step, for every k. Return the number of steps. Raises
    `ScenarioHangs` or `LeakError` if the scenario hangs or leaves something behind.

    The scenario enters the scope around the code to be cancelled: all of it, or only a client of a running tree.
    """
    steps = _cancelled_at(scenario, 0, seed)
    for step in range(1, steps + 1):
        _cancelled_at(scenario, step, seed)
    return steps


def _cancelled_at(scenario: Callable[[trio.CancelScope], Awaitable[object]], step: int, seed: int) -> int:
    bomb = _CancelAt(step)

    async def attempt() -> int:
        async with nothing_left():
            with trio.move_on_after(SCENARIO_SECONDS) as limit:
                await scenario(bomb.scope)
            if limit.cancelled_caught:
                raise ScenarioHangs(
                    f"after the cancellation at step {step} the scenario did not end within {SCENARIO_SECONDS:g} s"
                )
        return bomb.steps

    return run_virtual(attempt, seed=seed, instruments=[bomb])


class Fuse(Protocol):
    """Wrapped around each await of a scenario: awaits the awaitable, or raises an exception instead."""

    async def __call__(self, awaitable: Awaitable[T], /) -> T:
        """Await ``awaitable`` and return its result, or raise the planned exception instead."""
        ...


@final
class _BlowAt:
    def __init__(self, number: int, error: Exception) -> None:
        self.awaits = 0
        self._number = number
        self._error = error

    async def __call__(self, awaitable: Awaitable[T], /) -> T:
        self.awaits += 1
        if self.awaits == self._number:
            close = getattr(awaitable, "close", None)
            if close is not None:
                close()  # a coroutine that is never awaited would warn
            await trio.lowlevel.checkpoint()
            raise self._error
        return await awaitable


def raise_at_every_await(
    scenario: Callable[[Fuse], Awaitable[object]],
    errors: Sequence[Callable[[], Exception]] = (trio.BrokenResourceError, OSError, trio.TooSlowError),
    *,
    seed: int = 0,
) -> int:
    """Run `scenario(fuse)` with its k-th `await fuse(...)` raising, for every k and error. Return the number of awaits.
    Raises `ScenarioHangs` or `LeakError` if the scenario hangs or leaves something behind.

    The scenario must handle the exceptions: an exception out of it fails the run.
    """
    awaits = _blown_at(scenario, 0, errors[0](), seed)
    for number in range(1, awaits + 1):
        for error in errors:
            _blown_at(scenario, number, error(), seed)
    return awaits


def _blown_at(scenario: Callable[[Fuse], Awaitable[object]], number: int, error: Exception, seed: int) -> int:
    fuse = _BlowAt(number, error)

    async def attempt() -> None:
        async with nothing_left():
            with trio.move_on_after(SCENARIO_SECONDS) as limit:
                await scenario(fuse)
            if limit.cancelled_caught:
                raise ScenarioHangs(f"{type(error).__name__} at await {number}")

    run_virtual(attempt, seed=seed)
    return fuse.awaits
