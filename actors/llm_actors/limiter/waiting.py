"""The requests that wait: in the line of each provider that could serve them, and for how long at most. Pure.

When a turn would come is an estimate, by the rates and by those ahead; who cannot wait that long is refused at once.
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
"""Requests that wait at once, for whatever provider."""

MAX_WAITING_PER_CALLER = MAX_WAITING // 2
"""How many of them may be of one caller."""


class ProviderLine(NamedTuple):
    """One provider's limits, and the line before it."""

    account: LimitState
    line: FairQueue

    def due(self, now: float) -> float:
        """When the first may go, or another becomes the first because its caller's limits let it."""
        account, line = self
        first = line.first(lambda waiter: waiter.allowed(now))
        at = account.ready_at(first.tokens, now) if first is not None and account.has_slot else inf
        for head in line.heads():
            if head.limited is not None and head.limited.account.has_slot and not head.allowed(now):
                at = min(at, head.limited.ready_at(head, now))
        return at


@final
class WaitingRequests:
    """All that wait, by number. ``provider`` gives the line of each."""

    def __init__(self, provider: Callable[[str], ProviderLine]) -> None:
        self._provider = provider
        self._waiting: dict[int, QueuedRequest] = {}
        self._of_caller: Counter[str] = Counter()
        self._bounds = WaitBounds()

    def __len__(self) -> int:
        return len(self._waiting)

    def get(self, number: int) -> QueuedRequest | None:
        """The one with that number, if it waits."""
        return self._waiting.get(number)

    def full_for(self, waiter: QueuedRequest) -> tuple[str, LimitOwner] | None:
        """Why ``waiter`` may not join, and whose limit that is; ``None``: it may."""
        if len(self._waiting) >= MAX_WAITING:
            return f"{MAX_WAITING} requests wait already", "server"
        if self._of_caller[waiter.caller] >= MAX_WAITING_PER_CALLER:
            return f"{MAX_WAITING_PER_CALLER} requests of this caller wait already", "caller"
        return None

    def add(self, waiter: QueuedRequest, *, first: bool) -> None:
        """Let it stand in all its lines; ``first``: before the others of its caller."""
        self._waiting[waiter.number] = waiter
        self._of_caller[waiter.caller] += 1
        if waiter.limited is not None:
            waiter.limited.waiting[waiter.number] = waiter
            if first:
                waiter.limited.waiting.move_to_end(waiter.number, last=False)
        for name in waiter.names:
            self._provider(name).line.add(waiter, first=first)

    def remove(self, waiter: QueuedRequest) -> None:
        """Take it out of all its lines."""
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
        """Note until when it may wait: for a provider, and for its caller's limits."""
        self.look_again(waiter, waiter.until)
        if waiter.limited is not None:
            waiter.note_what_it_waits_for(now)
            self.look_again(waiter, now + waiter.limited.account.wait_s)

    def look_again(self, waiter: QueuedRequest, at: float) -> None:
        """Have it in `pop_due` at a time."""
        self._bounds.add(at, waiter.number, self._waiting)

    def pop_due(self, now: float) -> Iterator[QueuedRequest]:
        """Those that may have waited for too long. One that is removed in between does not come a second time."""
        return (self._waiting[number] for number in self._bounds.pop_due(now, self._waiting))

    def next_bound(self) -> float:
        """When `pop_due` has the next one; infinity if never."""
        return self._bounds.next(self._waiting)

    def expected(self, waiter: QueuedRequest, now: float) -> list[Turn]:
        """When its turn would come, by the rates and those ahead. Slots become free when they do: they cost no time."""
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
        """When its turn would come if nobody else waited."""
        own = waiter.limited.account.expected_at(waiter.tokens, now) if waiter.limited is not None else -inf
        return [Turn(self._provider(name).account.expected_at(waiter.tokens, now), own) for name in waiter.names]
