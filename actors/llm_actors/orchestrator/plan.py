"""The attempt plan: what to do after a failed attempt. Within an `AttemptLoop`, only the plan decides on another one.

Hedges, which are started beside a slow attempt, are decided in `llm_actors.orchestrator.hedge`.

`AttemptLoop` may stop without the plan: when no candidate had capacity in time, and when a delivered text cannot be
continued. It never makes another attempt without the plan. Repetitions within an attempt do not count as attempts: a
provider sends a request again over its other wire or with a renewed key (`llm_actors.provider.call`), or over a new
connection if a reused one was closed (`llm_actors.transport`), and a call of an actor that has crashed is made again
(`llm_actors.kernel.retry_after_crashes`).

A second `AttemptLoop` for the same request has other reasons: the request shared an attempt that did not give it a
response (`llm_actors.orchestrator.single_flight`), a member of a strategy is asked again without the parameters that
the strategy had added (`llm_actors.orchestrator.strategies.ensemble`), or the orchestrator crashed before it accepted
the request, which is then submitted again (`llm_runtime.runtime.Runtime.submit`).

The plan does no I/O and reads no clock: the time, the randomness and the retry budget are passed in. It uses tenacity's
composable ``stop`` and ``wait`` callables. If there is one candidate, the plan retries that candidate, after a random
wait whose maximum doubles with each attempt. If other candidates are available, the plan retries at most once, after a
short wait, and then tries the next candidate. `llm_protocol.failures.RULES` says what each kind of failure permits.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cached_property
from typing import Generic, NamedTuple, TypeAlias, TypeVar, cast, final

import tenacity
from tenacity.stop import stop_base
from tenacity.wait import wait_base

from llm_protocol.failures import Failure, FailureKind, Step
from llm_protocol.policy import PROVIDER_WAIT_SECONDS, Attempts

QUICK_RETRY_SECONDS = 1.0
"""The most seconds to wait for the one retry before another candidate is tried."""

SHORT_RETRY_AFTER_SECONDS = 3.0
"""A Retry-After of up to this many seconds is awaited even if another candidate is available."""

RETRY_AFTER_JITTER = 0.1
"""The largest fraction by which a Retry-After is extended, at random, so that callers do not all retry together."""

TOO_LONG = "the wait would be longer than wait_s of the limits"

LEAST_WAIT_SECONDS = 0.05
"""The fewest seconds to wait for a candidate that may not be called yet, so that repeated refusals make no tight
loop.
"""

C = TypeVar("C")


class Again(NamedTuple):
    """Retry the same candidate, after a wait in seconds."""

    after_s: float


class Next(NamedTuple):
    """Try the next candidate, now."""


class Stop(NamedTuple):
    """No more attempts. ``why`` is for the decision record."""

    why: str


Move: TypeAlias = Again | Next | Stop


@final
class _Window(wait_base):
    """A random wait in seconds between ``least`` and a maximum that doubles with each attempt, up to ``most``."""

    def __init__(self, least: float, most: float, draw: Callable[[], float]) -> None:
        self._least = least
        self._most = most
        self._draw = draw

    def __call__(self, retry_state: tenacity.RetryCallState) -> float:
        upper = max(self._least, min(self._most, self._least * 2.0**retry_state.attempt_number))
        return self._least + self._draw() * (upper - self._least)


@final
class _RetryAfter(wait_base):
    """The vendor's Retry-After, slightly extended; without one, the result of ``otherwise``."""

    def __init__(self, otherwise: wait_base, draw: Callable[[], float]) -> None:
        self._otherwise = otherwise
        self._draw = draw

    def __call__(self, retry_state: tenacity.RetryCallState) -> float:
        retry_after = _failure(retry_state).retry_after
        if retry_after is None:
            return self._otherwise(retry_state)
        return retry_after * (1 + RETRY_AFTER_JITTER * self._draw())


def _failure(state: tenacity.RetryCallState) -> Failure:
    assert state.outcome is not None
    return cast("Failure", state.outcome.result())


@final
class AttemptPlan(Generic[C]):
    """The attempts of one request. ``current`` is the candidate to try; `after` returns the next step after a
    failure.

    ``candidates`` are in the order to try. ``deadline``, which may be moved, and the ``now`` of `after` are on one
    clock, in seconds. ``may_retry`` spends the candidate's retry budget and returns whether there was any.
    ``fits(one, other)`` tells whether ``other`` may accept a prompt that was too long for ``one``. ``draw`` returns a
    number in [0, 1). ``wait_s`` returns for how many seconds in total the request may wait for a candidate's limits
    and Retry-Afters.
    """

    def __init__(
        self,
        candidates: Sequence[C],
        attempts: Attempts,
        *,
        deadline: float,
        may_retry: Callable[[C], bool],
        fits: Callable[[C, C], bool],
        draw: Callable[[], float],
        wait_s: Callable[[C], float] = lambda _: PROVIDER_WAIT_SECONDS,
    ) -> None:
        self.current: C
        self._others: list[C]
        self.current, *self._others = candidates
        self.deadline = deadline
        self._may_retry = may_retry
        self._fits = fits
        self._draw = draw
        self._wait_s = wait_s
        self.waited_s = 0.0
        """Seconds that the request has waited for limits and Retry-Afters."""
        self._attempts = attempts
        # created with the first failure, which most requests never have
        self._here: tenacity.RetryCallState | None = None

    @property
    def open(self) -> list[C]:
        """The candidates for the next attempt: only ``current`` if it is retried, else all that were not tried yet."""
        return [self.current] if self.retrying else [self.current, *self._others]

    @property
    def retrying(self) -> bool:
        """Whether ``current`` has been tried before."""
        return self._here is not None and self._here.attempt_number > 1

    @property
    def others(self) -> list[C]:
        """The candidates that were not tried yet, except ``current``."""
        return list(self._others)

    def take(self, candidate: C) -> None:
        """Make ``candidate`` the current one. The candidate that it replaces may be tried later, unless it has been
        tried already.
        """
        if candidate == self.current:
            return
        skipped: list[C] = [] if self.retrying else [self.current]
        self._others = [*skipped, *(other for other in self._others if other != candidate)]
        self.current, self._here = candidate, None

    def drop_unless(self, suits: Callable[[C], bool]) -> bool:
        """Remove the candidates that are no longer suitable. Return False if none is left."""
        left = [candidate for candidate in (self.current, *self._others) if suits(candidate)]
        if left and left[0] != self.current:
            self._here = None
        if left:
            self.current, *self._others = left
        return bool(left)

    def after(self, failure: Failure, now: float, *, called: bool = True) -> Move:
        """Return the next step after ``failure`` of ``current``. After `Next`, ``current`` is the next candidate.

        ``called``: whether a call was made. If not, the plan waits for this candidate only if no other is left. Such a
        wait uses up no attempt and no retry budget, but all such waits together are limited by ``wait_s``. If another
        candidate is left, it is tried whatever the failure is, because the reason may apply to ``current`` only.
        """
        if failure.kind is FailureKind.CONTEXT_LENGTH:
            self._others = [other for other in self._others if self._fits(self.current, other)]
        step = failure.step
        if step is Step.STOP and called:
            return Stop(f"another attempt would not help after {failure.kind.value}")
        if not called and not self._others:
            return self._after_refusal(failure, now)
        if step is Step.RETRY and called and (again := self._retry(failure, now)) is not None:
            return again
        if not self._others:
            return Stop(self._why_no_more(step, now))
        self.current, *self._others = self._others
        self._here = None
        return Next()

    def _after_refusal(self, failure: Failure, now: float) -> Again | Stop:
        if failure.step is not Step.RETRY or failure.retry_after is None:
            return Stop("no other candidate")
        wait = max(LEAST_WAIT_SECONDS, failure.retry_after) * (1 + RETRY_AFTER_JITTER * self._draw())
        if now + wait >= self.deadline:
            return Stop("the wait would pass the deadline")
        if self._is_too_long(failure):
            return Stop(TOO_LONG)
        self.waited_s += wait
        return Again(wait)

    def _retry(self, failure: Failure, now: float) -> Again | None:
        state = self._state()
        state.set_result(failure)
        wait = self._quick_wait(state, failure) if self._others else self._patient_wait(state)
        if wait is None or now + wait >= self.deadline or self._is_too_long(failure):
            return None
        if not self._may_retry(self.current):
            return None
        state.prepare_for_next_attempt()
        self.waited_s += wait if failure.retry_after is not None else 0.0
        return Again(wait)

    def _is_too_long(self, failure: Failure) -> bool:
        return failure.retry_after is not None and self.waited_s + failure.retry_after > self._wait_s(self.current)

    def _state(self) -> tenacity.RetryCallState:
        """Return tenacity's record of the attempts at ``current``. Only its counter and outcome are used."""
        if self._here is None:
            self._here = tenacity.RetryCallState(tenacity.Retrying(), None, (), {})
        return self._here

    @cached_property
    def _stop(self) -> stop_base:
        return tenacity.stop_after_attempt(self._attempts.max)

    @cached_property
    def _wait(self) -> wait_base:
        window = _Window(self._attempts.wait_min_s, self._attempts.wait_max_s, self._draw)
        return _RetryAfter(window, self._draw)

    def _quick_wait(self, state: tenacity.RetryCallState, failure: Failure) -> float | None:
        """Return the seconds to wait before the one retry that is made although other candidates are available;
        ``None`` for no retry.
        """
        if state.attempt_number > 1 or self._stop(state):
            return None
        if failure.retry_after is None:
            # A retry right after a 429 would be refused again.
            return None if failure.kind is FailureKind.RATE_LIMITED else self._draw() * QUICK_RETRY_SECONDS
        return self._wait(state) if failure.retry_after <= SHORT_RETRY_AFTER_SECONDS else None

    def _patient_wait(self, state: tenacity.RetryCallState) -> float | None:
        return None if self._stop(state) else self._wait(state)

    def _why_no_more(self, step: Step, now: float) -> str:
        state = self._state()
        if step is not Step.RETRY or state.outcome is None:
            return "no other candidate"
        if self._stop(state):
            return (
                f"it was tried {state.attempt_number} times"
                if state.attempt_number > 1
                else "it may be tried only once"
            )
        if now + self._wait(state) >= self.deadline:
            return "the wait would pass the deadline"
        if self._is_too_long(cast("Failure", state.outcome.result())):
            return TOO_LONG
        return "the retry budget is used up"
