"""``panel``: the mission's `CrossModelOrchestrator`, on providers with known delays."""

from __future__ import annotations

import logging
from typing import Any

import pytest
import trio
from trio.testing import MockClock

from llm_actors.orchestrator import accept
from llm_actors.run import Run
from llm_protocol.failures import FailureKind
from llm_protocol.policy import Attempts, Policy, Timeouts
from llm_protocol.requests import EmbeddingRequest
from support.attempts import close, stall, status, tokens, world
from support.panels import ask, members, outcomes, prompts, saying, spent, start
from support.peer import sse
from support.upstream import word

ONCE = Attempts(max=1)


@pytest.mark.parametrize("stream", [True, False])
async def test_cross_model_orchestrator_two_members_and_a_synthesis(autojump_clock: MockClock, stream: bool) -> None:
    """More than one valid answer gives one made of them, beside them."""
    async with world(a=[saying("one"), saying("bo", "th")], b=[saying("two")]) as w:
        asked = await ask(w, strategy="panel", stream=stream)

        assert asked.response.content == asked.text == "both"
        assert [each.content for each in asked.response.members] == ["one", "two"]
        assert asked.decision["synthesis"] == {"by": "a/m-a", "outcome": "ok"}
        assert "one" in prompts(w, "a")[1]
        assert "two" in prompts(w, "a")[1]


async def test_cross_model_orchestrator_gives_each_member_a_request_id_of_its_own(autojump_clock: MockClock) -> None:
    async with world(a=[saying("one")], b=[saying("two")]) as w:
        names = ("a/m-a", "b/m-b", "a/m-a")
        asked = await ask(w, strategy="panel", members=names, synthesiser="first")

    assert {name: each["request_id"] for name, each in members(asked).items()} == {
        "a/m-a": "req_1_a",
        "b/m-b": "req_1_b",
        "a/m-a#2": "req_1_a_2",
    }
    assert {each.request_id for each in asked.response.members} == {"req_1_a", "req_1_b", "req_1_a_2"}
    assert asked.response.request_id == "req_1"


async def test_cross_model_orchestrator_drops_and_logs_the_failed(
    autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    async with world(a=[saying("one"), saying("both")], b=[status(401)], c=[saying("three")]) as w:
        asked = await ask(w, strategy="panel")

    assert asked.response.content == "both"
    assert outcomes(asked) == {"a/m-a": "ok", "b/m-b": "auth", "c/m-c": "ok"}
    assert [name for name, each in members(asked).items() if each["contributed"]] == ["a/m-a", "c/m-c"]
    assert "request req_1_b: b/m-b did not respond: auth" in caplog.messages


async def test_cross_model_orchestrator_with_one_model_is_a_single_request(autojump_clock: MockClock) -> None:
    async with world(a=[saying("o", "ne")]) as w:
        asked = await ask(w, strategy="panel", members=3)

        assert asked.response.content == "one"
        assert asked.response.members == ()
        assert "members" not in asked.decision
        assert w["a"].calls == 1


async def test_one_answer_of_several_members_is_given_as_it_is(autojump_clock: MockClock) -> None:
    async with world(a=[status(500)], b=[saying("two")], attempts=ONCE) as w:
        asked = await ask(w, strategy="panel")

        assert asked.response.content == "two"
        assert (asked.response.provider, asked.response.model) == ("b", "m")
        assert "synthesis" not in asked.decision
        assert w.calls == 2


async def test_a_panel_of_five_with_a_quorum_of_three_takes_the_thirds_time_and_the_grace(
    autojump_clock: MockClock,
) -> None:
    delays = {"a": 3, "b": 1, "c": 2, "d": 50, "e": 40}
    scripts: dict[str, Any] = {name: [saying(name, late=seconds)] for name, seconds in delays.items()}
    async with world(**scripts) as w:
        asked = await ask(w, strategy="panel", quorum=3, grace_s=0.5, synthesiser="longest")

        assert asked.took == pytest.approx(3.5)
        assert [each.content for each in asked.response.members] == ["a", "b", "c"]
        assert outcomes(asked) == {
            "a/m-a": "ok",
            "b/m-b": "ok",
            "c/m-c": "ok",
            "d/m-d": "cancelled",
            "e/m-e": "cancelled",
        }
        assert (w["d"].aborted, w["e"].aborted) == (1, 1)


async def test_who_comes_within_the_grace_is_in(autojump_clock: MockClock) -> None:
    async with world(a=[saying("one", late=1)], b=[saying("two", late=1.4)], c=[saying("three", late=9)]) as w:
        asked = await ask(w, strategy="panel", quorum=1, grace_s=0.5, synthesiser="none")

    assert asked.took == pytest.approx(1.5)
    assert [each.content for each in asked.response.members] == ["one", "two"]


async def test_without_a_grace_the_quorum_ends_it(autojump_clock: MockClock) -> None:
    async with world(a=[saying("one", late=1)], b=[stall()]) as w:
        asked = await ask(w, strategy="panel", quorum=1, synthesiser="none")

    assert asked.took == pytest.approx(1)
    assert asked.response.content == "one"


async def test_a_quorum_of_more_than_there_are_is_all_of_them(autojump_clock: MockClock) -> None:
    async with world(a=[saying("one")], b=[saying("two", late=2)]) as w:
        asked = await ask(w, strategy="panel", quorum=16, synthesiser="none")

    assert [each.content for each in asked.response.members] == ["one", "two"]


async def test_a_member_has_a_deadline_of_its_own(autojump_clock: MockClock) -> None:
    async with world(a=[stall()], b=[saying("two", late=1)]) as w:
        asked = await ask(w, strategy="panel", member_deadline_s=3, synthesiser="longest")

        assert asked.took == pytest.approx(3)
        assert outcomes(asked) == {"a/m-a": "timeout_total", "b/m-b": "ok"}
        assert members(asked)["a/m-a"]["error"] == "no complete response within 3 s (member_deadline_s)"


async def test_members_leave_time_for_the_synthesis(autojump_clock: MockClock) -> None:
    """A member that hangs costs 7 of 10 seconds, not the answer."""
    async with world(a=[saying("one"), saying("made of two")], b=[saying("two")], c=[stall()]) as w:
        asked = await ask(w, strategy="panel", deadline_s=10, timeouts=None)

        assert asked.failure is None
        assert outcomes(asked)["c/m-c"] in ("deadline", "timeout_first_token")
        assert asked.response.content == "made of two"
        assert asked.took <= 10


TWO_OF_THREE: dict[str, Any] = {
    "strategy": "panel",
    "members": 2,
    "candidates": ("a/m-a", "b/m-b", "c/m-c"),
    "select": "order",
    "synthesiser": "none",
}


async def test_a_failed_member_is_replaced_when_asked_for(autojump_clock: MockClock) -> None:
    async with world(a=[status(401)], b=[saying("two")], c=[saying("three")], draw=0.5) as w:
        asked = await ask(w, refill=True, **TWO_OF_THREE)

        assert outcomes(asked) == {"a/m-a": "auth", "b/m-b": "ok", "c/m-c": "ok"}


async def test_without_refill_nobody_takes_the_place_of_a_failed_member(autojump_clock: MockClock) -> None:
    async with world(a=[status(401)], b=[saying("two")], c=[saying("three")], draw=0.5) as w:
        asked = await ask(w, **TWO_OF_THREE)

        assert asked.response.content == "two"
        assert w["c"].calls == 0


async def test_all_members_failing_is_one_failure_that_tells_each(autojump_clock: MockClock) -> None:
    async with world(a=[status(401)], b=[status(401)], c=[status(404)]) as w:
        asked = await ask(w, strategy="panel")

    assert asked.failure is not None
    assert asked.failure.kind is FailureKind.AUTH
    assert asked.failure.message.startswith("none of 3 members answered: a/m-a: ")
    assert "c/m-c: " in asked.failure.message
    assert asked.text == ""


async def test_members_that_cannot_be_asked_are_each_named_once(autojump_clock: MockClock) -> None:
    busy = status(429, retry_after="300")
    async with world(a=[busy], b=[busy]) as w:
        await ask(w, strategy="panel")
        asked = await ask(w, strategy="panel")

    assert asked.failure is not None
    assert "a/m-a: its vendor asked for no requests for this model" in asked.failure.message
    assert [asked.failure.message.count(name) for name in ("a/m-a", "b/m-b")] == [1, 1]


async def test_a_member_that_streams_garbage_is_dropped(autojump_clock: MockClock) -> None:
    async with world(a=[sse("{not json", "[DONE]")], b=[saying("two")], attempts=ONCE) as w:
        asked = await ask(w, strategy="panel")

    assert outcomes(asked)["a/m-a"] in ("protocol", "truncated")
    assert asked.response.content == "two"


async def test_an_empty_answer_is_none(autojump_clock: MockClock) -> None:
    async with world(a=[saying()], b=[saying("two")]) as w:
        asked = await ask(w, strategy="panel")

    assert outcomes(asked) == {"a/m-a": "protocol", "b/m-b": "ok"}
    assert asked.response.content == "two"


async def test_a_model_that_nobody_offers_is_a_failed_member(autojump_clock: MockClock) -> None:
    async with world(a=[saying("one")], b=[saying("two")]) as w:
        asked = await ask(w, strategy="panel", members=("a/m-a", "nobody"), synthesiser="none")

    assert outcomes(asked) == {"a/m-a": "ok", "nobody": "model_not_found"}
    assert asked.response.content == "one"


async def test_the_books_balance_to_the_token(autojump_clock: MockClock) -> None:
    """Usage and cost of the answer are those of all members and the synthesis together; each is told for itself."""
    async with world(a=[saying("one"), saying("both")], b=[saying("two")], c=[saying("three")]) as w:
        asked = await ask(w, strategy="panel")

    usage = asked.response.usage
    assert usage is not None
    assert (usage.input_tokens, usage.output_tokens) == spent([tokens("a"), tokens("a"), tokens("b"), tokens("c")])
    assert not usage.estimated
    assert {name: each["usage"]["input_tokens"] for name, each in members(asked).items()} == {
        "a/m-a": 10,
        "b/m-b": 20,
        "c/m-c": 30,
    }
    assert asked.response.cost == 2 * 11 + 2 * 22 + 3 * 33
    assert members(asked)["b/m-b"]["cost"] == 44


async def test_the_cost_of_a_straggler_is_told_as_a_guess(autojump_clock: MockClock) -> None:
    async with world(a=[saying("one")], b=[saying("slow", "er", gap=3)]) as w:
        asked = await ask(w, strategy="panel", quorum=1, grace_s=4)

    straggler = members(asked)["b/m-b"]
    assert straggler["outcome"] == "cancelled"
    assert straggler["usage"]["estimated"]
    assert straggler["cost"] > 0
    assert asked.response.usage is not None
    assert asked.response.usage.total_tokens == 11 + sum(
        straggler["usage"][side] for side in ("input_tokens", "output_tokens")
    )


async def test_an_unknown_price_makes_the_whole_cost_unknown(autojump_clock: MockClock) -> None:
    async with world(a=[saying("one")], z=[saying("two")]) as w:
        asked = await ask(w, strategy="panel", synthesiser="first")

    assert asked.response.cost is None
    assert members(asked)["a/m-a"]["cost"] == 11


async def test_members_are_retried_unseen_when_their_stream_breaks(autojump_clock: MockClock) -> None:
    """Nobody has seen what a member wrote, so it can begin anew, whatever ``on_broken_stream`` says."""
    async with world(a=[[sse(word("half"), end=False), close()], saying("whole")], b=[saying("two")]) as w:
        asked = await ask(w, strategy="panel", synthesiser="none")

    assert [each.content for each in asked.response.members] == ["whole", "two"]


async def test_a_crash_in_one_member_leaves_the_others_alone(
    autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    async with world(a=[saying("one", gap=0.5)], b=[saying("two", gap=0.5)]) as w:
        crash = "b/m-b"
        estimate = w.tree.services.estimator.estimate

        def buggy(model: object, request: object) -> object:
            if str(model) == crash:
                raise RuntimeError("a bug of ours")
            return estimate(model, request)  # type: ignore[arg-type]

        w.tree.services.estimator.estimate = buggy  # type: ignore[method-assign, assignment]
        with caplog.at_level(logging.ERROR):
            asked = await ask(w, strategy="panel")

    assert asked.response.content == "one"
    assert outcomes(asked) == {"a/m-a": "ok", "b/m-b": "internal"}
    assert any("member req_1_b crashed" in message for message in caplog.messages)


async def test_leaving_ends_every_member_at_its_vendor(autojump_clock: MockClock) -> None:
    async with world(a=[stall()], b=[stall()], c=[saying("three")]) as w:
        run = await start(w, strategy="panel")
        with run.follow():
            await trio.sleep(1)
        await w.settled()

        assert (w["a"].aborted, w["b"].aborted) == (1, 1)


async def test_a_client_that_leaves_is_no_members_failure(
    autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    async with world(a=[stall()], b=[stall()]) as w:
        run = await start(w, strategy="panel", stream_members=True)
        with run.follow():
            await trio.sleep(1)
        await w.settled()

    assert not [each for each in caplog.records if "did not respond" in each.getMessage()]


async def test_one_member_that_nobody_offers_is_told(autojump_clock: MockClock) -> None:
    async with world(a=[saying("one")]) as w:
        asked = await ask(w, strategy="panel", members=("nobody",), candidates=("a/m-a",))

    assert asked.failure is not None
    assert asked.failure.kind is FailureKind.MODEL_NOT_FOUND


async def test_members_chosen_by_the_selector_are_of_different_providers(autojump_clock: MockClock) -> None:
    async with world(a=[saying("x")], b=[saying("y")], c=[saying("z")], draw=0.9) as w:
        names = ("a/m-a", "a/other", "b/m-b", "c/m-c")
        asked = await ask(w, strategy="panel", members=3, candidates=names, select="order", synthesiser="none")

    assert list(members(asked)) == ["a/m-a", "b/m-b", "c/m-c"]


async def test_an_embedding_cannot_be_asked_of_a_panel(autojump_clock: MockClock) -> None:
    async with world(a=[saying("x")], b=[saying("y")]) as w:
        policy = Policy(strategy="panel", members=w.candidates)
        run = Run(EmbeddingRequest(inputs=("x",), policy=policy), stream=False)
        await accept(w.tree.orchestrator, run)
        asked = await w.see(run, trio.current_time())

        assert asked.failure is not None
        assert asked.failure.kind is FailureKind.UNSUPPORTED
        assert "panel is for chat, completion and code, not for embedding" in asked.failure.message
        assert w.calls == 0


@pytest.mark.parametrize("way", ["longest", "none", "merge_json"])
async def test_without_a_synthesis_a_member_that_hangs_does_not_take_the_whole_deadline(
    autojump_clock: MockClock, way: str
) -> None:
    async with world(a=[saying("one")], b=[stall()], timeouts=Timeouts(first_token=600, total=600)) as w:
        asked = await ask(w, strategy="panel", synthesiser=way, deadline_s=100)

    assert asked.response.content == "one"
    assert asked.took == pytest.approx(70)
