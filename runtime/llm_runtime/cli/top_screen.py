"""What ``llm-runtime top`` shows: lines of text, made of one or two moments of a daemon's statistics. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence

from llm_actors.kernel import ChildStatus, TreeNode
from llm_actors.selector import CircuitState
from llm_runtime.cli.terminal import harmless
from llm_runtime.statistics import LatencyDistribution, ProviderStatistics, SharedLimitsStatistics, Statistics

NAME_COLUMNS = 28
"""The most columns that a name takes."""

_NOT_FAILED = ("ok", "cancelled")
_SHARING = {
    SharedLimitsStatistics.OFF: "limits not shared",
    SharedLimitsStatistics.ON: "limits shared through Redis",
    SharedLimitsStatistics.LOST: "limits NOT shared: Redis does not answer",
    None: "the limiter does not answer",
}
_PROVIDERS = (
    *("PROVIDER", "CIRCUIT", "IN FLIGHT", "WAITING", "OK", "FAILED"),
    *("COST", "ANSWER p50 p95", "FIRST TOKEN p50 p95", "TOKENS in out"),
)
"""A narrow terminal cuts them at the right, so what an operator acts on stands at the left."""
_CALLERS = ("CALLER", "REQUESTS", "TOKENS", "COST", "IN FLIGHT", "WAITING")

Row = Sequence[str]


def screen(now: Statistics, before: Statistics, columns: int) -> list[str]:
    """The lines, none wider than ``columns``. Rates are by what grew since ``before``."""
    lines = [*_head(now, before), ""]
    lines += _table(_PROVIDERS, [_provider(name, each) for name, each in now.providers.items()])
    for heads, rows in ((("FAILURE", "REQUESTS", "CALLS"), _failures(now)), (_CALLERS, _callers(now))):
        if rows:
            lines += ["", *_table(heads, rows)]
    if actors := list(_actors(now.tree)):
        lines += ["", *_table(("ACTOR", "STATUS", "RESTARTS", "LAST CRASH"), actors)]
    return [harmless(line)[:columns].rstrip() for line in lines]


def _head(now: Statistics, before: Statistics) -> Iterator[str]:
    lasted = now.uptime_s - before.uptime_s
    ended = sum(_outcomes(now).values()) - sum(_outcomes(before).values())
    tokens = _tokens(now) - _tokens(before)
    rates = f"{ended / lasted:.1f} requests/s, {tokens / lasted:.0f} tokens/s, " if lasted > 0 else ""
    failed = sum(count for kind, count in _outcomes(now).items() if kind not in _NOT_FAILED)
    cost = sum(model.cost or 0.0 for each in now.providers.values() for model in each.models.values())
    yield f"up {_lasting(now.uptime_s)}, {now.running} running, {rates}{failed} failed, {_dollars(cost)}"
    plural = "" if now.connections == 1 else "s"
    connections = "" if now.connections is None else f"{now.connections} connection{plural}, "
    yield f"{connections}{_SHARING[now.sharing]}"


def _outcomes(statistics: Statistics) -> Counter[str]:
    found = Counter(statistics.refused)
    for outcomes in statistics.requests.values():
        found.update(outcomes)
    return found


def _tokens(statistics: Statistics) -> int:
    return sum(
        model.input_tokens + model.output_tokens
        for each in statistics.providers.values()
        for model in each.models.values()
    )


def _provider(name: str, statistics: ProviderStatistics) -> Row:
    used, limits = statistics.models.values(), statistics.limits
    cost = sum(each.cost or 0.0 for each in used)
    return (
        name,
        _circuit(statistics),
        "-" if limits is None else str(limits.in_flight),
        "-" if limits is None else str(limits.waiting),
        str(statistics.attempts.get("ok", 0)),
        str(sum(count for kind, count in statistics.attempts.items() if kind not in _NOT_FAILED)),
        "unknown" if statistics.unpriced and not cost else _dollars(cost) + (" + ?" if statistics.unpriced else ""),
        _quantiles(statistics.attempt_seconds),
        _quantiles(statistics.first_token_seconds),
        f"{_short(sum(each.input_tokens for each in used))} {_short(sum(each.output_tokens for each in used))}",
    )


def _circuit(statistics: ProviderStatistics) -> str:
    if statistics.breaker is not CircuitState.CLOSED:
        return statistics.breaker.value
    if statistics.circuits:
        return f"{len(statistics.circuits)} models open"
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
    return [(kind, str(requests[kind]), str(calls[kind])) for kind in kinds]


def _callers(statistics: Statistics) -> list[Row]:
    return [
        (
            name or "(without a key)",
            str(use.requests),
            _short(use.tokens),
            _dollars(use.cost),
            "-" if use.limits is None else str(use.limits.in_flight),
            "-" if use.limits is None else str(use.limits.waiting),
        )
        for name, use in sorted(statistics.callers.items(), key=lambda each: -each[1].requests)
    ]


def _actors(node: TreeNode, path: str = "") -> Iterator[Row]:
    """Those that are not simply running: the others say nothing that an operator can act on."""
    name = f"{path}/{node.name}" if path else node.name
    if node.status is not ChildStatus.RUNNING or node.restarts:
        yield name, node.status.value, str(node.restarts), node.last_crash
    for child in node.children:
        yield from _actors(child, name)


def _table(heads: Row, rows: Sequence[Row]) -> list[str]:
    """The first and the last column stand to the left where they hold words, all others to the right."""
    lines = [heads, *((_cut(first), *rest) for first, *rest in rows)]
    widths = [max(len(row[at]) for row in lines) for at in range(len(heads))]
    words = {0} | ({len(heads) - 1} if heads[-1] == "LAST CRASH" else set())
    return ["  ".join(_padded(cell, widths[at], left=at in words) for at, cell in enumerate(row)) for row in lines]


def _padded(cell: str, width: int, *, left: bool) -> str:
    return cell.ljust(width) if left else cell.rjust(width)


def _cut(name: str) -> str:
    return name if len(name) <= NAME_COLUMNS else f"{name[: NAME_COLUMNS - 1]}…"


def _quantiles(statistics: LatencyDistribution | None) -> str:
    return (
        "-"
        if statistics is None or not sum(statistics.counts)
        else " ".join(_quantile(share, statistics) for share in (0.5, 0.95))
    )


def _quantile(share: float, statistics: LatencyDistribution) -> str:
    """About which value that share is below; the histogram's buckets are taken as even."""
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
