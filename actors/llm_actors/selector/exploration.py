"""Exploration: when a candidate that is not the best is tried, to learn whether it has become the best.

The *excess* of a candidate is how much longer it takes, or how much more it costs, than the best one, as a fraction of
what the best one takes or costs. The excess of all exploring attempts together is limited to `SHARE` of what the
requests take or cost anyway. A candidate with an excess of ``c`` is tried once in

    sqrt(c * (1 + c)) * sum over all except the best of sqrt(c / (1 + c)) / SHARE

requests. With these intervals the total is `SHARE`, whatever the excesses are. Candidates that are nearly as good as
the best are tried more often: they are the likeliest to become the best, and the cheapest to try.

There are three exceptions. A new candidate, or one whose speed has just changed, gets its first `TRIALS` attempts
without waiting for its share, one after another. A candidate that was faster than expected is tried again at once
(`SURPRISED`), to find out whether that was luck. For some minutes after a candidate became slower (`EAGER_SECONDS`), it
may use up to `EAGERNESS` times as large a share, because a recent problem is likely to be fixed soon. A candidate whose
speed is well known is tried at most once in `FRESH_SECONDS`.

One attempt at a time explores a candidate. If the first candidate in the order was never measured, requests go to the
unmeasured candidate with the fewest attempts in progress, so that a hundred simultaneous requests do not all go to the
same candidate. Of several such candidates, the best by score is first.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from math import exp2, inf, sqrt
from typing import NamedTuple, final

import msgspec

from llm_actors.selector.latency import WELL_KNOWN
from llm_actors.selector.performance import Key, Performance

SHARE = 0.04
"""The limit on the cost of exploring, as a fraction of the time and money that requests take with the best candidate.
"""

TRIALS = 3
"""Attempts at a new candidate, or one that has changed, before its exploration is limited."""

SURPRISED = 1.0
"""If the sum of the CUSUM test for faster responses (see `latency`) is this or more, another attempt is made at once.
"""

FAILED_LATELY = 0.5
"""With this many recent failures, a candidate must wait for its share even if it is new. Failures decay, see
`Performance`: after one failure this lasts about a minute."""

FRESH_SECONDS = 20.0
"""Seconds between two explorations of a candidate whose speed is well known."""

EAGER_SECONDS = 600.0
"""The half-life, in seconds, of the larger share after a candidate became slower."""

EAGERNESS = 5.0
"""How many times larger the share of a candidate is just after it became slower."""

UNANSWERED_SECONDS = 30.0
"""An exploring attempt without a result for this many seconds is taken to be lost, and another one may be made."""

MAX_STATES = 2_048
"""The most pairs of candidate and type of request whose state is kept."""


class Rival(NamedTuple):
    """A candidate that is not the best. ``excess``: the cost of trying it. ``could_win``: it would be the best if its
    measurements became as good as possible.
    """

    key: Key
    known: Performance
    excess: float
    could_win: bool


class ExplorationStatistics(msgspec.Struct, frozen=True, kw_only=True):
    """The cost of exploration since the start.

    ``ranked``: requests whose candidates were ordered by measurements. ``explored``: those that went to another
    candidate than the best, to measure it. ``excess``: the sum of their excesses, so 1.0 is the time or money of one
    request. ``excess`` stays below `SHARE` of ``ranked``, apart from attempts under the three exceptions.
    """

    ranked: int = 0
    explored: int = 0
    excess: float = 0.0


@final
class _ExplorationState:
    """When one candidate was last explored."""

    __slots__ = ("explored_at", "passed")

    def __init__(self) -> None:
        self.passed = 0
        """The number of requests that went to other candidates since this candidate was explored or was the best."""
        self.explored_at = -inf


@final
class Exploration:
    """Decides which candidate is explored next, and counts the cost of exploration."""

    def __init__(self) -> None:
        self._states: OrderedDict[Key, _ExplorationState] = OrderedDict()
        self._ranked = self._explored = 0
        self._excess = 0.0

    def statistics(self) -> ExplorationStatistics:
        """Return the cost of exploration since the start."""
        return ExplorationStatistics(ranked=self._ranked, explored=self._explored, excess=self._excess)

    def next(self, best: Key, rivals: Sequence[Rival], now: float) -> int | None:
        """Return the index of the rival that this request explores, or ``None`` if it goes to the ``best``. Either way,
        the request is counted.
        """
        self._ranked += 1
        self._of(best).passed = 0
        total = sum(sqrt(each.excess / (1 + each.excess)) for each in rivals if each.could_win)
        chosen, most = None, 1.0
        for place, rival in enumerate(rivals):
            state = self._of(rival.key)
            state.passed += 1
            if not rival.could_win:
                continue
            due = _due(rival, state, total, now)
            if due >= most:
                chosen, most = place, due
        if chosen is not None:
            self._claim(rivals[chosen], now)
        return chosen

    def _claim(self, rival: Rival, now: float) -> None:
        state = self._of(rival.key)
        state.passed = 0
        state.explored_at = now
        self._explored += 1
        self._excess += rival.excess

    def _of(self, key: Key) -> _ExplorationState:
        state = self._states.get(key)
        if state is None:
            state = self._states[key] = _ExplorationState()
            if len(self._states) > MAX_STATES:
                self._states.popitem(last=False)
        self._states.move_to_end(key)
        return state


def _due(rival: Rival, state: _ExplorationState, total: float, now: float) -> float:
    """Return how much the rival's exploration is due: it is due now if the result is 1.0 or more."""
    known, latency = rival.known, rival.known.latency
    unheard = now - known.seen_at
    if state.explored_at >= known.seen_at and now - state.explored_at < UNANSWERED_SECONDS:
        return 0.0
    # A candidate that fails or hangs is left out. Its attempts measure nothing, so each request would explore it.
    well = not known.waited and known.bad.level(now) < FAILED_LATELY
    if well and (latency.since_change < TRIALS or latency.faster >= SURPRISED):
        return inf
    if unheard < FRESH_SECONDS and latency.evidence_at(now) >= WELL_KNOWN:
        return 0.0
    excess = rival.excess
    share = SHARE * (1 + (EAGERNESS - 1) * exp2((latency.slower_since - now) / EAGER_SECONDS))
    needed = sqrt(excess * (1 + excess)) * total / share
    return state.passed / max(needed, 1.0)
