"""Combine the data of several workers: metrics, statistics, the latest requests, and the trees."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import reduce
from typing import Any, TypeVar

import msgspec
from prometheus_client import Metric
from prometheus_client.parser import text_string_to_metric_families

from llm_actors.cache import CacheStatistics
from llm_actors.cache.statistics import TierStatistics
from llm_actors.kernel import ChildStatus, TreeNode
from llm_actors.kernel.mailbox import MailboxStatistics
from llm_actors.limiter import LimitStatistics
from llm_actors.orchestrator import RecentRequest
from llm_actors.orchestrator.recent_requests import KEPT
from llm_actors.selector import CircuitState, ExplorationStatistics
from llm_runtime.metrics import written
from llm_runtime.statistics import (
    BudgetUse,
    CallerStatistics,
    LatencyDistribution,
    ModelUse,
    ProviderStatistics,
    SharedLimitsStatistics,
    Statistics,
)

K = TypeVar("K")
V = TypeVar("V")

_WORST_CIRCUIT = (CircuitState.OPEN, CircuitState.HALF_OPEN, CircuitState.CLOSED)
_WORST_SHARING = (None, SharedLimitsStatistics.LOST, SharedLimitsStatistics.ON, SharedLimitsStatistics.OFF)


def metrics(texts: Mapping[int, bytes]) -> bytes:
    """Return the metrics of all workers as one text: each value with the label ``worker``. ``texts`` is by number."""
    families: dict[str, Metric] = {}
    for number, text in sorted(texts.items()):
        for family in text_string_to_metric_families(text.decode()):
            into = families.setdefault(family.name, Metric(family.name, family.documentation, family.type))
            into.samples += [each._replace(labels={**each.labels, "worker": str(number)}) for each in family.samples]
    return written(families.values())


def recent_requests(lists: Iterable[Sequence[RecentRequest]]) -> list[RecentRequest]:
    """Return the latest requests of all workers, as many as one worker remembers."""
    return sorted((each for found in lists for each in found), key=lambda each: -each.ended_at)[:KEPT]


def tree(trees: Mapping[int, TreeNode]) -> TreeNode:
    """Return the trees of all workers, by number, below one node."""
    children = tuple(msgspec.structs.replace(each, name=f"worker-{number}") for number, each in sorted(trees.items()))
    return TreeNode(
        name="llm-runtime",
        status=ChildStatus.RUNNING,
        restarts=0,
        uptime=max(each.uptime for each in children),
        last_crash="",
        mailbox=MailboxStatistics(),
        children=children,
    )


def statistics(found: Mapping[int, Statistics]) -> Statistics:
    """Return the statistics of the daemon. ``found``: those of each worker, by the worker's number. Counts are added
    up; of states, the worst is used.
    """
    together = reduce(_both, found.values())
    return msgspec.structs.replace(together, tree=tree({number: each.tree for number, each in found.items()}))


def _both(one: Statistics, other: Statistics) -> Statistics:
    return Statistics(
        uptime_s=max(one.uptime_s, other.uptime_s),
        running=one.running + other.running,
        connections=_sum(one.connections, other.connections),
        requests=_joined(one.requests, other.requests, _added),
        refused=_added(one.refused, other.refused),
        limited=_joined(one.limited, other.limited, _added),
        cache_requests=_added(one.cache_requests, other.cache_requests),
        late_events=one.late_events + other.late_events,
        exploration=_added_up(one.exploration, other.exploration),
        cache=_cache(one.cache, other.cache),
        sharing=min(one.sharing, other.sharing, key=_WORST_SHARING.index),
        providers=_joined(one.providers, other.providers, _provider),
        callers=_joined(one.callers, other.callers, _caller),
        tree=one.tree,
        budgets=_joined(one.budgets, other.budgets, _budget),
        own_only=one.own_only,
    )


def _budget(one: BudgetUse, other: BudgetUse) -> BudgetUse:
    """Combine two reports about a shared budget: the report with the larger usage is more recent."""
    last = max(one, other, key=lambda each: each.resets_at)
    if one.resets_at != other.resets_at:
        return last
    return msgspec.structs.replace(last, usd=max(one.usd, other.usd), tokens=max(one.tokens, other.tokens))


def _provider(one: ProviderStatistics, other: ProviderStatistics) -> ProviderStatistics:
    return ProviderStatistics(
        kind=one.kind,
        breaker=_circuit(one.breaker, other.breaker),
        circuits=_joined(one.circuits, other.circuits, _circuit),
        attempts=_added(one.attempts, other.attempts),
        unpriced=one.unpriced + other.unpriced,
        models=_joined(one.models, other.models, _use),
        attempt_seconds=_spread(one.attempt_seconds, other.attempt_seconds),
        first_token_seconds=_spread(one.first_token_seconds, other.first_token_seconds),
        limits=_limits(one.limits, other.limits),
    )


def _circuit(one: CircuitState, other: CircuitState) -> CircuitState:
    return min(one, other, key=_WORST_CIRCUIT.index)


def _use(one: ModelUse, other: ModelUse) -> ModelUse:
    return ModelUse(
        input_tokens=one.input_tokens + other.input_tokens,
        output_tokens=one.output_tokens + other.output_tokens,
        cost=_sum(one.cost, other.cost),
    )


def _spread(one: LatencyDistribution | None, other: LatencyDistribution | None) -> LatencyDistribution | None:
    if one is None or other is None:
        return one or other
    counts = tuple(a + b for a, b in zip(one.counts, other.counts, strict=True))
    return LatencyDistribution(bounds=one.bounds, counts=counts, total=one.total + other.total)


def _limits(one: LimitStatistics | None, other: LimitStatistics | None) -> LimitStatistics | None:
    """Combine two reports about shared limits: the report with less left is more recent."""
    if one is None or other is None:
        return one or other
    return LimitStatistics(
        in_flight=one.in_flight + other.in_flight,
        waiting=one.waiting + other.waiting,
        requests_left=_least(one.requests_left, other.requests_left),
        tokens_left=_least(one.tokens_left, other.tokens_left),
        held_s=max(one.held_s, other.held_s),
    )


def _caller(one: CallerStatistics, other: CallerStatistics) -> CallerStatistics:
    return CallerStatistics(
        requests=one.requests + other.requests,
        tokens=one.tokens + other.tokens,
        cost=one.cost + other.cost,
        limits=_limits(one.limits, other.limits),
    )


def _cache(one: CacheStatistics | None, other: CacheStatistics | None) -> CacheStatistics | None:
    if one is None or other is None:
        return one or other
    return CacheStatistics(
        memory=_added_up(one.memory, other.memory),
        file=_shared_tier(one.file, other.file),
        redis=_shared_tier(one.redis, other.redis),
    )


def _shared_tier(one: TierStatistics | None, other: TierStatistics | None) -> TierStatistics | None:
    """Combine two reports about the same file or Redis. Both workers use it, so its size counts once."""
    if one is None or other is None:
        return one or other
    return msgspec.structs.replace(_added_up(one, other), bytes=max(one.bytes, other.bytes))


S = TypeVar("S", TierStatistics, ExplorationStatistics)


def _added_up(one: S, other: S) -> S:
    """Return the sums, field by field."""
    return type(one)(**{name: _sum(getattr(one, name), getattr(other, name)) for name in one.__struct_fields__})


def _added(one: Mapping[K, int], other: Mapping[K, int]) -> dict[K, int]:
    return _joined(one, other, lambda a, b: a + b)


def _joined(one: Mapping[K, V], other: Mapping[K, V], both: Callable[[V, V], V]) -> dict[K, V]:
    """Return all entries; an entry that is in both is combined."""
    joined = {**one, **other}
    return {**joined, **{name: both(one[name], other[name]) for name in one.keys() & other.keys()}}


def _sum(one: Any, other: Any) -> Any:
    """Return the sum of two numbers; either may be unknown."""
    return other if one is None else one if other is None else one + other


def _least(one: int | None, other: int | None) -> int | None:
    return other if one is None else one if other is None else min(one, other)
