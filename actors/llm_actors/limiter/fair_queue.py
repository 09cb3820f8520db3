"""The queue of one provider: fair between callers, with priorities that starve nobody.

Callers take turns. Each has a turn number that grows by one when it is served; the lowest goes next, and a new caller
starts at the queue's own clock, which is where a busy caller's turn would be by now. A level of priority is worth
`PRIORITY_TURNS` turns, no more: a request that has waited that long goes before all important ones that came later. The
first in the queue is never overtaken because it is large; it is passed over only while it waits for its own caller's
limit, and not for the provider's.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterator
from heapq import heapify, heappop, heappush
from math import inf
from typing import NamedTuple, final

from llm_actors.limiter.callers import Caller
from llm_actors.limiter.deployment_holds import Deployment

PRIORITY_TURNS = 16
"""The number of turns that one level of priority is worth."""

_LITTLE = 16


@final
class QueuedRequest:
    """One request that waits for the first of ``names`` to have capacity. It is in the queue of each."""

    __slots__ = (
        "caller",
        "caller_until",
        "claimed_at",
        "deadline",
        "lease_s",
        "limited",
        "models",
        "names",
        "number",
        "priority",
        "served",
        "since",
        "tokens",
        "untils",
        "waited_s",
        "waiting",
        "waits_for_caller_since",
    )

    def __init__(
        self,
        number: int,
        names: tuple[str, ...],
        tokens: int,
        *,
        caller: str = "",
        priority: int = 5,
        deadline: float,
        lease_s: float,
        waited_s: float = 0.0,
        models: tuple[str, ...] = (),
    ) -> None:
        """``waited_s``: how long it has already waited for the same limits, which counts. ``models``: the model it is
        for at each of ``names``; if empty, holds of models do not concern it.
        """
        self.number = number
        self.names = names
        self.models = models
        self.tokens = tokens
        self.caller = caller
        self.limited: Caller | None = None
        self.priority = priority
        self.deadline = deadline
        self.lease_s = lease_s
        self.waited_s = waited_s
        self.since = inf
        """When its wait began, including earlier waits."""
        self.untils: tuple[float, ...] = ()
        """How long it may wait for each of ``names``."""
        self.caller_until = inf
        """How long it may wait for its own caller's limits."""
        self.waits_for_caller_since = inf
        """Since when it waits for its own caller's limits; infinity if it does not."""
        self.waiting = True
        self.served: Served | None = None
        self.claimed_at = inf
        """When the shared ledger was first asked for it."""

    @property
    def until(self) -> float:
        """How long it may wait for a provider, its deadline aside."""
        return max(self.untils, default=inf)

    @property
    def deployments(self) -> Iterator[Deployment]:
        """The deployments it is for, in the order of ``names``."""
        return map(Deployment, self.names, self.models)

    def leave_out(self, held: Collection[Deployment]) -> None:
        """Restrict it to the other names; some are left. Call this before it joins a queue."""
        left = [each for each in self.deployments if each not in held]
        self.names, self.models = tuple(each.provider for each in left), tuple(each.model for each in left)

    def allowed(self, now: float) -> bool:
        """Whether its own caller's limits allow it to go."""
        return self.limited is None or self.limited.allows(self, now)

    def note_what_it_waits_for(self, now: float) -> None:
        """Record the time since which it waits for the limits of its caller."""
        self.waits_for_caller_since = inf if self.allowed(now) else min(self.waits_for_caller_since, now)

    @property
    def rank(self) -> int:
        """Its position among its caller's requests: by age, with a bounded advantage for priority."""
        return self.number + self.priority * PRIORITY_TURNS


class Served(NamedTuple):
    """The state of a queue before it let a request go."""

    line: FairQueue
    clock: float
    turn: float


class Ahead(NamedTuple):
    """An estimate of what goes first: the number of requests, their tokens, and how many of them are the
    same caller's.
    """

    requests: int
    tokens: float
    own: int


class _Queue:
    """One caller's queued requests, the next one on top. Those that left stay until they come up or are too many."""

    __slots__ = ("arrivals", "count", "heap", "of_priority", "turn")

    def __init__(self, turn: float) -> None:
        self.turn = turn
        self.arrivals = 0
        self.count = 0
        self.of_priority: Counter[int] = Counter()
        self.heap: list[tuple[int, int, QueuedRequest]] = []

    def add(self, waiter: QueuedRequest, *, first: bool) -> None:
        self.arrivals += 1
        self.count += 1
        self.of_priority[waiter.priority] += 1
        place = self.arrivals + waiter.priority * PRIORITY_TURNS
        if first and self.heap:
            place = min(place, self.heap[0][0] - 1)
        heappush(self.heap, (place, waiter.number, waiter))

    def remove(self, waiter: QueuedRequest) -> None:
        self.count -= 1
        self.of_priority[waiter.priority] -= 1
        if len(self.heap) > 2 * self.count + _LITTLE:
            self.heap = [entry for entry in self.heap if entry[2].waiting]
            heapify(self.heap)

    def head(self) -> QueuedRequest:
        while not self.heap[0][2].waiting:
            heappop(self.heap)
        return self.heap[0][2]

    def key(self) -> float:
        return self.turn + self.head().priority * PRIORITY_TURNS

    def ahead_of_last(self, priority: int) -> int:
        """How many go before the newest request, which has ``priority``."""
        return sum(count for each, count in self.of_priority.items() if each <= priority) - 1


@final
class FairQueue:
    """The queue of one provider. ``count`` and ``tokens`` are totals."""

    def __init__(self) -> None:
        self.count = 0
        self.tokens = 0
        self._queues: dict[str, _Queue] = {}
        self._clock = 0.0

    def add(self, waiter: QueuedRequest, *, first: bool = False) -> None:
        """Add a request; ``first``: before the others of the same caller, and as if it had never been served."""
        queue = self._queues.get(waiter.caller)
        served = waiter.served
        if first and served is not None and served.line is self:
            waiter.served = None
            self._clock = min(self._clock, served.clock)
            if queue is None:
                queue = self._queues[waiter.caller] = _Queue(served.turn)
            else:
                queue.turn -= 1
        if queue is None:
            queue = self._queues[waiter.caller] = _Queue(self._clock)
        queue.add(waiter, first=first)
        self.count += 1
        self.tokens += waiter.tokens

    def remove(self, waiter: QueuedRequest) -> None:
        """Remove a request; `QueuedRequest.waiting` is false by now."""
        queue = self._queues[waiter.caller]
        queue.remove(waiter)
        self.count -= 1
        self.tokens -= waiter.tokens
        if not queue.count:
            del self._queues[waiter.caller]

    def serve(self, waiter: QueuedRequest) -> None:
        """Count the turn that ``waiter`` takes; it is still in the queue."""
        queue = self._queues[waiter.caller]
        waiter.served = Served(self, self._clock, queue.turn)
        self._clock = max(self._clock + 1 / len(self._queues), queue.turn)
        queue.turn += 1

    def first(self, allowed: Callable[[QueuedRequest], bool]) -> QueuedRequest | None:
        """The next request whose own caller's limits allow it."""
        best: tuple[float, int, QueuedRequest] | None = None
        for queue in self._queues.values():
            head = queue.head()
            if (best is None or (queue.key(), head.number) < best[:2]) and allowed(head):
                best = queue.key(), head.number, head
        return best[2] if best is not None else None

    def heads(self) -> Iterator[QueuedRequest]:
        """The next request of each caller."""
        return (queue.head() for queue in self._queues.values())

    def waiters(self) -> Iterator[QueuedRequest]:
        """All requests, in no order."""
        return (entry[2] for queue in self._queues.values() for entry in queue.heap if entry[2].waiting)

    def ahead_of(self, waiter: QueuedRequest) -> Ahead:
        """Estimate what goes before ``waiter``, which has just joined, if nothing else does."""
        mine = self._queues[waiter.caller]
        own = mine.ahead_of_last(waiter.priority)
        key = mine.turn + own + waiter.priority * PRIORITY_TURNS
        others = sum(
            max(0, min(queue.count, int(key - queue.key()) + 1)) for queue in self._queues.values() if queue is not mine
        )
        return Ahead(own + others, (own + others) * self.tokens / self.count, own)
