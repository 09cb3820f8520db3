"""The data that the attempts of one request share, and the permission for one attempt."""

from __future__ import annotations

from collections.abc import Callable
from types import TracebackType
from typing import NamedTuple, Protocol, Self, final

from llm_actors.catalog import Allowed, Candidate
from llm_actors.limiter import Reservation
from llm_actors.orchestrator.decision_record import DecisionRecord
from llm_actors.orchestrator.load import Slot
from llm_actors.run import RunLog
from llm_protocol.budgets import Payer
from llm_protocol.estimate import Estimate
from llm_protocol.failures import Failure
from llm_protocol.policy import OnBrokenStream, Policy
from llm_protocol.requests import AnyRequest
from llm_protocol.response import Usage


class Hold(Protocol):
    """The part of a budget that one attempt may spend."""

    def limit(self, request: AnyRequest) -> AnyRequest:
        """Return the request with the limit for the vendor's output."""
        ...

    def grow(self, tokens: float) -> None:
        """Count the tokens delivered so far, estimated from the length of the text."""
        ...

    def settle(self, usage: Usage | None, cost: float | None) -> None:
        """Replace the reservation by the attempt's ``usage`` and ``cost``; ``None`` means unknown."""
        ...


class AttemptBudget(Protocol):
    """The budget for the attempts of one request, if it has one."""

    def refuses(
        self, candidate: Candidate, estimate: Estimate, request: AnyRequest, *, is_last: bool = True
    ) -> Failure | None:
        """Return why the budget cannot pay an attempt with this estimate; ``None`` if it can. ``is_last``: there is
        no other, possibly cheaper candidate, so less than the estimate is enough.
        """
        ...

    def hold(self, candidate: Candidate, estimate: Estimate, request: AnyRequest) -> Hold:
        """Reserve the attempt's share of the budget. Call this after `refuses`, without a checkpoint in between."""
        ...


NOBODY = Payer("")


class AttemptContext(NamedTuple):
    """The data that the attempts of one request share: the request, its candidates, its options, and the destination
    of its events. ``allowed``: the models that may be used besides the candidates; ``None``: any model.
    """

    request: AnyRequest
    candidates: list[Candidate]
    policy: Policy
    on_broken_stream: OnBrokenStream
    stream: bool
    log: RunLog
    until: Callable[[], float]
    """Returns the current deadline. It moves when a request with a later deadline joins a shared run."""
    record: DecisionRecord
    budget: AttemptBudget | None = None
    allowed: Allowed | None = None
    payer: Payer = NOBODY
    """Who pays, including for the further requests that a strategy makes."""

    @property
    def deadline(self) -> float:
        """The current deadline, on Trio's clock."""
        return self.until()


@final
class Reserved:
    """The permission for one call. Its resources are released at the end of the block, however it ends.
    ``reservation`` is ``None`` if there are no limits.
    """

    __slots__ = ("_slot", "candidate", "estimate", "reservation")

    def __init__(self, candidate: Candidate, estimate: Estimate, reservation: Reservation | None, slot: Slot) -> None:
        self.candidate = candidate
        self.estimate = estimate
        self.reservation = reservation
        self._slot = slot

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None) -> None:
        self.give_back()

    def use(self, now: float) -> None:
        """Record that the call begins."""
        self._slot.use(now)

    def give_back(self) -> None:
        """Release the resources. A second call does nothing."""
        self._slot.give_back()
        if self.reservation is not None:
            self.reservation.leave()
