"""Who uses a provider's slots, and who waits for one.

A provider works on so many requests at once. The others wait here, in a `FairQueue` like the limiter's: callers take
turns, and priorities count. They do not wait in the mailbox of its actor: here their number is known before they join,
so that one who would wait in vain is refused (`overload`). Those who wait for the limiter are counted, too, because
they are ahead all the same.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import count
from math import inf
from types import TracebackType
from typing import final

import trio

from llm_actors.limiter.fair_queue import FairQueue, QueuedRequest
from llm_actors.limiter.overload import STANDING_SECONDS, expected_wait, least_time, refused_for

TIMES_KEPT = 256
"""The latest times for which slots were held, whose mean tells how fast a queue moves."""


@final
class Slot:
    """One request's place at a provider, given back at the end of the block."""

    __slots__ = ("_load", "_since")

    def __init__(self, load: ProviderLoad) -> None:
        self._load = load
        self._since: float | None = None

    def use(self) -> None:
        """A call begins: from here on the time counts that the slot is held."""
        self._since = trio.current_time()

    def __enter__(self) -> Slot:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._load.give_back(None if self._since is None else trio.current_time() - self._since)


@final
class ProviderLoad:
    """The slots of one provider."""

    def __init__(self, slots: int) -> None:
        self._slots = slots
        self._taken = 0
        self._queue = FairQueue()
        self._turns: dict[int, trio.Event] = {}
        """By number, of those in the queue."""
        self._numbers = count(1)
        self._waiting = 0
        self._weight = 0.0
        self._since = inf
        self._times: deque[float] = deque(maxlen=TIMES_KEPT)
        self._total = 0.0

    @property
    def serving(self) -> int:
        """Slots that are taken."""
        return self._taken

    @property
    def waiting(self) -> int:
        """Requests that wait for a slot, or for the limiter to let them go."""
        return self._waiting

    def take_nowait(self) -> Slot | None:
        """A slot, if one is free and nobody waits for it."""
        if self._taken >= self._slots or self._queue.count:
            return None
        self._taken += 1
        return Slot(self)

    async def take(self, start_by: float, *, caller: str, priority: int) -> Slot | None:
        """Wait for a slot until ``start_by``, on Trio's clock; ``None``: there was none.

        No checkpoint if one is free.
        """
        if (slot := self.take_nowait()) is not None:
            return slot
        number = next(self._numbers)
        waiter = QueuedRequest(number, (), 0, caller=caller, priority=priority, deadline=start_by, lease_s=0.0)
        turn = self._turns[number] = trio.Event()
        self._queue.add(waiter)
        try:
            with trio.CancelScope(deadline=start_by):
                await turn.wait()
        except BaseException:
            if waiter.waiting:
                self._dequeue(waiter)
            else:  # its turn came in the same pass as the cancellation
                self._free()
            raise
        if waiter.waiting:
            self._dequeue(waiter)
            return None
        return Slot(self)

    def _dequeue(self, waiter: QueuedRequest) -> None:
        waiter.waiting = False
        self._queue.remove(waiter)
        del self._turns[waiter.number]

    def _free(self) -> None:
        """A slot is free: it is the next one's at once, so that nobody who comes now is before them."""
        first = self._queue.first(lambda _: True)
        if first is None:
            self._taken -= 1
            return
        self._queue.serve(first)
        turn = self._turns[first.number]
        self._dequeue(first)
        turn.set()

    def give_back(self, seconds: float | None) -> None:
        """A `Slot` is free again after a call of so many seconds, or after none."""
        self._free()
        if seconds is None:
            return
        if len(self._times) == TIMES_KEPT:
            self._total -= self._times[0]
        self._times.append(seconds)
        self._total += seconds

    def refused_for(self, left_s: float, times: Sequence[float], now: float) -> float | None:
        """Seconds after which a request that has ``left_s`` may come back; ``None``: it may join. See `overload`.

        ``times`` are those of comparable answers.
        """
        if not self._times or not self._waiting:
            return None
        mean = max(0.0, self._total) / len(self._times)
        wait = expected_wait(self._weight, self.serving, self._slots, mean)
        if wait <= 0:
            return None
        return refused_for(wait, left_s, least_time(times), standing=now - self._since >= STANDING_SECONDS)

    def join(self, weight: float, now: float) -> None:
        """One more waits; ``weight`` is less than 1 for who waits for several providers at once."""
        if not self._waiting:
            self._since, self._weight = now, 0.0
        self._waiting += 1
        self._weight += weight

    def leave(self, weight: float) -> None:
        """One waits no longer."""
        self._waiting -= 1
        self._weight -= weight
        if not self._waiting:
            self._since = inf


@contextmanager
def waiting_for(loads: Mapping[str, ProviderLoad], names: Sequence[str]) -> Iterator[None]:
    """Count as one who waits for whichever of ``names`` has room first."""
    now, weight = trio.current_time(), 1 / len(names)
    for name in names:
        loads[name].join(weight, now)
    try:
        yield
    finally:
        for name in names:
            loads[name].leave(weight)
