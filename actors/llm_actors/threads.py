"""Long work for the processor, off the event loop.

The interpreter runs one thread at a time, but takes turns between them every five milliseconds. So other tasks go on
while a large body is decoded in a thread, which they do not while that happens on the event loop. A single call into C
is not interrupted; what is run here must be made of calls that are each short (docs/decisions/0007-large-json.md).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar, TypeVarTuple

import trio

LARGE_BYTES = 256 * 1024
"""Bodies of this size are worked on in a thread. A smaller one takes a few milliseconds, a thread a tenth of one."""

LARGE_AT_ONCE = 2
"""Threads for that. More would take the processor from the event loop more often."""

T = TypeVar("T")
Ts = TypeVarTuple("Ts")

_threads: trio.lowlevel.RunVar[trio.CapacityLimiter] = trio.lowlevel.RunVar("threads for large bodies")


async def run_large(size: int, function: Callable[[*Ts], T], *args: *Ts) -> T:
    """``function(*args)``, in a thread if the body it works on has many bytes (``size``).

    Waits for one of `LARGE_AT_ONCE` threads and for the function, which cancellation does not interrupt. Raises what
    it raises. A small body is worked on at once, without a checkpoint.
    """
    if size < LARGE_BYTES:
        return function(*args)
    try:
        limiter = _threads.get()
    except LookupError:
        limiter = trio.CapacityLimiter(LARGE_AT_ONCE)
        _threads.set(limiter)
    return await trio.to_thread.run_sync(function, *args, limiter=limiter)
