"""The metrics for Prometheus: counters of the runtime, and the state of every actor at the time of the scrape.

prometheus-client formats them, and is imported at the first scrape. Until then, counting costs a few dictionary entries
per request.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from importlib.metadata import PackageNotFoundError, version
from itertools import accumulate
from typing import TYPE_CHECKING, NamedTuple, TypeVar, final

import trio

from llm_actors.cache import CacheStatistics
from llm_actors.cache import snapshot as cache_snapshot
from llm_actors.kernel import ChildStatus, TreeNode
from llm_actors.limiter import LimiterStatistics
from llm_actors.limiter import snapshot as limiter_snapshot
from llm_actors.orchestrator import Histogram, Metrics, Services
from llm_actors.selector import CircuitState, ExplorationStatistics

if TYPE_CHECKING:
    from prometheus_client import Metric

PREFIX = "llm_runtime_"

SESSIONS = "sessions"
"""The branch of the actor tree whose children are connections. They are counted, not listed."""


K = TypeVar("K", bound="str | tuple[str, ...]")


class MetricsSnapshot(NamedTuple):
    """The values of one scrape. A value that was not available in time is ``None``, and its metrics are omitted."""

    metrics: Metrics
    tree: TreeNode
    breakers: Mapping[str, CircuitState]
    """The states of providers' circuit breakers."""
    circuits: Mapping[tuple[str, str], CircuitState]
    """Circuits of deployments, by provider and model, that are not closed."""
    limiter: LimiterStatistics | None
    cache: CacheStatistics | None
    exploration: ExplorationStatistics = ExplorationStatistics()
    redis: bool = False
    """Whether ``[redis]`` is configured."""


def take_snapshot(services: Services, tree: TreeNode, providers: Iterable[str], *, redis: bool) -> MetricsSnapshot:
    """Return the current values. Waits for no actor."""
    now, known = trio.current_time(), services.selector.circuits
    return MetricsSnapshot(
        services.metrics,
        tree,
        breakers={name: known.provider(name, now).state for name in providers},
        circuits={(each.provider, each.model): state for each, state in known.not_closed(now)},
        limiter=limiter_snapshot(services.limiter),
        cache=cache_snapshot(services.cache),
        exploration=services.selector.exploration(),
        redis=redis,
    )


def exposition(snapshot: MetricsSnapshot) -> bytes:
    """Return the snapshot in Prometheus' text format, with the metrics of the process."""
    from prometheus_client import ProcessCollector

    return written([*_families(snapshot), *ProcessCollector(registry=None).collect()])


def written(families: Iterable[Metric]) -> bytes:
    """Return ``families`` in Prometheus' text format."""
    from prometheus_client import generate_latest

    return generate_latest(_Registry(families))


@final
class _Registry:
    """The part of a registry's interface that prometheus-client needs."""

    def __init__(self, families: Iterable[Metric]) -> None:
        self._families = families

    def collect(self) -> Iterable[Metric]:
        return self._families


def _families(snapshot: MetricsSnapshot) -> Iterator[Metric]:
    yield from _requests(snapshot.metrics)
    yield from _attempts(snapshot.metrics)
    yield from _callers(snapshot.metrics)
    yield from _exploration(snapshot.exploration)
    yield from _providers(snapshot)
    yield from _actors(snapshot.tree)
    if snapshot.cache is not None:
        yield from _cache(snapshot.cache)


def _requests(metrics: Metrics) -> Iterator[Metric]:
    yield _gauge("info", "The version of llm-runtime.", {_version(): 1.0}, "version")
    yield _counter("server_refused", "Requests and connections that the server refused.", metrics.server, "code")
    yield _gauge("requests_running", "Requests in progress.", {(): metrics.running})
    yield _counter("requests_refused", "Requests that were not accepted.", metrics.refused, "reason")
    limited = {(owner, reason): count for (reason, owner), count in metrics.limited.items()}
    yield _counter("requests_limited", "Requests that a limit refused, by limit owner.", limited, "owner", "reason")
    yield _counter("requests", "Requests that have ended.", metrics.requests, "type", "provider", "outcome")
    yield _histogram(
        "request_seconds", "Seconds that a successful request took.", metrics.request_seconds, "type", "provider"
    )
    yield _counter("cache_requests", "Requests that have ended, by what the cache did.", metrics.cache, "outcome")


def _version() -> str:
    try:
        return version("llm-runtime")
    except PackageNotFoundError:
        return "unknown"  # run from a checkout, without being installed


def _attempts(metrics: Metrics) -> Iterator[Metric]:
    yield _counter("attempts", "Attempts at a provider.", metrics.attempts, "provider", "outcome")
    yield _counter("wire_attempts", "Attempts at a provider, by API.", metrics.wires, "provider", "wire")
    yield _histogram("attempt_seconds", "Seconds that a successful attempt took.", metrics.attempt_seconds, "provider")
    yield _histogram(
        "first_token_seconds",
        "Seconds from the start of a streamed attempt to its first token.",
        metrics.first_token_seconds,
        "provider",
    )
    yield _counter(
        "tokens", "Tokens of attempts, failed ones included.", metrics.tokens, "provider", "model", "direction"
    )
    yield _counter(
        "cost_dollars", "Cost in US dollars of the attempts whose price is known.", metrics.cost, "provider", "model"
    )
    yield _counter("unpriced_attempts", "Attempts whose price is unknown.", metrics.unpriced, "provider")
    passed = "Requests passed through to a provider."
    yield _counter("passthrough_requests", passed, metrics.passthrough, "provider", "outcome")
    yield _counter("late_events", "Events dropped because their run had ended.", {(): metrics.late_events})


def _callers(metrics: Metrics) -> Iterator[Metric]:
    yield _counter("caller_requests", "Requests that have ended, by key.", metrics.caller_requests, "caller")
    yield _counter("caller_tokens", "Tokens, by key.", metrics.caller_tokens, "caller")
    yield _counter(
        "caller_cost_dollars",
        "Cost in US dollars of the attempts whose price is known, by key.",
        metrics.caller_cost,
        "caller",
    )


def _exploration(exploration: ExplorationStatistics) -> Iterator[Metric]:
    yield _counter(
        "ranked_requests", "Requests whose candidates were ordered by measurements.", {(): exploration.ranked}
    )
    yield _counter(
        "explored_requests", "Ranked requests that were sent to a candidate to measure it.", {(): exploration.explored}
    )
    cost = {(): exploration.excess}
    yield _counter(
        "exploration_cost",
        "Sum of the expected excesses of explored requests over the best candidate; 1.0 is the time or cost of one.",
        cost,
    )


def _providers(snapshot: MetricsSnapshot) -> Iterator[Metric]:
    states = {
        (name, each.value): float(each is state) for name, state in snapshot.breakers.items() for each in CircuitState
    }
    yield _gauge(
        "breaker_state",
        "1 for the current state of a provider's circuit breaker, 0 for its other states.",
        states,
        "provider",
        "state",
    )
    yield _gauge("circuit_open", "1 while a deployment's circuit is not closed.", _open(snapshot), "provider", "model")
    if snapshot.limiter is None:
        return
    known = snapshot.limiter.providers
    in_flight = {name: each.in_flight for name, each in known.items()}
    yield _gauge("limited_in_flight", "Attempts in progress at a provider with limits.", in_flight, "provider")
    waiting = {name: each.waiting for name, each in known.items()}
    yield _gauge("limited_waiting", "Requests waiting for a provider's limits.", waiting, "provider")
    own = {name: each.waiting for name, each in snapshot.limiter.callers.items()}
    yield _gauge("caller_limited_waiting", "Requests waiting for their caller's limits.", own, "caller")
    held = {name: each.held_s for name, each in known.items()}
    yield _gauge("limited_held_seconds", "Seconds until the hold of a provider ends.", held, "provider")
    budgets = snapshot.limiter.budgets
    used = {name: each.used for name, each in budgets.items()}
    yield _gauge("budget_used_ratio", "Fraction of a budget spent or reserved in its window.", used, "budget")
    resets = {name: each.resets_at for name, each in budgets.items()}
    yield _gauge("budget_reset_seconds", "When a budget's window ends, in seconds since the epoch.", resets, "budget")
    if snapshot.redis:
        yield _gauge("limits_shared", "1 while limits are shared through Redis.", {(): snapshot.limiter.shared})


def _open(snapshot: MetricsSnapshot) -> Mapping[tuple[str, str], float]:
    """Return the number of circuits that are not closed, by provider and label of the model. Models of a provider that
    have no label of their own share one.
    """
    found: Counter[tuple[str, str]] = Counter()
    for provider, model in snapshot.circuits:
        found[provider, snapshot.metrics.label(provider, model)] += 1
    return {key: float(count) for key, count in found.items()}


def _actors(tree: TreeNode) -> Iterator[Metric]:
    actors = dict(_walk(tree, ""))
    up = {path: node.status is ChildStatus.RUNNING for path, node in actors.items()}
    yield _gauge("actor_up", "1 while an actor runs.", up, "actor")
    restarts = {path: node.restarts for path, node in actors.items()}
    yield _counter("actor_restarts", "Restarts of an actor.", restarts, "actor")
    depth = {path: node.mailbox.depth for path, node in actors.items()}
    yield _gauge("mailbox_depth", "Messages in an actor's mailbox.", depth, "actor")
    dead = {path: node.mailbox.dead_letters for path, node in actors.items()}
    yield _counter("dead_letters", "Messages sent to an actor that had ended.", dead, "actor")
    sessions = next((child for child in tree.children if child.name == SESSIONS), None)
    if sessions is not None:
        yield _gauge("connections", "Connections of clients.", {(): len(sessions.children)})


def _walk(node: TreeNode, above: str) -> Iterator[tuple[str, TreeNode]]:
    path = f"{above}/{node.name}" if above else node.name
    yield path, node
    if node.name != SESSIONS:
        for child in node.children:
            yield from _walk(child, path)


def _cache(cache: CacheStatistics) -> Iterator[Metric]:
    places = {"memory": cache.memory, "file": cache.file, "redis": cache.redis}
    tiers = {name: tier for name, tier in places.items() if tier is not None}
    yield _gauge("cache_bytes", "Bytes of cached entries.", {name: tier.bytes for name, tier in tiers.items()}, "tier")
    evicted = {name: tier.evicted for name, tier in tiers.items()}
    yield _counter("cache_evicted", "Cache entries that were evicted.", evicted, "tier")
    errors = {name: tier.errors for name, tier in tiers.items()}
    yield _counter("cache_errors", "Damaged cache entries, and failed reads and writes.", errors, "tier")


def _gauge(name: str, what: str, values: Mapping[K, float], *labels: str) -> Metric:
    from prometheus_client.core import GaugeMetricFamily

    family = GaugeMetricFamily(PREFIX + name, what, labels=labels)
    for key, value in values.items():
        family.add_metric(_labels(key), value)
    return family


def _counter(name: str, what: str, values: Mapping[K, float], *labels: str) -> Metric:
    from prometheus_client.core import CounterMetricFamily

    family = CounterMetricFamily(PREFIX + name, what, labels=labels)
    for key, value in values.items():
        family.add_metric(_labels(key), value)
    return family


def _histogram(name: str, what: str, values: Mapping[K, Histogram], *labels: str) -> Metric:
    from prometheus_client.core import HistogramMetricFamily

    family = HistogramMetricFamily(PREFIX + name, what, labels=labels)
    for key, each in values.items():
        bounds = (*map(str, each.bounds), "+Inf")
        family.add_metric(_labels(key), list(zip(bounds, accumulate(each.counts), strict=True)), each.total)
    return family


def _labels(key: str | tuple[str, ...]) -> tuple[str, ...]:
    return (key,) if isinstance(key, str) else key
