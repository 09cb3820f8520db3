"""A time limit for each test, in real seconds, that shows where the test hangs.

The limit is ``time_limit`` in ``pyproject.toml``, ``--time-limit`` or ``@pytest.mark.time_limit(SECONDS)``; 0 is none.
It includes the test's fixtures. When it passes, the stacks of all threads and of all Trio tasks are written down and
the test fails. An async test is cancelled for that, so that its cleanup runs, and has `CLEANUP_SECONDS`; a test that is
executing Python code gets the failure raised there. An async test that waits and cannot be cancelled ends the process:
an exception in Trio's own loop would leave its run behind in this thread. So does ``faulthandler_timeout`` with a C
function that never returns. With pytest-xdist, another process takes the place of one that ended.
"""

from __future__ import annotations

import functools
import inspect
import os
import signal
import sys
import threading
import traceback
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from types import FrameType

import pytest
import trio

CLEANUP_SECONDS = 10.0
"""How long a cancelled test may take to clean up."""

_running: _Running | None = None
"""The async test of the moment."""


class _Running:
    """An async test that can be cancelled from a signal handler."""

    def __init__(self) -> None:
        self.report = ""
        self._scope = trio.CancelScope()
        self._token = trio.lowlevel.current_trio_token()

    def give_up(self, report: str) -> None:
        """Cancel the test; it fails with ``report``."""
        self.report = report
        self._token.run_sync_soon(self._scope.cancel)

    async def run(self, test: Callable[[], Awaitable[None]]) -> None:
        """The test; fails when `give_up` was called before it ended."""
        global _running
        _running = self
        try:
            with self._scope:
                await test()
        finally:
            _running = None
            if self.report:
                pytest.fail(self.report, pytrace=False)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Make every async test one that can be cancelled."""
    for item in items:
        if isinstance(item, pytest.Function) and inspect.iscoroutinefunction(item.obj):
            item.obj = _cancellable(item.obj)


def _cancellable(test: Callable[..., Awaitable[None]]) -> Callable[..., Awaitable[None]]:
    @functools.wraps(test)
    async def limited(*args: object, **kwargs: object) -> None:
        await _Running().run(functools.partial(test, *args, **kwargs))

    return limited


def pytest_addoption(parser: pytest.Parser) -> None:
    text = "seconds that one test may take; 0: no limit"
    parser.addini("time_limit", text, default="0")
    parser.addoption("--time-limit", type=float, help=text)


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "time_limit(seconds): how long this test may take, fixtures included")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Iterator[None]:
    """Set a timer around each test."""
    seconds = _limit(item)

    def ring(signum: int, frame: FrameType | None) -> None:
        report = f"The test took longer than {seconds:g} s.\n{stacks(frame)}"
        if _running is not None and not _running.report:
            _running.give_up(report)
            signal.setitimer(signal.ITIMER_REAL, CLEANUP_SECONDS)
        elif trio.lowlevel.in_trio_run() and not trio.lowlevel.in_trio_task():
            item.config.pluginmanager.getplugin("capturemanager").suspend_global_capture(in_=True)
            print(f"{item.nodeid}: {report}", file=sys.stderr, flush=True)
            os._exit(1)
        else:
            pytest.fail(report, pytrace=False)

    before = signal.signal(signal.SIGALRM, ring)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        return (yield)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


@contextmanager
def not_counted() -> Iterator[None]:
    """What happens in here does not count, for instance an installation: the first test that needs it pays for all. In
    any thread. It must have a limit of its own.
    """
    left, _ = signal.setitimer(signal.ITIMER_REAL, 0)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, left)


def pytest_enter_pdb() -> None:
    """Nobody is hurried who looks for a mistake."""
    signal.setitimer(signal.ITIMER_REAL, 0)


def _limit(item: pytest.Item) -> float:
    marker = item.get_closest_marker("time_limit")
    if marker is not None:
        return float(marker.args[0])
    option: float | None = item.config.getoption("time_limit")
    return float(item.config.getini("time_limit")) if option is None else option


def stacks(main: FrameType | None) -> str:
    """Where every thread is, and where every Trio task of this thread waits. ``main``: the frame of this thread."""
    names = {thread.ident: thread.name for thread in threading.enumerate()}
    lines = []
    for ident, frame in sys._current_frames().items():
        is_here = ident == threading.get_ident()
        lines += [f"\nThread {names.get(ident, ident)}:\n", *traceback.format_stack(main if is_here else frame)]
    try:
        root = trio.lowlevel.current_root_task()
    except RuntimeError:
        return "".join(lines)  # Trio does not run
    for depth, task in _tasks(root, 0):
        lines.append(f"\nTask {task.name} (depth {depth}):\n")
        lines += traceback.StackSummary.extract(task.iter_await_frames()).format()
    return "".join(lines)


def _tasks(task: trio.lowlevel.Task | None, depth: int) -> Iterator[tuple[int, trio.lowlevel.Task]]:
    if task is None:
        return
    yield depth, task
    for nursery in task.child_nurseries:
        for child in nursery.child_tasks:
            yield from _tasks(child, depth + 1)
