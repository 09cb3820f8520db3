"""The two ways to serve an inbox: one message at a time, or several at once under guard.

Either way the handler runs in a scope that ends with the call's deadline or its caller. What differs is what a bug
costs. Serving one at a time, a crash ends the incarnation, since its state may be half written. Serving several, it
ends one message, until crashes come so fast that the fault must be in what they share.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TypeVar

import trio

from llm_actors.kernel.delivery import Delivery
from llm_actors.kernel.errors import CallExpired, NoReply, crashed, is_fatal
from llm_actors.kernel.inbox import Inbox, acting
from llm_actors.kernel.lifecycle import ChildCrashed
from llm_actors.kernel.message import ActorMessage
from llm_actors.kernel.trace import exception_site
from llm_actors.kernel.window import Intensity, RestartWindow

WORKER_CRASHES = Intensity(5, 30.0)
"""More crashes of workers than this and the actor itself is restarted."""

M = TypeVar("M", bound=ActorMessage)


async def serve(inbox: Inbox[M], handle: Callable[[Delivery[M]], Awaitable[None]]) -> None:
    """Handle messages one at a time until a stop is asked for.

    An exception from `handle` fails the call in hand with `ActorCrashed` and is raised: the actor crashes.
    A handler is cancelled when its caller leaves: change state between two awaits, not across one.
    """
    async for delivery in inbox:
        try:
            await _attend(inbox, delivery, handle)
        except Exception as exc:
            _failed(inbox, delivery, exc)
            raise


async def serve_concurrently(
    inbox: Inbox[M],
    handle: Callable[[Delivery[M]], Awaitable[None]],
    *,
    slots: int,
    crashes: Intensity = WORKER_CRASHES,
    own_scope: bool = False,
) -> None:
    """Handle up to `slots` messages at once, each in its own task with the caller's context variables.

    The slot is taken before the message, so that what cannot be worked on stays in the bounded mailbox. An exception
    from `handle` fails its own call; more than `crashes` of them are raised. After a stop is asked for, the work in
    hand is finished (the supervisor bounds that). `own_scope`: `handle` opens `delivery.scope()` itself, because it
    has an answer of its own for when that ends.
    """
    free = trio.Semaphore(slots)
    window = RestartWindow(crashes)

    async def work(delivery: Delivery[M]) -> None:
        acting.set(inbox.mailbox)
        try:
            if own_scope:
                await handle(delivery)
                _conclude(inbox, delivery, expired=False)
            else:
                await _attend(inbox, delivery, handle)
        except Exception as exc:
            _failed(inbox, delivery, exc)
            if is_fatal(exc) or not window.admit(trio.current_time()):
                raise
            if inbox.mailbox.bus is not None:
                inbox.mailbox.bus.publish(ChildCrashed(name=inbox.name, error=exception_site(exc)))
        finally:
            free.release()

    async with trio.open_nursery() as nursery:
        while True:
            try:
                free.acquire_nowait()
            except trio.WouldBlock:
                await free.acquire()
            try:
                delivery = await inbox.receive()
            except trio.EndOfChannel:
                return
            delivery.context.run(lambda each: nursery.start_soon(work, each, name=inbox.name), delivery)


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
    """The handler did not crash. See to it that a call ends up answered, deferred or abandoned."""
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
