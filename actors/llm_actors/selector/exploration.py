"""When a candidate that is not the best is tried, to learn whether it has become the best.

An attempt at another candidate costs its excess: by how much longer it takes, or how much more it costs, than the best,
as a share of that. The total is limited to `SHARE` of what the requests take anyway. A candidate with an excess of
``c`` is tried once in

    sqrt(c * (1 + c)) * sum over the others of sqrt(c / (1 + c)) / SHARE

requests. So the sum of excess over interval is `SHARE`, whatever the excesses are. Within that limit, nearly equal
candidates are tried more often: they are the likeliest to become the best, and the cheapest to try.

Three cases are exempt. A new candidate, or one that has just changed, gets its first `TRIALS` attempts at once, one
after another. One that was faster than expected is tried again at once (`SURPRISED`), to tell a change from luck. And
for some minutes after a candidate became slower (`EAGER_SECONDS`) its share is up to `EAGERNESS` times as large,
because a recent problem is likely to be fixed soon. With much traffic a candidate is tried once in `FRESH_SECONDS` at
most: more would bring nothing new.

One attempt at a time explores a candidate. If no candidate was ever measured, requests go to the one with the fewest in
flight, so that a hundred at once do not all go to one.
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
"""What exploring may cost, as a share of the time, and of the money, that the requests take with the best."""

TRIALS = 3
"""Attempts at a new candidate, or one that has changed, before its exploration is limited."""

SURPRISED = 1.0
"""Responses that are faster than expected by so much, in the CUSUM test's sum (see `latency`), cause another attempt at
once.
"""

FAILED_LATELY = 0.5
"""With so many failures (they decay, see `Performance`) a candidate has no free attempts: about a minute for one."""

FRESH_SECONDS = 20.0
"""A candidate that is well known is not explored again sooner."""

EAGER_SECONDS = 600.0
"""The half-life of the eagerness that a change brings."""

EAGERNESS = 5.0
"""By how many times the share of a candidate is larger just after it has changed."""

UNANSWERED_SECONDS = 30.0
"""After this time without a report an exploring attempt may be lost, and another one may go."""

MAX_STANDINGS = 2_048
"""Candidates whose exploring is kept, by type of request."""


class Rival(NamedTuple):
    """A candidate that is not the best: what trying it would cost, and whether it could be the best at all."""

    key: Key
    known: Performance
    excess: float
    could_win: bool


class ExplorationStatistics(msgspec.Struct, frozen=True, kw_only=True):
    """What exploring has cost since the start.

    ``ranked``: requests whose candidates were ordered by measurements. ``explored``: those that went to another than
    the best, to learn. ``excess``: how many requests' time or money, whichever was more, that was expected to cost;
    `SHARE` of ``ranked`` bounds it, but for trials and the eagerness after changes.
    """

    ranked: int = 0
    explored: int = 0
    excess: float = 0.0


@final
class _ExplorationState:
    """One candidate's exploring."""

    __slots__ = ("explored_at", "passed")

    def __init__(self) -> None:
        self.passed = 0
        """Requests that went to others since it was explored, or was the best."""
        self.explored_at = -inf


@final
class Exploration:
    """Which candidate is explored next, and what exploring has cost so far."""

    def __init__(self) -> None:
        self._states: OrderedDict[Key, _ExplorationState] = OrderedDict()
        self._ranked = self._explored = 0
        self._excess = 0.0

    def statistics(self) -> ExplorationStatistics:
        """What exploring has cost so far."""
        return ExplorationStatistics(ranked=self._ranked, explored=self._explored, excess=self._excess)

    def next(self, best: Key, rivals: Sequence[Rival], now: float) -> int | None:
        """Which of ``rivals`` this request explores; ``None``: it goes to the ``best``. Counts it either way."""
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
            if len(self._states) > MAX_STANDINGS:
                self._states.popitem(last=False)
        self._states.move_to_end(key)
        return state


def _due(rival: Rival, state: _ExplorationState, total: float, now: float) -> float:
    """How far exploring it is due: 1.0 or more is now."""
    known, latency = rival.known, rival.known.latency
    unheard = now - known.seen_at
    if state.explored_at >= known.seen_at and now - state.explored_at < UNANSWERED_SECONDS:
        return 0.0
    # Not one that fails or hangs: that neither ends a trial nor settles a surprise, so every request would explore it.
    well = not known.waited and known.bad.level(now) < FAILED_LATELY
    if well and (latency.since_change < TRIALS or latency.faster >= SURPRISED):
        return inf
    if unheard < FRESH_SECONDS and latency.evidence_at(now) >= WELL_KNOWN:
        return 0.0
    excess = rival.excess
    share = SHARE * (1 + (EAGERNESS - 1) * exp2((latency.slower_since - now) / EAGER_SECONDS))
    needed = sqrt(excess * (1 + excess)) * total / share
    return state.passed / max(needed, 1.0)
