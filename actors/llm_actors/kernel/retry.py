"""Retry a call after the actor crashed, for calls that may safely be made twice."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TypeVar

from llm_actors.kernel.errors import ActorCrashed

OWN_CRASHES = 2
"""After this many crashes of the actor while it handles the message, the message counts as the cause."""

R = TypeVar("R")


async def retry_after_crashes(call: Callable[[], Awaitable[R]]) -> R:
    """Await `call()`. If the actor crashed while it handled another message, or once on this message, call again.

    The retries end with the caller's deadline, or sooner if the actor's supervisor parks it or gives up. Raises the
    exceptions of `call`; `ActorCrashed` once the actor has crashed on this message for the second time.
    """
    crashes = 0
    while True:
        try:
            return await call()
        except ActorCrashed as exc:
            crashes += not exc.bystander
            if crashes >= OWN_CRASHES:
                raise
