"""Retry a call after its actor crashed, for calls that may be made twice."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TypeVar

from llm_actors.kernel.errors import ActorCrashed

OWN_CRASHES = 2
"""After this many crashes of the actor over the message itself, the message is taken to be the cause."""

R = TypeVar("R")


async def again_after_crashes(ask: Callable[[], Awaitable[R]]) -> R:
    """Await `ask`, and once more each time the actor crashed while it only waited for its answer.

    It ends with the caller's deadline at the latest, and sooner if the actor's supervisor parks it or gives up.
    Raises what `ask` raises; `ActorCrashed` when the actor crashed over this very message for the second time.
    """
    crashes = 0
    while True:
        try:
            return await ask()
        except ActorCrashed as exc:
            crashes += not exc.bystander
            if crashes >= OWN_CRASHES:
                raise
