"""The selector actor: records the results of attempts, one at a time.

It updates the measurements and circuit breakers of a `Selector`, which others read synchronously and which outlives it.
If it crashes, the next incarnation continues with the same measurements and with every open breaker half-open. While it
is parked, observations are dropped and the last order stays. That costs some precision and no request.
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
"""The most observations that wait. A further one displaces the oldest, which matters least."""

REFUSED_SECONDS = 60.0
"""How often at most the log repeats that a vendor refuses our key or account."""

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
    """Report the end of an attempt that was admitted at ``began`` and ended just now. Never waits, never fails.

    Every admitted attempt must be reported, a cancelled one too (as a failure of kind ``cancelled``, with ``partial``
    if some content had arrived): a probe that is not reported keeps its slot for a while. ``usage`` and ``cost`` are
    those of the attempt, if known.
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
    """How the last incarnation ended. The measurements need not be handed over: the `Selector` outlives all
    incarnations.
    """

    crashed: bool


@final
class SelectorActor:
    """The only writer of ``selector``. ``draw`` returns numbers in [0, 1)."""

    def __init__(self, selector: Selector, previous: Previous, draw: Callable[[], float] = random.random) -> None:
        self._selector = selector
        self._after_crash = isinstance(previous, EndOfSelector) and previous.crashed
        self._draw = draw
        self._refused_at: dict[str, float] = {}

    async def run(self, inbox: Inbox[SelectorMessage], *, task_status: trio.TaskStatus[None]) -> EndOfSelector:
        """Serve until asked to stop."""
        inbox.checkpoint(EndOfSelector(crashed=True))
        if self._after_crash:
            self._selector.restart(trio.current_time())
        task_status.started()
        await serve_at_once(inbox, self._take_in)
        return EndOfSelector(crashed=False)

    def _take_in(self, delivery: Delivery[SelectorMessage]) -> None:
        match delivery.message:
            case Observed() as seen:
                for transition in self._selector.observe(seen, self._draw()):
                    _log_transition(transition, seen.ended)
                self._tell_refused(seen)
            case StreamBegan() as proof:
                for transition in self._selector.confirm_recovery(proof):
                    _log_transition(transition, proof.at)
            case _ as never:
                assert_never(never)

    def _tell_refused(self, seen: Observed) -> None:
        provider, failure = seen.candidate.provider, seen.failure
        if failure is None or not failure.rule.needs_operator:
            return  # callers see the other failures; a fallback hides these from everything but the bill
        if seen.ended - self._refused_at.get(provider, -inf) >= REFUSED_SECONDS:
            self._refused_at[provider] = seen.ended
            log.warning("%s: %s", seen.candidate, failure.rule.meaning)


def selector_child(selector: Selector) -> ChildSpec[SelectorMessage]:
    """The actor of ``selector`` for a supervisor, with a mailbox that never refuses an observation."""
    return ChildSpec(
        "selector",
        lambda previous: SelectorActor(selector, previous),
        mailbox=MailboxSpec(OBSERVATIONS_WAITING, Overflow.DROP_OLDEST),
    )


def _log_transition(transition: Transition, now: float) -> None:
    """Log the beginning and the end of an outage, and probes in between only at debug level."""
    breaker = transition.breaker
    if breaker.state is CircuitState.OPEN:
        level = logging.WARNING if transition.before is CircuitState.CLOSED else logging.DEBUG
        seconds = breaker.until - now
        log.log(level, "%s: circuit open for %.1f s: %s", transition.of, seconds, breaker.evidence)
    elif breaker.state is CircuitState.CLOSED:
        log.info("%s responds again: %s", transition.of, breaker.evidence)
