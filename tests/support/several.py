"""Two workers in one process: doors that ask each other over unix sockets, as the processes do."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import trio

from llm_runtime.workers.place import WorkerPlace
from llm_runtime.workers.siblings import WorkerSiblings
from support.server import OpenServer, Script, open_server


class Two(NamedTuple):
    """The workers, and how to end the first: as a kill would, when nothing is drained, and nobody is told; or as a
    signal does.
    """

    one: OpenServer
    other: OpenServer
    end_one: trio.CancelScope
    drain_one: trio.Event


def _place(folder: str, number: int) -> WorkerSiblings:
    return WorkerSiblings(WorkerPlace(number=number, count=2, folder=folder, link=-1, listeners=(), copy=None))


@asynccontextmanager
async def two_workers(*scripts: Script, **config: Any) -> AsyncIterator[Two]:
    """Both have the same scripts and configuration."""
    with TemporaryDirectory(prefix="llm-") as folder:
        async with trio.open_nursery() as nursery, open_server(*scripts, siblings=_place(folder, 2), **config) as other:
            ended = trio.Event()
            scope = trio.CancelScope()
            one = await nursery.start(_until, folder, scripts, config, scope, ended)
            yield Two(one, other, scope, ended)
            ended.set()


async def _until(
    folder: str,
    scripts: tuple[Script, ...],
    config: dict[str, Any],
    scope: trio.CancelScope,
    ended: trio.Event,
    *,
    task_status: trio.TaskStatus[OpenServer],
) -> None:
    with scope:
        async with open_server(*scripts, siblings=_place(folder, 1), **config) as one:
            task_status.started(one)
            await ended.wait()
