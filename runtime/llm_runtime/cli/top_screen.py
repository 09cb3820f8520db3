"""The screen of ``llm-runtime top``: lines of text, from one or two snapshots of a daemon's statistics. Pure."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator, Mapping

from llm_actors.kernel import ChildStatus, TreeNode
from llm_actors.limiter import LimitStatistics
from llm_actors.selector import CircuitState
from llm_protocol.failures import RULES
from llm_runtime.cli.table import Column, Row, cut, table
from llm_runtime.cli.terminal import harmless
from llm_runtime.statistics import LatencyDistribution, ProviderStatistics, SharedLimitsStatistics, Statistics

_NOT_FAILED = ("ok", "cancelled")
_SHARING = {
    SharedLimitsStatistics.OFF: "limits not shared",
    SharedLimitsStatistics.ON: "limits shared through Redis",
    SharedLimitsStatistics.LOST: "limits NOT shared: Redis does not respond",
    None: "the limiter does not respond",
}
_PROVIDERS = (
    *(Column("PROVIDER"), Column("CIRCUIT"), Column("IN\nPROGRESS", 2), Column("WAITING", 3), Column("OK", 4)),
    *(Column("FAILED", 1), Column("COST", 5), Column("RESPONSE\np50 p95", 6)),
    *(Column("FIRST TOKEN\np50 p95", 7), Column("TOKENS\nin out", 8)),
)
_FAILURES = (Column("FAILURE"), Column("REQUESTS"), Column("ATTEMPTS"))
_CALLERS = (
    *(Column("CALLER"), Column("REQUESTS", 1), Column("TOKENS", 2), Column("COST"), Column("IN\nPROGRESS", 3)),
    *(Column("WAITING", 4), Column("LEFT THIS MINUTE\nrequests tokens", 5)),
)
_BUDGETS = (
    *(Column("BUDGET"), Column("USED"), Column("DOLLARS", 1), Column("TOKENS", 2), Column("RESETS IN", 3)),
    Column("PAYS FOR", 4, words=True),
)
_ACTORS = (Column("ACTOR", from_end=True), Column("STATUS"), Column("RESTARTS", 1), Column("LAST CRASH", words=True))

_CLIENT_ERRORS = frozenset(kind.value for kind, rule in RULES.items() if rule.client_error)


def screen(now: Statistics, before: Statistics, columns: int, *, wall: float | None = None) -> list[str]:
    """Return the lines, none wider than ``columns``. Rates are computed from the growth since ``before``. ``wall``:
    seconds since the epoch, by default of the wall clock.
    """
    tables = (
        (_PROVIDERS, [_provider(name, each, own_only=now.own_only) for name, each in now.providers.items()]),
        (_FAILURES, _failures(now)),
        (_CALLERS, _callers(now)),
        (_BUDGETS, _budgets(now, time.time() if wall is None else wall)),
        (_ACTORS, list(_actors(now.tree))),
    )
    lines = [cut(line, columns) for line in _head(now, before)]
    for heads, rows in tables:
        if rows or heads is _PROVIDERS:
            lines += ["", *table(heads, [[harmless(cell) for cell in row] for row in rows], columns)]
    return lines


def _head(now: Statistics, before: Statistics) -> Iterator[str]:
    connections = "" if now.connections is None else f"{_counted(now.connections, 'connection')}, "
    own = ". This key sees only its own usage." if now.own_only else ""
    yield f"up {_lasting(now.uptime_s)}, {connections}{_SHARING[now.sharing]}{own}"
    lasted = now.uptime_s - before.uptime_s
    parts = [_counted(_ended(now), "request") if now.own_only else f"{now.running} running"]
    if lasted > 0:
        # A worker that began anew, or a provider that was removed, makes the sums smaller.
        parts.append(f"{max(0, _ended(now) - _ended(before)) / lasted:.1f} requests/s")
        parts.append(f"{max(0, _tokens(now) - _tokens(before)) / lasted:.0f} tokens/s")
    if not now.own_only:
        parts.append(f"{_failed(_outcomes(now)) - _by_own_limits(now)} failed")
        if mistakes := _mistakes(_outcomes(now)) + _by_own_limits(now):
            parts.append(_counted(mistakes, "client error"))
    yield ", ".join([*parts, _dollars(_cost(now))])


def _counted(count: int, what: str) -> str:
    return f"{count} {what}{'' if count == 1 else 's'}"


def _outcomes(statistics: Statistics) -> Counter[str]:
    found = Counter(statistics.refused)
    for outcomes in statistics.requests.values():
        found.update(outcomes)
    return found


def _failed(outcomes: Mapping[str, int]) -> int:
    """Return the number of requests that failed, without those that failed because of a mistake of the client."""
    return sum(count for kind, count in outcomes.items() if kind not in _NOT_FAILED and kind not in _CLIENT_ERRORS)


def _mistakes(outcomes: Mapping[str, int]) -> int:
    return sum(count for kind, count in outcomes.items() if kind not in _NOT_FAILED and kind in _CLIENT_ERRORS)


def _by_own_limits(statistics: Statistics) -> int:
    """Return the number of requests that the caller's own limit refused. Their failure kind does not show whose limit
    it was.
    """
    limited = statistics.limited.items()
    return sum(owners.get("caller", 0) for kind, owners in limited if kind not in _CLIENT_ERRORS)


def _ended(statistics: Statistics) -> int:
    if statistics.own_only:
        return sum(each.requests for each in statistics.callers.values())
    return sum(_outcomes(statistics).values())


def _tokens(statistics: Statistics) -> int:
    if statistics.own_only:
        return sum(each.tokens for each in statistics.callers.values())
    models = (model for each in statistics.providers.values() for model in each.models.values())
    return sum(model.input_tokens + model.output_tokens for model in models)


def _cost(statistics: Statistics) -> float:
    if statistics.own_only:
        return sum(each.cost for each in statistics.callers.values())
    return sum(model.cost or 0.0 for each in statistics.providers.values() for model in each.models.values())


def _provider(name: str, statistics: ProviderStatistics, *, own_only: bool) -> Row:
    used, limits = statistics.models.values(), statistics.limits
    cost = sum(each.cost or 0.0 for each in used)
    spent = "unknown" if statistics.unpriced and not cost else _dollars(cost) + (" + ?" if statistics.unpriced else "")
    tokens = f"{_short(sum(each.input_tokens for each in used))} {_short(sum(each.output_tokens for each in used))}"
    return (
        name,
        _circuit(statistics),
        "-" if limits is None else str(limits.in_flight),
        "-" if limits is None else str(limits.waiting),
        "-" if own_only else str(statistics.attempts.get("ok", 0)),
        "-" if own_only else str(_failed(statistics.attempts)),
        "-" if own_only else spent,
        _quantiles(statistics.attempt_seconds),
        _quantiles(statistics.first_token_seconds),
        "-" if own_only else tokens,
    )


def _circuit(statistics: ProviderStatistics) -> str:
    if statistics.breaker is not CircuitState.CLOSED:
        return statistics.breaker.value
    if statistics.circuits:
        return f"{_counted(len(statistics.circuits), 'model')} open"
    return (
        f"held {statistics.limits.held_s:.0f} s"
        if statistics.limits is not None and statistics.limits.held_s
        else "closed"
    )


def _failures(statistics: Statistics) -> list[Row]:
    requests, calls = _outcomes(statistics), Counter[str]()
    for provider in statistics.providers.values():
        calls.update(provider.attempts)
    both = requests + calls
    kinds = [kind for kind, count in both.most_common() if count and kind not in _NOT_FAILED]
    return [(_with_fault(kind), str(requests[kind]), str(calls[kind])) for kind in kinds]


def _with_fault(kind: str) -> str:
    return f"{kind} (client)" if kind in _CLIENT_ERRORS else kind


def _callers(statistics: Statistics) -> list[Row]:
    return [
        (name or "(without a key)", str(use.requests), _short(use.tokens), _dollars(use.cost), *_limits(use.limits))
        for name, use in sorted(statistics.callers.items(), key=lambda each: -each[1].requests)
    ]


def _limits(limits: LimitStatistics | None) -> Row:
    if limits is None:
        return "-", "-", "-"
    left = ("-" if each is None else _short(int(each)) for each in (limits.requests_left, limits.tokens_left))
    return str(limits.in_flight), str(limits.waiting), " ".join(left)


def _budgets(statistics: Statistics, wall: float) -> list[Row]:
    return [
        (
            name,
            f"{100 * max(_share(each.usd, each.usd_limit), _share(each.tokens, each.tokens_limit)):.0f} %",
            _dollars(each.usd) + ("" if each.usd_limit is None else f" of {_dollars(each.usd_limit)}"),
            _short(each.tokens) + ("" if each.tokens_limit is None else f" of {_short(each.tokens_limit)}"),
            _lasting(max(0.0, each.resets_at - wall)),
            ", ".join([*(each.callers or ["all keys"]), *(f"route {route}" for route in each.routes)]),
        )
        for name, each in statistics.budgets.items()
    ]


def _share(used: float, limit: float | None) -> float:
    return used / limit if limit else 0.0


def _actors(node: TreeNode, path: str = "") -> Iterator[Row]:
    """Return the actors that an operator should look at: those that are not running or have been restarted."""
    name = f"{path}/{node.name}" if path else node.name
    if node.status is not ChildStatus.RUNNING or node.restarts:
        yield name, node.status.value, str(node.restarts), node.last_crash
    for child in node.children:
        yield from _actors(child, name)


def _quantiles(statistics: LatencyDistribution | None) -> str:
    return (
        "-"
        if statistics is None or not sum(statistics.counts)
        else " ".join(_quantile(share, statistics) for share in (0.5, 0.95))
    )


def _quantile(share: float, statistics: LatencyDistribution) -> str:
    """Return the approximate value that the fraction ``share`` of all values does not exceed. Values are assumed to be
    spread evenly within a bucket.
    """
    rank, low = share * sum(statistics.counts), 0.0
    for bound, count in zip(statistics.bounds, statistics.counts, strict=False):
        if count and rank <= count:
            return _seconds(low + (bound - low) * rank / count)
        rank, low = rank - count, bound
    return f">{low:.0f}s"


def _seconds(value: float) -> str:
    return f"{value * 1000:.0f}ms" if value < 1 else f"{value:.1f}s" if value < 10 else f"{value:.0f}s"


def _short(count: int) -> str:
    if count < 10_000:
        return str(count)
    return f"{count / 1e9:.3g}G" if count >= 1e9 else f"{count / 1e6:.3g}M" if count >= 1e6 else f"{count / 1e3:.3g}K"


def _dollars(value: float) -> str:
    return "$0" if not value else "<$0.01" if value < 0.01 else f"${value:.2f}"


def _lasting(seconds: float) -> str:
    minutes = int(seconds) // 60
    if minutes >= 1440:
        return f"{minutes // 1440} d {minutes // 60 % 24} h"
    return (
        f"{minutes // 60} h {minutes % 60} min"
        if minutes >= 60
        else f"{minutes} min"
        if minutes
        else f"{seconds:.0f} s"
    )
