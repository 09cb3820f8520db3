"""Strategies that a program adds."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
import trio
from trio.testing import MockClock

from llm_protocol.content import Text
from llm_protocol.errors import LLMClientError, ServerError
from llm_protocol.failures import Failure, FailureKind
from llm_protocol.requests import ChatRequest
from llm_protocol.response import LLMResponse
from llm_runtime import StrategyFunction, Team
from llm_runtime.extensions import Extensions
from support.attempts import breaking, close, stall, status, world
from support.panels import ask, members, outcomes, prompts, saying


def adding(strategy: StrategyFunction) -> Extensions:
    return Extensions({"mine": strategy})


async def agreed(team: Team) -> LLMResponse:
    """The first answer if both say the same, else that of a third model."""
    first, *others = await team.ask(["a/m-a", "b/m-b"])
    team.note("agreed", all(other.content == first.content for other in others))
    if all(other.content == first.content for other in others):
        return first
    return await team.stream("c/m-c")


@pytest.mark.parametrize("stream", [True, False])
async def test_a_strategy_chooses_one_of_the_answers(autojump_clock: MockClock, stream: bool) -> None:
    async with world(extensions=adding(agreed), a=[saying("ye", "s")], b=[saying("yes")], c=[stall()]) as w:
        asked = await ask(w, strategy="mine", stream=stream)

        assert asked.text == asked.response.content == "yes"
        assert asked.response.provider == "a"
        assert outcomes(asked) == {"a/m-a": "ok", "b/m-b": "ok"}
        assert [each["contributed"] for each in asked.decision["members"]] == [True, False]
        assert asked.decision["notes"] == {"agreed": True}
        assert w.calls == 2


async def test_a_strategy_streams_another_model_and_all_is_paid_for(autojump_clock: MockClock) -> None:
    async with world(extensions=adding(agreed), a=[saying("yes")], b=[saying("no")], c=[saying("per", "haps")]) as w:
        asked = await ask(w, strategy="mine")

        assert asked.text == asked.response.content == "perhaps"
        assert asked.response.provider == "c"
        assert asked.decision["notes"] == {"agreed": False}
        assert asked.decision["calls"] == w.calls == 3


async def test_a_strategy_asks_about_the_answers_as_data(autojump_clock: MockClock) -> None:
    async def merged(team: Team) -> LLMResponse:
        return await team.stream("c/m-c", team.about(await team.ask(["a/m-a", "b/m-b"]), "Merge:\n{answers}"))

    async with world(extensions=adding(merged), a=[saying("</answer>")], b=[saying("two")], c=[saying("both")]) as w:
        asked = await ask(w, strategy="mine")
        [prompt] = prompts(w, "c")

    assert asked.text == "both"
    assert 'Merge:\n<answer name="A">\n&lt;/answer>\n</answer>\n\n<answer name="B">\ntwo\n</answer>' in prompt


async def test_a_strategy_makes_a_text_or_a_response_of_the_answers(autojump_clock: MockClock) -> None:
    async def joined(team: Team) -> str:
        return " and ".join(answer.content for answer in await team.ask(["a/m-a", "b/m-b"]))

    async def louder(team: Team) -> LLMResponse:
        [answer] = await team.ask(["a/m-a"])
        return msgspec.structs.replace(answer, output=(Text(answer.content.upper()),))

    both = Extensions({"joined": joined, "louder": louder})
    async with world(extensions=both, a=[saying("one"), saying("one")], b=[saying("two")]) as w:
        asked = await ask(w, strategy="joined")
        assert asked.text == asked.response.content == "one and two"
        assert [each.content for each in asked.response.members] == ["one", "two"]
        assert (await ask(w, strategy="louder", request_id="req_2")).text == "ONE"


async def test_without_names_the_members_of_the_policy_are_asked_and_enough_are_waited_for(
    autojump_clock: MockClock,
) -> None:
    async def fastest(team: Team) -> LLMResponse:
        [answer] = await team.ask(enough=1)
        return answer

    async with world(extensions=adding(fastest), a=[stall()], b=[saying("two", late=1)], c=[status(401)]) as w:
        asked = await ask(w, strategy="mine")

        assert asked.text == "two"
        assert asked.took == pytest.approx(1)
        assert outcomes(asked) == {"a/m-a": "cancelled", "b/m-b": "ok", "c/m-c": "auth"}
        assert w["a"].aborted == 1


async def test_a_limit_in_seconds_leaves_time_for_another_model(autojump_clock: MockClock) -> None:
    async def patient(team: Team) -> LLMResponse:
        try:
            [answer] = await team.ask(["a/m-a"], seconds=2)
        except LLMClientError as error:
            team.note("first", error.failure.kind.value)
            return await team.stream("b/m-b")
        return answer

    async with world(extensions=adding(patient), a=[stall()], b=[saying("two")]) as w:
        asked = await ask(w, strategy="mine")

    assert asked.text == "two"
    assert asked.took == pytest.approx(2)
    assert asked.decision["notes"] == {"first": "deadline"}


async def test_a_stream_that_fails_before_its_first_token_can_be_replaced(autojump_clock: MockClock) -> None:
    async def careful(team: Team) -> LLMResponse:
        drafts = await team.ask(["a/m-a"])
        try:
            return await team.stream("b/m-b")
        except LLMClientError:
            return drafts[0]

    async with world(extensions=adding(careful), a=[saying("one")], b=[status(401)]) as w:
        assert (await ask(w, strategy="mine")).text == "one"


async def test_a_stream_that_breaks_after_tokens_is_a_broken_stream_whatever_is_returned(
    autojump_clock: MockClock,
) -> None:
    async def careless(team: Team) -> LLMResponse:
        drafts = await team.ask(["a/m-a"])
        try:
            return await team.stream("b/m-b")
        except LLMClientError as error:
            team.note("partial", error.failure.partial)
            return drafts[0]

    async with world(extensions=adding(careless), a=[saying("one")], b=[[breaking(), close()]]) as w:
        asked = await ask(w, strategy="mine")

    assert asked.failure is not None
    assert asked.decision["notes"] == {"partial": True}
    assert (asked.failure.kind, asked.failure.partial) == (FailureKind.NETWORK, True)


async def test_a_stream_that_the_strategy_stops_is_a_broken_stream_whatever_is_returned(
    autojump_clock: MockClock,
) -> None:
    async def impatient(team: Team) -> LLMResponse:
        drafts = await team.ask(["a/m-a"])
        with trio.move_on_after(1):
            return await team.stream("b/m-b")
        return drafts[0]

    async with world(extensions=adding(impatient), a=[saying("one")], b=[[breaking(), stall()]]) as w:
        asked = await ask(w, strategy="mine")

    assert asked.failure is not None
    assert (asked.failure.kind, asked.failure.partial) == (FailureKind.CANCELLED, True)
    assert "one" not in asked.text


async def test_one_stream_at_a_time(autojump_clock: MockClock) -> None:
    async def both(team: Team) -> LLMResponse:
        answers: list[LLMResponse] = []

        async def stream(model: str) -> None:
            try:
                answers.append(await team.stream(model))
            except RuntimeError as error:
                team.note("error", str(error))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(stream, "a/m-a")
            nursery.start_soon(stream, "b/m-b")
        return answers[0]

    async with world(extensions=adding(both), a=[saying("one")], b=[saying("one")]) as w:
        asked = await ask(w, strategy="mine")

    assert asked.text == asked.response.content == "one"
    assert asked.decision["notes"] == {"error": "a strategy can stream only one response"}


async def test_a_request_of_the_strategys_own_is_not_repeated_with_the_callers_parameters(
    autojump_clock: MockClock,
) -> None:
    async def shorter(team: Team) -> LLMResponse:
        assert isinstance(team.request, ChatRequest)
        parameters = msgspec.structs.replace(team.request.parameters, max_output_tokens=7)
        return (await team.ask(["a/m-a"], msgspec.structs.replace(team.request, parameters=parameters)))[0]

    async with world(extensions=adding(shorter), a=[status(400), saying("unlimited")]) as w:
        asked = await ask(w, strategy="mine")
        assert w.calls == 1

    assert asked.failure is not None
    assert asked.failure.kind is FailureKind.BAD_REQUEST


async def test_a_run_that_is_cancelled_ends_what_its_strategy_waits_for(autojump_clock: MockClock) -> None:
    ended: list[str] = []

    async def waiting(team: Team) -> LLMResponse:
        try:
            return (await team.ask(["a/m-a"]))[0]
        finally:
            ended.append("at 1 s" if trio.current_time() == began + 1 else "late")

    async with world(extensions=adding(waiting), a=[stall()]) as w:
        began = trio.current_time()
        run = await w.submit(strategy="mine")
        await trio.sleep(1)
        run.cancel("the caller has left")
        asked = await w.see(run, 0.0)
        assert asked.failure is not None
        assert asked.failure.kind is FailureKind.CANCELLED
        await w.settled()
        assert (ended, w["a"].aborted) == (["at 1 s"], 1)


def raising(error: Exception) -> StrategyFunction:
    async def strategy(team: Team) -> LLMResponse:
        await trio.lowlevel.checkpoint()
        raise error

    return strategy


def returning(value: Any) -> StrategyFunction:
    async def strategy(team: Team) -> LLMResponse:
        await team.ask(["a/m-a"])
        result: LLMResponse = value
        return result

    return strategy


async def twice(team: Team) -> LLMResponse:
    await team.stream("a/m-a")
    [other] = await team.ask(["a/m-a"])
    return other


async def too_many(team: Team) -> LLMResponse:
    while True:
        await team.ask(["a/m-a"] * 16, enough=1)


@pytest.mark.parametrize(
    ("strategy", "message"),
    [
        (raising(ValueError("secret")), "the strategy mine raised ValueError"),
        (raising(ServerError(Failure(kind=FailureKind.SERVER_ERROR, message="no luck"))), "no luck"),
        (returning(None), "the strategy mine returned a value of type NoneType: return a response of the team, or a"),
        (returning(""), "the strategy mine returned an empty text"),
        (
            returning(LLMResponse(request_id="x", response_id="y", provider="a", model="m", finish_reason="stop")),  # type: ignore[arg-type]
            "the strategy mine returned a response that is not a complete response of its team",
        ),
        (twice, "the strategy mine streamed one response and returned another"),
        (too_many, "the strategy mine raised RuntimeError"),
    ],
)
async def test_an_error_of_a_strategy_fails_its_request_and_no_other(
    autojump_clock: MockClock, strategy: StrategyFunction, message: str, caplog: pytest.LogCaptureFixture
) -> None:
    async with world(extensions=adding(strategy), a=[saying("one")] * 70) as w:
        asked = await ask(w, strategy="mine")
        assert asked.failure is not None
        assert asked.failure.message.startswith(message)
        assert (await ask(w, strategy="race", request_id="req_2")).text == "one"
    assert "secret" not in caplog.text


async def test_a_budget_holds_for_all_that_a_strategy_asks(autojump_clock: MockClock) -> None:
    async def greedy(team: Team) -> LLMResponse:
        await team.ask(["a/m-a", "b/m-b"], later=1)
        return await team.stream("c/m-c")

    async with world(extensions=adding(greedy), a=[saying("one")], b=[saying("two")], c=[saying("three")]) as w:
        asked = await ask(w, strategy="mine", max_tokens=10)

        assert asked.failure is not None
        assert asked.failure.kind is FailureKind.BUDGET
        assert w.calls == 0
    assert set(members(asked)) == {"a/m-a", "b/m-b"}
