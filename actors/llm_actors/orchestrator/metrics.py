"""Counters that only grow: a plain object that the orchestrator writes and any code may read.

All labels come from the configuration or from a closed set, except models: the first `MAX_MODELS` are counted by
name. No counter contains a prompt, a key or the id of a request.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter, defaultdict
from typing import final

from llm_actors.orchestrator.decision_record import AttemptRecord
from llm_actors.run import Run
from llm_protocol.events import Finished
from llm_protocol.failures import Failure, LimitOwner

MAX_MODELS = 200
"""The most models that are counted by name. The others are counted together, as `OTHER`."""

OTHER = "other"
OK = "ok"

REQUEST_SECONDS = (0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 600.0)
FIRST_TOKEN_SECONDS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)


@final
class Histogram:
    """A histogram: the number of values up to each bound, the number above the last bound, and the sum of all."""

    __slots__ = ("bounds", "counts", "total")

    def __init__(self, bounds: tuple[float, ...]) -> None:
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.total = 0.0

    def add(self, value: float) -> None:
        """Add a value."""
        self.counts[bisect_left(self.bounds, value)] += 1
        self.total += value


@final
class Metrics:
    """The counters of one runtime. The docstring of each table names its keys."""

    def __init__(self) -> None:
        self.running = 0
        """Requests in progress. The orchestrator adds each request that it accepts; `end` subtracts it."""
        self.refused: Counter[str] = Counter()
        """Requests that were not accepted, by kind of failure."""
        self.limited: Counter[tuple[str, LimitOwner]] = Counter()
        """Requests that a limit refused, by kind of failure (or the server's error code) and limit owner."""
        self.server: Counter[str] = Counter()
        """Connections and requests that the server refused without passing them to the runtime, by error code."""
        self.requests: Counter[tuple[str, str, str]] = Counter()
        """Requests by type, provider of the response or, after a failure, of the last attempt (empty without an
        attempt), and outcome.
        """
        self.request_seconds: dict[tuple[str, str], Histogram] = defaultdict(lambda: Histogram(REQUEST_SECONDS))
        """Durations of complete responses, by type and provider."""
        self.attempts: Counter[tuple[str, str]] = Counter()
        """Attempts by provider and outcome."""
        self.wires: Counter[tuple[str, str]] = Counter()
        """Attempts by provider and wire."""
        self.attempt_seconds: dict[str, Histogram] = defaultdict(lambda: Histogram(REQUEST_SECONDS))
        """Durations of successful attempts, by provider."""
        self.first_token_seconds: dict[str, Histogram] = defaultdict(lambda: Histogram(FIRST_TOKEN_SECONDS))
        """Times to the first token of streamed attempts, by provider."""
        self.tokens: Counter[tuple[str, str, str]] = Counter()
        """Tokens by provider, model, and input or output; failed attempts included."""
        self.cost: defaultdict[tuple[str, str], float] = defaultdict(float)
        """US dollars by provider and model, as far as prices are known."""
        self.unpriced: Counter[str] = Counter()
        """Attempts that used tokens without a known price, by provider."""
        self.cache: Counter[str] = Counter()
        """Requests by the effect of the cache."""
        self.passthrough: Counter[tuple[str, str]] = Counter()
        """Passthrough requests, by provider and outcome: a class of statuses or a kind of failure."""
        self.late_events = 0
        """Events that a provider delivered after their attempt or run had ended; they were dropped."""
        self.caller_requests: Counter[str] = Counter()
        self.caller_tokens: Counter[str] = Counter()
        self.caller_cost: defaultdict[str, float] = defaultdict(float)
        self._models: set[tuple[str, str]] = set()

    def refuse(self, failure: Failure) -> None:
        """Count a request that was not accepted."""
        self.refused[failure.kind.value] += 1
        self._count_limit(failure)

    def refuse_in_server(self, code: str, *, is_limit: bool) -> None:
        """Count a request that the server refused; ``is_limit``: because of a limit of the server."""
        self.server[code] += 1
        if is_limit:
            self.limited[code, "server"] += 1

    def _count_limit(self, failure: Failure) -> None:
        if failure.limited_by is not None:
            self.limited[failure.kind.value, failure.limited_by] += 1

    def drop_late_event(self) -> None:
        """Count an event that was dropped because it arrived after the end."""
        self.late_events += 1

    def end(self, run: Run) -> None:
        """Count a request that has ended."""
        self.running -= 1
        end = run.log.end
        if end is None or end.response is None:
            return
        response, kind = end.response, str(run.request.request_type)
        outcome = OK
        if not isinstance(end, Finished):
            outcome = end.failure.kind.value
            self._count_limit(end.failure)
        self.requests[kind, response.provider, outcome] += 1
        self.caller_requests[run.request.caller] += 1
        self.cache[str(response.decision.get("cache", "off"))] += 1
        if outcome == OK:
            self.request_seconds[kind, response.provider].add(response.processing_time_ms / 1000)

    def attempt(self, made: AttemptRecord, caller: str, *, stream: bool) -> None:
        """Count an attempt. The time to the first token is counted only with ``stream``: for a response that is not
        streamed, it has no meaning.
        """
        provider, usage = made.provider, made.usage
        self.attempts[provider, made.outcome] += 1
        if made.wire:
            self.wires[provider, made.wire] += 1
        if made.outcome == OK:
            self.attempt_seconds[provider].add(made.duration_ms / 1000)
        if stream and made.first_token_ms is not None:
            self.first_token_seconds[provider].add(made.first_token_ms / 1000)
        if usage is None:
            return
        model = self.label(provider, made.model)
        self.tokens[provider, model, "input"] += usage.input_tokens
        self.tokens[provider, model, "output"] += usage.output_tokens
        self.caller_tokens[caller] += usage.total_tokens
        if made.cost is None:
            self.unpriced[provider] += 1
        else:
            self.cost[provider, model] += made.cost
            self.caller_cost[caller] += made.cost

    def passed_through(self, provider: str, outcome: str, caller: str) -> None:
        """Count a passthrough request that has ended."""
        self.passthrough[provider, outcome] += 1
        self.caller_requests[caller] += 1

    def label(self, provider: str, model: str) -> str:
        """Return the label under which ``model`` is counted."""
        if (provider, model) not in self._models:
            if len(self._models) >= MAX_MODELS:
                return OTHER
            self._models.add((provider, model))
        return model
