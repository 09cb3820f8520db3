"""The queued requests. Each is in the queue of every provider that could serve it, and has a time limit. Pure.

The turn of a request is estimated from the rates and the requests ahead. A request that cannot wait that long is
refused at once.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from math import inf
from typing import NamedTuple, final

from llm_actors.limiter.fair_queue import FairQueue, QueuedRequest
from llm_actors.limiter.limit_state import LimitState
from llm_actors.limiter.patience import Turn, WaitBounds
from llm_protocol.failures import LimitOwner

MAX_WAITING = 8_192
"""The most queued requests, for all providers together."""

MAX_WAITING_PER_CALLER = MAX_WAITING // 2
"""The most queued requests of one caller."""


class ProviderLine(NamedTuple):
    """The limits of one provider, and its queue."""

    account: LimitState
    line: FairQueue

    def due(self, now: float) -> float:
        """Return when the first request may be sent, or when another becomes the first because its caller's limits
        allow it.
        """
        account, line = self
        first = line.first(lambda waiter: waiter.allowed(now))
        at = account.ready_at(first.tokens, now) if first is not None and account.has_slot else inf
        for head in line.heads():
            if head.limited is not None and head.limited.account.has_slot and not head.allowed(now):
                at = min(at, head.limited.ready_at(head, now))
        return at


@final
class WaitingRequests:
    """All queued requests, by number. ``provider`` returns the queue of each provider."""

    def __init__(self, provider: Callable[[str], ProviderLine]) -> None:
        self._provider = provider
        self._waiting: dict[int, QueuedRequest] = {}
        self._of_caller: Counter[str] = Counter()
        self._bounds = WaitBounds()

    def __len__(self) -> int:
        return len(self._waiting)

    def get(self, number: int) -> QueuedRequest | None:
        """Return the request with that number; ``None`` if it is not queued."""
        return self._waiting.get(number)

    def full_for(self, waiter: QueuedRequest) -> tuple[str, LimitOwner] | None:
        """Return why ``waiter`` cannot be queued, and whose limit that is; ``None`` if it can."""
        if len(self._waiting) >= MAX_WAITING:
            return f"{MAX_WAITING} requests are already waiting for limits, the most allowed", "server"
        if self._of_caller[waiter.caller] >= MAX_WAITING_PER_CALLER:
            return (
                f"{MAX_WAITING_PER_CALLER} requests of this caller are already waiting for limits, the most allowed",
                "caller",
            )
        return None

    def add(self, waiter: QueuedRequest, *, first: bool) -> None:
        """Add a request to all its queues. ``first``: before the others of its caller."""
        waiter.waiting = True  # it is not while it is granted, and may be refused instead of being queued again
        self._waiting[waiter.number] = waiter
        self._of_caller[waiter.caller] += 1
        if waiter.limited is not None:
            waiter.limited.waiting[waiter.number] = waiter
            if first:
                waiter.limited.waiting.move_to_end(waiter.number, last=False)
        for name in waiter.names:
            self._provider(name).line.add(waiter, first=first)

    def remove(self, waiter: QueuedRequest) -> None:
        """Remove a request from all its queues."""
        waiter.waiting = False
        del self._waiting[waiter.number]
        self._of_caller[waiter.caller] -= 1
        if not self._of_caller[waiter.caller]:
            del self._of_caller[waiter.caller]
        if waiter.limited is not None:
            del waiter.limited.waiting[waiter.number]
        for name in waiter.names:
            self._provider(name).line.remove(waiter)

    def watch(self, waiter: QueuedRequest, now: float) -> None:
        """Make `pop_due` return the request at the end of its longest wait."""
        self.look_again(waiter, waiter.until)
        if waiter.limited is not None:
            waiter.note_wait_for_caller(now)
            self.look_again(waiter, now + waiter.limited.account.wait_s)

    def look_again(self, waiter: QueuedRequest, at: float) -> None:
        """Make `pop_due` return a request at ``at``."""
        self._bounds.add(at, waiter.number, self._waiting)

    def pop_due(self, now: float) -> Iterator[QueuedRequest]:
        """Return the requests that may have waited too long. Those that are removed during the iteration are left
        out.
        """
        return (self._waiting[number] for number in self._bounds.pop_due(now, self._waiting))

    def next_bound(self) -> float:
        """Return the time from which `pop_due` may return a request; infinity if no request waits."""
        return self._bounds.next(self._waiting)

    def expected(self, waiter: QueuedRequest, now: float) -> list[Turn]:
        """Return when the turn of a request should come at each of its providers, computed from the rates and the
        requests ahead. The wait for concurrency is not included.
        """
        turns = []
        for name in waiter.names:
            account, line = self._provider(name)
            ahead = line.ahead_of(waiter)
            at = account.expected_at(waiter.tokens, now, ahead=ahead.requests, tokens_ahead=ahead.tokens)
            if waiter.limited is None:
                turns.append(Turn(at))
            else:
                own, own_tokens = waiter.limited.account, ahead.own * line.tokens / line.count
                turns.append(Turn(at, own.expected_at(waiter.tokens, now, ahead=ahead.own, tokens_ahead=own_tokens)))
        return turns

    def earliest(self, waiter: QueuedRequest, now: float) -> list[Turn]:
        """Return when the turn of a request would come if no other request waited."""
        own = waiter.limited.account.expected_at(waiter.tokens, now) if waiter.limited is not None else -inf
        return [Turn(self._provider(name).account.expected_at(waiter.tokens, now), own) for name in waiter.names]
