"""How long a queued request may wait, for whose limit, and the refusal if the wait would be longer. Pure.

The limits of a provider and those of a caller each have a `wait_s`. By default a request may wait longer for its
provider than for its own caller's limits, because that caller has to slow down anyway.
"""

from __future__ import annotations

from collections.abc import Container, Iterator, Sequence
from heapq import heapify, heappop, heappush
from math import inf
from typing import NamedTuple, final

from llm_actors.limiter.allowance import Deployment
from llm_actors.limiter.fair_queue import QueuedRequest
from llm_actors.limiter.results import LimitRefused
from llm_protocol.failures import FailureKind, LimitOwner

LEAST_RETRY_SECONDS = 1.0
"""The Retry-After, in seconds, if it is unknown when there will be capacity."""

_FEW = 64


class Turn(NamedTuple):
    """The expected times at which a request may be sent to one provider: by the limits of the provider, and by those of
    its caller.
    """

    provider_at: float
    caller_at: float = -inf


def refusal(waiter: QueuedRequest, turns: Sequence[Turn], now: float) -> LimitRefused | None:
    """Return the refusal of ``waiter`` if the wait would be too long at all its providers, else ``None``. ``turns`` has
    the expected times at each of them.
    """
    caller_until = min(waiter.deadline, waiter.caller_until)
    hopeful = [turn for turn in turns if turn.caller_at <= caller_until]
    if not hopeful:
        return too_late(waiter, "caller", min(turn.caller_at for turn in turns), now)
    for turn, until in zip(turns, waiter.untils, strict=True):
        if turn.caller_at <= caller_until and turn.provider_at <= min(waiter.deadline, until):
            return None
    return too_late(waiter, "provider", min(max(turn) for turn in hopeful), now)


def too_late(waiter: QueuedRequest, owner: LimitOwner, at: float, now: float) -> LimitRefused:
    """Return the refusal of a request that would have to wait until ``at`` for a limit of ``owner``. Infinity or a time
    in the past means that the time is unknown.
    """
    until = waiter.caller_until if owner == "caller" else waiter.until
    name = waiter.names[0] if len(waiter.names) == 1 else "NAME"
    option = f"[{f'keys.{waiter.caller}' if owner == 'caller' else f'providers.{name}'}.limits] wait_s"
    bound = (
        "before the request's deadline"
        if waiter.deadline <= until
        else f"within {until - waiter.since:.4g} s ({option})"
    )
    who = "the caller's own limits" if owner == "caller" else f"the limits of {_providers(waiter.names)}"
    wait_s = at - now if now + LEAST_RETRY_SECONDS < at < inf else LEAST_RETRY_SECONDS
    why = f"{who} allow no request {bound}; try again in {wait_s:.1f} s"
    return LimitRefused(waiter.number, FailureKind.RATE_LIMITED, why, wait_s, owner)


def held_back(waiter: QueuedRequest, held: Deployment, until: float, now: float) -> LimitRefused:
    """Return the refusal of a request for ``held``, a deployment that is held until ``until``."""
    wait_s = max(0.0, until - now)
    why = f"{held.provider}/{held.model}: its vendor asked for no requests for this model in the next {wait_s:.1f} s"
    return LimitRefused(waiter.number, FailureKind.RATE_LIMITED, why, wait_s, "provider", held)


def _providers(names: Sequence[str]) -> str:
    return f"provider {names[0]}" if len(names) == 1 else f"the providers {', '.join(names)}"


@final
class WaitBounds:
    """When queued requests must be checked, because they may have waited too long."""

    def __init__(self) -> None:
        self._ends: list[tuple[float, int]] = []
        self._tidy_at = _FEW

    def add(self, at: float, number: int, waiting: Container[int]) -> None:
        """Note that the request ``number`` must be checked at the time ``at``. Entries of requests that are not in
        ``waiting`` are dropped.
        """
        heappush(self._ends, (at, number))
        if len(self._ends) > self._tidy_at:
            self._ends = [end for end in self._ends if end[1] in waiting]
            heapify(self._ends)
            self._tidy_at = max(_FEW, 2 * len(self._ends))

    def next(self, waiting: Container[int]) -> float:
        """Return when the next check is due; infinity if none is."""
        while self._ends and self._ends[0][1] not in waiting:
            heappop(self._ends)
        return self._ends[0][0] if self._ends else inf

    def pop_due(self, now: float, waiting: Container[int]) -> Iterator[int]:
        """Return the requests whose check is due, and drop their entries."""
        while self.next(waiting) <= now:
            yield heappop(self._ends)[1]
