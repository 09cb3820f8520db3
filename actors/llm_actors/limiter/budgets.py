"""The budgets: the amounts spent and reserved in each calendar window. Pure: the wall clock is a parameter.

A reservation counts in the window in which it was made, whenever it ends. The latest windows are kept, so a wall
clock that is set forward and back finds them unchanged.

If several processes share the budgets (`on`), Redis decides. Redis also sets aside a share of each budget for each
process. A share counts as spent for all other processes. While Redis is unreachable (`alone`), a process keeps to its
share, so all processes together never spend more than the budget.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Iterator, Mapping
from datetime import UTC, datetime
from typing import Final, NamedTuple, final

import msgspec

from llm_actors.limiter.budget_window import NOTHING, Amount, Sharing, Told, WindowState
from llm_protocol.budgets import Budget, BudgetTable, Payer, Per, window_at

KEPT_WINDOWS = 64
"""The most windows of one budget that are kept."""

WINDOWS_AHEAD: Final[Mapping[Per, int]] = {"minute": 10, "day": 1, "month": 1}
"""The number of coming windows in which a process already has a share, because Redis may be unreachable when they
begin.
"""

USD_TOLERANCE = 1e-9
"""US dollars by which a sum of floats may be inexact."""


class SpendAsk(msgspec.Struct, frozen=True):
    """The expected cost of a request, and who pays it. ``costs``: US dollars at each provider; ``None`` if the price
    is unknown. ``tokens``: the expected number of tokens.
    """

    payer: Payer
    costs: dict[str, float | None]
    models: dict[str, str]
    input_tokens: int
    tokens: int


class _Part(NamedTuple):
    """The amount that one reservation holds of one budget."""

    name: str
    state: WindowState
    amount: Amount


class BudgetHold(NamedTuple):
    """The amounts that one reservation holds. ``names``: the providers whose cost the budgets can pay."""

    names: tuple[str, ...]
    parts: tuple[_Part, ...]
    ask: SpendAsk
    warning: str = ""


class BudgetRefused(NamedTuple):
    """A decision: the budgets cannot pay the request. ``why`` is the reason."""

    why: str


class BudgetStatistics(msgspec.Struct, frozen=True):
    """One budget in its current window: the amounts spent and reserved by all processes that share it, as far as this
    process knows.
    """

    usd: float
    tokens: int
    usd_limit: float | None
    tokens_limit: int | None
    resets_at: float

    @property
    def used(self) -> float:
        """The used fraction of the budget: of dollars or of tokens, whichever is larger."""
        usd = self.usd / self.usd_limit if self.usd_limit else 0.0
        return max(usd, self.tokens / self.tokens_limit if self.tokens_limit else 0.0)


@final
class Budgets:
    """All budgets of one process. ``number`` is the number of a reservation. ``wall`` is the time in seconds since the
    epoch.
    """

    def __init__(self, budgets: Mapping[str, Budget], *, shared: bool = False) -> None:
        """``shared``: other processes share the budgets. Until Redis has reported their spending, no budget counts as
        having anything left.
        """
        self.table = BudgetTable(budgets)
        self.holds: dict[int, BudgetHold] = {}
        self.sharing: Sharing = "alone" if shared else "off"
        self._states: dict[str, OrderedDict[int, WindowState]] = {name: OrderedDict() for name in budgets}
        self.is_loaded = False
        """Whether the earlier spending in the store is counted."""
        self.gone: set[str] = set()
        """Processes that have ended: the store's file has everything that they spent."""
        self.last: dict[str, Amount] = {}
        """The last confirmed reservation, by budget. A share smaller than that is useless."""
        self.question = 0
        """The number of the last question to Redis."""
        self._unconfirmed: set[int] = set()

    def current(self, wall: float) -> list[tuple[str, WindowState]]:
        """Return the window of each budget at ``wall``, and the coming windows in which processes already have
        shares.
        """
        found = []
        for name, budget in self.table.budgets.items():
            state = self.state(name, wall)
            found.append((name, state))
            for _ in range(WINDOWS_AHEAD[budget.per]):
                state = self.state(name, state.window.end)
                found.append((name, state))
        return found

    def state(self, name: str, wall: float) -> WindowState:
        """Return the budget's window at ``wall``."""
        states, window = self._states[name], window_at(self.table.budgets[name].per, wall)
        found = states.get(window.start)
        if found is None:
            found = states[window.start] = WindowState(window)
            while len(states) > KEPT_WINDOWS:
                states.popitem(last=False)
        return found

    # -- what happens ------------------------------------------------------------------------------------------------

    def reserve(self, number: int, ask: SpendAsk, wall: float) -> BudgetHold | BudgetRefused:
        """Reserve, as reservation ``number``, the cost of the most expensive provider among those that the budgets can
        pay at ``wall`` (seconds since the epoch). If they can pay none, return the reason.
        """
        names, why, worst = list[str](), "", dict[str, Amount]()
        paying = self.table.of(ask.payer)
        for provider, cost in ask.costs.items():
            amounts, refused = {}, ""
            for name in paying:
                counted = self.table.budgets[name].cost(cost, ask.tokens)
                if counted is None:
                    refused = _unpriced(name, provider, ask.models.get(provider, "*"))
                    break
                amounts[name] = Amount(counted, ask.tokens)
                if refused := self._lacking(name, amounts[name], wall):
                    break
            if refused:
                why = why or refused
                continue
            names.append(provider)
            worst = {name: max(worst.get(name, Amount()), each) for name, each in amounts.items()}
        if not names:
            return BudgetRefused(why)
        parts = tuple(_Part(name, self.state(name, wall), each) for name, each in worst.items())
        for _, state, amount in parts:
            state.reserved = state.reserved.plus(amount)
            state.pending = state.pending.plus(amount)
        warning = "; ".join(filter(None, (self._warning(name, wall) for name in worst)))
        hold = self.holds[number] = BudgetHold(tuple(names), parts, ask, warning)
        self._unconfirmed.add(number)
        return hold

    def confirm(self, number: int) -> None:
        """Record that the request of the reservation may be sent: Redis has confirmed it, or need not confirm it."""
        if number not in self._unconfirmed:
            return
        self._settle(number)
        for name, _, amount in self.holds[number].parts:
            before = self.last.get(name, NOTHING)
            self.last[name] = Amount(amount.usd or before.usd, amount.tokens or before.tokens)

    def _settle(self, number: int) -> None:
        """Record that the reservation no longer waits for a confirmation."""
        if number in self._unconfirmed:
            self._unconfirmed.discard(number)
            for _, state, amount in self.holds[number].parts:
                state.pending = state.pending.minus(amount)

    def release(self, number: int) -> bool:
        """Give back the amounts of a reservation whose request was not sent. Return whether the reservation existed."""
        there = number in self.holds
        self._settle(number)
        self.end(number, usd=0.0, tokens=0)
        return there

    def end(self, number: int, *, usd: float | None, tokens: int | None) -> None:
        """End a reservation and charge ``usd`` and ``tokens``. If ``tokens`` is ``None``, the usage is unknown and
        the reserved amount is charged. If ``usd`` is ``None``, the price is unknown and the budget's
        ``unknown_price`` applies; if that refuses such requests, the reserved dollars are charged.
        """
        self.confirm(number)
        hold = self.holds.pop(number, None)
        for name, state, amount in () if hold is None else hold.parts:
            state.reserved = state.reserved.minus(amount)
            if tokens is None:
                state.spent = state.spent.plus(amount)
                continue
            counted = self.table.budgets[name].cost(usd, tokens)
            state.spent = state.spent.plus(Amount(amount.usd if counted is None else counted, tokens))

    def load(
        self, rows: Iterable[tuple[str, Payer, float, float | None, int]], *, own: str = "", gone: Iterable[str] = ()
    ) -> None:
        """Add the spending in the store: process, payer, time, cost and tokens of each row. ``own`` is the name of
        this process, there and in Redis, so that nothing counts twice. ``gone`` are the names of processes that have
        ended.
        """
        self.is_loaded = True
        self.gone.update(gone)
        for owner, payer, at, cost, tokens in rows:
            for name in self.table.of(payer):
                state, counted = self.state(name, at), self.table.budgets[name].cost(cost, tokens)
                amount = Amount(counted or 0.0, tokens)
                if owner == own:
                    state.spent = state.spent.plus(amount)
                else:
                    state.base[owner] = state.base.get(owner, NOTHING).plus(amount)

    # -- sharing -----------------------------------------------------------------------------------------------------

    def heard(self, state: WindowState, told: Told, question: int) -> None:
        """Apply the reply to a question to one window; see `ask`."""
        others, state.share, state.spare, state.complete = told
        # Until Redis, after a loss of data, has the reports of all processes, the amounts known here are kept.
        state.others = others if told.complete else {**others, **state.others}
        state.asked = question

    def ask(self, states: Iterable[WindowState]) -> int:
        """Prepare a question about these windows, and return its number. The process gives up the excess of its
        shares before it reports them. So it never has more than Redis knows of, even if the reply is lost.
        """
        for state in states:
            kept = state.share.least(state.own.plus(state.spare))
            state.share = kept.most(state.own.minus(state.pending))
        self.question += 1
        return self.question

    def join(self) -> None:
        """Let Redis decide from now on."""
        self.sharing = "on"

    def go_alone(self) -> None:
        """Keep to the shares of this process from now on, because Redis is unreachable."""
        if self.sharing == "on":
            self.sharing = "alone"

    def pay_alone(self, number: int, wall: float) -> str:
        """Confirm a reservation if the shares of this process can pay it; else return the reason."""
        for name, state, amount in self.holds[number].parts:
            if not self._is_within(name, state.own.minus(state.pending).plus(amount), state.share):
                return self.refusal(name, state, amount, wall, but=amount)
        self.confirm(number)
        return ""

    # -- what is left ------------------------------------------------------------------------------------------------

    def _lacking(self, name: str, wanted: Amount, wall: float) -> str:
        """Return why the budget does not have ``wanted`` left; empty if it has."""
        state = self.state(name, wall)
        total = state.own.plus(wanted)
        if self.sharing == "alone":
            fits = self._is_within(name, total, state.share)
        else:
            budget = self.table.budgets[name]
            # If the budget is shared, Redis knows the amounts of other processes better than the store's file.
            before = state.before("off") if self.sharing == "off" else NOTHING
            fits = self._is_within(name, total.plus(before), Amount(budget.usd or 0.0, budget.tokens or 0))
        return "" if fits else self.refusal(name, state, wanted, wall)

    def _is_within(self, name: str, total: Amount, most: Amount) -> bool:
        budget = self.table.budgets[name]
        return (budget.usd is None or total.usd <= most.usd + USD_TOLERANCE) and (
            budget.tokens is None or total.tokens <= most.tokens
        )

    def refusal(self, name: str, state: WindowState, wanted: Amount, wall: float, *, but: Amount = NOTHING) -> str:
        """Return a message that says why the budget does not pay ``wanted``, how much is left, and when the budget is
        reset. ``but`` is the part of the reserved amount that belongs to the refused request itself.
        """
        budget, own = self.table.budgets[name], state.own.minus(but)
        limit, whose = Amount(budget.usd or 0.0, budget.tokens or 0), ""
        if self.sharing != "off" and not state.asked:
            return (
                f'budget "{name}" is shared in Redis, which has not yet reported the spending of this {budget.per}: '
                "until it has, no amount is available"
            )
        left = limit.minus(own.plus(state.before(self.sharing))).minus(state.set_aside)
        if self.sharing == "alone":
            left, whose = state.share.minus(own), "of this process's share, while Redis is unreachable, "
        elif self.sharing == "on" and not state.complete:
            left, whose = (
                state.share.minus(own),
                "of this process's share, until all processes have reported their spending, ",
            )
        left_of = []
        if budget.usd is not None:
            left_of.append(f"${max(0.0, left.usd):.4f} of ${budget.usd:.2f} ({whose}needed: about ${wanted.usd:.4f})")
        if budget.tokens is not None:
            left_of.append(f"{max(0, left.tokens)} of {budget.tokens} tokens ({whose}needed: about {wanted.tokens})")
        resets = datetime.fromtimestamp(state.window.end, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        seconds = max(0, int(state.window.end - wall))
        left_now = f"{' and '.join(left_of)} left for this {budget.per}"
        return f'budget "{name}" has {left_now}; it resets at {resets}, in {seconds} s'

    def _warning(self, name: str, wall: float) -> str:
        budget, state = self.table.budgets[name], self.state(name, wall)
        if budget.soft is None:
            return ""
        total = state.own.plus(state.before(self.sharing))
        share = max(
            0.0 if budget.usd is None else total.usd / budget.usd,
            0.0 if budget.tokens is None else total.tokens / budget.tokens,
        )
        return f"{name}={share:.2f}" if share >= budget.soft else ""

    def newly_warned(self, wall: float) -> Iterator[str]:
        """Return the budgets that have newly exceeded their soft limit, each once per window."""
        for name in self.table.budgets:
            state = self.state(name, wall)
            if not state.warned and self._warning(name, wall):
                state.warned = True
                yield name

    def statistics(self, wall: float) -> dict[str, BudgetStatistics]:
        """Return the state of each budget, by name."""
        found = {}
        for name, budget in self.table.budgets.items():
            state = self.state(name, wall)
            total = state.own.plus(state.before(self.sharing))
            found[name] = BudgetStatistics(total.usd, total.tokens, budget.usd, budget.tokens, state.window.end)
        return found


def _unpriced(budget: str, provider: str, model: str) -> str:
    which = f"{provider}/{model}"
    remedy = f'the configuration needs [prices."{which}"], or unknown_price = "allow" in [budgets.{budget}]'
    return f'budget "{budget}": the price of {which} is not known; {remedy}'
