"""The slots of a provider, the queue for them, and the decision on which requests are refused instead of queued.

A provider works on a limited number of requests at the same time. Other requests wait in a `FairQueue` like the
limiter's: callers take turns, and priorities count. They do not wait in the provider actor's mailbox: the length of
this queue is known before a request joins it, so a request that would wait in vain is refused. Requests that wait for
the limiter are counted, too, because they are also ahead.

A request that joins a queue that is too long is served too late: the vendor is paid for a response that nobody
receives, and every request behind it waits. Two rules prevent that:

* A request is refused if the queue would leave it less than the time in which one in ten comparable responses is
  complete (`HOPELESS_PERCENT`): it would hardly ever succeed.
* A *standing* queue, one that has not been empty for `STANDING_SECONDS`, may cost a request no more than `WAIT_SHARE`
  of its time. A burst makes a queue that empties again, and such a queue may be long. A queue that stays means that
  demand exceeds capacity. A long queue then has no advantage: a short one keeps the slots just as busy.

No request is refused while the queue is empty, or while too little is known. The expected wait is a mean, so it may be
wrong for one request.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import count
from math import inf
from types import TracebackType
from typing import Self, final

import trio

from llm_actors.catalog import Candidate
from llm_actors.limiter import Reservation
from llm_actors.limiter.fair_queue import FairQueue, QueuedRequest
from llm_protocol.estimate import Estimate

HOPELESS_PERCENT = 10
LEAST_TIMES = 10
"""The number of service times that must be known before a request is refused."""

STANDING_SECONDS = 1.0
WAIT_SHARE = 0.25


def expected_wait(waiting: float, serving: int, slots: int, mean_s: float) -> float:
    """Return the seconds until a slot is free for a request that joins now, behind ``waiting`` others; 0.0 if a slot is
    free now.
    """
    ahead = waiting - (slots - serving)
    return 0.0 if ahead < 0 else (ahead + 1) * mean_s / slots


def least_time(times: Sequence[float]) -> float | None:
    """Return the seconds within which `HOPELESS_PERCENT` % of comparable responses are complete; ``None`` if too
    little is known.
    """
    if len(times) < LEAST_TIMES:
        return None
    return sorted(times)[len(times) * HOPELESS_PERCENT // 100]


def refused_for(wait_s: float, left_s: float, least_s: float | None, *, standing: bool) -> float | None:
    """Return the seconds after which a refused request may retry; ``None`` if it may join the queue.

    ``wait_s`` is the expected wait, ``left_s`` the time that the request has left, ``least_s`` its `least_time`.
    ``standing``: the queue has existed for `STANDING_SECONDS`.
    """
    if wait_s <= 0 or least_s is None:
        return None
    longest = left_s - least_s
    if standing:
        longest = min(longest, WAIT_SHARE * left_s)
    return None if wait_s <= longest else wait_s - max(0.0, longest)


TIMES_KEPT = 256
"""The number of recent service times whose mean tells how fast the queue moves."""


@final
class Slot:
    """The right of one request to be served by a provider. Call `give_back` at its end."""

    __slots__ = ("_is_held", "_load", "_since")

    def __init__(self, load: ProviderLoad) -> None:
        self._load = load
        self._since: float | None = None
        self._is_held = True

    def use(self, now: float) -> None:
        """Record that the call begins: from now on, the time that the slot is held counts."""
        self._since = now

    def give_back(self) -> None:
        """Free the slot. A second call does nothing."""
        if self._is_held:
            self._is_held = False
            self._load.give_back(None if self._since is None else trio.current_time() - self._since)


@final
class ProviderLoad:
    """The slots of one provider."""

    def __init__(self, slots: int) -> None:
        self._slots = slots
        self._taken = 0
        self._queue = FairQueue()
        self._turns: dict[int, trio.Event] = {}
        """The queued requests, by number."""
        self._numbers = count(1)
        self._waiting = 0
        self._weight = 0.0
        self._since = inf
        self._times: deque[float] = deque(maxlen=TIMES_KEPT)
        self._total = 0.0

    @property
    def serving(self) -> int:
        """The number of slots in use."""
        return self._taken

    @property
    def waiting(self) -> int:
        """The number of requests that wait for a slot, or for the limiter."""
        return self._waiting

    def take_nowait(self) -> Slot | None:
        """Return a slot if one is free and no request waits for it; else ``None``."""
        if self._taken >= self._slots or self._queue.count:
            return None
        self._taken += 1
        return Slot(self)

    async def take(self, start_by: float, *, caller: str, priority: int) -> Slot | None:
        """Wait for a slot until ``start_by``, on Trio's clock. Returns ``None`` if none became free.

        There is no checkpoint if a slot is free.
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
            else:  # its turn came in the same scheduler pass as the cancellation
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
        """Give a free slot to the next request at once, so that no newcomer gets it first."""
        first = self._queue.first(lambda _: True)
        if first is None:
            self._taken -= 1
            return
        self._queue.serve(first)
        turn = self._turns[first.number]
        self._dequeue(first)
        turn.set()

    def give_back(self, seconds: float | None) -> None:
        """Take back a `Slot` after a call of ``seconds``, or ``None`` if there was no call."""
        self._free()
        if seconds is None:
            return
        if len(self._times) == TIMES_KEPT:
            self._total -= self._times[0]
        self._times.append(seconds)
        self._total += seconds

    def refused_for(self, left_s: float, times: Sequence[float], now: float) -> float | None:
        """Return the seconds after which a request that has ``left_s`` may retry; ``None`` if it may join the queue.

        ``times`` are the service times of comparable responses.
        """
        if not self._times or not self._waiting:
            return None
        mean = max(0.0, self._total) / len(self._times)
        wait = expected_wait(self._weight, self.serving, self._slots, mean)
        if wait <= 0:
            return None
        return refused_for(wait, left_s, least_time(times), standing=now - self._since >= STANDING_SECONDS)

    def join(self, weight: float, now: float) -> None:
        """Count one more waiting request. ``weight`` is less than 1 for a request that waits for several providers at
        the same time.
        """
        if not self._waiting:
            self._since, self._weight = now, 0.0
        self._waiting += 1
        self._weight += weight

    def leave(self, weight: float) -> None:
        """Count one waiting request less; ``weight`` as in `join`."""
        self._waiting -= 1
        self._weight -= weight
        if not self._waiting:
            self._since = inf


@final
class Reserved:
    """The permission for one call. Its resources are released at the end of the block, however it ends.
    ``reservation`` is ``None`` if there are no limits.
    """

    __slots__ = ("_slot", "candidate", "estimate", "reservation")

    def __init__(self, candidate: Candidate, estimate: Estimate, reservation: Reservation | None, slot: Slot) -> None:
        self.candidate = candidate
        self.estimate = estimate
        self.reservation = reservation
        self._slot = slot

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None) -> None:
        self.give_back()

    def use(self, now: float) -> None:
        """Record that the call begins."""
        self._slot.use(now)

    def give_back(self) -> None:
        """Release the resources. A second call does nothing."""
        self._slot.give_back()
        if self.reservation is not None:
            self.reservation.leave()


@contextmanager
def waiting_for(loads: Mapping[str, ProviderLoad], names: Sequence[str]) -> Iterator[None]:
    """During the block, count a request that waits for capacity at the first provider of ``names`` that has any."""
    now, weight = trio.current_time(), 1 / len(names)
    for name in names:
        loads[name].join(weight, now)
    try:
        yield
    finally:
        for name in names:
            loads[name].leave(weight)
