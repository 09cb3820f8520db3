"""One step of something that reads strangers' bytes may take `STEP_SECONDS` of CPU and no more."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
R = TypeVar("R")

STEP_SECONDS = 0.05
"""For inputs of up to `MAX_BYTES`."""
MAX_BYTES = 64 * 1024
INSTRUMENTED = 12
"""How many times slower a step is while its branches are counted."""

_allowed = float("inf")


class TooSlowError(AssertionError):
    """A step took too long."""


@contextmanager
def at_most(seconds: float) -> Iterator[None]:
    """Let no `step` in this block take longer."""
    global _allowed
    before, _allowed = _allowed, seconds
    try:
        yield
    finally:
        _allowed = before


def step(call: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
    """What ``call`` returns. Raises `TooSlowError`."""
    began = time.thread_time()
    try:
        return call(*args, **kwargs)
    finally:
        spent = time.thread_time() - began
        if spent > _allowed:
            raise TooSlowError(f"{getattr(call, '__qualname__', call)} took {spent * 1000:.0f} ms")


def pieces(data: bytes, at: int) -> list[list[bytes]]:
    """``data`` cut in two, at ``at`` as a fraction of 256, and cut very small."""
    cut = len(data) * at // 256
    size = max(1, len(data) // 1024)
    return [[data[:cut], data[cut:]], [data[i : i + size] for i in range(0, len(data), size)]]
