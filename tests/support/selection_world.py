"""A world in which the real `Selector` chooses: scripted deployments on a virtual clock, without any I/O.

A deployment answers after ``fixed_s + tokens * per_token_s``, times noise; both may change with time. Requests arrive
at random. What a request loses by the choice is known, because the world knows every deployment's true mean.
"""

from __future__ import annotations

import heapq
from bisect import bisect_right
from collections.abc import Sequence
from math import exp
from random import Random
from typing import NamedTuple

from llm_actors.catalog import Candidate
from llm_actors.selector import Observed, Selector
from llm_protocol.policy import Select
from llm_protocol.requests import RequestType
from llm_protocol.response import Usage

NOISE = 0.3
"""The standard deviation of a time's logarithm."""

OUTLIERS = 0.01
"""The share of answers that take `OUTLIER_FACTOR` times as long."""

OUTLIER_FACTOR = 4.0

PROMPT_TOKENS = 1_000
MEAN_TOKENS = 200


class Speed(NamedTuple):
    """From ``at`` on, in seconds: how long an answer takes before and for each token."""

    at: float
    fixed_s: float
    per_token_s: float


class Deployment(NamedTuple):
    """One deployment and how fast it is when. ``speeds`` are in the order of time, the first at 0."""

    name: str
    speeds: tuple[Speed, ...]

    @property
    def candidate(self) -> Candidate:
        """Its name for the selector."""
        return Candidate(self.name, "m")

    def mean_s(self, now: float, tokens: int) -> float:
        """How long it takes on average to answer with so many tokens, when asked at ``now``."""
        speed = self.speeds[bisect_right(self.speeds, now, key=lambda each: each.at) - 1]
        return speed.fixed_s + tokens * speed.per_token_s


class Request(NamedTuple):
    """What became of one request: when it came, who answered, how long that and the best take on average."""

    at: float
    chosen: str
    mean_s: float
    best: str
    best_s: float
    explored: bool


class History(NamedTuple):
    """A run of the world."""

    requests: list[Request]
    selector: Selector

    def between(self, begin: float, end: float) -> list[Request]:
        """The requests that came in this time."""
        return [each for each in self.requests if begin <= each.at < end]

    def regret(self, begin: float, end: float) -> float:
        """By how much they took longer on average than with the best choice for each, as a share of that."""
        those = self.between(begin, end)
        return sum(each.mean_s for each in those) / sum(each.best_s for each in those) - 1

    def share(self, name: str, begin: float, end: float) -> float:
        """The share of the requests that ``name`` answered."""
        those = self.between(begin, end)
        return sum(each.chosen == name for each in those) / max(1, len(those))

    def seconds_until_majority(self, name: str, since: float, *, of: int = 5) -> float:
        """From ``since`` until more than half of the latest ``of`` requests go to ``name``."""
        those = [each for each in self.requests if each.at >= since]
        for index in range(of - 1, len(those)):
            if sum(each.chosen == name for each in those[index + 1 - of : index + 1]) * 2 > of:
                return those[index].at - since
        return float("inf")


def steady(name: str, latency_s: float) -> Deployment:
    """Always as fast: an answer of `MEAN_TOKENS` takes ``latency_s``."""
    return Deployment(name, (speed(0.0, latency_s),))


def speed(at: float, latency_s: float) -> Speed:
    """An answer of `MEAN_TOKENS` takes ``latency_s``, a quarter of it before the first token."""
    return Speed(at, latency_s / 4, latency_s * 3 / 4 / MEAN_TOKENS)


def run(
    deployments: Sequence[Deployment],
    *,
    rate: float,
    seconds: float,
    seed: int,
    select: Select = "fastest",
    stream: bool = True,
    burst: int = 0,
) -> History:
    """``rate`` requests a second for so many ``seconds``, after a ``burst`` of requests at once."""
    random, selector = Random(seed), Selector(_price)
    by_candidate = {each.candidate: each for each in deployments}
    candidates = list(by_candidate)
    under_way: list[tuple[float, int, bool]] = []  # when something is heard of which request; whether that is its end
    answers: dict[int, Observed] = {}
    requests: list[Request] = []
    now = 0.0 if burst else random.expovariate(rate)
    while now < seconds:
        while under_way and under_way[0][0] <= now:
            at, number, is_end = heapq.heappop(under_way)
            answer = answers[number]
            if is_end:
                selector.stream_ended(answer.candidate, number)
                selector.observe(answers.pop(number), random.random())
            else:
                selector.stream_began(answer.candidate, number, at, began=answer.began)
        tokens = max(1, round(random.expovariate(1 / MEAN_TOKENS)))
        usage = Usage(input_tokens=PROMPT_TOKENS, output_tokens=MEAN_TOKENS)
        ranking = selector.rank(candidates, RequestType.CHAT, now=now, draw=random.random(), select=select, usage=usage)
        chosen = by_candidate[ranking.best()]
        assert selector.admit(chosen.candidate, now, usage=usage) is None
        means = {each.name: each.mean_s(now, tokens) for each in deployments}
        best = min(means, key=lambda name: means[name])
        explored = ranking.choices[0].reason.startswith("explored")
        requests.append(Request(now, chosen.name, means[chosen.name], best, means[best], explored))
        noise = exp(random.gauss(-NOISE * NOISE / 2, NOISE)) * (OUTLIER_FACTOR if random.random() < OUTLIERS else 1.0)
        first = chosen.mean_s(now, 0) * noise
        ended = now + means[chosen.name] * noise
        answers[len(requests)] = Observed(
            candidate=chosen.candidate, request_type=RequestType.CHAT, began=now, ended=ended, stream=stream,
            first_token_s=first if stream else None,
            usage=Usage(input_tokens=PROMPT_TOKENS, output_tokens=tokens),
        )  # fmt: skip
        if stream:
            heapq.heappush(under_way, (now + first, len(requests), False))
        heapq.heappush(under_way, (ended, len(requests), True))
        if len(requests) >= burst:
            now += random.expovariate(rate)
    return History(requests, selector)


def _price(provider: str, model: str, usage: Usage) -> float:
    return usage.total_tokens / 1e6
