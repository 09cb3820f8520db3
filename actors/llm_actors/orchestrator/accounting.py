"""Who pays for a request, and its rows in the ledger. Pure, except for the wall clock."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Mapping
from typing import final

from llm_actors.catalog import Candidate
from llm_actors.limiter.budgets import SpendAsk
from llm_actors.orchestrator.decision_record import AttemptRecord, count_calls
from llm_actors.run import Run
from llm_actors.store.ledger import CACHED, Ledger, LedgerEntry
from llm_protocol.budgets import BudgetTable, Payer
from llm_protocol.estimate import Estimate
from llm_protocol.events import Finished
from llm_protocol.requests import AnyRequest
from llm_protocol.response import Usage


@final
class Accounting:
    """The accounting of one runtime. ``ledger`` is ``None`` if there is no store. ``teams`` maps callers to their
    teams.
    """

    def __init__(
        self,
        ledger: Ledger | None = None,
        budgets: BudgetTable | None = None,
        teams: Mapping[str, str] | None = None,
        routes: Collection[str] = (),
        wall: Callable[[], float] = time.time,
    ) -> None:
        self._ledger = ledger
        self._budgets = budgets or BudgetTable({})
        self._teams = teams or {}
        self._routes = routes
        self._wall = wall

    def payer(self, request: AnyRequest) -> Payer:
        """Return who pays for a request: its run, caller, team and, if the request names one, route."""
        route = request.model if request.model in self._routes else ""
        return Payer(request.request_id, request.caller, self._teams.get(request.caller, ""), route)

    def has_budget(self, payer: Payer) -> bool:
        """Whether budgets pay for a request of ``payer``."""
        return bool(self._budgets.budgets) and bool(self._budgets.of(payer))

    def refuses_unpriced(self, caller: str) -> str:
        """Return the message for a passthrough request of ``caller``, whose cost is unknown, if a budget refuses it;
        empty if none does.
        """
        payer = Payer("", caller, self._teams.get(caller, ""))
        for name in self._budgets.of(payer):
            if self._budgets.budgets[name].cost(None, 0) is None:
                return (
                    f'budget "{name}" does not pay for passthrough requests, because their cost is unknown; '
                    f'with unknown_price = "allow" in [budgets.{name}] they count as $0'
                )
        return ""

    def asks(
        self,
        payer: Payer,
        models: Mapping[str, str],
        estimate: Estimate,
        cost_of: Callable[[str, str, Usage], float | None],
    ) -> SpendAsk | None:
        """Return the expected cost of an attempt at one of ``models`` (provider to model), for the limiter to reserve;
        ``None`` if no budget pays.
        """
        if not self._budgets or not self._budgets.of(payer):
            return None
        costs = {provider: cost_of(provider, model, estimate.usage) for provider, model in models.items()}
        return SpendAsk(payer, costs, dict(models), estimate.input_tokens, estimate.total_tokens)

    def entry(self, payer: Payer, candidate: Candidate, made: AttemptRecord) -> LedgerEntry:
        """Return the ledger row of an attempt that has ended."""
        now, usage = self._wall(), made.usage or _NOTHING
        return LedgerEntry(
            run=payer.run,
            caller=payer.caller,
            team=payer.team,
            route=payer.route,
            provider=candidate.provider,
            model=candidate.model,
            outcome=made.outcome,
            opened_at=now - made.duration_ms / 1000,
            closed_at=now,
            input_tokens=usage.input_tokens,
            output_tokens=usage.output_tokens,
            cached_tokens=usage.cached_tokens,
            cache_write_tokens=usage.cache_write_tokens,
            reasoning_tokens=usage.reasoning_tokens,
            estimated=usage.estimated,
            cost=0.0 if made.usage is None else made.cost,
        )

    @property
    def writes(self) -> bool:
        """Whether there is a ledger."""
        return self._ledger is not None

    def record(self, entry: LedgerEntry) -> None:
        """Add a row to be written soon; without a ledger, do nothing."""
        if self._ledger is not None:
            self._ledger.record(entry)

    def note_passthrough(
        self, request_id: str, caller: str, provider: str, model: str, *, outcome: str, seconds: float
    ) -> None:
        """Add the row of a passthrough request that has ended. Its cost is unknown."""
        if self._ledger is None:
            return
        now, team = self._wall(), self._teams.get(caller, "")
        self._ledger.record(
            LedgerEntry(
                run=request_id,
                caller=caller,
                team=team,
                provider=provider,
                model=model,
                outcome="ok" if outcome in _WENT_WELL else outcome,
                opened_at=now - seconds,
                closed_at=now,
            )
        )

    def note_end(self, run: Run) -> None:
        """Record that a request has ended. A request without an attempt gets a row, too: its response came from the
        cache or from the run of an equal request, or it was refused.
        """
        end = run.log.end
        if self._ledger is None or end is None or end.response is None:
            return
        decision = end.response.decision
        if count_calls(decision) and decision.get("cache") != "coalesced":
            return
        outcome = CACHED if isinstance(end, Finished) else end.failure.kind.value
        payer, now = self.payer(run.request), self._wall()
        self._ledger.record(
            LedgerEntry(
                run=payer.run,
                caller=payer.caller,
                team=payer.team,
                route=payer.route,
                outcome=outcome,
                opened_at=now - run.elapsed_ms / 1000,
                closed_at=now,
                cost=0.0,
            )
        )


_NOTHING = Usage()

_WENT_WELL = frozenset(("2xx", "3xx"))
"""The outcomes of passthrough requests that count as a success."""
