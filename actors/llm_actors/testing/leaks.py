"""Check that a test leaves nothing behind: no task, no file or socket, no thread, no exception that was never raised.

`nothing_left` watches one block inside Trio; `no_open_ends` watches a whole test from outside, for example in an
autouse fixture. Tasks and threads that end by themselves within a second are no leak.
"""

from __future__ import annotations

import gc
import os
import sys
import threading
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager

import trio

SETTLE_SECONDS = 1.0
"""Seconds that a task (on Trio's clock) or a thread may take to end after the block."""


class LeakError(AssertionError):
    """Something was left behind by a test. The message names it."""


@asynccontextmanager
async def nothing_left() -> AsyncIterator[None]:
    """Raise `LeakError` if the block leaves tasks behind. A block that raises is not checked."""
    before = _tasks()
    yield
    with trio.move_on_after(SETTLE_SECONDS):
        while _tasks() - before:  # noqa: ASYNC110  (a task that has leaked will not tell us when it ends)
            await trio.sleep(SETTLE_SECONDS / 100)
    if left := _tasks() - before:
        raise LeakError("tasks left: " + ", ".join(sorted(task.name for task in left)))


def _tasks() -> set[trio.lowlevel.Task]:
    root = trio.lowlevel.current_root_task()
    found: set[trio.lowlevel.Task] = set()
    todo = [root] if root is not None else []
    while todo:
        task = todo.pop()
        found.add(task)
        todo.extend(child for nursery in task.child_nurseries for child in nursery.child_tasks)
    return found


@contextmanager
def no_open_ends() -> Iterator[None]:
    """Raise `LeakError` if the block leaves open files, sockets or threads, or if an exception in it was ignored by
    Python.
    """
    files, threads = _open_files(), set(threading.enumerate())
    lost: list[str] = []
    hook = sys.unraisablehook
    sys.unraisablehook = lambda args: lost.append(f"{args.exc_type.__name__} in {args.object!r}")
    try:
        yield
        left = _open_files().items() - files.items()
        if left:
            gc.collect()
            left = _open_files().items() - files.items()
    finally:
        sys.unraisablehook = hook
    running = _running(threads)
    problems = [*(f"open: {what}" for _, what in sorted(left)), *(f"thread: {t.name}" for t in running), *lost]
    if problems:
        raise LeakError("left behind: " + "; ".join(problems))


def _running(before: set[threading.Thread]) -> set[threading.Thread]:
    """Return the threads that were started since, and do not end in time."""
    last = time.monotonic() + SETTLE_SECONDS
    while running := {thread for thread in set(threading.enumerate()) - before if not _is_cached(thread)}:
        if time.monotonic() >= last:
            break
        time.sleep(SETTLE_SECONDS / 100)
    return running


def _is_cached(thread: threading.Thread) -> bool:
    return thread.name.startswith("Trio thread")  # kept for ten idle seconds by design


def _open_files() -> dict[str, str]:
    """Return the target of each open descriptor of this process."""
    folder = "/dev/fd"
    found: dict[str, str] = {}
    for number in os.listdir(folder) if os.path.isdir(folder) else ():
        try:
            found[number] = os.readlink(f"{folder}/{number}")
        except OSError:
            continue  # the descriptor that listed the folder
    return found
