"""What the attempts of one request share, and the permission for one of them."""

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
        """The request, with the limit for the vendor's output."""
        ...

    def grow(self, tokens: float) -> None:
        """Count the tokens delivered so far, by the length of the text."""
        ...

    def settle(self, usage: Usage | None, cost: float | None) -> None:
        """The attempt has ended, and used this; ``None`` if unknown."""
        ...


class AttemptBudget(Protocol):
    """The budget for the attempts of one request, if it has one."""

    def refuses(
        self, candidate: Candidate, estimate: Estimate, request: AnyRequest, *, is_last: bool = True
    ) -> Failure | None:
        """Why an attempt with these expected costs cannot be paid; ``None`` if it can. ``is_last``: there is no other
        candidate, which might be cheaper, so less than the expectation will do.
        """
        ...

    def hold(self, candidate: Candidate, estimate: Estimate, request: AnyRequest) -> Hold:
        """Reserve its share. Call this after `refuses`, without a checkpoint in between."""
        ...


NOBODY = Payer("")


class AttemptContext(NamedTuple):
    """What the attempts of one request share: the request, its candidates, its options, and where events go.
    ``allowed``: the models that may be used besides the candidates; ``None``: any.
    """

    request: AnyRequest
    candidates: list[Candidate]
    policy: Policy
    on_broken_stream: OnBrokenStream
    stream: bool
    log: RunLog
    until: Callable[[], float]
    """The current deadline: a shared run gets more time from any request that joins it with more."""
    record: DecisionRecord
    budget: AttemptBudget | None = None
    allowed: Allowed | None = None
    payer: Payer = NOBODY
    """Who pays, also for the requests that a strategy makes from one."""

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
        """Release the resources. Releasing twice is harmless."""
        self._slot.give_back()
        if self.reservation is not None:
            self.reservation.leave()
