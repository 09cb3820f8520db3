"""Who is asked, and who may be."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from itertools import pairwise

import pytest

from llm_actors.catalog import Candidate
from llm_actors.selector import CircuitState, Ranking, Selector, Weights
from llm_actors.selector.circuits import MAX_CIRCUITS
from llm_actors.selector.selector import MAX_REMEMBERED
from llm_protocol.errors import LLMClientError, ModelNotFoundError, OverloadedError, RateLimitError
from llm_protocol.failures import FailureKind
from llm_protocol.policy import Select
from llm_protocol.requests import RequestType
from llm_protocol.response import Usage
from support.selecting import A, B, C, cost_of, failure, selector, success

DEAR = Candidate("dear", "m")


def rank(
    made: Selector, candidates: Sequence[Candidate], *, now: float = 1.0, select: Select = "score", draw: float = 0.99
) -> Ranking:
    return made.rank(candidates, RequestType.CHAT, now=now, draw=draw, select=select, explore=False)


def downed(candidate: Candidate, at: float = 0.0) -> Selector:
    """Its breaker has just opened."""
    return selector(*[failure(candidate, at) for _ in range(5)])


# Ranking


def test_model_selector_prefers_the_fast_the_cheap_and_the_available() -> None:
    fast_or_slow = selector(success(B, 0.5, took=0.5), success(DEAR, 0.5, took=2.0))
    assert rank(fast_or_slow, [DEAR, B]).best() == B

    only_price = selector(success(B, 0.5, took=1.0), success(DEAR, 0.5, took=1.0))
    assert rank(only_price, [DEAR, B]).best() == B

    flaky = selector(*[success(each, 0.5) for each in (A, C) for _ in range(8)], *[failure(A, 0.5) for _ in range(4)])
    assert rank(flaky, [A, C]).best() == C


def test_model_selector_follows_the_weights() -> None:
    """A fast dear one and a slow cheap one."""
    made = selector(success(DEAR, 0.5, took=0.5), success(B, 0.5, took=5.0))
    only_speed, only_cost = Weights(performance=1, cost=0, availability=0), Weights(performance=0, cost=1)
    for weights, best in ((only_speed, DEAR), (only_cost, B)):
        assert made.rank([B, DEAR], RequestType.CHAT, now=1.0, draw=0.9, weights=weights, explore=False).best() == best


def test_model_selector_without_any_candidate_raises_a_typed_error() -> None:
    with pytest.raises(ModelNotFoundError, match="no candidate"):
        rank(Selector(cost_of), [])


def test_ranking_reads_only() -> None:
    made = downed(A)
    before = made.known(A), made.circuits.deployment(A, 0.5)
    for now in (0.5, 1.5, 100.0):
        assert rank(made, [A, B], now=now).record() == rank(made, [A, B], now=now).record()
    assert (made.known(A), made.circuits.deployment(A, 0.5)) == before


def test_the_record_is_plain_data_with_scores_reasons_and_unknown_prices() -> None:
    made = selector(success(A, 0.5, took=1.0), *[failure(C, 0.9) for _ in range(5)])
    record = rank(made, [A, B, C]).record()
    assert json.loads(json.dumps(record)) == record
    assert record["select"] == "score"
    assert record["weights"] == {"performance": 0.5, "cost": 0.3, "availability": 0.2}
    first, second, last = record["candidates"]
    assert (first["provider"], first["model"], first["ready"]) == ("a", "m", True)
    assert record["expected_tokens"] == {"input": 1_000, "output": 300}
    assert first["figures"] == {"latency_s": pytest.approx(1.0, rel=0.01), "cost_usd": None, "availability": 1.0}
    assert second["figures"] == {"latency_s": None, "cost_usd": 0.0013, "availability": 1.0}
    assert (last["ready"], last["reason"]) == (False, "circuit open: 5 failures in a row, the last: server_error")
    assert first["score"] == pytest.approx(
        sum(w * t for w, t in zip((0.5, 0.3, 0.2), first["terms"].values(), strict=True))
    )


def test_explain_prints_one_line_for_each_candidate() -> None:
    lines = rank(selector(success(A, 0.5, took=1.0)), [A, B]).lines()
    assert lines[0] == (
        "1. a/m  place 1 by score  (1.00 s, price unknown, 100.0% available; score 0.800: latency 1.00, price 1.00,"
        " unavailability 0.00)"
    )
    assert "not measured, $0.001300" in lines[1]
    resting = rank(downed(A), [A, B], now=0.25).lines()[1]
    assert resting.startswith("2. a/m  circuit open: 5 failures in a row, the last: server_error, for another 0.8 s")


def test_explain_says_that_a_probe_is_ranked_as_if_it_were_available() -> None:
    line = next(line for line in rank(downed(A), [A, B], now=10.0).lines() if "a/m" in line)
    assert "tries whether the deployment has recovered" in line
    assert re.search(r" \d\d?\.\d% available, ranked as 100\.0%; .* unavailability 0\.00\)", line), line


@pytest.mark.parametrize("select", ["order", "cheapest", "weighted", "sticky"])
def test_other_orders_are_not_disturbed_by_exploring(select: Select) -> None:
    made = selector(success(A, 0.5))
    for draw in (0.0, 0.01):
        ranking = made.rank([B, A], RequestType.CHAT, now=1.0, draw=draw, select=select)
        assert "explored" not in str(ranking.record())
    assert made.exploration().ranked == 0


def test_each_type_of_request_has_books_of_its_own() -> None:
    """A quick embedding does not make a chat quick, and the chats' p95 is no delay for a hedge of an embedding."""
    embedding = RequestType.EMBEDDING
    quick = [success(A, 0.5, took=0.1, prompt=500, tokens=0, request_type=embedding) for _ in range(20)]
    made = selector(*quick, *[success(A, 0.5, took=9.0, tokens=300) for _ in range(20)])
    both = RequestType.CHAT, embedding
    chat, vector = (made.rank([A], kind, now=1.0, draw=0.5).choices[0].figures for kind in both)
    assert chat.latency_s == pytest.approx(9.0, rel=0.2)
    assert vector.latency_s == pytest.approx(0.1, rel=0.2)
    assert made.hedge_after(A, 1.0, stream=False) == 9.0
    assert made.hedge_after(A, 1.0, stream=False, request_type=embedding) == pytest.approx(0.1)


def test_the_size_of_the_request_decides_who_is_fastest() -> None:
    """One begins at once and writes slowly; the other is slow to begin, the more with long prompts, and writes fast."""

    def took(candidate: Candidate, prompt: int, tokens: int) -> float:
        return 0.2 + 0.02 * tokens if candidate == A else 1.0 + 0.001 * prompt + 0.002 * tokens

    made = Selector(cost_of)
    for at in range(60):
        for candidate in (A, B):
            prompt, tokens = (100, 1_000, 4_000)[at % 3], (1, 50, 400)[at // 3 % 3]
            made.observe(
                success(candidate, at, took=took(candidate, prompt, tokens), prompt=prompt, tokens=tokens), 0.5
            )
    for prompt, tokens in ((100, 20), (100, 1_000), (8_000, 100), (8_000, 2_000)):
        usage = Usage(input_tokens=prompt, output_tokens=tokens)
        ranking = made.rank([A, B], RequestType.CHAT, now=61.0, draw=0.5, select="fastest", usage=usage, explore=False)
        assert ranking.best() == min((A, B), key=lambda each: took(each, prompt, tokens)), usage


def test_the_size_of_the_request_decides_who_is_cheapest() -> None:
    """A has dear answers, B dear prompts, and C a dear price for long ones. One without a price comes last."""

    def price(provider: str, model: str, usage: Usage) -> float | None:
        long = usage.input_tokens > 200_000
        prices = {"a": (0.1, 10.0), "b": (0.4, 1.0), "c": (2.0 if long else 0.05, 15.0)}.get(provider)
        return None if prices is None else prices[0] * usage.input_tokens + prices[1] * usage.output_tokens

    made, unknown = Selector(price), Candidate("z", "m")
    for prompt, tokens, best in ((1_000, 300, B), (50_000, 300, C), (50_000, 1_000, A), (300_000, 10, A)):
        usage = Usage(input_tokens=prompt, output_tokens=tokens)
        ranking = made.rank([unknown, A, B, C], RequestType.CHAT, now=0.0, draw=0.5, select="cheapest", usage=usage)
        assert ranking.best() == best, usage
        assert (ranking.choices[-1].candidate, ranking.choices[-1].reason) == (unknown, "price unknown")


def test_short_whole_answers_do_not_make_a_candidate_look_slow() -> None:
    """A "yes" in 0.1 s is no word per 0.1 s."""
    made = selector(
        *[success(A, 0.5, took=0.1, prompt=20, tokens=1) for _ in range(20)],
        *[success(B, 0.5, took=0.5, prompt=20, tokens=1) for _ in range(20)],
    )
    assert rank(made, [B, A], select="fastest").best() == A
    told = made.rank([A], RequestType.CHAT, now=1.0, draw=0.5, usage=Usage(input_tokens=20, output_tokens=1))
    assert told.choices[0].figures.latency_s == pytest.approx(0.1, rel=0.05)


# Breakers


@pytest.mark.parametrize("select", ["score", "order", "cheapest", "fastest", "weighted", "sticky"])
def test_a_provider_whose_breaker_is_open_comes_last(select: Select) -> None:
    made = downed(B)
    for draw in (0.0, 0.3, 0.6, 0.99):
        ranking = made.rank(
            [B, A, C], RequestType.CHAT, now=0.5, draw=draw, select=select, sticky_key="k", shares={B: 9.0, A: 1.0}
        )
        assert ranking.candidates[-1] == B
        assert B not in ranking.ready


def test_the_other_models_of_a_provider_are_asked_as_before() -> None:
    other = Candidate("a", "other")
    assert rank(downed(A), [A, other], now=0.5).ready == [other]


@pytest.mark.parametrize("select", ["score", "order", "fastest", "sticky"])
def test_a_recovered_primary_gets_one_probe_and_then_its_place_back(select: Select) -> None:
    """The place it would have if it were well; its failures would keep it last for ever."""
    made = Selector(cost_of)
    for _ in range(10):
        made.observe(success(A, 0.0, took=0.1), 0.5)
        made.observe(success(C, 0.0, took=1.0), 0.5)
    key = next(key for key in map(str, range(99)) if _sticky(made, key, now=0.0).best() == A)
    for _ in range(5):
        made.observe(failure(A, 1.0), 0.5)

    def best(now: float) -> Candidate:
        return made.rank(
            [A, C], RequestType.CHAT, now=now, draw=0.99, select=select, sticky_key=key, explore=False
        ).best()

    assert best(1.5) == C
    ranking = made.rank([A, C], RequestType.CHAT, now=2.0, draw=0.99, select=select, sticky_key=key)
    assert ranking.best() == A
    assert "tries whether" in ranking.choices[0].reason
    assert made.admit(A, 2.0) is None
    assert best(2.0) == C, "one probe is enough"
    made.observe(success(A, 2.1, took=0.1), 0.5)
    assert [best(2.1)] * 3 == [A] * 3


def _sticky(made: Selector, key: str, now: float) -> Ranking:
    return made.rank([A, C], RequestType.CHAT, now=now, draw=0.9, select="sticky", sticky_key=key)


def test_past_failures_do_not_keep_a_recovered_candidate_last() -> None:
    """It is a little faster than the other, so it is the better one as soon as it is well."""
    made = Selector(cost_of)
    for _ in range(10):
        made.observe(success(A, 0.0, took=0.9), 0.5)
        made.observe(success(C, 0.0, took=1.0), 0.5)
    for _ in range(5):
        made.observe(failure(A, 1.0), 0.5)
    assert made.known(A).availability(2.0) < 0.8
    assert rank(made, [C, A], now=2.0).best() == A
    assert made.admit(A, 2.0) is None
    made.observe(success(A, 2.9, took=0.9), 0.5)
    assert made.known(A).availability(2.9) == 1.0
    assert rank(made, [C, A], now=3.0).best() == A


def test_a_probe_is_not_forced_on_a_request_that_would_not_go_there() -> None:
    made = downed(B)
    assert rank(made, [A, B], now=2.0, select="order").ready == [A, B]


def test_the_only_candidate_is_never_shut_for_ever() -> None:
    made, now = downed(A), 0.0
    for _ in range(20):
        ranking = rank(made, [A], now=now)
        refusal = ranking.refusal
        assert refusal is not None
        assert refusal.kind is FailureKind.OVERLOADED
        assert refusal.retry_after is not None
        assert refusal.retry_after <= 15.0
        now += refusal.retry_after
        assert rank(made, [A], now=now).best() == A
        assert made.admit(A, now) is None
        made.observe(failure(A, now), 0.999)


def test_when_nobody_can_be_asked_one_error_names_each_with_its_cause() -> None:
    made = selector(
        *[failure(A, 0.0, FailureKind.NETWORK) for _ in range(5)],
        failure(B, 0.0, FailureKind.RATE_LIMITED, retry_after=0.5),
        failure(C, 0.0, FailureKind.AUTH),
    )
    ranking = rank(made, [A, B, C], now=0.1)
    assert ranking.candidates == [B, A, C], "who is back first comes first"
    with pytest.raises(RateLimitError) as caught:
        ranking.best()
    told = caught.value.failure
    assert told.retry_after == pytest.approx(0.4)
    assert told.message == (
        "none of 3 candidates is available: b/m: too many requests or tokens for now;"
        " a/m: circuit open: 5 failures in a row, the last: network; c/m: the vendor refused the configured key"
    )


def test_those_who_find_a_probe_under_way_are_told_to_come_back_soon() -> None:
    made = downed(A)
    assert made.admit(A, 1.0) is None
    second = made.admit(A, 1.0)
    assert second is not None
    assert second.kind is FailureKind.OVERLOADED
    assert second.retry_after == 1.0
    with pytest.raises(OverloadedError, match=r"a/m: not tried \(circuit half-open: a probe is in progress\)"):
        rank(made, [A], now=1.0).best()


# Pauses


def test_a_rate_limited_candidate_waits_for_the_vendors_time_and_its_neighbours_do_not() -> None:
    """Limits and permissions are mostly per model, and the breaker is not concerned: the vendor is well."""
    made = selector(*[failure(A, 0.0, FailureKind.RATE_LIMITED, retry_after=7.0) for _ in range(20)])
    assert rank(made, [A, B], now=6.9, select="order").ready == [B]
    assert rank(made, [A, B], now=7.0, select="order").ready == [A, B]
    assert rank(made, [Candidate("a", "other")], now=1.0).refusal is None
    assert made.circuits.deployment(A, 1.0).state is CircuitState.CLOSED


@pytest.mark.parametrize("kind", [FailureKind.AUTH, FailureKind.QUOTA])
def test_a_refused_key_or_a_spent_quota_lasts_longer(kind: FailureKind) -> None:
    made = selector(failure(A, 0.0, kind))
    refused = made.admit(A, 29.0)
    assert refused is not None
    assert refused.kind is kind
    assert made.admit(A, 30.0) is None


@pytest.mark.parametrize(
    "kind",
    [FailureKind.BAD_REQUEST, FailureKind.CONTENT_FILTER, FailureKind.CONTEXT_LENGTH, FailureKind.CANCELLED],
)
def test_what_is_nobodys_fault_is_held_against_nobody(kind: FailureKind) -> None:
    made = selector(*[failure(A, 0.5, kind) for _ in range(100)])
    assert made.admit(A, 0.6) is None
    assert made.known(A).availability(0.6) == 1.0


# Deadlines, budgets, hedges


def test_a_fallback_that_is_slower_than_what_is_left_is_not_tried_and_it_is_said() -> None:
    made = selector(*[success(B, 0.5, took=12.0) for _ in range(5)])
    refused = made.admit(B, 1.0, within_s=5.0)
    assert refused is not None
    assert refused.message == "b/m: not tried, because it usually takes 12.0 s and 5.0 s are left"
    assert made.admit(B, 1.0, within_s=13.0) is None
    assert made.admit(B, 1.0) is None
    assert made.admit(A, 1.0, within_s=5.0) is None, "nothing is known of it"


def test_a_refused_probe_leaves_the_slot_free() -> None:
    made = selector(*[success(A, 0.0, took=12.0) for _ in range(5)], *[failure(A, 0.5) for _ in range(5)])
    assert made.admit(A, 2.0, within_s=5.0) is not None
    assert made.admit(A, 2.0) is None


def test_hedges_wait_for_the_p95_of_the_first_token_and_not_on_too_little() -> None:
    made = selector(*[success(A, 0.5, first=0.1 * n, took=10.0) for n in range(1, 20)])
    assert made.hedge_after(A, 1.0, stream=True) is None
    made.observe(success(A, 0.6, first=2.0, took=10.0), 0.5)
    assert made.hedge_after(A, 1.0, stream=True) == pytest.approx(1.9)
    assert made.hedge_after(A, 1.0, stream=False) == 10.0


def test_at_most_one_in_twenty_requests_is_hedged() -> None:
    made, hedged = Selector(cost_of), 0
    for number in range(400):
        assert made.admit(A, number / 10) is None
        hedged += made.may_hedge(A, number / 10)
    assert 10 <= hedged <= 20


def test_hedges_are_paid_from_the_retries_budget_too() -> None:
    made = Selector(cost_of)
    for _ in range(100):
        assert made.admit(A, 0.0) is None
    assert made.may_hedge(A, 0.0)
    assert sum(made.may_retry(A, 0.0) for _ in range(100)) == 19
    assert not made.may_hedge(A, 0.0)


def test_extra_calls_earn_no_extra_calls() -> None:
    made = Selector(cost_of)
    for _ in range(1_000):
        assert made.admit(A, 0.0, extra=True) is None
    assert sum(made.may_retry(A, 0.0) for _ in range(100)) == 10


def test_budgets_are_per_deployment() -> None:
    made = Selector(cost_of)
    assert sum(made.may_retry(A, 0.0) for _ in range(100)) < 100
    assert made.may_retry(Candidate("a", "other"), 0.0)
    assert made.may_retry(B, 0.0)


# An outage


def test_an_outage_of_a_minute_under_50_requests_a_second() -> None:
    """Few extra calls, the breaker open within 2 s, probes one at a time; and used again soon after."""
    made = Selector(cost_of)
    asked: list[float] = []
    extra = refused = 0
    opened_at = used_again_at = None

    for number in range(50 * 95):
        now = number / 50
        down = now < 60.0
        if made.admit(A, now) is not None:
            refused += 1
            continue
        asked.append(now)
        made.observe(failure(A, now + 0.01, took=0.01) if down else success(A, now + 0.01, took=0.01), 0.5)
        if down and made.may_retry(A, now + 0.01) and made.admit(A, now + 0.01, extra=True) is None:
            extra += 1
            made.observe(failure(A, now + 0.015, took=0.005), 0.5)
        if opened_at is None and made.circuits.deployment(A, now + 0.015).state is CircuitState.OPEN:
            opened_at = now
        if not down and used_again_at is None:
            used_again_at = now

    assert opened_at is not None
    assert opened_at < 2.0
    assert extra <= 0.2 * 50 * 60
    during = [at for at in asked if 2.0 <= at < 60.0]
    assert len(during) <= 10
    assert all(later - earlier >= 1.0 for earlier, later in pairwise(during)), "single probes"
    assert used_again_at is not None
    assert used_again_at < 60.0 + 16.0
    assert refused > 0


def test_g4_after_a_crash_the_books_are_kept_and_shut_breakers_are_half_open() -> None:
    made = selector(success(B, 0.0, took=3.0), *[failure(A, 0.0) for _ in range(5)])
    assert made.circuits.deployment(A, 0.5).state is CircuitState.OPEN
    made.restart(0.6)
    assert made.known(B).latency_s(Usage(input_tokens=1_000, output_tokens=300)) == pytest.approx(3.0, rel=0.05)
    assert made.circuits.deployment(A, 0.6).state is CircuitState.HALF_OPEN
    assert made.circuits.deployment(B, 0.6).state is CircuitState.CLOSED


def test_callers_who_name_ever_new_models_do_not_fill_the_memory() -> None:
    """G7: nor do they displace who is in use."""
    made = Selector(cost_of)
    for number in range(MAX_REMEMBERED + 100):
        made.observe(success(B, 0.0), 0.5)
        made.observe(failure(Candidate("a", f"made-up-{number}"), 0.0, FailureKind.MODEL_NOT_FOUND), 0.5)
    assert len(made._performance) == MAX_REMEMBERED
    assert made.known(B).whole.mean.count == MAX_REMEMBERED + 100
    assert len(made.circuits._deployments) <= MAX_CIRCUITS


def test_errors_of_the_selector_are_in_the_one_tree() -> None:
    with pytest.raises(LLMClientError):
        rank(downed(A), [A], now=0.5).best()
