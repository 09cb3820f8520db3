"""``best_of``: samples, and a judge."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import trio
from trio.testing import MockClock

from llm_actors.orchestrator.strategies.best_of import read_verdict
from llm_protocol.requests import Parameters
from llm_protocol.response import LLMResponse
from support.attempts import said, stall, status, tokens, world
from support.panels import ask, bodies, members, prompts, saying, spent
from support.peer import Call

SAMPLES = [saying("first"), saying("second"), saying("third")]


def longest(answers: Sequence[LLMResponse]) -> int:
    return max(range(len(answers)), key=lambda at: len(answers[at].content))


@pytest.mark.parametrize("stream", [True, False])
async def test_a_model_judges_by_letter(autojump_clock: MockClock, stream: bool) -> None:
    async with world(a=[*SAMPLES], b=[saying("**C**", " - it is right")]) as w:
        asked = await ask(w, strategy="best_of", members=("a/m-a",), judge="b/m-b", stream=stream)

        texts = [each["content"] for each in bodies(w, "b")[0]["messages"]]
        chosen = asked.response.content
        assert f'<answer name="C">\n{chosen}\n</answer>' in texts[-1]
        assert asked.decision["judge"]["by"] == "b/m-b"
        assert asked.decision["judge"]["outcome"] == "ok"
        assert asked.text == chosen


async def test_samples_of_one_model_differ_in_temperature(autojump_clock: MockClock) -> None:
    async with world(a=[*SAMPLES, saying("A")]) as w:
        await ask(w, strategy="best_of", members=("a/m-a",), judge="a/m-a")

        assert sorted(body.get("temperature", 0) for body in bodies(w, "a")[:3]) == [0, 0.3, 0.9]


async def test_the_callers_temperature_stands_and_its_seed_is_counted_on(autojump_clock: MockClock) -> None:
    async with world(a=[*SAMPLES, saying("A")]) as w:
        parameters = Parameters(temperature=0.2, seed=7)
        await ask(w, strategy="best_of", members=("a/m-a",), parameters=parameters)

        assert {body["temperature"] for body in bodies(w, "a")[:3]} == {0.2}
        assert sorted(body["seed"] for body in bodies(w, "a")[:3]) == [7, 8, 9]


async def test_a_model_that_wants_no_temperature_is_asked_without(autojump_clock: MockClock) -> None:
    refusing = status(400, {"error": {"message": "temperature does not work here", "type": "invalid_request_error"}})
    answering = saying("fine")

    async def picky(call: Call) -> None:
        await (refusing if "temperature" in said(call) else answering)(call)

    async with world(a=[picky]) as w:
        asked = await ask(w, strategy="best_of", members=("a/m-a",), samples=2, judge="nobody")

        assert {each["outcome"] for each in members(asked).values()} == {"ok"}
        assert ["temperature" in body for body in bodies(w, "a")].count(True) == 1


async def test_without_members_the_best_candidate_is_sampled(autojump_clock: MockClock) -> None:
    async with world(a=[saying("x")], b=[saying("A")], draw=0.9) as w:
        asked = await ask(w, strategy="best_of", members=None, candidates=("b/m-b", "a/m-a"), select="order", samples=2)

        assert list(members(asked)) == ["b/m-b", "b/m-b#2"]
        assert (w["a"].calls, w["b"].calls) == (0, 3)


async def test_a_callable_judges(autojump_clock: MockClock) -> None:
    async with world(a=[saying("short")], b=[saying("a long one")]) as w:
        asked = await ask(w, strategy="best_of", samples=2, judge=longest)

        assert asked.response.content == "a long one"
        assert asked.decision["judge"] == {"by": "callable", "outcome": "ok", "chose": "b/m-b"}
        assert w.calls == 2


async def test_a_callable_may_be_async(autojump_clock: MockClock) -> None:
    async def judge(answers: Sequence[LLMResponse]) -> int:
        await trio.sleep(1)
        return longest(answers)

    async with world(a=[saying("short")], b=[saying("a long one")]) as w:
        assert (await ask(w, strategy="best_of", samples=2, judge=judge)).response.content == "a long one"


async def test_a_callable_that_hangs_is_given_up_in_time(autojump_clock: MockClock) -> None:
    async def judge(answers: Sequence[LLMResponse]) -> int:
        await trio.sleep_forever()
        raise AssertionError

    async with world(a=[saying("x")], b=[saying("y")]) as w:
        asked = await ask(w, strategy="best_of", samples=2, judge=judge, deadline_s=10)

    assert asked.failure is None
    assert asked.response.content == "x"
    assert asked.decision["judge"]["outcome"] == "degraded"
    assert asked.decision["judge"]["why"] == "it did not decide in time"
    assert asked.took < 10


@pytest.mark.parametrize(
    ("text", "choice"),
    [
        ("B", 1),
        (" (b)", None),
        ("**B**\nIt is right.", 1),
        ("B. It is right and short.", 1),
        ('{"best": "C"}', 2),
        ('```json\n{"verdict": "A"}\n```', 0),
        ("The best is B. A is weaker, C too long.", None),
        ("A weaker one is missing", None),
        ("A: too long. B: right.", None),
        ("I think so", None),
        ("D", None),
        ('{"best": 1}', None),
        ("", None),
    ],
)
def test_a_verdict_is_a_letter_alone_or_none(text: str, choice: int | None) -> None:
    verdict = read_verdict(text, 3)
    assert verdict.choice == choice
    assert bool(verdict.why) == (choice is None)


@pytest.mark.parametrize(("said", "chosen"), [(1.0, "y"), (True, "x"), (0.5, "x"), (float("nan"), "x"), (1e300, "x")])
async def test_a_callable_that_returns_another_type_costs_no_answer(
    autojump_clock: MockClock, said: object, chosen: str
) -> None:
    async with world(a=[saying("x")], b=[saying("y")]) as w:
        asked = await ask(w, strategy="best_of", samples=2, judge=lambda _: said)

    assert asked.failure is None
    assert asked.response.content == chosen
    assert asked.decision["judge"]["outcome"] == ("ok" if chosen == "y" else "degraded")


async def test_a_sentence_about_several_answers_is_no_verdict(autojump_clock: MockClock) -> None:
    verdict = saying("The best is B. A is weaker, C too long.")
    async with world(a=[saying("first")], b=[verdict]) as w:
        asked = await ask(w, strategy="best_of", members=("a/m-a",), judge="b/m-b")

    assert asked.response.content == "first"
    assert asked.decision["judge"]["outcome"] == "degraded"


@pytest.mark.parametrize("said", [7, -1, "x", None])
async def test_a_callable_that_chooses_nothing_costs_no_answer(autojump_clock: MockClock, said: object) -> None:
    async with world(a=[saying("x")], b=[saying("y")]) as w:
        asked = await ask(w, strategy="best_of", samples=2, judge=lambda _: said)

    assert asked.response.content == "x"
    assert asked.decision["judge"]["why"] == "it chose none of the answers"


async def test_a_callable_that_raises_costs_no_answer_and_its_text_is_not_told(autojump_clock: MockClock) -> None:
    def judge(answers: Sequence[LLMResponse]) -> int:
        raise ValueError(f"SECRET {answers[0].content}")

    async with world(a=[saying("x")], b=[saying("y")]) as w:
        asked = await ask(w, strategy="best_of", samples=2, judge=judge)

    assert asked.response.content == "x"
    assert "ValueError" in asked.decision["judge"]["why"]
    assert "SECRET" not in str(asked.decision)


async def test_a_judge_that_hangs_is_given_up_in_time(autojump_clock: MockClock) -> None:
    async with world(a=[*SAMPLES], b=[stall()]) as w:
        asked = await ask(w, strategy="best_of", members=("a/m-a",), judge="b/m-b", deadline_s=4)

        assert asked.failure is None
        assert asked.response.content in ("first", "second", "third")
        assert asked.decision["judge"]["outcome"] == "degraded"
        assert asked.took < 4
        assert w["b"].aborted == 1


@pytest.mark.parametrize("judge", [saying("no idea"), status(401), saying("Z")])
async def test_a_judge_that_is_of_no_use_costs_no_answer(autojump_clock: MockClock, judge: object) -> None:
    async with world(a=[*SAMPLES], b=[judge]) as w:  # type: ignore[list-item]
        asked = await ask(w, strategy="best_of", members=("a/m-a",), judge="b/m-b")

    assert asked.failure is None
    assert asked.decision["judge"]["outcome"] == "degraded"
    assert asked.decision["judge"]["chose"] == "a/m-a"


async def test_the_judge_is_in_the_books(autojump_clock: MockClock) -> None:
    async with world(a=[*SAMPLES], b=[saying("A")]) as w:
        asked = await ask(w, strategy="best_of", members=("a/m-a",), judge="b/m-b")

    assert asked.response.usage is not None
    usage = asked.response.usage
    assert (usage.input_tokens, usage.output_tokens) == spent([tokens("a")] * 3 + [tokens("b")])
    assert asked.response.cost == 3 * 11 + 44


async def test_one_sample_needs_no_judge(autojump_clock: MockClock) -> None:
    async with world(a=[saying("x")], b=[saying("A")]) as w:
        asked = await ask(w, strategy="best_of", members=("a/m-a",), samples=1, judge="b/m-b")

        assert asked.response.content == "x"
        assert w["b"].calls == 0


async def test_the_judge_reads_no_names(autojump_clock: MockClock) -> None:
    async with world(a=[saying("x")], b=[saying("y")], c=[saying("B")]) as w:
        asked = await ask(w, strategy="best_of", members=("a/m-a", "b/m-b"), samples=2, judge="c/m-c")

        assert asked.response.content == "y"
        assert "m-a" not in prompts(w, "c")[0]
