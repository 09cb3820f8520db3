"""The budget of one request: one account for all the models that are called for it.

Before each attempt a share of the remaining budget is reserved, and the vendor is told to write no more than that. So
hidden reasoning counts, too, and no attempt can use the share of another. A share is the expected usage of the attempt,
plus an equal part of the rest that no attempt is expected to use. An attempt without enough budget is not made. If
there is not enough for several members, the last ones are left out, so that the called ones can finish.

A server that writes more than its limit uses up the remaining budget, and is stopped when nothing remains. At the end
the vendor's own count applies. So the limit is exceeded at most by the error of a prompt's estimate, or by the excess
of one server, which is less than one attempt's share.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from math import floor, inf
from typing import NamedTuple, final

import msgspec

from llm_actors.catalog import Candidate
from llm_actors.orchestrator.spending import Spent
from llm_actors.selector import CostOf
from llm_protocol.estimate import Estimate
from llm_protocol.failures import Failure, FailureKind
from llm_protocol.requests import AnyRequest, ChatRequest, CodeRequest, CompletionRequest
from llm_protocol.response import Usage

MIN_OUTPUT_TOKENS = 16
"""The least output limit, in tokens, for which an attempt is made, unless the request asks for less: some vendors
refuse a lower limit.
"""

MIN_REASONING_TOKENS = 1_024
"""Vendors refuse a smaller reasoning budget, in tokens. If there is no room for one, none is sent, and the vendor
chooses.
"""


class Share(NamedTuple):
    """Numbers of tokens and US dollars."""

    tokens: float
    cost: float


@final
class RequestBudget:
    """The account of one request."""

    def __init__(self, cost_of: CostOf, max_cost: float | None = None, max_tokens: int | None = None) -> None:
        self.total = Spent()
        self.max_cost = max_cost
        self.max_tokens = max_tokens
        self.charged = 0.0
        """The US dollars that count as spent. An attempt whose cost is unknown counts with its reservation."""
        self.holds: set[MemberHold] = set()
        self.later = 0
        """The number of calls that will follow the current ones, such as a synthesis."""
        self.waiting: dict[MemberBudget, Share] = {}
        """The members that will be called now and have reserved nothing yet, with their expected usage."""
        self._cost_of = cost_of

    @property
    def bounded(self) -> bool:
        """Whether the request has a limit."""
        return self.max_cost is not None or self.max_tokens is not None

    def budget(self, on_overrun: Callable[[], None]) -> MemberBudget:
        """Return the access of one member to this account. ``on_overrun`` is called when the member must stop."""
        return MemberBudget(self, on_overrun)

    def price(self, candidate: Candidate, input_tokens: int, output_tokens: int) -> float | None:
        """Return the price in US dollars; ``None`` if it is unknown."""
        usage = Usage(input_tokens=input_tokens, output_tokens=output_tokens)
        return self._cost_of(candidate.provider, candidate.model, usage)

    def expected(self, candidate: Candidate, estimate: Estimate) -> Share:
        """Return the expected usage of an attempt. An attempt without a known price counts as nothing, because it
        will be refused.
        """
        cost = self.price(candidate, estimate.input_tokens, estimate.output_tokens)
        return Share(estimate.total_tokens, cost or 0.0)

    def admit(self, expected: Mapping[MemberBudget, Share], later: int) -> list[MemberBudget]:
        """Admit the first member, and those after it that can be expected to finish, too. Returns the members left
        out. ``later``: the number of calls that will follow.
        """
        self.later = later
        tokens, cost = self.tokens_left, self.cost_left
        out: list[MemberBudget] = []
        for budget, share in expected.items():
            if self.waiting and (share.tokens > tokens or share.cost > cost):
                out.append(budget)
                continue
            tokens, cost = tokens - share.tokens, cost - share.cost
            self.waiting[budget] = share
        return out

    def allot(self, budget: MemberBudget, own: Share) -> Share:
        """Return how much of the remaining budget ``budget`` may reserve."""
        others = [share for other, share in self.waiting.items() if other is not budget]
        calls = 1 + len(others) + self.later
        return Share(
            _part(self.tokens_left, own.tokens, sum(each.tokens for each in others), calls),
            _part(self.cost_left, own.cost, sum(each.cost for each in others), calls),
        )

    def fits(self, more_tokens: int, more_cost: float) -> bool:
        """Whether this many more tokens and dollars can be reserved."""
        return more_tokens <= self.tokens_left and more_cost <= self.cost_left

    @property
    def unplanned(self) -> Share:
        """The part of the budget that no planned call is expected to use."""
        tokens, cost = (sum(part) for part in zip((0, 0), *self.waiting.values(), strict=True))
        return Share(self.tokens_left - tokens, self.cost_left - cost)

    @property
    def tokens_left(self) -> float:
        """The tokens of ``max_tokens`` that are neither used nor reserved; negative if estimates were too low."""
        used = self.total.usage.total_tokens if self.total.usage else 0
        return inf if self.max_tokens is None else self.max_tokens - used - sum(hold.tokens for hold in self.holds)

    @property
    def cost_left(self) -> float:
        """The US dollars of ``max_cost`` that are neither used nor reserved."""
        return inf if self.max_cost is None else self.max_cost - self.charged - sum(hold.cost for hold in self.holds)


def _part(left: float, own: float, others: float, calls: int) -> float:
    """Return the expected amount, plus an equal part of the rest; less if not even the expected amount is left."""
    if left == inf:
        return inf
    beyond = left - own - others
    return own + (beyond / calls if beyond > 0 else beyond)


@final
class MemberHold:
    """The reservation for one attempt; see `llm_actors.orchestrator.services.Hold`. ``most``: the tokens that
    the vendor may write; ``None``: no limit.
    """

    def __init__(self, budget: MemberBudget, candidate: Candidate, estimate: Estimate, most: int | None) -> None:
        self._budget = budget
        self._candidate = candidate
        self._input = estimate.input_tokens
        self._output = estimate.output_tokens if most is None else most
        self.most = most
        self.tokens = self._input + self._output
        self.cost = self._price()

    def _price(self) -> float:
        return self._budget.ledger.price(self._candidate, self._input, self._output) or 0.0

    def limit(self, request: AnyRequest) -> AnyRequest:
        """Return the request with the limit for the vendor's output."""
        if self.most is None or not isinstance(request, ChatRequest | CompletionRequest | CodeRequest):
            return request
        parameters = msgspec.structs.replace(request.parameters, max_output_tokens=self.most)
        thought = parameters.reasoning_budget
        if thought is not None and thought >= self.most:
            fitting = self.most // 2 if self.most // 2 >= MIN_REASONING_TOKENS else None
            parameters = msgspec.structs.replace(parameters, reasoning_budget=fitting)
        return msgspec.structs.replace(request, parameters=parameters)

    def grow(self, tokens: float) -> None:
        """Reserve more if the delivered output, ``tokens``, exceeds the reserved output. If the budget has no more,
        the member is stopped.
        """
        output = int(tokens)
        if output <= self._output or not self._budget.ledger.bounded:
            return
        self._output = output
        self.tokens, self.cost = self._input + output, self._price()
        if not self._budget.ledger.fits(0, 0.0):
            self._budget.overrun()

    def settle(self, usage: Usage | None, cost: float | None) -> None:
        """Replace the reservation by the usage."""
        ledger = self._budget.ledger
        ledger.holds.discard(self)
        self._budget.spent.add(usage, cost)
        ledger.total.add(usage, cost)
        if usage is not None:
            ledger.charged += self.cost if cost is None else cost


@final
class MemberBudget:
    """One member's access to the budget of the request; see `llm_actors.orchestrator.services.AttemptBudget`."""

    def __init__(self, ledger: RequestBudget, on_overrun: Callable[[], None]) -> None:
        self.ledger = ledger
        self.spent = Spent()
        self.overran = False
        self._on_overrun = on_overrun

    def refuses(
        self, candidate: Candidate, estimate: Estimate, request: AnyRequest, *, is_last: bool = True
    ) -> Failure | None:
        """Return the refusal if there is not enough for a response, or if the price is needed and unknown; else
        ``None``. ``is_last``: there is no other candidate, so the response may be shorter than expected.
        """
        ledger = self.ledger
        if not ledger.bounded:
            return None
        expected = ledger.price(candidate, estimate.input_tokens, estimate.output_tokens)
        if expected is None and ledger.max_cost is not None:
            return _refusal(
                candidate, f'its price is not known, so max_cost could not be kept; set [prices."{candidate}"]'
            )
        wanted = _wanted(request)
        least = estimate.output_tokens
        if wanted is not None:
            least = min(wanted, MIN_OUTPUT_TOKENS if is_last else estimate.output_tokens)
        if self._room(candidate, estimate) >= least:
            return None
        share = self.ledger.allot(self, self.ledger.expected(candidate, estimate))
        return too_little(candidate, estimate.input_tokens + least, share, self.ledger)

    def hold(self, candidate: Candidate, estimate: Estimate, request: AnyRequest) -> MemberHold:
        """Reserve the attempt's share of the budget. Call this after `refuses`, without a checkpoint in between."""
        wanted = _wanted(request)
        room = self._room(candidate, estimate)
        most = None if wanted is None or room == inf else min(wanted, floor(room))
        self.ledger.waiting.pop(self, None)
        aside = MemberHold(self, candidate, estimate, most)
        self.ledger.holds.add(aside)
        return aside

    def _room(self, candidate: Candidate, estimate: Estimate) -> float:
        """Return the tokens that the share leaves for the response."""
        ledger = self.ledger
        share = ledger.allot(self, ledger.expected(candidate, estimate))
        room = share.tokens - estimate.input_tokens
        if share.cost == inf:
            return room
        prompt = ledger.price(candidate, estimate.input_tokens, 0) or 0.0
        thousand = (ledger.price(candidate, estimate.input_tokens, 1_000) or 0.0) - prompt
        if thousand <= 0:
            return room if prompt <= share.cost else -1
        return min(room, (share.cost - prompt) * 1_000 / thousand)

    def overrun(self) -> None:
        """Stop the member: the budget is used up in the middle of a response."""
        if not self.overran:
            self.overran = True
            self._on_overrun()


_UNBOUNDED = 2**31 - 1


def _wanted(request: AnyRequest) -> int | None:
    """Return the output limit of the request in tokens; ``None`` if requests of this type have no such parameter."""
    if not isinstance(request, ChatRequest | CompletionRequest | CodeRequest):
        return None
    most = request.parameters.max_output_tokens
    return _UNBOUNDED if most is None else most


def too_little(candidate: Candidate, tokens: float, left: Share, ledger: RequestBudget) -> Failure:
    """Return the refusal of an attempt that needs ``tokens`` and has only the share ``left``."""
    if ledger.max_tokens is not None and tokens > left.tokens:
        return _refusal(
            candidate, f"it may take {tokens:.0f} tokens and {max(0, floor(left.tokens))} of max_tokens are left"
        )
    return _refusal(candidate, f"${max(0.0, left.cost):.6f} of max_cost is left, too little for a response")


def _refusal(candidate: Candidate, why: str) -> Failure:
    return Failure(
        kind=FailureKind.BUDGET,
        message=f"{candidate}: not tried, because {why}",
        provider=candidate.provider,
        model=candidate.model,
    )
