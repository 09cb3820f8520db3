"""Routes, policies and what the decision record tells of them; and who continues what another began."""

from __future__ import annotations

import msgspec
import pytest
import trio
from trio.testing import MockClock

from llm_actors.orchestrator import accept
from llm_actors.run import Run
from llm_protocol.content import Message
from llm_protocol.errors import ModelNotFoundError
from llm_protocol.events import Restarted
from llm_protocol.failures import FailureKind
from llm_protocol.policy import Attempts, AttemptsPatch, Policy, TimeoutsPatch
from support.attempts import (
    ANSWER,
    WORDS,
    answer,
    answering,
    breaking,
    cost_of,
    status,
    tokens,
    world,
)
from support.peer import close, stall

A_B = ("a/m-a", "b/m-b")


async def test_a_routes_name_is_a_model_and_its_policy_counts(autojump_clock: MockClock) -> None:
    routes = {"safe": Policy(candidates=A_B, strategy="fallback", on_broken_stream="buffer")}
    async with world(routes=routes, a=[[breaking(), stall()]], b=[answer]) as w:
        asked = await w.ask(model="safe")

    assert asked.outcomes() == ["a:timeout_idle", "b:ok"]
    assert (asked.text, asked.response.model) == (ANSWER, "m-b")
    assert msgspec.json.decode(w["a"].requests[0].body)["model"] == "m-a"


async def test_a_request_says_more_than_its_route_and_the_route_more_than_the_default(
    autojump_clock: MockClock,
) -> None:
    one = AttemptsPatch(max=1)
    routes = {
        "r": Policy(candidates=A_B, strategy="fallback", attempts=one, deadline_s=3, timeouts=TimeoutsPatch(idle=2))
    }
    async with world(routes=routes, a=[stall()], b=[stall()]) as w:
        asked = await w.ask(model="r", deadline_s=None)
        assert (asked.took, asked.failure and asked.failure.kind) == (3, FailureKind.DEADLINE)
        asked = await w.ask(model="r", deadline_s=8, timeouts=TimeoutsPatch(first_token=1))
        assert asked.took == 2
        assert asked.outcomes() == ["a:timeout_first_token", "b:timeout_first_token"]

    async with world(routes=routes, a=[status(500)], b=[status(500)]) as w:
        await w.ask(model="r")
        assert (w["a"].calls, w["b"].calls) == (1, 1)
        await w.ask(model="r", attempts=AttemptsPatch(max=2, wait_min_s=0.1, wait_max_s=0.1), candidates=("b/m-b",))
        assert (w["a"].calls, w["b"].calls) == (1, 3)


async def test_timeouts_and_attempts_are_laid_over_one_by_one(autojump_clock: MockClock) -> None:
    """What a request says of one of them takes nothing from what route and configuration say of the others."""
    usual = Attempts(max=2, wait_min_s=0.5, wait_max_s=0.5)
    routes = {"r": Policy(candidates=A_B[:1], timeouts=TimeoutsPatch(first_token=1), attempts=AttemptsPatch(max=3))}
    async with world(routes=routes, attempts=usual, a=[status(500), status(500), stall()]) as w:
        asked = await w.ask(model="r", timeouts=TimeoutsPatch(idle=2), attempts=AttemptsPatch(wait_max_s=0.25))

    assert asked.outcomes() == ["a:server_error", "a:server_error", "a:timeout_first_token"]
    assert [each.get("waited_ms", 0) for each in asked.attempts] == [0, 250, 250]
    assert asked.took == pytest.approx(1.5)


async def test_single_asks_the_best_one_only_and_fallback_all_in_order(autojump_clock: MockClock) -> None:
    async with world(a=[status(401)], b=[answer]) as w:
        asked = await w.ask(strategy="single", select="order")
        assert asked.outcomes() == ["a:auth"]
        assert asked.decision["strategy"] == "single"
        asked = await w.ask(strategy="fallback")
        assert (asked.text, asked.outcomes()) == (ANSWER, ["b:ok"])


@pytest.mark.parametrize(
    ("select", "first"),
    [("order", "c"), ("cheapest", "a"), ("fastest", "b"), ("score", "a")],
)
async def test_select_decides_who_is_asked_first(select: str, first: str, autojump_clock: MockClock) -> None:
    """Of c, b and a in this order, a is the cheapest, b the fastest, and a the best of both together."""
    async with world(a=[answer], b=[answer], c=[answer], draw=0.5) as w:
        w.season("a", usual=1.0)
        w.season("b", usual=0.5)
        w.season("c", usual=3.0)
        asked = await w.ask(select=select, candidates=("c/m-c", "b/m-b", "a/m-a"))

    assert asked.response.provider == first
    assert asked.decision["select"] == select
    assert asked.decision["candidates"][0]["provider"] == first


async def test_candidates_are_compared_for_the_request_at_hand(autojump_clock: MockClock) -> None:
    """By its prompt, and by the answer that is expected of it, which it may limit."""
    async with world(a=[answer], b=[answer]) as w:
        plain = w.request(select="cheapest")
        long = (Message.of("user", "word " * 40_000),)
        limited = msgspec.structs.replace(plain.parameters, max_output_tokens=7)
        run = Run(msgspec.structs.replace(plain, messages=long, parameters=limited), stream=True)
        await accept(w.tree.orchestrator, run)
        asked = await w.see(run, trio.current_time())

    assert asked.decision["expected_tokens"] == {"input": pytest.approx(50_000, rel=0.01), "output": 7}
    costs = [each["figures"]["cost_usd"] for each in asked.decision["candidates"]]
    assert costs == pytest.approx([50_000, 100_000], rel=0.01)


async def test_sticky_keeps_a_conversation_where_it_was(autojump_clock: MockClock) -> None:
    async with world(a=[answer], b=[answer], c=[answer]) as w:
        asked = [await w.ask(select="sticky") for _ in range(5)]
    assert len({each.response.provider for each in asked}) == 1


async def test_sticky_tells_conversations_apart_that_begin_with_the_same_instructions(
    autojump_clock: MockClock,
) -> None:
    instructions = Message.of("system", "You are a helpful assistant.")
    async with world(a=[answer], b=[answer]) as w:
        plain = w.request(select="sticky")
        providers = set()
        for number in range(20):
            messages = (instructions, Message.of("user", f"Question {number}"))
            run = Run(msgspec.structs.replace(plain, messages=messages), stream=True)
            await accept(w.tree.orchestrator, run)
            providers.add((await w.see(run, 0.0)).response.provider)

    assert providers == {"a", "b"}


async def test_weighted_spreads_the_traffic(autojump_clock: MockClock) -> None:
    async with world(a=[answer], b=[answer]) as w:
        asked = [await w.ask(select="weighted") for _ in range(40)]
    assert {each.response.provider for each in asked} == {"a", "b"}


async def test_an_unknown_candidate_is_passed_over_and_only_unknown_ones_are_an_error(
    autojump_clock: MockClock,
) -> None:
    async with world(a=[answer]) as w:
        asked = await w.ask(candidates=("nobody", "a/m-a"))
        assert (asked.text, asked.decision["passed_over"]) == (ANSWER, {"nobody": "model_not_found"})
        with pytest.raises(ModelNotFoundError, match="nobody"):
            await w.submit(candidates=("nobody", "none"))
        with pytest.raises(ModelNotFoundError, match="there is no model 'nothing'"):
            await w.submit(model="nothing")
        await w.settled()


async def test_a_route_is_no_candidate_not_even_its_own(autojump_clock: MockClock) -> None:
    async with world(routes={"r": Policy(candidates=A_B)}, a=[answer], b=[answer]) as w:
        for model in ("r", "auto"):
            with pytest.raises(ModelNotFoundError, match="'r' is a route, and only models can be candidates"):
                await w.submit(model=model, candidates=("r",))


@pytest.mark.parametrize("strategy", ["fallback", None, "single"])
async def test_who_cannot_be_paid_is_passed_over(strategy: str | None, autojump_clock: MockClock) -> None:
    """Of these the price of z is not known, b is too dear, and a will do."""
    async with world(z=[answer], b=[answer], a=[answer]) as w:
        asked = await w.ask(candidates=("z/m-z", "b/m-b", "a/m-a"), select="order", strategy=strategy, max_cost=800)
        assert (w["z"].calls, w["b"].calls) == (0, 0)

    if strategy == "single":
        assert asked.failure is not None
        assert "its price is not known" in asked.failure.message
    else:
        assert (asked.text, asked.response.provider) == (ANSWER, "a")


async def test_the_decision_record_tells_who_was_considered_and_what_each_attempt_took(
    autojump_clock: MockClock,
) -> None:
    async with world(a=[status(500)], b=[answering(late=1)], draw=0.5) as w:
        asked = await w.ask()

    decision = asked.decision
    assert {
        "strategy",
        "select",
        "weights",
        "expected_tokens",
        "candidates",
        "cache",
        "attempts",
        "spent",
    } == decision.keys()
    assert (decision["strategy"], decision["select"], decision["cache"]) == ("fallback", "order", "off")
    first, second = decision["candidates"]
    assert (first["provider"], first["model"], first["reason"]) == ("a", "m-a", "place 1 as configured")
    assert second["figures"].keys() == {"latency_s", "cost_usd", "availability"}
    failed, again, won = asked.attempts
    assert (failed["outcome"], failed["error"], again["waited_ms"]) == ("server_error", "no", 500)
    assert (won["outcome"], won["first_token_ms"], won["cost"]) == ("ok", 1000, cost_of("b", "", tokens("b")))
    assert "error" not in won


async def test_a_request_that_ran_out_of_time_tells_what_was_tried(autojump_clock: MockClock) -> None:
    async with world(a=[status(401)], b=[[breaking(), stall()]]) as w:
        asked = await w.ask(deadline_s=4)
        await w.settled()

    assert asked.took == 4
    assert asked.failure is not None
    assert (asked.failure.kind, asked.failure.partial) == (FailureKind.DEADLINE, True)
    assert (
        asked.failure.message
        == "no complete response within the request's deadline of 4 s; a/m-a: no; b/m-b: cancelled"
    )
    assert asked.outcomes() == ["a:auth", "b:cancelled"]
    assert (asked.response.provider, asked.response.model, asked.response.content) == ("b", "m-b", "One two ")


# -- who continues what another began --------------------------------------------------------------------------------


async def test_continue_goes_on_with_whoever_can(autojump_clock: MockClock) -> None:
    """A model that refuses a prefilled turn is passed over."""
    async with world(a=[[breaking(), stall()]], b=[answer], c=[answer], prefill="c") as w:
        asked = await w.ask(on_broken_stream="continue")

    assert asked.outcomes() == ["a:timeout_idle", "c:ok"]
    assert (asked.text, asked.response.content) == (ANSWER, ANSWER)
    assert (asked.response.provider, asked.response.usage) == ("c", tokens("c"))
    assert asked.response.cost == cost_of("c", "", tokens("c"))
    assert w["b"].calls == 0


async def test_who_cannot_continue_is_not_waited_for(autojump_clock: MockClock) -> None:
    async with world(a=[[breaking(), close()]], c=[answer], prefill="c", draw=0.5) as w:
        asked = await w.ask(on_broken_stream="continue")

    assert asked.outcomes() == ["a:network", "c:ok"]
    assert asked.took == 0


async def test_continue_with_nobody_who_can_is_an_error_that_says_so(autojump_clock: MockClock) -> None:
    async with world(a=[[breaking(), stall()]], b=[answer]) as w:
        asked = await w.ask(on_broken_stream="continue")

    assert asked.failure is not None
    assert (asked.failure.kind, asked.failure.partial, asked.text) == (FailureKind.TIMEOUT_IDLE, True, "One two ")
    assert asked.decision["stopped"] == "no candidate is left that can continue a text"


async def test_a_continuation_that_fails_leaves_what_was_said_to_who_said_it(autojump_clock: MockClock) -> None:
    async with world(a=[[breaking(), stall()]], b=[status(401)], prefill="ab") as w:
        asked = await w.ask(on_broken_stream="continue")

    assert asked.failure is not None
    assert (asked.failure.kind, asked.failure.provider, asked.failure.partial) == (FailureKind.AUTH, "b", True)
    response = asked.response
    assert (response.provider, response.model, response.content) == ("a", "m-a", "One two ")


async def test_a_restart_is_told_to_a_stream_that_asked_for_it_and_to_no_other(autojump_clock: MockClock) -> None:
    broken = [breaking(), close()]
    routes = {"r": Policy(candidates=("a/m-a",), strategy="fallback", on_broken_stream="restart")}
    async with world(routes=routes, a=[broken, answer]) as w:
        asked = await w.ask(on_broken_stream="restart")
        assert (asked.text, asked.response.content) == (ANSWER, ANSWER)
        assert sum(isinstance(event, Restarted) for event in asked.events) == 1

    async with world(routes=routes, a=[broken, answer]) as w:
        asked = await w.ask(model="r")
        assert asked.failure is not None
        assert asked.text == "".join(WORDS[:2])


async def test_waiting_followers_hear_nothing_of_a_buffered_answer_before_it_is_whole(
    autojump_clock: MockClock,
) -> None:
    async with world(a=[[breaking(), stall()]], b=[answering(gap=1)]) as w:
        run = await w.submit(on_broken_stream="buffer")
        with run.follow() as follower:
            began = trio.current_time()
            first = await follower.next()
            assert trio.current_time() - began == pytest.approx(5 + 9, abs=0.2)
            assert first


async def test_a_model_that_its_provider_does_not_know_is_told_with_a_near_one(
    autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    async with world(a=[status(404)]) as w:
        asked = await w.ask(model="a/m-aa")
        assert asked.failure is not None
        assert asked.failure.kind is FailureKind.MODEL_NOT_FOUND
        assert asked.failure.message.endswith('; did you mean "m-a"?')
        assert "/v1/chat/completions" in caplog.text, "an operator is told where that was"
        known = await w.ask(model="a/m-a")
        assert known.failure is not None
        assert "did you mean" not in known.failure.message
