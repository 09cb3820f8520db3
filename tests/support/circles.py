"""What a test leaves to the garbage collector: objects of ours that only a circle of references kept."""

from __future__ import annotations

import gc
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

OURS = ("llm_protocol", "llm_actors", "llm_runtime")


@contextmanager
def circles() -> Iterator[Counter[str]]:
    """Counts, after the block, the types of ours that the collector found in it. It does not run meanwhile."""
    found: Counter[str] = Counter()
    gc.collect()
    gc.disable()
    gc.set_debug(gc.DEBUG_SAVEALL)
    try:
        yield found
        gc.collect()
        found.update(type(each).__name__ for each in gc.garbage if type(each).__module__.startswith(OURS))
    finally:
        gc.set_debug(0)
        gc.garbage.clear()
        gc.enable()
