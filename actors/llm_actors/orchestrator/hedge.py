"""Hedging: when the first candidate is later than it usually is, a second one is asked as well.

Whoever delivers content first has the answer; the other is cancelled, down to its connection, and accounted. What
either said before that is held back, so the followers see one answer.
"""

from __future__ import annotations

from contextlib import suppress
from types import TracebackType
from typing import NamedTuple, Self, final

import trio

from llm_actors.catalog import Candidate
from llm_actors.limiter import Reservation
from llm_actors.orchestrator.attempt import Attempt, Reserved
from llm_actors.orchestrator.load import Slot
from llm_actors.orchestrator.plan import AttemptPlan
from llm_actors.orchestrator.reserve import Reserving
from llm_actors.orchestrator.services import Services
from llm_actors.provider import AttemptResult, Sink
from llm_actors.run import LogLimitExceeded
from llm_protocol.errors import LLMClientError
from llm_protocol.events import CONTENT, Event, Finished
from llm_protocol.failures import Step
from llm_protocol.requests import AnyRequest

HEDGE_ROOM_SECONDS = 0.05
"""How long a hedge waits for room; it is no help if it comes late."""

MOST_HELD = 1_000
"""Events that announce an answer and may be held back of each, until its first content."""


@final
class HedgeClaim:
    """The claim of a hedge, in two steps: it may wait for room, and takes the rest only when the hedge is called.

    To be used as a context manager, which gives back what is held.
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
        self._estimate = services.estimator.estimate(str(self._candidate), request)
        self._room: Reservation | None = None
        self._reserved: Reserved | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.release()

    async def find_room(self, deadline: float) -> bool:
        """Whether the limiter has room. Waits for at most `HEDGE_ROOM_SECONDS`."""
        with trio.move_on_after(HEDGE_ROOM_SECONDS), suppress(LLMClientError):
            self._room = await self._reserving.room_at(self._plan, [self._candidate], self._estimate, deadline)
            return True
        return False

    def take(self) -> Reserved | None:
        """Take the rest: retry budget, slot, circuit. ``None``: the hedge may not be made, and holds nothing more."""
        now, other, selector = trio.current_time(), self._candidate, self._services.selector
        slot: Slot | None = None
        unpaid = self._reserving.unpaid(other, self._estimate, is_last=False)
        if unpaid is None and selector.may_hedge(self._first, now):
            slot = self._services.loads[other.provider].take_nowait()  # whoever waits for one is asked the first time
        if slot is not None:
            reserved = self._reserved = Reserved(other, self._estimate, self._room, slot)
            kind, usage = self._request.request_type, self._estimate.usage
            if selector.admit(other, now, extra=True, request_type=kind, usage=usage) is None:
                slot.use(now)
                return reserved
        self.release()
        return None

    def release(self) -> None:
        """Give back what is held. Releasing twice is harmless."""
        if self._reserved is not None:
            self._reserved.give_back()
        elif self._room is not None:
            self._room.leave()


class Raced(NamedTuple):
    """How the race ended."""

    winner: Attempt
    outcome: AttemptResult
    failed_too: Candidate | None = None
    """The other one, if both failed."""


async def hedged(
    first: Attempt,
    delay_s: float,
    second: HedgeClaim,
    sink: Sink,
    *,
    deadline: float,
) -> Raced:
    """Ask ``first``; if nothing came of it after ``delay_s``, claim a ``second`` call and ask that as well.

    What was claimed and is not used is released at once, not when the answer has ended. Returns when the answer has
    ended; if both failed, with the failure that came first. Cancelling it cancels both.
    """
    race = _Race(sink)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(race.run, first, race.enter(first))
        with trio.move_on_after(delay_s):
            await race.decided.wait()
        if not race.decided.is_set() and await second.find_room(deadline):
            if race.decided.is_set():
                second.release()
            elif (claim := second.take()) is not None:
                other = first.hedge_with(claim)
                nursery.start_soon(race.run, other, race.enter(other))
    return race.result()


@final
class _Race:
    """Two askings, one sink."""

    def __init__(self, sink: Sink) -> None:
        self._sink = sink
        self._scopes: dict[Attempt, trio.CancelScope] = {}
        self._ended: list[Raced] = []
        self._leader: Attempt | None = None
        self.decided = trio.Event()

    def enter(self, asking: Attempt) -> trio.CancelScope:
        """The scope to run ``asking`` in; from now on it can lose, although its task has not begun."""
        self._scopes[asking] = trio.CancelScope()
        return self._scopes[asking]

    async def run(self, asking: Attempt, scope: trio.CancelScope) -> None:
        lane = _Lane(self, asking)
        with scope:
            outcome = await asking.run(lane.take)
            if isinstance(outcome.end, Finished) or (not asking.hedge and outcome.end.failure.step is Step.STOP):
                lane.lead()  # a hedge that is refused must not cost the answer that would have come without it
            self._ended.append(Raced(asking, outcome))
            if len(self._ended) == len(self._scopes):
                self.decided.set()

    def lead(self, asking: Attempt) -> bool:
        """Whether ``asking`` has the answer; the first to ask gets it, and the other is stopped."""
        if self._leader is None:
            self._leader = asking
            self.decided.set()
            for other, scope in self._scopes.items():
                if other is not asking:
                    scope.cancel(reason="another provider answered first")
        return self._leader is asking

    def pass_on(self, event: Event) -> None:
        self._sink(event)

    def result(self) -> Raced:
        if self._leader is not None:
            return next(raced for raced in self._ended if raced.winner is self._leader)
        first, *others = self._ended
        return first._replace(failed_too=others[0].winner.candidate) if others else first


@final
class _Lane:
    """What one asking says, held back until it has the answer."""

    def __init__(self, race: _Race, asking: Attempt) -> None:
        self._race = race
        self._asking = asking
        self._held: list[Event] = []
        self._leads = False

    def take(self, event: Event) -> None:
        if not self._leads and isinstance(event, CONTENT):
            self.lead()
        if self._leads:
            self._race.pass_on(event)
        elif len(self._held) < MOST_HELD:
            self._held.append(event)
        else:
            raise LogLimitExceeded

    def lead(self) -> None:
        """Take the answer, if the other has not got it."""
        if self._race.lead(self._asking):
            self._leads = True
            held, self._held = self._held, []
            for event in held:
                self._race.pass_on(event)
