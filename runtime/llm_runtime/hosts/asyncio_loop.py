"""The event loop of an asyncio host: for the runtime's thread, for calls from the loop, and for the block around a
runtime.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from functools import partial
from typing import Any, Final, TypeVar, final

import trio

from llm_protocol.errors import ShuttingDownError
from llm_runtime.hosts.actions import Action, Actions, TurnEnd
from llm_runtime.hosts.portal import Portal

R = TypeVar("R")
H = TypeVar("H")

JOIN_SECONDS: Final = 1.0
"""The most seconds that leaving the block waits for the runtime's thread to exit."""

CANCEL_SECONDS: Final = 1.0
"""The most seconds that a cancelled task waits for its call to end in the other thread."""


@final
class HostLoop:
    """Runs actions in the host's event loop, for the runtime's thread. Does nothing once the loop is closed."""

    def __init__(self) -> None:
        self.loop = asyncio.get_running_loop()
        self._actions = Actions(self._wake)
        self._outgoing: list[Action] = []
        self.turn_end: TurnEnd | None = None
        """The end of a turn of the Trio thread, once there is one."""

    def post(self, action: Action) -> None:
        """Run ``action`` in the host's event loop. Called in the Trio thread."""
        self._actions.post(action)

    def post_there(self, portal: Portal[Any], action: Action) -> None:
        """Run ``action`` in the Trio thread. Called in the host's event loop. The Trio thread is woken once for all
        actions of one turn of that loop.
        """
        self._outgoing.append(action)
        if len(self._outgoing) == 1:
            self.loop.call_soon(self._send, portal)

    def _send(self, portal: Portal[Any]) -> None:
        actions, self._outgoing = self._outgoing, []

        def run() -> None:
            for action in actions:
                action()

        try:
            portal.post(run)
        except ShuttingDownError:
            run()

    def _wake(self, run: Action) -> None:
        if self.turn_end is None:
            self._wake_now(run)
        else:
            self.turn_end.call(lambda: self._wake_now(run))

    def _wake_now(self, run: Action) -> None:
        with suppress(RuntimeError):  # the loop is closed, so nothing waits
            self.loop.call_soon_threadsafe(run)

    def check(self) -> None:
        """Raise `RuntimeError` if the running event loop is not the host's."""
        if asyncio.get_running_loop() is not self.loop:
            raise RuntimeError("this runtime was opened in another event loop; open one per loop")


@final
class Waiters:
    """The tasks of one event loop that wait for the next call of `wake`."""

    __slots__ = ("_futures", "_loop")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._futures: list[asyncio.Future[None]] = []

    def wait(self) -> asyncio.Future[None]:
        """Return a future that the next call of `wake` completes."""
        if self._futures:  # tasks that were cancelled meanwhile
            self._futures = [each for each in self._futures if not each.done()]
        future = self._loop.create_future()
        self._futures.append(future)
        return future

    def wake(self) -> None:
        """Complete all futures that `wait` has returned."""
        for future in self._futures:
            if not future.done():
                future.set_result(None)
        self._futures.clear()


@final
class AsyncioCall:
    """One call into the runtime's thread, and its result. ``waiters`` are woken at its end."""

    def __init__(
        self,
        portal: Portal[Any],
        loop: HostLoop,
        fn: Callable[[Any], Awaitable[Any]],
        *,
        waiters: Waiters | None = None,
        nursery: trio.Nursery | None = None,
    ) -> None:
        self._waiters = waiters or Waiters(loop.loop)
        self.has_ended = False
        self._result: Any = None
        self.error: BaseException | None = None
        """The exception that the call raised; ``None`` without one."""
        self._portal = portal
        self._scope = portal.submit(
            fn,
            lambda result, error: loop.post(partial(self._end, result, error)),
            post=lambda action: loop.post_there(portal, action),
            nursery=nursery,
        )

    def _end(self, result: object, error: BaseException | None) -> None:
        self._result, self.error = result, error
        self.has_ended = True
        self._waiters.wake()

    async def result(self) -> Any:
        """Wait for the end. Cancelling this cancels the call, and waits at most `CANCEL_SECONDS` for it to end."""
        try:
            await self._end_reached()
        except asyncio.CancelledError:
            await self.cancel()
            raise
        if self.error is not None:
            raise self.error
        return self._result

    async def cancel(self) -> None:
        """Cancel the call; returns when it has ended, after `CANCEL_SECONDS` at most."""
        if self.has_ended:
            return
        self._portal.cancel(self._scope)
        with suppress(TimeoutError):
            await asyncio.wait_for(self._end_reached(), CANCEL_SECONDS)

    async def _end_reached(self) -> None:
        while not self.has_ended:
            await self._waiters.wait()


def _current_task() -> asyncio.Task[Any]:
    with suppress(RuntimeError):
        task = asyncio.current_task()
        assert task is not None, "a coroutine of asyncio must run in a task"
        return task
    raise RuntimeError("llm_runtime.aio runs on asyncio; on Trio, use llm_runtime.open_runtime")


@asynccontextmanager
async def block(
    open_runtime: Callable[[Portal[R], HostLoop], AbstractAsyncContextManager[R]],
    make: Callable[[Portal[R], HostLoop, R], H],
) -> AsyncIterator[H]:
    """Open a runtime with ``open_runtime`` in a Trio thread around a block of an asyncio program. The block receives
    the result of ``make``.

    If the runtime fails, the task in the block is cancelled, and the runtime's error is raised when the block has
    ended.
    """
    owner = _current_task()
    loop, opened, closed = HostLoop(), asyncio.Event(), asyncio.Event()
    portal: Portal[R] = Portal(lambda: open_runtime(portal, loop))
    loop.turn_end = portal.turn_end
    runtimes: list[R] = []
    errors: list[BaseException] = []
    in_block = False

    def on_open(runtime: R | None, error: BaseException | None) -> None:
        runtimes.extend([runtime] if runtime is not None else [])
        errors.extend([error] if error is not None else [])
        opened.set()
        if runtime is None:
            closed.set()

    def on_close(error: BaseException | None) -> None:
        errors.extend([error] if error is not None else [])
        closed.set()
        if in_block and error is not None:
            owner.cancel()

    portal.start(
        lambda runtime, error: loop.post(lambda: on_open(runtime, error)),
        lambda error: loop.post(lambda: on_close(error)),
    )
    at_once = True
    try:
        await opened.wait()
        if not runtimes:
            raise errors.pop()
        in_block = True
        yield make(portal, loop, runtimes[0])
        at_once = False
    except asyncio.CancelledError:
        if not errors:
            raise
        owner.uncancel()  # this cancellation came from the runtime
    finally:
        in_block = False
        portal.stop(at_once=at_once)
        try:
            await closed.wait()
        except asyncio.CancelledError:
            portal.stop(at_once=True)
            await closed.wait()
            raise
        finally:
            portal.join(JOIN_SECONDS)
    if errors:
        raise errors[0]
