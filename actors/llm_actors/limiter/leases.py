"""The granted reservations that are still open. Each lease ends once: by its holder, or when it expires.

The next incarnation of the limiter takes over this table. Adding and ending a lease are one step each, so a crash
leaves no incomplete entry.
"""

from __future__ import annotations

from heapq import heapify, heappop, heappush
from math import inf
from typing import TYPE_CHECKING, NamedTuple, final

from llm_actors.limiter.allowance import Deployment
from llm_actors.limiter.limit_state import Charges, LimitState
from llm_protocol.failures import Settlement

if TYPE_CHECKING:
    from llm_actors.limiter.shared.wire import Receipt

_LITTLE = 64


class Lease(NamedTuple):
    """One granted reservation at the provider ``name``. ``caller``: the caller's limits, or ``None`` if it has none.
    ``taken``: what was charged, to the provider first, then to the caller. ``until``: when the lease expires.
    """

    name: str
    provider: LimitState
    caller: LimitState | None
    taken: tuple[Charges, ...]
    until: float
    receipt: Receipt | None = None
    """The charges in the shared ledger, if limits are shared."""
    model: str = ""
    """The vendor's name of the model, if known."""

    def end(self, ending: Settlement, tokens: int | None, now: float) -> None:
        """Release the concurrency, and correct the charges to the actual use."""
        used = 0 if ending is not Settlement.CHARGED else None if tokens is None else max(0, tokens)
        for account, charges in zip(self.accounts, self.taken, strict=True):
            account.settle(charges, now, request_back=ending is Settlement.REFUNDED, tokens=used)

    def move(self, at: float, now: float) -> Lease:
        """Return the lease with its charges moved to the time ``at``: the request is sent later than it was granted."""
        moved = (account.move(each, at, now) for account, each in zip(self.accounts, self.taken, strict=True))
        return self._replace(taken=tuple(moved))

    @property
    def deployment(self) -> Deployment:
        """The deployment that serves the request."""
        return Deployment(self.name, self.model)

    @property
    def accounts(self) -> tuple[LimitState, ...]:
        """The limits of the provider and of the caller that the lease counts against."""
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
        """Open a lease."""
        self.open[number] = lease
        heappush(self._ends, (lease.until, number))
        if len(self._ends) > 2 * len(self.open) + _LITTLE:
            self._ends = [(lease.until, number) for number, lease in self.open.items()]
            heapify(self._ends)

    def replace(self, number: int, lease: Lease) -> None:
        """Replace an open lease."""
        self.open[number] = lease

    def pop(self, number: int) -> Lease | None:
        """Remove the lease and return it; ``None`` if it is not open."""
        return self.open.pop(number, None)

    def next_end(self) -> float:
        """Return when the next lease expires; infinity if there is none."""
        while self._ends and self._ends[0][1] not in self.open:
            heappop(self._ends)
        return self._ends[0][0] if self._ends else inf

    def pop_expired(self, now: float) -> list[Lease]:
        """Remove and return the expired leases."""
        expired: list[Lease] = []
        while self.next_end() <= now:
            expired.append(self.open.pop(heappop(self._ends)[1]))
        return expired
