"""The metrics as one typed value, for the dashboard and for programs.

The values are those of the Prometheus metrics, from the same snapshot, grouped by provider and by caller.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from enum import StrEnum
from itertools import islice

import msgspec

from llm_actors.cache import CacheStatistics
from llm_actors.kernel import TreeNode
from llm_actors.limiter import LimitStatistics
from llm_actors.limiter.budgets import BudgetStatistics
from llm_actors.orchestrator import Histogram, Metrics
from llm_actors.selector import CircuitState, ExplorationStatistics
from llm_protocol.budgets import Budget, Payer, Per
from llm_runtime.config import Config
from llm_runtime.metrics import SESSIONS, MetricsSnapshot

CIRCUITS_TOLD = 50
"""The most models of one provider whose open circuits are listed by name. Callers can invent names."""


class SharedLimitsStatistics(StrEnum):
    """Whether limits are shared with other processes."""

    OFF = "off"
    """Sharing is not configured."""
    ON = "on"
    LOST = "lost"
    """Sharing is configured, but Redis does not respond: this process applies the limits alone."""


class LatencyDistribution(msgspec.Struct, frozen=True, kw_only=True):
    """A histogram of seconds: the number of values up to each of ``bounds`` and above the previous one, then the number
    beyond the last; and their sum.
    """

    bounds: tuple[float, ...]
    counts: tuple[int, ...]
    total: float


class ModelUse(msgspec.Struct, frozen=True, kw_only=True):
    """Usage of one model of a provider. ``cost``: US dollars, ``None`` if no price is known."""

    input_tokens: int
    output_tokens: int
    cost: float | None


class ProviderStatistics(msgspec.Struct, frozen=True, kw_only=True):
    """One provider. ``breaker`` is the circuit breaker of the whole provider. ``circuits`` are the circuit breakers of
    single models that are not closed, at most `CIRCUITS_TOLD`. ``attempts`` are counted by outcome, retries included.
    ``unpriced`` counts attempts whose price is unknown. ``attempt_seconds`` are the durations of successful attempts,
    ``first_token_seconds`` the times to the first token of streamed attempts. ``limits`` is ``None`` if the provider
    has no limits.
    """

    kind: str
    breaker: CircuitState
    circuits: dict[str, CircuitState]
    attempts: dict[str, int]
    unpriced: int
    models: dict[str, ModelUse]
    attempt_seconds: LatencyDistribution | None
    first_token_seconds: LatencyDistribution | None
    limits: LimitStatistics | None


class CallerStatistics(msgspec.Struct, frozen=True, kw_only=True):
    """One caller. ``limits`` is ``None`` if none of its own limits have been used since the start."""

    requests: int
    tokens: int
    cost: float
    limits: LimitStatistics | None = None


class BudgetUse(msgspec.Struct, frozen=True, kw_only=True):
    """One budget in its current window, which ends at ``resets_at`` (seconds since the epoch).

    ``usd`` and ``tokens`` are spent or reserved, by all processes that share the budget, as far as is known. A limit
    is ``None`` if it is not set. ``callers`` are the callers whose requests the budget pays for; ``None``: all.
    ``routes`` are the routes that it pays for; empty: all.
    """

    callers: tuple[str, ...] | None
    routes: tuple[str, ...]
    per: Per
    soft: float | None
    usd: float
    usd_limit: float | None
    tokens: int
    tokens_limit: int | None
    resets_at: float


class Statistics(msgspec.Struct, frozen=True, kw_only=True):
    """The state of one runtime. Counters start from 0 and only grow.

    ``requests``: ended requests, by type and outcome. ``refused``: requests that were not accepted, by kind of
    failure. ``limited``: requests that a limit refused, by kind of failure and limit owner. ``cache_requests``: by
    the effect of the cache. ``late_events``: events of providers that were dropped because their run had ended.
    ``callers`` has one entry per caller; the name is empty if there are no keys. The ``tree`` omits clients'
    connections; ``connections`` is their number, ``None`` without a server. ``cache`` and ``sharing`` are ``None``,
    and ``budgets`` is empty, while the responsible actor does not respond. ``own_only``: the caller may see only its
    own usage. Totals are then omitted; they are not reported as zero.
    """

    uptime_s: float
    running: int
    connections: int | None
    requests: dict[str, dict[str, int]]
    refused: dict[str, int]
    limited: dict[str, dict[str, int]]
    cache_requests: dict[str, int]
    late_events: int
    exploration: ExplorationStatistics
    cache: CacheStatistics | None
    sharing: SharedLimitsStatistics | None
    providers: dict[str, ProviderStatistics]
    callers: dict[str, CallerStatistics]
    tree: TreeNode
    budgets: dict[str, BudgetUse] = {}
    own_only: bool = False


def statistics(snapshot: MetricsSnapshot, config: Config) -> Statistics:
    """Return the snapshot, grouped by provider and caller."""
    metrics, sessions = snapshot.metrics, [each for each in snapshot.tree.children if each.name == SESSIONS]
    return Statistics(
        uptime_s=snapshot.tree.uptime,
        running=metrics.running,
        connections=len(sessions[0].children) if sessions else None,
        requests=_requests(metrics),
        refused=dict(metrics.refused),
        limited=_limited(metrics),
        cache_requests=dict(metrics.cache),
        late_events=metrics.late_events,
        exploration=snapshot.exploration,
        cache=snapshot.cache,
        sharing=_sharing(snapshot, config),
        providers={name: _provider(name, provider.kind, snapshot) for name, provider in config.enabled.items()},
        callers=_callers(metrics, {} if snapshot.limiter is None else snapshot.limiter.callers),
        tree=_without_connections(snapshot.tree),
        budgets={} if snapshot.limiter is None else _budgets(snapshot.limiter.budgets, config),
    )


def only_of(caller: str, found: Statistics) -> Statistics:
    """Return the part that ``caller`` may see: its own usage, the budgets that pay for it, and the state of the runtime
    and of the providers, without the usage of others.
    """
    providers = {
        name: msgspec.structs.replace(each, attempts={}, unpriced=0, models={}, limits=None)
        for name, each in found.providers.items()
    }
    own = {name: each for name, each in found.callers.items() if name == caller}
    budgets = {
        name: msgspec.structs.replace(each, callers=each.callers and (caller,), routes=())
        for name, each in found.budgets.items()
        if each.callers is None or caller in each.callers
    }
    return msgspec.structs.replace(
        found, requests={}, refused={}, limited={}, cache_requests={}, cache=None, providers=providers, callers=own,
        budgets=budgets, own_only=True,
    )  # fmt: skip


def _budgets(found: Mapping[str, BudgetStatistics], config: Config) -> dict[str, BudgetUse]:
    return {name: _budget(each, config.budgets[name], config) for name, each in found.items() if name in config.budgets}


def _budget(found: BudgetStatistics, budget: Budget, config: Config) -> BudgetUse:
    callers = None
    if budget.keys or budget.teams:
        route = budget.routes[0] if budget.routes else ""
        payers = {name: Payer("", name, key.team, route) for name, key in config.keys.items()}
        callers = tuple(name for name, payer in payers.items() if budget.pays(payer))
    return BudgetUse(
        callers=callers,
        routes=budget.routes,
        per=budget.per,
        soft=budget.soft,
        usd=found.usd,
        usd_limit=found.usd_limit,
        tokens=found.tokens,
        tokens_limit=found.tokens_limit,
        resets_at=found.resets_at,
    )


def _requests(metrics: Metrics) -> dict[str, dict[str, int]]:
    found: dict[str, dict[str, int]] = {}
    for (kind, _, outcome), count in metrics.requests.items():
        outcomes = found.setdefault(kind, {})
        outcomes[outcome] = outcomes.get(outcome, 0) + count
    return found


def _limited(metrics: Metrics) -> dict[str, dict[str, int]]:
    found: dict[str, dict[str, int]] = {}
    for (reason, owner), count in metrics.limited.items():
        found.setdefault(reason, {})[owner] = count
    return found


def _sharing(snapshot: MetricsSnapshot, config: Config) -> SharedLimitsStatistics | None:
    if config.redis is None:
        return SharedLimitsStatistics.OFF
    if snapshot.limiter is None:
        return None
    return SharedLimitsStatistics.ON if snapshot.limiter.shared else SharedLimitsStatistics.LOST


def _provider(name: str, kind: str, snapshot: MetricsSnapshot) -> ProviderStatistics:
    metrics = snapshot.metrics
    return ProviderStatistics(
        kind=kind,
        breaker=snapshot.breakers[name],
        circuits=dict(islice(_circuits(name, snapshot), CIRCUITS_TOLD)),
        attempts={outcome: count for (provider, outcome), count in metrics.attempts.items() if provider == name},
        unpriced=metrics.unpriced[name],
        models=_models(name, metrics.tokens, metrics.cost),
        attempt_seconds=_spread(metrics.attempt_seconds.get(name)),
        first_token_seconds=_spread(metrics.first_token_seconds.get(name)),
        limits=None if snapshot.limiter is None else snapshot.limiter.providers.get(name),
    )


def _circuits(name: str, snapshot: MetricsSnapshot) -> Iterator[tuple[str, CircuitState]]:
    return ((model, state) for (provider, model), state in snapshot.circuits.items() if provider == name)


def _models(
    name: str, tokens: Mapping[tuple[str, str, str], int], cost: Mapping[tuple[str, str], float]
) -> dict[str, ModelUse]:
    models = dict.fromkeys(model for provider, model, _ in tokens if provider == name)
    return {
        model: ModelUse(
            input_tokens=tokens.get((name, model, "input"), 0),
            output_tokens=tokens.get((name, model, "output"), 0),
            cost=cost.get((name, model)),
        )
        for model in models
    }


def _spread(found: Histogram | None) -> LatencyDistribution | None:
    return (
        None
        if found is None
        else LatencyDistribution(bounds=found.bounds, counts=tuple(found.counts), total=found.total)
    )


def _callers(metrics: Metrics, limits: Mapping[str, LimitStatistics]) -> dict[str, CallerStatistics]:
    names = Counter(metrics.caller_requests) | Counter(metrics.caller_tokens)
    return {
        name: CallerStatistics(
            requests=metrics.caller_requests[name],
            tokens=metrics.caller_tokens[name],
            cost=metrics.caller_cost.get(name, 0.0),
            limits=limits.get(name),
        )
        for name in names
    }


def _without_connections(root: TreeNode) -> TreeNode:
    children = tuple(
        msgspec.structs.replace(child, children=()) if child.name == SESSIONS else child for child in root.children
    )
    return msgspec.structs.replace(root, children=children)
