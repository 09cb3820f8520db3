"""What one request may spend, and what it spent: one ledger for all the models that are asked for it.

Before each attempt what it will probably take is put aside; an attempt for which there is not enough is not made.
While an answer streams, what outgrows its share takes from what is left, and when nothing is left it is stopped. At
the end the vendor's own count stands in the books. So the ceiling is passed at most by what our estimates were off,
which is less than one attempt's share.
"""

from __future__ import annotations

from collections.abc import Callable
from math import inf
from typing import final

from llm_actors.catalog import Candidate
from llm_actors.orchestrator.spending import Spent
from llm_actors.selector import CostOf
from llm_protocol.estimate import Estimate
from llm_protocol.failures import Failure, FailureKind
from llm_protocol.response import Usage


@final
class RequestBudget:
    """The books of one request."""

    def __init__(self, cost_of: CostOf, max_cost: float | None = None, max_tokens: int | None = None) -> None:
        self.total = Spent()
        self.max_cost = max_cost
        self.max_tokens = max_tokens
        self.holds: set[MemberHold] = set()
        self._cost_of = cost_of

    @property
    def bounded(self) -> bool:
        """Whether there is a ceiling."""
        return self.max_cost is not None or self.max_tokens is not None

    def purse(self, on_overrun: Callable[[], None]) -> MemberBudget:
        """What one member pays from; ``on_overrun`` is called when it must stop."""
        return MemberBudget(self, on_overrun)

    def price(self, candidate: Candidate, input_tokens: int, output_tokens: int) -> float | None:
        """US dollars, or ``None``."""
        usage = Usage(input_tokens=input_tokens, output_tokens=output_tokens)
        return self._cost_of(candidate.provider, candidate.model, usage)

    def fits(self, more_tokens: int, more_cost: float) -> bool:
        """Whether so much more can be put aside."""
        return more_tokens <= self.tokens_left and more_cost <= self.cost_left

    @property
    def tokens_left(self) -> float:
        """What is neither used nor put aside of ``max_tokens``; less than 0 where estimates were too low."""
        used = self.total.usage.total_tokens if self.total.usage else 0
        return inf if self.max_tokens is None else self.max_tokens - used - sum(hold.tokens for hold in self.holds)

    @property
    def cost_left(self) -> float:
        """The same of ``max_cost``, in US dollars."""
        spent = self.total.cost or 0.0
        return inf if self.max_cost is None else self.max_cost - spent - sum(hold.cost for hold in self.holds)


@final
class MemberHold:
    """What is put aside for one attempt; see `llm_actors.orchestrator.attempt.Hold`."""

    def __init__(self, purse: MemberBudget, candidate: Candidate, estimate: Estimate) -> None:
        self._purse = purse
        self._candidate = candidate
        self._input = estimate.input_tokens
        self._output = estimate.output_tokens
        self.tokens = estimate.total_tokens
        self.cost = self._price()

    def _price(self) -> float:
        return self._purse.ledger.price(self._candidate, self._input, self._output) or 0.0

    def grow(self, tokens: float) -> None:
        """What has been delivered may be more than was put aside."""
        output = int(tokens)
        if output <= self._output or not self._purse.ledger.bounded:
            return
        self._output = output
        self.tokens, self.cost = self._input + output, self._price()
        if not self._purse.ledger.fits(0, 0.0):
            self._purse.overrun()

    def settle(self, usage: Usage | None, cost: float | None) -> None:
        """Into the books instead."""
        ledger = self._purse.ledger
        ledger.holds.discard(self)
        self._purse.spent.add(usage, cost)
        ledger.total.add(usage, cost)


@final
class MemberBudget:
    """One member's way into the ledger; see `llm_actors.orchestrator.attempt.AttemptBudget`."""

    def __init__(self, ledger: RequestBudget, on_overrun: Callable[[], None]) -> None:
        self.ledger = ledger
        self.spent = Spent()
        self.overran = False
        self._on_overrun = on_overrun

    def refuses(self, candidate: Candidate, estimate: Estimate) -> Failure | None:
        """A refusal where the estimate does not fit, or where a price is not known that would have to be."""
        ledger = self.ledger
        if not ledger.bounded:
            return None
        cost = ledger.price(candidate, estimate.input_tokens, estimate.output_tokens)
        if cost is None and ledger.max_cost is not None:
            return _refusal(candidate, "its price is not known, so max_cost could not be kept")
        tokens, left = estimate.total_tokens, max(0, ledger.tokens_left)
        if tokens > left:
            return _refusal(candidate, f"it may take {tokens} tokens and {left} of max_tokens are left")
        if cost is not None and cost > ledger.cost_left:
            dollars = max(0.0, ledger.cost_left)
            return _refusal(candidate, f"it may cost ${cost:.6f} and ${dollars:.6f} of max_cost is left")
        return None

    def hold(self, candidate: Candidate, estimate: Estimate) -> MemberHold:
        """Put the estimate aside."""
        aside = MemberHold(self, candidate, estimate)
        self.ledger.holds.add(aside)
        return aside

    def overrun(self) -> None:
        """The budget is used up in the middle of an answer."""
        if not self.overran:
            self.overran = True
            self._on_overrun()


def _refusal(candidate: Candidate, why: str) -> Failure:
    return Failure(
        kind=FailureKind.BUDGET,
        message=f"{candidate}: not asked, because {why}",
        provider=candidate.provider,
        model=candidate.model,
    )
