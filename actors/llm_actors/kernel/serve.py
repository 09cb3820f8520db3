"""Three loops for an actor: one message at a time, synchronously in the sender's task, or several concurrently.

A handler that awaits runs in a cancel scope that ends at the call's deadline or when the caller leaves. The loops
differ in the effect of a bug in a handler. With one message at a time, the bug ends the incarnation, since the actor's
state may be half written. With several messages at the same time, the bug fails one message; only frequent crashes end
the incarnation, since then the fault is probably in the shared state.

While nothing is queued, `serve_at_once` and `serve_concurrently` avoid the actor's own task: the sender's task calls
the handler or starts the worker. Otherwise messages go through the queue.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextvars import copy_context
from typing import Generic, TypeVar, final

import trio

from llm_actors.kernel.delivery import ActorMessage, Delivery
from llm_actors.kernel.errors import CallExpired, NoReply, crashed, exception_site, is_fatal
from llm_actors.kernel.inbox import Inbox, acting
from llm_actors.kernel.lifecycle import ChildCrashed
from llm_actors.kernel.window import Intensity, RestartWindow

WORKER_CRASHES = Intensity(5, 30.0)
"""If the handlers of one actor crash more often than this, the actor itself crashes."""

M = TypeVar("M", bound=ActorMessage)


async def serve(inbox: Inbox[M], handle: Callable[[Delivery[M]], Awaitable[None]]) -> None:
    """Handle messages one at a time until the actor is asked to stop.

    An exception from `handle` fails the current call with `ActorCrashed` and is raised: the actor crashes. The handler
    is cancelled when its caller leaves, so it must not await in the middle of a change of state.
    """
    async for delivery in inbox:
        try:
            await _attend(inbox, delivery, handle)
        except Exception as exc:
            _failed(inbox, delivery, exc)
            raise


async def serve_at_once(inbox: Inbox[M], handle: Callable[[Delivery[M]], None]) -> None:
    """Handle messages one at a time until the actor is asked to stop, with a `handle` that never awaits.

    Unless messages are queued, `handle` is called in the task of the sender, with this actor's context variables,
    before its `call` or `cast` continues. An exception from `handle` fails the current call with `ActorCrashed` and is
    raised here: the actor crashes.
    """
    context, is_busy = copy_context(), False

    def attend(delivery: Delivery[M]) -> None:
        nonlocal is_busy
        is_busy = True
        try:
            handle(delivery)
            _conclude(inbox, delivery, expired=False)
        finally:
            is_busy = False

    def take(delivery: Delivery[M]) -> bool:
        if is_busy:  # the handler has sent a message to its own actor
            return False
        if inbox.mailbox.admit(delivery):
            try:
                context.run(attend, delivery)
            except Exception as exc:
                _failed(inbox, delivery, exc)
                inbox.crash_with(exc)
        return True

    inbox.take_at_once(take)
    try:
        async for delivery in inbox:
            try:
                attend(delivery)
            except Exception as exc:
                _failed(inbox, delivery, exc)
                raise
    finally:
        inbox.queue_everything()


async def serve_concurrently(
    inbox: Inbox[M],
    handle: Callable[[Delivery[M]], Awaitable[None]],
    *,
    slots: int,
    crashes: Intensity = WORKER_CRASHES,
    own_scope: bool = False,
) -> None:
    """Handle up to `slots` messages at the same time, each in its own task with the caller's context variables. Return
    when the actor was asked to stop and the messages in progress are finished; the actor's supervisor limits the time
    for that.

    A message is received only when a slot is free; until then it stays in the bounded mailbox. An exception from
    `handle` fails its own call. The exception is raised and the actor crashes if there are more exceptions than
    `crashes` allows in its period, or if the exception is fatal (`is_fatal`: a `MemoryError`). `own_scope`: `handle`
    opens `delivery.scope()` itself, because it sends its own reply when that scope is cancelled.
    """
    await _Workers(inbox, handle, slots, crashes, own_scope=own_scope).run()


@final
class _Workers(Generic[M]):
    """The tasks of one actor that handles messages concurrently."""

    def __init__(
        self,
        inbox: Inbox[M],
        handle: Callable[[Delivery[M]], Awaitable[None]],
        slots: int,
        crashes: Intensity,
        *,
        own_scope: bool,
    ) -> None:
        self._inbox = inbox
        self._handle = handle
        self._own_scope = own_scope
        self._free = trio.Semaphore(slots)
        self._window = RestartWindow(crashes)

    async def run(self) -> None:
        """Start a task for each message until the actor is asked to stop, then wait for all tasks."""
        inbox, free = self._inbox, self._free
        async with trio.open_nursery() as self._nursery:
            inbox.take_at_once(self._start_at_once)
            try:
                while True:
                    try:
                        free.acquire_nowait()
                    except trio.WouldBlock:
                        await free.acquire()
                    delivery = await inbox.receive()
                    assert delivery.context is not None, "a delivery from the mailbox must have a context"
                    delivery.context.run(self._start, delivery)
            except trio.EndOfChannel:
                return
            finally:
                inbox.queue_everything()

    def _start_at_once(self, delivery: Delivery[M]) -> bool:
        try:
            self._free.acquire_nowait()
        except trio.WouldBlock:
            return False
        if self._inbox.mailbox.admit(delivery):
            self._start(delivery)
        else:
            self._free.release()
        return True

    def _start(self, delivery: Delivery[M]) -> None:
        self._nursery.start_soon(self._work, delivery, name=self._inbox.mailbox.name)

    async def _work(self, delivery: Delivery[M]) -> None:
        inbox = self._inbox
        acting.set(inbox.mailbox)
        try:
            if self._own_scope:
                await self._handle(delivery)
                _conclude(inbox, delivery, expired=False)
            else:
                await _attend(inbox, delivery, self._handle)
        except Exception as exc:
            _failed(inbox, delivery, exc)
            if is_fatal(exc) or not self._window.admit(trio.current_time()):
                inbox.queue_everything()
                raise
            if inbox.mailbox.bus is not None:
                inbox.mailbox.bus.publish(ChildCrashed(name=inbox.name, error=exception_site(exc)))
        finally:
            self._free.release()


async def _attend(inbox: Inbox[M], delivery: Delivery[M], handle: Callable[[Delivery[M]], Awaitable[None]]) -> None:
    """Handle one message; if it is a call, in its cancel scope."""
    if not delivery.is_call:
        await handle(delivery)
        _conclude(inbox, delivery, expired=False)
        return
    with delivery.scope() as scope:
        await handle(delivery)
    _conclude(inbox, delivery, expired=scope.cancelled_caught)


def _conclude(inbox: Inbox[M], delivery: Delivery[M], *, expired: bool) -> None:
    """Finish a message whose handler did not crash. Fail a call that was neither answered, deferred nor abandoned."""
    inbox.mailbox.handled(delivery)
    if not delivery.is_call or delivery.answered or delivery.abandoned:
        return
    if expired:
        delivery.fail(CallExpired(inbox.name, "the deadline passed while the actor worked on the call"))
    elif not delivery.deferred:
        delivery.fail(NoReply(inbox.name, f"{type(delivery.message).__name__} was handled but not answered"))


def _failed(inbox: Inbox[M], delivery: Delivery[M], exc: Exception) -> None:
    inbox.mailbox.crashed(delivery, exception_site(exc))
    if delivery.is_call and not delivery.answered:
        delivery.fail(crashed(inbox.name, exc))
