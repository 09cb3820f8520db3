"""What was granted and has not come back. Each lease ends once: by its holder, or when its time is over.

The table is also what an incarnation leaves to the next: adding and ending a lease are one step each, so that a crash
finds no half of one.
"""

from __future__ import annotations

from heapq import heapify, heappop, heappush
from math import inf
from typing import TYPE_CHECKING, NamedTuple, final

from llm_actors.limiter.deployment_holds import Deployment
from llm_actors.limiter.limit_state import Charges, LimitState
from llm_protocol.failures import Settlement

if TYPE_CHECKING:
    from llm_actors.limiter.shared.wire import Receipt

_LITTLE = 64


class Lease(NamedTuple):
    """One granted reservation. ``caller`` is ``None`` where the caller has no limits."""

    name: str
    provider: LimitState
    caller: LimitState | None
    taken: tuple[Charges, ...]
    until: float
    receipt: Receipt | None = None
    """What the shared ledger charged for it."""
    model: str = ""
    """Which of the provider's models it is for, where that was told."""

    def end(self, ending: Settlement, tokens: int | None, now: float) -> None:
        """Put the books right: the slots are free again, and the charges are what they should have been."""
        used = 0 if ending is not Settlement.CHARGED else None if tokens is None else max(0, tokens)
        for account, charges in zip(self.accounts, self.taken, strict=True):
            account.settle(charges, now, request_back=ending is Settlement.REFUNDED, tokens=used)

    def move(self, at: float, now: float) -> Lease:
        """The same for a request that goes at ``at``, and not when it was granted."""
        moved = (account.move(each, at, now) for account, each in zip(self.accounts, self.taken, strict=True))
        return self._replace(taken=tuple(moved))

    @property
    def deployment(self) -> Deployment:
        """Whom it is for."""
        return Deployment(self.name, self.model)

    @property
    def accounts(self) -> tuple[LimitState, ...]:
        """Whose slots it holds."""
        return (self.provider,) if self.caller is None else (self.provider, self.caller)


@final
class Leases:
    """The open leases by number."""

    def __init__(self) -> None:
        self.open: dict[int, Lease] = {}
        self._ends: list[tuple[float, int]] = []

    def __len__(self) -> int:
        return len(self.open)

    def add(self, number: int, lease: Lease) -> None:
        """Open one."""
        self.open[number] = lease
        heappush(self._ends, (lease.until, number))
        if len(self._ends) > 2 * len(self.open) + _LITTLE:
            self._ends = [(lease.until, number) for number, lease in self.open.items()]
            heapify(self._ends)

    def replace(self, number: int, lease: Lease) -> None:
        """Change one that is open."""
        self.open[number] = lease

    def pop(self, number: int) -> Lease | None:
        """Take one off the table, if it is there."""
        return self.open.pop(number, None)

    def next_end(self) -> float:
        """When the time of the next one is over; never, if there is none."""
        while self._ends and self._ends[0][1] not in self.open:
            heappop(self._ends)
        return self._ends[0][0] if self._ends else inf

    def pop_expired(self, now: float) -> list[Lease]:
        """Take those off the table whose time is over."""
        expired: list[Lease] = []
        while self.next_end() <= now:
            expired.append(self.open.pop(heappop(self._ends)[1]))
        return expired
