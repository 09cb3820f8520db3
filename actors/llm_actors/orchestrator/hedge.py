"""Hedging: if the first candidate is slower than usual, a second one is tried concurrently.

The first to deliver content provides the response; the other is cancelled, including its connection, and settled.
Events before the first content are held back, so that followers see one response.
"""

from __future__ import annotations

from contextlib import suppress
from types import TracebackType
from typing import NamedTuple, Self, final

import trio

from llm_actors.catalog import Candidate
from llm_actors.limiter import Reservation
from llm_actors.orchestrator.attempt import Attempt, EventSink
from llm_actors.orchestrator.load import Reserved, Slot
from llm_actors.orchestrator.plan import AttemptPlan
from llm_actors.orchestrator.reserve import Reserving
from llm_actors.orchestrator.services import Services
from llm_actors.provider import AttemptResult, Sink
from llm_actors.run import LogLimitExceeded
from llm_protocol.errors import LLMClientError
from llm_protocol.events import CONTENT, Event, Finished
from llm_protocol.failures import Step
from llm_protocol.requests import AnyRequest

HEDGE_CAPACITY_SECONDS = 0.05
"""Seconds that a hedge waits for capacity. A hedge that begins late is useless."""

MOST_HELD = 1_000
"""The most events before the first content that are held back, for each attempt."""


@final
class HedgeClaim:
    """The resources of a hedge, acquired in two steps. `reserve` gets capacity from the limiter and may wait. `take`
    gets the rest when the call is made.

    Use it as a context manager, which releases the resources at the end of the block.
    """

    def __init__(
        self,
        services: Services,
        reserving: Reserving,
        plan: AttemptPlan[Candidate],
        first: Candidate,
        request: AnyRequest,
    ) -> None:
        self._services = services
        self._reserving = reserving
        self._plan = plan
        self._first = first
        self._request = request
        self._candidate = plan.others[0]
        self._estimate = services.estimator.estimate(self._candidate, request)
        self._reservation: Reservation | None = None
        self._reserved: Reserved | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.release()

    async def reserve(self, deadline: float) -> bool:
        """Reserve capacity, and return whether the limiter has any. Waits for at most `HEDGE_CAPACITY_SECONDS`, and not
        past ``deadline``.
        """
        start_by = min(deadline, trio.current_time() + HEDGE_CAPACITY_SECONDS)
        with suppress(LLMClientError):
            self._reservation = await self._reserving.reserve_at(
                self._plan, [self._candidate], self._estimate, start_by
            )
            return True
        return False

    def take(self) -> Reserved | None:
        """Acquire the other resources: the request's budget, a slot, the hedge budget, the circuit breaker. Returns
        ``None`` if the hedge may not be made; then nothing is held.
        """
        now, other, selector = trio.current_time(), self._candidate, self._services.selector
        slot: Slot | None = None
        unpaid = self._reserving.unpaid(other, self._estimate, is_last=False)
        if unpaid is None and selector.circuits.unavailable(other, now) is None:
            slot = self._services.loads[other.provider].take_nowait()
        if slot is not None:
            reserved = self._reserved = Reserved(other, self._estimate, self._reservation, slot)
            kind, usage = self._request.request_type, self._estimate.usage
            # The budget comes last: a hedge that cannot be made must not cost a retry.
            if selector.may_hedge(self._first, now) and (
                selector.admit(other, now, extra=True, request_type=kind, usage=usage) is None
            ):
                slot.use(now)
                return reserved
        self.release()
        return None

    def release(self) -> None:
        """Release the resources of the hedge. A second call does nothing."""
        if self._reserved is not None:
            self._reserved.give_back()
        elif self._reservation is not None:
            self._reservation.leave()


class Raced(NamedTuple):
    """The results of an attempt and its hedge."""

    winner: Attempt
    outcome: AttemptResult
    failed_too: Candidate | None = None
    """The other attempt, if both failed."""


async def hedged(
    first: Attempt,
    delay_s: float,
    second: HedgeClaim,
    into: EventSink,
    *,
    deadline: float,
) -> Raced:
    """Run ``first``. If it has no content after ``delay_s`` seconds, acquire a ``second`` call and run that, too.

    Resources of a hedge that are not used are released at once, not at the end of the response. Returns when the
    response has ended; if both failed, returns the failure that came first. Cancelling this cancels both.
    """
    race = _Race(into)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(race.run, first, race.enter(first))
        with trio.move_on_after(delay_s):
            await race.decided.wait()
        if not race.decided.is_set() and await second.reserve(deadline):
            if race.decided.is_set():
                second.release()
            elif (claim := second.take()) is not None:
                other = first.hedge_with(claim)
                nursery.start_soon(race.run, other, race.enter(other))
    return race.result()


@final
class _Race:
    """An attempt and its hedge, which compete for one sink: the events of the winner are passed on."""

    def __init__(self, into: EventSink) -> None:
        self._into = into
        self._scopes: dict[Attempt, trio.CancelScope] = {}
        self._ended: list[Raced] = []
        self._leader: Attempt | None = None
        self.decided = trio.Event()

    def enter(self, asking: Attempt) -> trio.CancelScope:
        """Return the scope for ``asking``. From now on the attempt can lose, although its task has not begun."""
        self._scopes[asking] = trio.CancelScope()
        return self._scopes[asking]

    async def run(self, asking: Attempt, scope: trio.CancelScope) -> None:
        lane = _Lane(self, asking)
        with scope:
            outcome = await asking.run(lane)
            if isinstance(outcome.end, Finished) or (not asking.hedge and outcome.end.failure.step is Step.STOP):
                lane.lead()  # a hedge that fails must not cost the response that would have come without it
            self._ended.append(Raced(asking, outcome))
            if len(self._ended) == len(self._scopes):
                self.decided.set()

    def lead(self, asking: Attempt) -> bool:
        """Return whether ``asking`` provides the response. The first attempt to call this does, and the other is
        stopped.
        """
        if self._leader is None:
            self._leader = asking
            self.decided.set()
            for other, scope in self._scopes.items():
                if other is not asking:
                    scope.cancel(reason="another provider responded first")
        return self._leader is asking

    def pass_on(self, event: Event) -> None:
        self._into.sink(event)

    def result(self) -> Raced:
        if self._leader is not None:
            return next(raced for raced in self._ended if raced.winner is self._leader)
        first, *others = self._ended
        return first._replace(failed_too=others[0].winner.candidate) if others else first


@final
class _Lane:
    """Holds back the events of one attempt until it provides the response."""

    direct: Sink | None = None

    def __init__(self, race: _Race, asking: Attempt) -> None:
        self._race = race
        self._asking = asking
        self._held: list[Event] = []
        self._leads = False

    def sink(self, event: Event) -> None:
        if not self._leads and isinstance(event, CONTENT):
            self.lead()
        if self._leads:
            self._race.pass_on(event)
        elif len(self._held) < MOST_HELD:
            self._held.append(event)
        else:
            raise LogLimitExceeded

    def lead(self) -> None:
        """Provide the response from now on, unless the other attempt already does."""
        if self._race.lead(self._asking):
            self._leads = True
            held, self._held = self._held, []
            for event in held:
                self._race.pass_on(event)
