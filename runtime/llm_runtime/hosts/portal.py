"""A dedicated thread in which Trio runs a runtime, and calls into it from any other thread.

There is one Trio task per call; a call ends exactly once, by calling ``done``. Actions are delivered in batches:
however many are posted before the Trio thread runs, it is woken once.
"""

from __future__ import annotations

import atexit
import contextvars
import os
import threading
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager, suppress
from typing import Final, Generic, TypeAlias, TypeVar, final

import trio

from llm_protocol.errors import NOT_OPEN, ShuttingDownError
from llm_runtime.hosts.actions import Action, Actions, TurnEnd

T = TypeVar("T")
R = TypeVar("R")

Done: TypeAlias = Callable[[T | None, BaseException | None], None]
"""A function that receives the result of a call or its exception, once. The other argument is ``None``."""

JOIN_SECONDS: Final = 60.0
"""The most seconds that the exit of the program waits for the thread. The runtime is then stopped at once, without a
drain.
"""

NOW_SECONDS: Final = 5.0
"""The most seconds that `Portal.call_now` blocks its thread."""


@final
class PortalCall(Generic[R, T]):
    """One call into the Trio thread. Only that thread refers to it: it refers to the caller, and a circle of references
    would keep all that belongs to the call until the next garbage collection.
    """

    __slots__ = ("_context", "_done", "_fn", "_nursery", "_portal", "_scope")

    def __init__(
        self,
        portal: Portal[R],
        fn: Callable[[R], Awaitable[T]],
        done: Done[T],
        nursery: trio.Nursery | None,
        scope: trio.CancelScope,
    ) -> None:
        self._portal = portal
        self._fn = fn
        self._done = done
        self._nursery = nursery
        self._context = contextvars.copy_context()
        self._scope = scope

    def begin(self) -> None:
        """Start the task of the call. Called in the Trio thread."""
        runtime, owner = self._portal.runtime, self._nursery or self._portal.nursery
        if runtime is None or owner is None:
            self._done(None, ShuttingDownError(NOT_OPEN))
            return
        try:
            self._context.run(owner.start_soon, self.run, runtime)
        except RuntimeError:  # the nursery has been closed meanwhile
            self._done(None, ShuttingDownError("the block in which this call was made has ended"))

    async def run(self, runtime: R) -> None:
        """Make the call, and report its result, whatever happens. Called in the Trio thread."""
        result: T | None = None
        error: BaseException | None = None
        try:
            with self._scope:
                result = await self._fn(runtime)
            if self._scope.cancelled_caught:
                error = CallCancelled()
        except Exception as exc:  # the caller's own exception
            error = exc
        except BaseException:
            error = ShuttingDownError("the runtime has stopped")
            raise
        finally:
            self._done(result, error)


class CallCancelled(Exception):  # noqa: N818
    """The error of a call that was cancelled with `Portal.cancel`."""


@final
class Portal(Generic[R]):
    """The thread that runs the runtime. All methods may be called from any thread but the Trio thread.

    The callbacks (``opened``, ``closed``, ``done``) are called in the Trio thread and must not raise. ``closed`` is
    called once, when a runtime that ``opened`` received has ended: with the exception that ended it, or with ``None``
    after `stop`.
    """

    def __init__(self, open_runtime: Callable[[], AbstractAsyncContextManager[R]]) -> None:
        """``open_runtime`` returns the context manager that the thread enters; its value is passed to calls."""
        self._open = open_runtime
        self._pid = os.getpid()
        self._thread: threading.Thread | None = None
        self._token: trio.lowlevel.TrioToken | None = None
        self._actions = Actions(self._wake)
        self.turn_end = TurnEnd()
        """The end of a turn of the Trio scheduler, when the Trio thread wakes other threads."""
        self._is_stopped = False
        self._stop = trio.Event()
        self._scope = trio.CancelScope()
        self.nursery: trio.Nursery | None = None
        """The owner of the calls' tasks."""
        self.runtime: R | None = None
        """The runtime, while it is open."""
        self._was_open = False

    def start(self, opened: Done[R], closed: Callable[[BaseException | None], None]) -> None:
        """Start the thread. ``opened`` receives the open runtime, or the exception that prevented it."""
        self._thread = threading.Thread(target=self._run, args=(opened, closed), name="llm-runtime", daemon=True)
        # A daemon thread, because the interpreter waits for other threads before exit handlers can close a runtime.
        atexit.register(self._close_at_exit)
        self._thread.start()

    def submit(
        self,
        fn: Callable[[R], Awaitable[T]],
        done: Done[T],
        *,
        post: Callable[[Action], None] | None = None,
        nursery: trio.Nursery | None = None,
    ) -> trio.CancelScope:
        """Call ``fn`` with the runtime, in a new task with a copy of the caller's context variables. ``done`` receives
        its result or exception. Raises `ShuttingDownError` if the thread has ended. ``post``: another way to the Trio
        thread; if that thread has ended, it runs the action in the calling thread. ``nursery``: the owner of the task,
        if that is not the runtime; when it is closed, ``done`` receives `ShuttingDownError`.

        Returns the scope of the call, for `cancel`.
        """
        scope = trio.CancelScope()
        (post or self.post)(PortalCall(self, fn, done, nursery, scope).begin)
        return scope

    def cancel(self, scope: trio.CancelScope) -> None:
        """Cancel a call. Its ``done`` is called when it has ended."""
        with suppress(ShuttingDownError):  # the thread has ended, and has called ``done``
            self.post(scope.cancel)

    def call_now(self, fn: Callable[[R], T]) -> T:
        """Call ``fn``, which must not wait, and return its result. Blocks for one turn of the Trio thread; raises
        `TimeoutError` after `NOW_SECONDS`, and `ShuttingDownError` if the runtime is closed.
        """
        finished = threading.Event()
        results: list[T] = []
        errors: list[BaseException] = []

        def act() -> None:
            try:
                results.append(fn(self._open_runtime()))
            except Exception as exc:
                errors.append(exc)
            finally:
                finished.set()

        self.post(act)
        if not finished.wait(NOW_SECONDS):
            raise TimeoutError(f"the runtime's thread did not respond for {NOW_SECONDS:.0f} s")
        if errors:
            raise errors[0]
        return results[0]

    def _open_runtime(self) -> R:
        if self.runtime is None:
            raise ShuttingDownError(NOT_OPEN)
        return self.runtime

    def post(self, action: Action) -> None:
        """Run ``action`` in the Trio thread soon. Raises `ShuttingDownError` if that thread has ended, and
        `RuntimeError` in a process that was forked after the portal was created.
        """
        if self._pid != os.getpid():
            raise RuntimeError("a runtime does not survive a fork: open another one in this process")
        self._actions.post(action)

    def _wake(self, run: Action) -> None:
        token = self._token
        try:
            if token is not None:
                return token.run_sync_soon(run)
        except trio.RunFinishedError:
            pass
        raise ShuttingDownError(NOT_OPEN)

    def stop(self, *, at_once: bool = False) -> None:
        """Stop the runtime: after a drain, or ``at_once``. Does not wait; see `join`."""
        self._is_stopped = True  # read by `_run` if the thread has not begun yet
        with suppress(ShuttingDownError, RuntimeError):
            self.post(self._scope.cancel if at_once else self._stop.set)

    def join(self, seconds: float | None = None) -> bool:
        """Wait for the thread's end, for at most ``seconds``; ``None``: no limit. Returns whether it has ended."""
        if self._thread is None or self._pid != os.getpid():
            return True
        self._thread.join(seconds)
        return not self._thread.is_alive()

    def _run(self, opened: Done[R], closed: Callable[[BaseException | None], None]) -> None:
        error: BaseException | None = None
        try:
            trio.run(self._main, opened)
        except BaseException as exc:
            error = exc
        self._token = None
        self.turn_end.close()
        atexit.unregister(self._close_at_exit)
        if self._was_open:
            closed(error)
        else:
            opened(None, error)

    async def _main(self, opened: Done[R]) -> None:
        self._token = trio.lowlevel.current_trio_token()
        trio.lowlevel.add_instrument(self.turn_end)
        if self._is_stopped:
            raise ShuttingDownError("the runtime was closed before it was open")
        error: Exception | None = None
        # Calls outlive the runtime's block: they end with the errors that the draining runtime raises.
        async with trio.open_nursery() as nursery:
            self.nursery = nursery
            try:
                with self._scope:
                    async with self._open() as runtime:
                        self.runtime = runtime
                        self._was_open = True
                        opened(runtime, None)
                        await self._stop.wait()
            except Exception as exc:  # raised below, where no nursery wraps it
                error = exc
            finally:
                self.runtime = None
            nursery.cancel_scope.cancel()
        if error is not None:
            raise error

    def _close_at_exit(self) -> None:
        self.stop(at_once=True)
        self.join(JOIN_SECONDS)
