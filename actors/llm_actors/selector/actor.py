"""The selector actor: records the results of attempts, one at a time.

It updates the measurements and circuit breakers of a `Selector`, which the orchestrator reads directly. If the actor
crashes, the `Selector` stays: the next incarnation continues with the same measurements, and every open breaker becomes
half-open. While the actor is parked, observations are dropped and no measurement changes; requests are still served.
"""

from __future__ import annotations

import logging
import random
from collections.abc import Callable
from math import inf
from typing import TypeAlias, assert_never, final

import msgspec
import trio

from llm_actors.deployment import AttemptResult, Candidate
from llm_actors.kernel import ChildSpec, Delivery, Inbox, MailboxSpec, Overflow, Previous, Ref, serve_at_once
from llm_actors.selector.breaker import CircuitState
from llm_actors.selector.circuits import Transition
from llm_actors.selector.performance import Observed, StreamBegan
from llm_actors.selector.selector import Selector
from llm_protocol.events import Failed
from llm_protocol.requests import RequestType
from llm_protocol.response import Usage

OBSERVATIONS_WAITING = 1_024
"""The most observations that wait in the mailbox. When it is full, the oldest is dropped."""

REFUSED_SECONDS = 60.0
"""Seconds between two log lines that a vendor refuses our key or account."""

log = logging.getLogger(__name__)

SelectorMessage: TypeAlias = Observed | StreamBegan
SelectorRef: TypeAlias = Ref[SelectorMessage]


def observe(
    selector: SelectorRef,
    candidate: Candidate,
    outcome: AttemptResult,
    *,
    began: float,
    request_type: RequestType,
    stream: bool,
    usage: Usage | None = None,
    cost: float | None = None,
) -> None:
    """Report an attempt that was admitted at ``began`` and has just ended. Never waits, never fails.

    Report every admitted attempt, because a probe that is not reported keeps its slot for `PROBE_SECONDS`. Report a
    cancelled attempt as a failure of kind ``cancelled``, with ``partial`` if some content had arrived. ``usage`` and
    ``cost`` are those of the attempt, if known.
    """
    failure = outcome.end.failure if isinstance(outcome.end, Failed) else None
    selector.cast(
        Observed(
            candidate=candidate,
            request_type=request_type,
            began=began,
            ended=trio.current_time(),
            stream=stream,
            failure=failure,
            unsent=outcome.unsent,
            first_token_s=outcome.first_token_s,
            usage=usage or Usage(),
            cost=cost,
        )
    )


class EndOfSelector(msgspec.Struct, frozen=True):
    """How an incarnation ended. Measurements are not handed over, because the `Selector` outlives all incarnations."""

    crashed: bool


@final
class SelectorActor:
    """The only actor that records results in ``selector``. ``previous``: how its previous incarnation ended. ``draw``
    returns random numbers in [0, 1).
    """

    def __init__(self, selector: Selector, previous: Previous, draw: Callable[[], float] = random.random) -> None:
        self._selector = selector
        self._after_crash = isinstance(previous, EndOfSelector) and previous.crashed
        self._draw = draw
        self._refused_at: dict[str, float] = {}

    async def run(self, inbox: Inbox[SelectorMessage], *, task_status: trio.TaskStatus[None]) -> EndOfSelector:
        """Handle messages until asked to stop."""
        inbox.checkpoint(EndOfSelector(crashed=True))
        if self._after_crash:
            self._selector.restart(trio.current_time())
        task_status.started()
        await serve_at_once(inbox, self._handle)
        return EndOfSelector(crashed=False)

    def _handle(self, delivery: Delivery[SelectorMessage]) -> None:
        match delivery.message:
            case Observed() as seen:
                for transition in self._selector.observe(seen, self._draw()):
                    _log_transition(transition, seen.ended)
                self._log_refused(seen)
            case StreamBegan() as proof:
                for transition in self._selector.confirm_recovery(proof):
                    _log_transition(transition, proof.at)
            case _ as never:
                assert_never(never)

    def _log_refused(self, seen: Observed) -> None:
        provider, failure = seen.candidate.provider, seen.failure
        if failure is None or not failure.rule.needs_operator:
            return  # callers see other failures, but a fallback hides these from everyone
        if seen.ended - self._refused_at.get(provider, -inf) >= REFUSED_SECONDS:
            self._refused_at[provider] = seen.ended
            log.warning("%s: %s", seen.candidate, failure.rule.meaning)


def selector_child(selector: Selector) -> ChildSpec[SelectorMessage]:
    """Return the spec of the actor of ``selector``. Its mailbox never refuses an observation."""
    return ChildSpec(
        "selector",
        lambda previous: SelectorActor(selector, previous),
        mailbox=MailboxSpec(OBSERVATIONS_WAITING, Overflow.DROP_OLDEST),
    )


def _log_transition(transition: Transition, now: float) -> None:
    """Log the beginning and the end of an outage. Probes in between are logged at debug level only."""
    breaker = transition.breaker
    if breaker.state is CircuitState.OPEN:
        level = logging.WARNING if transition.before is CircuitState.CLOSED else logging.DEBUG
        seconds = breaker.until - now
        log.log(level, "%s: circuit open for %.1f s: %s", transition.of, seconds, breaker.evidence)
    elif breaker.state is CircuitState.CLOSED:
        log.info("%s responds again: %s", transition.of, breaker.evidence)
