"""The limiter's books on a desk: a clock that is moved by hand, and all decisions at a glance."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import count
from math import inf

import msgspec

from llm_actors.limiter.fair_queue import QueuedRequest
from llm_actors.limiter.rate_limiter import RateLimiter
from llm_actors.limiter.results import Granted, LimitRefused
from llm_protocol.failures import Settlement
from llm_protocol.policy import Limits

NONE = Limits()
DAY = 86_400.0


def patient(limits: Mapping[str, Limits]) -> dict[str, Limits]:
    """The same limits, for which requests wait as long as it takes, where nothing is said of that."""
    return {
        name: msgspec.structs.replace(each, wait_s=DAY) if each.wait_s is None else each
        for name, each in limits.items()
    }


class LimiterWorld:
    """Asks, ends and waits on behalf of many, and remembers who was granted what, in order."""

    def __init__(
        self,
        providers: Mapping[str, Limits],
        callers: Mapping[str, Limits] | None = None,
        others: Limits = NONE,
    ) -> None:
        self.now = 1000.0
        self._config = patient(providers), patient(callers or {}), others
        self.rate_limiter = self._fresh()
        self.granted: dict[int, str] = {}
        self.granted_at: dict[int, float] = {}
        self.refused: dict[int, LimitRefused] = {}
        self._numbers = count(1)

    def _fresh(self) -> RateLimiter:
        providers, callers, others = self._config
        return RateLimiter(providers, callers, others, draw=lambda: 0.0)

    def ask(
        self,
        *names: str,
        tokens: int = 1,
        caller: str = "",
        priority: int = 5,
        within: float = inf,
        lease: float = 900.0,
        waited: float = 0.0,
    ) -> int:
        number = next(self._numbers)
        waiter = QueuedRequest(
            number,
            names,
            tokens,
            caller=caller,
            priority=priority,
            deadline=self.now + within,
            lease_s=lease,
            waited_s=waited,
        )
        self.rate_limiter.reserve(waiter, self.now)
        self.look()
        return number

    def end(self, number: int, ending: Settlement = Settlement.CHARGED, tokens: int | None = None) -> None:
        self.rate_limiter.end(number, ending, self.now, tokens)
        self.look()

    def leave(self, number: int) -> None:
        self.rate_limiter.leave(number, self.now)
        self.look()

    def look(self) -> None:
        for decision in self.rate_limiter.decisions():
            if isinstance(decision, Granted):
                self.granted[decision.number] = decision.provider
                self.granted_at[decision.number] = self.now
            else:
                self.refused[decision.number] = decision

    def wait(self, seconds: float) -> int:
        """Let time pass as the actor would: awake only when something is due. Return how often it was."""
        end, wakes = self.now + seconds, 0
        while (due := self.rate_limiter.due(self.now)) <= end:
            wakes += 1
            self.now = max(self.now, due)
            self.rate_limiter.serve(self.now)
            self.look()
        self.now = end
        return wakes

    def change(self, providers: Mapping[str, Limits], callers: Mapping[str, Limits]) -> None:
        """The next incarnation has these limits."""
        self._config = patient(providers), patient(callers), self._config[2]

    def crash(self) -> None:
        """The next incarnation takes over."""
        former, self.rate_limiter = self.rate_limiter, self._fresh()
        self.rate_limiter.restart(former)
