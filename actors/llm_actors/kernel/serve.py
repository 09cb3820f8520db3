"""The ways to serve an inbox: one message at a time, synchronously in the sender's task, or several concurrently.

A handler that waits runs in a scope that ends with the call's deadline or its caller. They differ in what a bug costs.
Serving one at a time, a crash ends the incarnation, since its state may be half written. Serving several, it ends one
message, until crashes are so frequent that the fault must be in what they share.

Neither a worker nor a handler that does not wait needs the actor's own task: while nothing is queued, the sender's task
starts the one and calls the other. Otherwise messages go through the queue.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextvars import copy_context
from typing import Generic, TypeVar, final

import trio

from llm_actors.kernel.delivery import Delivery
from llm_actors.kernel.errors import CallExpired, NoReply, crashed, is_fatal
from llm_actors.kernel.inbox import Inbox, acting
from llm_actors.kernel.lifecycle import ChildCrashed
from llm_actors.kernel.message import ActorMessage
from llm_actors.kernel.trace import exception_site
from llm_actors.kernel.window import Intensity, RestartWindow

WORKER_CRASHES = Intensity(5, 30.0)
"""With more crashes of workers than this, the actor itself is restarted."""

M = TypeVar("M", bound=ActorMessage)


async def serve(inbox: Inbox[M], handle: Callable[[Delivery[M]], Awaitable[None]]) -> None:
    """Handle messages one at a time until a stop is asked for.

    An exception from `handle` fails the current call with `ActorCrashed` and is raised: the actor crashes. A handler is
    cancelled when its caller leaves: change state between two awaits, not across one.
    """
    async for delivery in inbox:
        try:
            await _attend(inbox, delivery, handle)
        except Exception as exc:
            _failed(inbox, delivery, exc)
            raise


async def serve_at_once(inbox: Inbox[M], handle: Callable[[Delivery[M]], None]) -> None:
    """Handle messages one at a time until a stop is asked for, with a `handle` that never waits.

    It is called in the task of the sender, with this actor's context variables, before `call` or `cast` goes on, unless
    something is queued. An exception from it fails the current call with `ActorCrashed` and is raised here: the actor
    crashes.
    """
    context, is_busy = copy_context(), False

    def attend(delivery: Delivery[M]) -> None:
        handle(delivery)
        _conclude(inbox, delivery, expired=False)

    def take(delivery: Delivery[M]) -> bool:
        nonlocal is_busy
        if is_busy:  # the handler has sent a message to its own actor
            return False
        if inbox.mailbox.admit(delivery):
            is_busy = True
            try:
                context.run(attend, delivery)
            except Exception as exc:
                _failed(inbox, delivery, exc)
                inbox.break_off(exc)
            finally:
                is_busy = False
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
        inbox.take_nothing_at_once()


async def serve_concurrently(
    inbox: Inbox[M],
    handle: Callable[[Delivery[M]], Awaitable[None]],
    *,
    slots: int,
    crashes: Intensity = WORKER_CRASHES,
    own_scope: bool = False,
) -> None:
    """Handle up to `slots` messages at once, each in its own task with the caller's context variables.

    The slot is taken before the message, so that what cannot be handled yet stays in the bounded mailbox. An exception
    from `handle` fails its own call; more than `crashes` of them are raised. After a stop is asked for, the work in
    progress is finished (the supervisor limits the time). While nothing is queued and a slot is free, a message's
    worker is started by the sender's task. `own_scope`: `handle` opens `delivery.scope()` itself, because it replies in
    its own way when that ends.
    """
    await _Workers(inbox, handle, slots, crashes, own_scope=own_scope).run()


@final
class _Workers(Generic[M]):
    """The tasks of one actor that serves concurrently."""

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
        """Start a worker for each message until a stop is asked for, then wait for them."""
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
                    assert delivery.context is not None, "it was queued"
                    delivery.context.run(self._start, delivery)
            except trio.EndOfChannel:
                return
            finally:
                inbox.take_nothing_at_once()

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
        self._nursery.start_soon(self._work, delivery, name=self._inbox.name)

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
                inbox.take_nothing_at_once()
                raise
            if inbox.mailbox.bus is not None:
                inbox.mailbox.bus.publish(ChildCrashed(name=inbox.name, error=exception_site(exc)))
        finally:
            self._free.release()


async def _attend(inbox: Inbox[M], delivery: Delivery[M], handle: Callable[[Delivery[M]], Awaitable[None]]) -> None:
    """Handle one message, a call in its scope."""
    if not delivery.is_call:
        await handle(delivery)
        _conclude(inbox, delivery, expired=False)
        return
    with delivery.scope() as scope:
        await handle(delivery)
    _conclude(inbox, delivery, expired=scope.cancelled_caught)


def _conclude(inbox: Inbox[M], delivery: Delivery[M], *, expired: bool) -> None:
    """The handler did not crash. Make sure that the call is answered, deferred or abandoned."""
    inbox.mailbox.handled(delivery)
    if not delivery.is_call or delivery.answered or delivery.abandoned:
        return
    if expired:
        delivery.fail(CallExpired(inbox.name, "the deadline passed while it was working"))
    elif not delivery.deferred:
        delivery.fail(NoReply(inbox.name, f"{type(delivery.message).__name__} was handled but not answered"))


def _failed(inbox: Inbox[M], delivery: Delivery[M], exc: Exception) -> None:
    inbox.mailbox.crashed(delivery, exception_site(exc))
    if delivery.is_call and not delivery.answered:
        delivery.fail(crashed(inbox.name, exc))
