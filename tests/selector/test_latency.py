"""How long an answer takes, in parts."""

from __future__ import annotations

from itertools import product
from math import exp
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm_actors.selector.latency import EVIDENCE_SECONDS, LatencyModel

PROMPTS, ANSWERS = (100, 1_000, 8_000), (1, 60, 700)


def after(
    model: LatencyModel, at: float, took_s: float, *, prompt: int = 1_000, tokens: int = 200, first: float | None = None
) -> LatencyModel:
    return model.after(at, input_tokens=prompt, output_tokens=tokens, took_s=took_s, first_token_s=first)


def usual(took_s: float, *, answers: int = 50, every: float = 0.5) -> LatencyModel:
    model = LatencyModel()
    for number in range(answers):
        model = after(model, number * every, took_s)
    return model


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("parts", [(0.3, 0.0002, 0.01), (3.0, 0.0, 0.002), (0.05, 0.002, 0.1)])
def test_the_parts_are_found_streamed_or_not(parts: tuple[float, float, float], *, stream: bool) -> None:
    fixed, prompt_s, token_s = parts
    model, random = LatencyModel(), Random(1)
    for number in range(300):
        prompt, tokens = random.choice(PROMPTS), random.choice(ANSWERS)
        noise = exp(random.gauss(-0.02, 0.2))
        first = (fixed + prompt_s * prompt) * noise
        took = first + token_s * tokens * noise
        model = after(model, number * 0.5, took, prompt=prompt, tokens=tokens, first=first if stream else None)
    for prompt, tokens in product(PROMPTS, ANSWERS):
        expected = fixed + prompt_s * prompt + token_s * tokens
        assert model.seconds(prompt, tokens) == pytest.approx(expected, rel=0.25), (prompt, tokens)


def test_a_short_whole_answer_says_nothing_of_how_fast_it_writes() -> None:
    model = after(LatencyModel(), 0.0, 0.1, prompt=20, tokens=1)
    assert model.seconds(20, 1) == pytest.approx(0.1, rel=0.02)
    assert model.seconds(20, 300) < 5.0


def test_a_stream_that_came_in_one_piece_is_taken_as_a_whole_answer() -> None:
    assert after(LatencyModel(), 0.0, 2.0, first=1.999) == after(LatencyModel(), 0.0, 2.0)


def test_one_slow_answer_is_bad_luck_and_three_are_a_change() -> None:
    model = usual(1.0)
    once = after(model, 25.0, 8.0)
    assert once.seconds(1_000, 200) < 1.1
    for at in (25.5, 26.0):
        once = after(once, at, 8.0)
    assert once.seconds(1_000, 200) > 4.0
    assert once.slower_since == 26.0
    assert once.since_change == 1


def test_a_fast_answer_is_believed_at_once_where_the_estimate_is_old() -> None:
    model = usual(8.0)
    assert after(model, 25.0, 1.0).seconds(1_000, 200) > 6.0
    old = after(model, 25.0 + 6 * EVIDENCE_SECONDS, 1.0)
    assert old.seconds(1_000, 200) == pytest.approx(1.0, rel=0.2)
    assert old.slower_since == model.slower_since, "it became faster"


def test_an_old_estimate_believes_the_next_answer_more_than_its_past() -> None:
    model, at = usual(2.0), 25.0
    fresh = after(model, at, 3.0).seconds(1_000, 200)
    old = after(model, at + 6 * EVIDENCE_SECONDS, 3.0).seconds(1_000, 200)
    assert fresh < 2.1 < 2.5 < old
    assert model.evidence_at(at + 6 * EVIDENCE_SECONDS) < 1 < model.evidence_at(at)


@given(st.floats(0.01, 60), st.integers(0, 10_000), st.integers(0, 3_000))
def test_the_first_answer_is_reproduced(took: float, prompt: int, tokens: int) -> None:
    model = after(LatencyModel(), 0.0, took, prompt=prompt, tokens=tokens)
    assert model.seconds(prompt, tokens) == pytest.approx(took, rel=0.05)


@given(
    st.lists(
        st.tuples(st.floats(0, 1_000), st.floats(0, 1e5), st.integers(0, 10**7), st.integers(0, 10**6), st.booleans()),
        max_size=50,
    )
)
def test_no_observation_makes_an_estimate_negative_or_endless(
    seen: list[tuple[float, float, int, int, bool]],
) -> None:
    model, now = LatencyModel(), 0.0
    for pause, took, prompt, tokens, stream in seen:
        now += pause
        model = after(model, now, took, prompt=prompt, tokens=tokens, first=took / 2 if stream else None)
        assert min(model.parts) >= 0
        assert 0 <= model.seconds(prompt, tokens) < 1e12
        assert 0 < model.spread <= 1
