"""The attempts at a candidate: those in progress, and how many extra attempts are allowed.

Attempts in progress are evidence that a candidate has become slower. An attempt is late if it has delivered nothing
for longer than its whole response was expected to take. That is evidence long before the attempt ends. It counts only
if no later attempt has delivered anything; otherwise the earlier attempt was only unlucky. So a candidate that hangs
loses its traffic within a few times its usual latency, and gets it back with its next response.

Extra attempts are retries and hedges, the attempts beyond the first attempt of a request. If a provider is overloaded,
all callers retry, and the retries keep it overloaded. So each request adds a fraction of one extra attempt to the
budget. Requests and extra attempts decay with the same half-life, so over a time longer than that the extra attempts
stay below that fraction of the requests.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from math import exp, inf
from typing import final

from llm_actors.selector.latency import SURPRISING
from llm_actors.selector.performance import SLOW_SECONDS, DecayingCount, Key, Performance
from llm_protocol.response import Usage

COUNTED = 256
"""The most attempts of one candidate that are kept. The oldest are dropped."""

LOST_SECONDS = 120.0
"""An attempt without a result for this many seconds is taken to be lost, and no longer counted."""

CHOSEN_SECONDS = 30.0
"""Seconds for which a request counts at the candidate that was chosen for it, if its attempt does not begin."""

MAX_CANDIDATES = 2_048
"""The most pairs of candidate and type of request whose attempts are kept."""


@final
class _Begun:
    __slots__ = ("at", "expected_s", "is_silent")

    def __init__(self, at: float, expected_s: float | None) -> None:
        self.at = at
        self.expected_s = expected_s
        self.is_silent = True


@final
class _Attempts:
    """The attempts at one candidate, the oldest first."""

    __slots__ = ("answered", "begun", "chosen")

    def __init__(self) -> None:
        self.chosen: deque[float] = deque(maxlen=COUNTED)
        """The times at which this candidate was chosen for requests that have not begun yet."""
        self.begun: deque[_Begun] = deque(maxlen=COUNTED)
        self.answered = -inf
        """When the latest attempt that has delivered anything began."""

    def find(self, began: float) -> _Begun | None:
        """Return the attempt that began at ``began``; ``None`` if it is not kept. It is the latest attempt that was
        admitted by then, because an attempt begins shortly after its admission.
        """
        return next((each for each in reversed(self.begun) if each.at <= began), None)


@final
class InFlight:
    """The attempts in progress of all candidates."""

    def __init__(self) -> None:
        self._attempts: OrderedDict[Key, _Attempts] = OrderedDict()

    def choose(self, key: Key, now: float) -> None:
        """Record that the candidate was chosen for a request, which may have to wait before its attempt begins."""
        self._of(key).chosen.append(now)

    def begun(self, key: Key, now: float, expected_s: float | None = None) -> None:
        """Record that an attempt was admitted. ``expected_s``: how long its response should take, if known."""
        attempts = self._of(key)
        attempts.begun.append(_Begun(now, expected_s))
        if attempts.chosen:
            attempts.chosen.popleft()

    def _of(self, key: Key) -> _Attempts:
        attempts = self._attempts.setdefault(key, _Attempts())
        self._attempts.move_to_end(key)
        if len(self._attempts) > MAX_CANDIDATES:
            self._attempts.popitem(last=False)
        return attempts

    def delivers(self, key: Key, began: float) -> None:
        """Record that the attempt that was started at ``began`` has delivered its first event."""
        attempts = self._attempts.get(key)
        if attempts is not None:
            attempts.answered = max(attempts.answered, began)
            if (found := attempts.find(began)) is not None:
                found.is_silent = False

    def ended(self, key: Key, began: float, *, answered: bool) -> None:
        """Record that the attempt that began at ``began`` has ended. ``answered``: it had a response."""
        attempts = self._attempts.get(key)
        if attempts is not None:
            if answered:
                attempts.answered = max(attempts.answered, began)
            if (found := attempts.find(began)) is not None:
                attempts.begun.remove(found)

    def count(self, key: Key, now: float) -> int:
        """Return how many attempts at a candidate are in progress, plus the requests for which it was chosen."""
        begun = len(self._kept(key, now))
        attempts = self._attempts.get(key)
        if attempts is None:
            return begun
        while attempts.chosen and now - attempts.chosen[0] > CHOSEN_SECONDS:
            attempts.chosen.popleft()
        return begun + len(attempts.chosen)

    def latency_s(self, key: Key, known: Performance, usage: Usage, now: float) -> float | None:
        """Return how long a response should take, in seconds, from the measurements and the attempts that are late
        now; ``None`` without either.
        """
        usual = known.latency_s(usage)
        late = self._oldest_silent(key, now)
        if late is None:
            return usual
        age = now - late.at
        if usual is None or not late.expected_s:
            return max(usual or 0.0, age) if age >= SLOW_SECONDS else usual
        factor = age / late.expected_s
        return usual * factor if factor > exp(SURPRISING * known.latency.spread**0.5) else usual

    def _oldest_silent(self, key: Key, now: float) -> _Begun | None:
        kept = self._kept(key, now)
        answered = self._attempts[key].answered if kept else inf
        return next((each for each in kept if each.is_silent and each.at > answered), None)

    def _kept(self, key: Key, now: float) -> deque[_Begun]:
        attempts = self._attempts.get(key)
        if attempts is None:
            return deque()
        while attempts.begun and now - attempts.begun[0].at > LOST_SECONDS:
            attempts.begun.popleft()
        return attempts.begun


RETRY_HALF_LIFE_SECONDS = 10.0
"""The half-life, in seconds, of an attempt in the retry budget. It is short, because the budget must follow the
traffic.
"""

RETRY_SHARE = 0.2
"""Extra attempts for each request, retries and hedges together."""

RETRY_FLOOR = 10.0
"""Extra attempts that are always allowed, however little traffic there is.

Without a floor, a program with a handful of requests in progress could not recover from one lost connection, and a
single request could never make its three attempts. With ten, five concurrent requests can make their two extra attempts
each. Under load the floor does no harm: it refills at less than one attempt a second, and with more than fifty recent
requests `RETRY_SHARE` allows more than ten.
"""

HEDGE_SHARE = 0.05
"""Hedges for each request: at most one request in twenty is hedged. There is no floor, because no request fails for
lack of a hedge.
"""

HEDGE_HALF_LIFE_SECONDS = 600.0
"""The half-life, in seconds, of an attempt in the hedge budget. It is long, so that occasional requests allow a hedge
too."""


@final
class CallBudget:
    """The extra attempts at one deployment: at most ``share`` of its recent requests, or ``floor`` if that is more."""

    def __init__(self, share: float, *, floor: float, half_life: float) -> None:
        self._share = share
        self._floor = floor
        self._requests = DecayingCount(half_life)
        self._extra = DecayingCount(half_life)

    def count(self, now: float) -> None:
        """Count the first attempt of a request."""
        self._requests = self._requests.plus(now)

    def room(self, now: float) -> float:
        """Return how many extra attempts may be made at ``now``."""
        allowed = max(self._floor, self._share * self._requests.level(now))
        return max(0.0, allowed - self._extra.level(now))

    def spend(self, now: float) -> bool:
        """Take one extra attempt from the budget. Return False if none is left."""
        if self.room(now) < 1.0:
            return False
        self._extra = self._extra.plus(now)
        return True


def retry_budget() -> CallBudget:
    """Return a new budget for retries and hedges together."""
    return CallBudget(RETRY_SHARE, floor=RETRY_FLOOR, half_life=RETRY_HALF_LIFE_SECONDS)


def hedge_budget() -> CallBudget:
    """Return a new budget for hedges alone. Hedges must fit both budgets."""
    return CallBudget(HEDGE_SHARE, floor=0.0, half_life=HEDGE_HALF_LIFE_SECONDS)
