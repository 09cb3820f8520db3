"""Whether a deployment may be called: circuit breakers and pauses of deployments and of whole providers.

`scope_of` decides whose breaker counts a failure. An overloaded model says nothing about the provider's other models,
so its deployment's breaker counts it. A refused connection concerns all of them, so the provider's breaker counts it.
The provider's breaker also opens if `OPENED_TOGETHER` of its deployments open within `TOGETHER_SECONDS`.

The tables are bounded, because callers can invent names of models. Everything here is synchronous; times are monotonic.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable, Iterator
from itertools import takewhile
from typing import NamedTuple, TypeVar, final

from llm_actors.deployment import Candidate
from llm_actors.selector.breaker import LATELY_SECONDS, CircuitBreaker, CircuitState, pause_after, scope_of
from llm_actors.selector.performance import Observed
from llm_actors.selector.ranking import Unavailable
from llm_protocol.failures import RULES, FailureKind, Scope

MAX_CIRCUITS = 1_024
"""The most deployments with a breaker or pause. Closed breakers are dropped first, then the least recently used."""

OPENED_TOGETHER = 2
TOGETHER_SECONDS = 30.0
"""If `OPENED_TOGETHER` deployments of one provider open within `TOGETHER_SECONDS`, the breaker of the provider opens,
too.
"""

PROBE_HINT_SECONDS = 1.0
"""The Retry-After, in seconds, while a probe is in progress. By then it is usually over."""

K = TypeVar("K")
T = TypeVar("T")


class Transition(NamedTuple):
    """A state change of a breaker. ``of``: its deployment or provider; ``breaker.evidence``: the reason."""

    of: Candidate | str
    before: CircuitState
    breaker: CircuitBreaker


class Pause(NamedTuple):
    """A deployment or provider is not called until ``until``, after a failure of this ``kind`` at ``by``.

    ``guessed``: the vendor did not say how long to wait, so a request without another candidate may ignore the pause.
    """

    by: Candidate
    since: float
    until: float
    kind: FailureKind
    guessed: bool


@final
class Circuits:
    """The breakers and pauses of one runtime."""

    def __init__(self) -> None:
        self._deployments: OrderedDict[Candidate, CircuitBreaker] = OrderedDict()
        self._providers: dict[str, CircuitBreaker] = {}
        self._pauses: OrderedDict[Candidate | str, Pause] = OrderedDict()
        self._streams: dict[Candidate, dict[Hashable, float]] = {}
        """For each candidate, the streams that are delivering and when each began to deliver, oldest first. Bounded
        by the number of attempts.
        """
        self._opened: dict[str, dict[Candidate, float]] = {}
        """For each provider, the deployments that were opened recently, and when."""

    # Reading

    def provider(self, name: str, now: float) -> CircuitBreaker:
        """Return the breaker of a provider, as it is at ``now``."""
        return self._providers.get(name, _CLOSED).at(now)

    def deployment(self, candidate: Candidate, now: float) -> CircuitBreaker:
        """Return the breaker of a deployment alone, as it is at ``now``."""
        return self._deployments.get(candidate, _CLOSED).at(now)

    def not_closed(self, now: float) -> Iterator[tuple[Candidate, CircuitState]]:
        """Return the deployments whose own breaker is not closed."""
        for candidate, breaker in self._deployments.items():
            if breaker.state is not CircuitState.CLOSED:
                yield candidate, breaker.at(now).state

    def _is_closed(self, candidate: Candidate) -> bool:
        """Return whether the breakers of the deployment and of its provider are both closed."""
        own = self._deployments.get(candidate, _CLOSED).state
        return own is self._providers.get(candidate.provider, _CLOSED).state is CircuitState.CLOSED

    def forget(self, name: str) -> None:
        """Forget the breakers and pauses of a provider, because its configuration has changed."""
        self._providers.pop(name, None)
        self._opened.pop(name, None)
        for candidate in [each for each in self._deployments if each.provider == name]:
            del self._deployments[candidate]
        for of in [each for each in self._pauses if (each if isinstance(each, str) else each.provider) == name]:
            del self._pauses[of]

    def is_probe(self, candidate: Candidate, now: float) -> bool:
        """Return whether an attempt at ``now`` would be a probe of the deployment or of its provider."""
        if self._is_closed(candidate):
            return False
        both = self.deployment(candidate, now), self.provider(candidate.provider, now)
        return any(breaker.state is CircuitState.HALF_OPEN for breaker in both)

    def unavailable(
        self, candidate: Candidate, now: float, *, alone: bool = False, untried: bool = False
    ) -> Unavailable | None:
        """Return why ``candidate`` may not be called now, and for how long; ``None`` if it may.

        A pause is guessed if the vendor did not say how long to wait (see `Pause`). ``alone``: the request has no other
        available candidate. Then guessed pauses that another model caused do not apply. ``untried``: the request has
        made no call yet. Then no guessed pause applies.
        """
        if not self._pauses and self._is_closed(candidate):
            return None
        pauses = [pause for each in (candidate, candidate.provider) if (pause := self._pause(each, now)) is not None]
        if alone or untried:
            pauses = [pause for pause in pauses if not pause.guessed or (pause.by == candidate and not untried)]
        if pauses:
            longest = max(pauses, key=lambda pause: pause.until)
            by_another = all(pause.guessed and pause.by != candidate for pause in pauses)
            return Unavailable(longest.kind, RULES[longest.kind].meaning, longest.until - now, by_another)
        own, provider = self.deployment(candidate, now), self.provider(candidate.provider, now)
        if own.free_in(now) >= provider.free_in(now):
            return _closed_to(own, now, "circuit open")
        return _closed_to(provider, now, "the provider's circuit open")

    def _pause(self, of: Candidate | str, now: float) -> Pause | None:
        pause = self._pauses.get(of)
        return pause if pause is not None and pause.until > now else None

    # Claiming

    def admit(self, candidate: Candidate, now: float) -> None:
        """Let one attempt at ``candidate`` through, which must not be `unavailable`. If a probe is due, this is it."""
        if self._is_closed(candidate):
            return
        own = self._deployments.get(candidate, _CLOSED).admit(now)
        provider = self._providers.get(candidate.provider, _CLOSED).admit(now)
        assert own is not None, "the deployment's breaker must admit the attempt"
        assert provider is not None, "the provider's breaker must admit the attempt"
        if own.state is not CircuitState.CLOSED:
            self._deployments[candidate] = own
        if provider.state is not CircuitState.CLOSED:
            self._providers[candidate.provider] = provider

    def stream_began(self, candidate: Candidate, attempt: Hashable, now: float) -> None:
        """Record that a stream has begun to deliver. Call `stream_ended` when it ends, for whatever reason."""
        self._streams.setdefault(candidate, {})[attempt] = now

    def stream_ended(self, candidate: Candidate, attempt: Hashable) -> None:
        """Record that a stream has ended. Does nothing if it never delivered anything."""
        streaming = self._streams.get(candidate)
        if streaming is not None and streaming.pop(attempt, None) is not None and not streaming:
            del self._streams[candidate]

    def streaming(self, of: Candidate | str, now: float) -> int:
        """Return how many streams of a deployment, or of a whole provider, began within the last `LATELY_SECONDS` and
        are still delivering.
        """
        if isinstance(of, str):
            return sum(self.streaming(each, now) for each in self._streams if each.provider == of)
        lately = takewhile(lambda began: now - began <= LATELY_SECONDS, reversed(self._streams.get(of, {}).values()))
        return sum(1 for _ in lately)

    # Writing

    def confirm_recovery(self, candidate: Candidate, *, began: float, now: float) -> list[Transition]:
        """Close the half-open breakers of a candidate whose probe, which began at ``began``, delivers. Return the
        changes.
        """
        turns = []
        own, provider = self.deployment(candidate, now), self.provider(candidate.provider, now)
        if own.state is CircuitState.HALF_OPEN and began >= own.since:
            closed = self._deployments[candidate] = own.after(None, began=began, now=now, draw=0.0)
            turns.append(Transition(candidate, own.state, closed))
        if provider.state is CircuitState.HALF_OPEN and began >= provider.since:
            closed = self._providers[candidate.provider] = provider.after(None, began=began, now=now, draw=0.0)
            turns.append(Transition(candidate.provider, provider.state, closed))
        return turns

    def observe(self, seen: Observed, draw: float) -> list[Transition]:
        """Record the result of an attempt. ``draw``, in [0, 1), is the jitter of a pause. Return the changes."""
        candidate, failure = seen.candidate, seen.failure
        scope = None if failure is None else scope_of(failure, unsent=seen.unsent)
        self._take_in_pause(seen, scope)
        before, above = self._deployments.get(candidate, _CLOSED), self._providers.get(candidate.provider, _CLOSED)
        own_flow = all_flow = 0
        if failure is not None:  # only a failure is compared with the streams that deliver
            own_flow, all_flow = self.streaming(candidate, seen.ended), self.streaming(candidate.provider, seen.ended)
        own = _after(before, seen, draw, counts=scope is not Scope.PROVIDER, streaming=own_flow)
        provider = _after(above, seen, draw, counts=scope is not Scope.DEPLOYMENT, streaming=all_flow)
        together = self._opened_together(candidate, before, own, seen.ended)
        if together and provider.state is CircuitState.CLOSED:
            evidence = f"the circuits of {' and '.join(map(str, together))} opened within {TOGETHER_SECONDS:g} s"
            provider = provider.tripped(seen.ended, draw, own.cause, evidence)
        _put(self._deployments, candidate, own)
        while len(self._deployments) > MAX_CIRCUITS:
            del self._deployments[self._least_needed()]
        self._providers[candidate.provider] = provider
        turns: list[Transition] = []
        if own.state is not before.state:
            turns.append(Transition(candidate, before.state, own))
        if provider.state is not above.state:
            turns.append(Transition(candidate.provider, above.state, provider))
        return turns

    def _opened_together(
        self, candidate: Candidate, before: CircuitBreaker, after: CircuitBreaker, now: float
    ) -> tuple[Candidate, ...]:
        """Return the deployments that opened recently, if with ``candidate`` there are now enough of them.

        A deployment that opens again after a failed probe does not count. Otherwise two broken deployments would block
        the provider's other models for as long as they stay broken.
        """
        if before.state is not CircuitState.CLOSED or after.state is not CircuitState.OPEN:
            return ()
        lately = {
            each: at for each, at in self._opened.get(candidate.provider, {}).items() if now - at <= TOGETHER_SECONDS
        }
        lately.pop(candidate, None)
        lately[candidate] = now
        self._opened[candidate.provider] = dict(tuple(lately.items())[-OPENED_TOGETHER:])
        return tuple(lately) if len(lately) >= OPENED_TOGETHER else ()

    def _least_needed(self) -> Candidate:
        closed = (each for each, breaker in self._deployments.items() if breaker.state is CircuitState.CLOSED)
        return next(closed, next(iter(self._deployments)))

    def _take_in_pause(self, seen: Observed, scope: Scope | None) -> None:
        failure, candidate = seen.failure, seen.candidate
        if failure is None:
            self._end_guesses(candidate, seen.began)
            return
        until = seen.ended + pause_after(failure)
        if until > seen.ended:
            guessed = failure.rule.needs_operator and failure.retry_after is None
            of = candidate.provider if scope is Scope.PROVIDER else candidate
            self._begin(of, Pause(candidate, seen.ended, until, failure.kind, guessed))

    def _begin(self, of: Candidate | str, pause: Pause) -> None:
        known = self._pauses.get(of)
        if known is not None and known.until >= pause.until:
            return
        _put(self._pauses, of, pause)
        while len(self._pauses) > MAX_CIRCUITS:
            self._pauses.popitem(last=False)

    def _end_guesses(self, candidate: Candidate, began: float) -> None:
        """End guessed pauses after a success: they were wrong, except for the model that caused them."""
        for each in (candidate, candidate.provider):
            pause = self._pauses.get(each)
            if pause is not None and pause.guessed and pause.since <= began:
                del self._pauses[each]
                if pause.by != candidate:
                    self._begin(pause.by, pause)

    def restart(self, now: float) -> None:
        """Make all open breakers half-open after a crash of the selector's actor, so that the next request is a
        probe.
        """
        for each, own in self._deployments.items():
            self._deployments[each] = own.restarted(now)
        for name, breaker in self._providers.items():
            self._providers[name] = breaker.restarted(now)


_CLOSED = CircuitBreaker()


def _after(breaker: CircuitBreaker, seen: Observed, draw: float, *, counts: bool, streaming: int) -> CircuitBreaker:
    if not counts:
        return breaker.ended(seen.began, seen.ended)
    kind = None if seen.failure is None else seen.failure.kind
    return breaker.after(kind, began=seen.began, now=seen.ended, draw=draw, streaming=streaming)


def _closed_to(breaker: CircuitBreaker, now: float, what: str) -> Unavailable | None:
    seconds = breaker.free_in(now)
    if seconds <= 0:
        return None
    if breaker.state is CircuitState.HALF_OPEN:
        return Unavailable(
            FailureKind.OVERLOADED, "circuit half-open: a probe is in progress", min(seconds, PROBE_HINT_SECONDS)
        )
    return Unavailable(FailureKind.OVERLOADED, f"{what}: {breaker.evidence}", seconds)


def _put(table: OrderedDict[K, T], key: K, value: T) -> None:
    """Put ``value`` into ``table`` as the newest entry."""
    table[key] = value
    table.move_to_end(key)
