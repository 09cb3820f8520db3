"""The queue of one provider: fair between callers, with priorities that cannot starve a request.

Callers take turns. Each caller has a turn number, which grows by one when one of its requests is served. The lowest
number goes next. A new caller starts at the clock of the queue, the number that a busy caller would have by now. A
level of priority is worth `PRIORITY_TURNS` turns: a request that has waited that long goes before more important
requests that came later. The first request is never overtaken because it is large. It is passed over only while it
waits for the limits of its caller.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterator
from heapq import heapify, heappop, heappush
from math import inf
from typing import NamedTuple, final

from llm_actors.limiter.allowance import Deployment
from llm_actors.limiter.callers import Caller

PRIORITY_TURNS = 16
"""The number of turns that one level of priority is worth."""

_LITTLE = 16


@final
class QueuedRequest:
    """One request that waits until one of the providers ``names`` has capacity. The request is in the queue of each of
    these providers.
    """

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
        """``waited_s``: the seconds that the request has already waited for the same limits. ``models``: for each of
        ``names``, the vendor's name of the model; if empty, held deployments do not matter.
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
        """The time at which the wait began, minus ``waited_s``: as if the earlier waits had ended just before."""
        self.untils: tuple[float, ...] = ()
        """For each of ``names``, the time until which the request may wait."""
        self.caller_until = inf
        """The time until which the request may wait for its own caller's limits."""
        self.waits_for_caller_since = inf
        """The time since which the request has waited for its own caller's limits; infinity if it does not wait for
        them.
        """
        self.waiting = True
        self.served: Served | None = None
        self.claimed_at = inf
        """The time at which the request was first claimed in the shared ledger."""

    @property
    def until(self) -> float:
        """The time until which the request may wait for a provider. Its deadline is separate."""
        return max(self.untils, default=inf)

    @property
    def deployments(self) -> Iterator[Deployment]:
        """Return the deployments that could serve the request, in the order of ``names``."""
        return map(Deployment, self.names, self.models)

    def leave_out(self, held: Collection[Deployment]) -> None:
        """Remove held deployments from the request; at least one must be left. Call this before the request is
        queued.
        """
        left = [each for each in self.deployments if each not in held]
        self.names, self.models = tuple(each.provider for each in left), tuple(each.model for each in left)

    def allowed(self, now: float) -> bool:
        """Return whether the limits of the request's caller allow it to be sent."""
        return self.limited is None or self.limited.allows(self, now)

    def note_wait_for_caller(self, now: float) -> None:
        """If the request waits for its caller's limits, record since when."""
        self.waits_for_caller_since = inf if self.allowed(now) else min(self.waits_for_caller_since, now)

    @property
    def rank(self) -> int:
        """The position of the request among the requests of its caller: by age, with a limited advantage for
        priority. The lowest is first.
        """
        return self.number + self.priority * PRIORITY_TURNS


class Served(NamedTuple):
    """The state of a queue before it served a request, so that this can be undone."""

    line: FairQueue
    clock: float
    turn: float


class Ahead(NamedTuple):
    """An estimate of the requests that go before a request: their number, their tokens, and the number from the same
    caller.
    """

    requests: int
    tokens: float
    own: int


class _Queue:
    """The queued requests of one caller, as a heap. Removed requests stay in the heap until they reach the top or
    become too many.
    """

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
        """Return how many requests go before the newest one, which has this ``priority``."""
        return sum(count for each, count in self.of_priority.items() if each <= priority) - 1


@final
class FairQueue:
    """The queue of one provider. ``count``: its requests; ``tokens``: their tokens together."""

    def __init__(self) -> None:
        self.count = 0
        self.tokens = 0
        self._queues: dict[str, _Queue] = {}
        self._clock = 0.0

    def add(self, waiter: QueuedRequest, *, first: bool = False) -> None:
        """Add a request. ``first``: put the request before the others of its caller, and give the caller back the turn
        that the request used.
        """
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
        """Remove a request, whose ``waiting`` must be False by now."""
        queue = self._queues[waiter.caller]
        queue.remove(waiter)
        self.count -= 1
        self.tokens -= waiter.tokens
        if not queue.count:
            del self._queues[waiter.caller]

    def serve(self, waiter: QueuedRequest) -> None:
        """Count the turn of ``waiter``, which must still be in the queue."""
        queue = self._queues[waiter.caller]
        waiter.served = Served(self, self._clock, queue.turn)
        self._clock = max(self._clock + 1 / len(self._queues), queue.turn)
        queue.turn += 1

    def first(self, allowed: Callable[[QueuedRequest], bool]) -> QueuedRequest | None:
        """Return the next request that is ``allowed`` by its own caller's limits; ``None`` if there is none."""
        best: tuple[float, int, QueuedRequest] | None = None
        for queue in self._queues.values():
            head = queue.head()
            if (best is None or (queue.key(), head.number) < best[:2]) and allowed(head):
                best = queue.key(), head.number, head
        return best[2] if best is not None else None

    def heads(self) -> Iterator[QueuedRequest]:
        """Return the next request of each caller."""
        return (queue.head() for queue in self._queues.values())

    def waiters(self) -> Iterator[QueuedRequest]:
        """Return all requests, each once, in no particular order."""
        waiting = (entry[2] for queue in self._queues.values() for entry in queue.heap if entry[2].waiting)
        return iter(dict.fromkeys(waiting))

    def ahead_of(self, waiter: QueuedRequest) -> Ahead:
        """Estimate what goes before ``waiter``, which must be the newest request, if no other one arrives."""
        mine = self._queues[waiter.caller]
        own = mine.ahead_of_last(waiter.priority)
        key = mine.turn + own + waiter.priority * PRIORITY_TURNS
        others = sum(
            max(0, min(queue.count, int(key - queue.key()) + 1)) for queue in self._queues.values() if queue is not mine
        )
        return Ahead(own + others, (own + others) * self.tokens / self.count, own)
