"""The ways to put candidates in order."""

from __future__ import annotations

from collections import Counter
from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm_actors.catalog import Candidate
from llm_actors.selector import Figures, RankedCandidate, Terms
from llm_actors.selector.orderings import (
    ORDERS,
    OrderingFunction,
    OrderingInputs,
    by_own,
    cheapest,
    fastest,
    in_order,
    sticky,
    weighted,
)
from llm_protocol.policy import Select
from support.selecting import A, B, C

names = st.lists(st.text(max_size=5), min_size=1, max_size=8, unique=True)


def choice(
    candidate: Candidate, *, latency: float | None = None, cost: float | None = None, score: float = 0.0
) -> RankedCandidate:
    return RankedCandidate(candidate, "", score, Figures(latency, cost, 1.0), Terms(0.0, 0.0, 0.0))


def names_of(choices: list[RankedCandidate]) -> list[Candidate]:
    return [each.candidate for each in choices]


def test_there_is_one_for_every_value_of_select() -> None:
    assert ORDERS.keys() == set(get_args(Select))


@pytest.mark.parametrize("select", ORDERS)
@given(names=names, draw=st.floats(0, 1, exclude_max=True), key=st.text(max_size=3))
def test_each_only_reorders_and_says_why_and_the_same_draw_gives_the_same(
    select: Select, names: list[str], draw: float, key: str
) -> None:
    choices = [choice(Candidate(name, "m"), score=index / 10) for index, name in enumerate(names)]
    ordered = ORDERS[select](choices, OrderingInputs(draw, key))
    assert sorted(names_of(ordered)) == sorted(names_of(choices))
    assert all(each.reason for each in ordered)
    assert ORDERS[select](choices, OrderingInputs(draw, key)) == ordered


def test_score_puts_the_lowest_first_and_equals_in_the_given_order() -> None:
    given = [choice(A, score=0.5), choice(B, score=0.2), choice(C, score=0.2)]
    assert names_of(ORDERS["score"](given, OrderingInputs())) == [B, C, A]


def test_order_keeps_the_given_order() -> None:
    assert names_of(in_order([choice(B), choice(A, score=-1)], OrderingInputs())) == [B, A]


def test_cheapest_puts_unknown_prices_last_and_says_so() -> None:
    ordered = cheapest([choice(A), choice(B, cost=0.02), choice(C, cost=0.0)], OrderingInputs())
    assert names_of(ordered) == [C, B, A]
    assert ordered[-1].reason == "price unknown"


def test_fastest_puts_the_unmeasured_last_and_says_so() -> None:
    ordered = fastest([choice(A), choice(B, latency=2.0), choice(C, latency=1.0)], OrderingInputs())
    assert names_of(ordered) == [C, B, A]
    assert ordered[-1].reason == "not measured yet"


def test_weighted_gives_each_its_share_and_the_rest_theirs_of_what_is_left() -> None:
    shares = {A: 1.0, B: 3.0, C: 6.0}
    draws = [(number + 0.5) / 10_000 for number in range(10_000)]
    orders = [
        tuple(names_of(weighted([choice(A), choice(B), choice(C)], OrderingInputs(draw, "", shares)))) for draw in draws
    ]
    first = Counter(order[0] for order in orders)
    assert [first[each] / 10_000 for each in (A, B, C)] == pytest.approx([0.1, 0.3, 0.6], abs=0.001)
    second = Counter(order[1] for order in orders if order[0] == C)
    assert second[B] / first[C] == pytest.approx(0.75, abs=0.001)


def test_weighted_without_shares_prefers_the_better_score_but_gives_nobody_everything() -> None:
    draws = [(number + 0.5) / 1_000 for number in range(1_000)]
    first = Counter(
        names_of(weighted([choice(A, score=0.8), choice(B, score=0.2)], OrderingInputs(draw)))[0] for draw in draws
    )
    assert first[B] / 1_000 == pytest.approx(0.8, abs=0.01)
    perfect = Counter(names_of(weighted([choice(A, score=0.5), choice(B)], OrderingInputs(draw)))[0] for draw in draws)
    assert perfect[A] > 50


def test_weighted_with_a_share_of_zero_goes_last() -> None:
    for draw in (0.0, 0.5, 0.999_999):
        ordered = names_of(weighted([choice(A), choice(B)], OrderingInputs(draw, "", {A: 0.0, B: 1.0})))
        assert ordered == [B, A]


def test_sticky_keeps_a_conversation_at_its_candidate_and_spreads_conversations() -> None:
    choices = [choice(A), choice(B), choice(C)]
    homes = {str(key): names_of(sticky(choices, OrderingInputs(0.1, str(key))))[0] for key in range(300)}
    assert all(names_of(sticky(choices[::-1], OrderingInputs(0.9, key)))[0] == home for key, home in homes.items())
    assert min(Counter(homes.values()).values()) > 60


def test_sticky_moves_only_the_conversations_of_a_candidate_that_goes() -> None:
    choices = [choice(A), choice(B), choice(C)]
    for key in map(str, range(100)):
        home, second, _ = names_of(sticky(choices, OrderingInputs(0.0, key)))
        without_b = names_of(sticky([choice(A), choice(C)], OrderingInputs(0.0, key)))[0]
        assert without_b == (home if home != B else second)


def test_sticky_without_a_conversation_goes_by_score() -> None:
    assert names_of(sticky([choice(A, score=0.5), choice(B, score=0.1)], OrderingInputs())) == [B, A]


def test_an_ordering_of_the_program_puts_them_in_order_and_may_say_why() -> None:
    def last_first(choices: list[RankedCandidate], inputs: OrderingInputs) -> list[RankedCandidate]:
        first, *others = reversed(choices)
        return [first._replace(reason=f"drew {inputs.draw}"), *others]

    ordered = by_own("mine", last_first, [choice(A), choice(B)], OrderingInputs(0.5))
    assert [(each.candidate, each.reason) for each in ordered] == [(B, "drew 0.5"), (A, "place 2 by mine")]


def raising(_: list[RankedCandidate], __: OrderingInputs) -> list[RankedCandidate]:
    raise ValueError("secret")


@pytest.mark.parametrize(
    ("ordering", "why"),
    [
        (raising, "it raised ValueError at"),
        (lambda choices, _: choices[:1], "it did not return the choices that it was given"),
        (lambda choices, _: [*choices, *choices], "it did not return the choices that it was given"),
        (lambda *_: None, "it raised TypeError at"),
        (lambda *_: ["a/m"], "it raised AttributeError at"),
    ],
)
def test_an_ordering_that_fails_leaves_the_given_order_and_is_told(
    ordering: OrderingFunction, why: str, caplog: pytest.LogCaptureFixture
) -> None:
    ordered = by_own("mine", ordering, [choice(B), choice(A)], OrderingInputs())
    assert names_of(ordered) == [B, A]
    assert all(each.reason.startswith(f"as configured: the ordering mine failed: {why}") for each in ordered)
    assert "the ordering mine failed" in caplog.text
    assert "secret" not in caplog.text + ordered[0].reason
