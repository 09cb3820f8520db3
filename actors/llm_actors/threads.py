"""CPU-bound work, off the event loop.

The interpreter runs one thread at a time, but switches between threads every five milliseconds. So other tasks
continue while a large body is decoded in a thread. On the event loop they would have to wait. A single call into C is
not interrupted, so the work must consist of short calls (docs/decisions/0007-large-json.md).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar, TypeVarTuple

import trio

LARGE_BYTES = 256 * 1024
"""Bodies of at least this many bytes are processed in a thread. A smaller body takes a few milliseconds; starting a
thread costs a tenth of a millisecond.
"""

LARGE_AT_ONCE = 2
"""The most of these threads at the same time. More would take CPU time from the event loop."""

T = TypeVar("T")
Ts = TypeVarTuple("Ts")

_threads: trio.lowlevel.RunVar[trio.CapacityLimiter] = trio.lowlevel.RunVar("threads for large bodies")


async def run_large(size: int, function: Callable[[*Ts], T], *args: *Ts) -> T:
    """Return ``function(*args)``. If the processed body is large (``size`` bytes), call the function in a thread.

    Waits for one of `LARGE_AT_ONCE` threads and for the function. Cancellation does not interrupt the function.
    Raises the exceptions of the function. A small body is processed at once, without a checkpoint.
    """
    if size < LARGE_BYTES:
        return function(*args)
    try:
        limiter = _threads.get()
    except LookupError:
        limiter = trio.CapacityLimiter(LARGE_AT_ONCE)
        _threads.set(limiter)
    return await trio.to_thread.run_sync(function, *args, limiter=limiter)
