"""A second attempt beside one that is late: when, at whose cost, and whose answer counts."""

from __future__ import annotations

from typing import Any

import pytest
import trio
from trio.testing import MockClock

from llm_actors.catalog import Candidate
from llm_actors.testing import nothing_left, run_virtual
from llm_protocol.events import Started
from llm_protocol.failures import FailureKind
from llm_protocol.policy import Limits, Timeouts
from support.attempts import (
    ANSWER,
    NAMED_CALL,
    Asked,
    World,
    answer,
    answering,
    breaking,
    cost_of,
    error,
    status,
    tokens,
    world,
)
from support.peer import Call, pause, stall
from support.selecting import failure

P95 = 2.0


async def hedged(w: World, *, stream: bool = True, on_broken_stream: str = "error") -> Asked:
    return await w.ask(hedge=True, stream=stream, on_broken_stream=on_broken_stream)


@pytest.mark.parametrize("stream", [True, False])
async def test_a_second_candidate_is_asked_when_the_first_is_later_than_its_p95(
    stream: bool, autojump_clock: MockClock
) -> None:
    async with world(a=[answering(late=10)], b=[answering(late=1)]) as w:
        w.season("a", usual=P95)
        asked = await hedged(w, stream=stream)
        await w.settled()
        assert w["a"].aborted == 1, "the loser's connection is gone"

    assert w["a"].asked_at == [0.0]
    assert w["b"].asked_at == [pytest.approx(P95)]
    assert asked.took == pytest.approx(P95 + 1)
    assert (asked.text, asked.response.content) == (ANSWER, ANSWER)


async def test_the_winner_is_reported_and_the_loser_accounted_apart(autojump_clock: MockClock) -> None:
    async with world(a=[answering(late=10)], b=[answer]) as w:
        w.season("a", usual=P95)
        asked = await hedged(w)

    response = asked.response
    assert (response.provider, response.model, response.usage) == ("b", "m-b", tokens("b"))
    assert response.cost == cost_of("b", "", tokens("b"))
    assert [event.provider for event in asked.events if isinstance(event, Started)] == ["b"]
    lost, won = sorted(asked.attempts, key=lambda attempt: attempt["provider"])
    assert (lost["outcome"], lost.get("hedge", False), lost["usage"]["estimated"]) == ("cancelled", False, True)
    assert lost["cost"] > 0
    assert (won["outcome"], won["hedge"], won["cost"]) == ("ok", True, response.cost)


async def test_who_is_in_time_is_not_hedged(autojump_clock: MockClock) -> None:
    async with world(a=[answering(late=P95 - 0.1)], b=[answer]) as w:
        w.season("a", usual=P95)
        asked = await hedged(w)
        await w.settled()

    assert asked.outcomes() == ["a:ok"]
    assert w["b"].calls == 0


async def test_a_first_that_wins_after_all_cancels_the_hedge(autojump_clock: MockClock) -> None:
    async with world(a=[answering(late=P95 + 1)], b=[answering(late=5)]) as w:
        w.season("a", usual=P95)
        asked = await hedged(w)
        await w.settled()
        assert w["b"].aborted == 1

    assert sorted(asked.outcomes()) == ["a:ok", "b:cancelled"]
    assert (asked.response.provider, asked.text) == ("a", ANSWER)


async def test_room_that_is_found_when_the_first_has_just_answered_is_given_back_at_once(
    autojump_clock: MockClock,
) -> None:
    """And not when its answer has ended, which may take minutes."""
    limits = {"a": Limits(max_concurrency=4), "b": Limits(max_concurrency=1)}
    slow, busy = answering(late=P95 + 0.02 - 2, gap=1.0), answering(late=P95 + 0.03)  # content is in the second event
    async with world(limits=limits, a=[slow], b=[busy]) as w, trio.open_nursery() as nursery:
        w.season("a", usual=P95)
        nursery.start_soon(lambda: w.ask(model="b/m-b"))
        nursery.start_soon(hedged, w)
        await trio.sleep(P95 + 3)
        statistics = await w.statistics()
        assert (statistics.providers["a"].in_flight, statistics.providers["b"].in_flight) == (1, 0)


@pytest.mark.parametrize("late", [P95 + 5, P95 - 0.5])
async def test_the_slot_of_the_loser_is_free_as_soon_as_it_has_lost(late: float, autojump_clock: MockClock) -> None:
    """And not when the winner's stream has ended, which may take minutes."""
    a, b = answering(late=late, gap=0.5), answering(late=0.5, gap=0.5)
    async with world(limits=Limits(max_concurrency=1), a=[a], b=[b]) as w:
        w.season("a", usual=P95)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(hedged, w)
            await trio.sleep(P95 + 2.5)
            loads, statistics = w.tree.services.loads, await w.statistics()
            slots = [loads[name].serving for name in "ab"]
            assert sorted(slots) == [0, 1]
            assert slots == [statistics.providers[name].in_flight for name in "ab"]


async def test_the_slot_of_a_first_that_fails_is_free_while_its_hedge_goes_on(autojump_clock: MockClock) -> None:
    async def late_error(call: Call) -> None:
        await trio.sleep(P95 + 0.5)
        await status(500)(call)

    async with world(limits=Limits(max_concurrency=1), a=[late_error], b=[answering(late=1, gap=1.0)]) as w:
        w.season("a", usual=P95)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(hedged, w)
            await trio.sleep(P95 + 3)
            assert [w.tree.services.loads[name].serving for name in "ab"] == [0, 1]


@pytest.mark.parametrize(
    "unasked",
    [
        {"hedge": False},
        {"hedge": True, "candidates": ("a/m-a",)},
        {"hedge": True, "strategy": "single", "select": "order"},
    ],
)
async def test_nobody_is_hedged_who_did_not_ask_or_has_no_other(
    unasked: dict[str, Any], autojump_clock: MockClock
) -> None:
    async with world(a=[answering(late=4)], b=[answer]) as w:
        w.season("a", usual=P95)
        asked = await w.ask(**unasked)
    assert asked.outcomes() == ["a:ok"]


async def test_with_too_little_known_there_is_no_hedge(autojump_clock: MockClock) -> None:
    async with world(a=[answering(late=4)], b=[answer]) as w:
        assert (await hedged(w)).outcomes() == ["a:ok"]


async def test_at_most_one_request_in_twenty_is_hedged(autojump_clock: MockClock) -> None:
    """Each answer is later than those before: that is not the time to double the traffic."""

    async def ever_later(call: Call) -> None:
        await answering(late=P95 + len(call.peer.requests) / 20)(call)

    patient = Timeouts(first_token=100, total=200)
    async with world(limits=Limits(), timeouts=patient, a=[ever_later], b=[answer]) as w:
        w.season("a", usual=P95)
        async with trio.open_nursery() as nursery:
            for _ in range(400):
                nursery.start_soon(hedged, w)
                await trio.sleep(0.25)
        await w.settled()
        assert w["a"].calls == 400
        assert 15 <= w["b"].calls <= 0.05 * 440


async def test_without_room_at_the_second_the_first_goes_on_alone(autojump_clock: MockClock) -> None:
    async with world(limits=Limits(max_concurrency=1), a=[answering(late=4)], b=[stall()]) as w:
        w.season("a", usual=P95)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(lambda: w.ask(model="b/m-b"))
            await trio.sleep(0.5)
            asked = await hedged(w)
            assert asked.outcomes() == ["a:ok"]
            assert asked.took == pytest.approx(4.0)
            assert w["b"].calls == 1
            nursery.cancel_scope.cancel()
        await w.settled()


@pytest.mark.parametrize("why", ["no slot", "pause"])
async def test_a_hedge_that_cannot_be_made_takes_nothing_from_the_budget_of_retries(
    why: str, autojump_clock: MockClock
) -> None:
    first, second = Candidate("a", "m-a"), Candidate("b", "m-b")
    async with world(limits=Limits(), a=[answering(late=P95 + 1)], b=[answer]) as w:
        w.season("a", usual=P95)
        selector, load = w.tree.selector, w.tree.services.loads["b"]
        if why == "no slot":
            while load.take_nowait() is not None:
                pass
        else:
            selector.observe(failure(second, trio.current_time(), FailureKind.RATE_LIMITED, retry_after=60), 0.5)
        for _ in range(3):
            assert (await hedged(w)).outcomes() == ["a:ok"]
        now = trio.current_time()
        assert sum(selector.may_retry(first, now) for _ in range(20)) == 10, "its floor"


async def test_a_hedge_that_fails_leaves_the_first_in_peace(autojump_clock: MockClock) -> None:
    async with world(a=[answering(late=4)], b=[status(500)]) as w:
        w.season("a", usual=P95)
        asked = await hedged(w)
        await w.settled()

    assert asked.outcomes() == ["b:server_error", "a:ok"]
    assert (asked.response.provider, asked.text) == ("a", ANSWER)


async def test_a_first_that_fails_leaves_the_hedge_in_peace(autojump_clock: MockClock) -> None:
    async def late_error(call: Call) -> None:
        await trio.sleep(P95 + 0.5)
        await status(500)(call)

    async with world(a=[late_error], b=[answering(late=3)]) as w:
        w.season("a", usual=P95)
        asked = await hedged(w)
        await w.settled()

    assert asked.outcomes() == ["a:server_error", "b:ok"]
    assert (asked.response.provider, asked.text) == ("b", ANSWER)


async def test_who_failed_in_the_race_is_not_asked_again_as_a_fallback(autojump_clock: MockClock) -> None:
    async def late_error(call: Call) -> None:
        await trio.sleep(P95 + 0.5)
        await status(401)(call)

    async with world(a=[late_error], b=[status(401)], c=[answer]) as w:
        w.season("a", usual=P95)
        asked = await hedged(w)
        await w.settled()

    assert asked.outcomes() == ["b:auth", "a:auth", "c:ok"]
    assert (w["a"].calls, w["b"].calls, w["c"].calls) == (1, 1, 1)


async def test_when_all_fail_one_error_names_them_all(autojump_clock: MockClock) -> None:
    async with world(a=[stall()], b=[status(401, {"error": {"message": "bad key"}})]) as w:
        w.season("a", usual=P95)
        asked = await hedged(w)
        await w.settled()

    assert asked.outcomes() == ["b:auth", "a:timeout_first_token"]
    assert asked.failure is not None
    assert "bad key" in asked.failure.message
    assert "no first token within 5 s" in asked.failure.message


async def test_a_hedge_that_is_refused_does_not_cost_the_answer(autojump_clock: MockClock) -> None:
    async with world(a=[answering(late=P95 + 1)], b=[status(400)]) as w:
        w.season("a", usual=P95)
        asked = await hedged(w)

    assert asked.outcomes() == ["b:bad_request", "a:ok"]
    assert asked.text == ANSWER


async def test_who_announces_an_answer_and_says_nothing_is_still_late(autojump_clock: MockClock) -> None:
    async with world(a=[[breaking(NAMED_CALL, words=0), stall()]], b=[answer]) as w:
        w.season("a", usual=P95)
        asked = await hedged(w)

    assert asked.text == ANSWER
    assert asked.took == pytest.approx(P95)
    assert asked.outcomes() == ["a:cancelled", "b:ok"]


async def test_a_content_filter_of_the_first_ends_the_race(autojump_clock: MockClock) -> None:
    async with world(a=[[pause(P95 + 1), status(400, error("content_filter"))]], b=[answering(late=30)]) as w:
        w.season("a", usual=P95)
        asked = await hedged(w)
        await w.settled()

    assert asked.failure is not None
    assert asked.failure.kind is FailureKind.CONTENT_FILTER
    assert sorted(asked.outcomes()) == ["a:content_filter", "b:cancelled"]
    assert asked.took == pytest.approx(P95 + 1)


async def test_a_winner_that_breaks_is_rescued_by_the_loser(autojump_clock: MockClock) -> None:
    async with world(a=[answering(late=3.5), answer], b=[[breaking(), stall()]]) as w:
        w.season("a", usual=P95)
        asked = await hedged(w, on_broken_stream="buffer")
        await w.settled()

    assert sorted(asked.outcomes()) == ["a:cancelled", "a:ok", "b:timeout_idle"]
    assert (asked.response.provider, asked.text) == ("a", ANSWER)


def test_however_close_the_race_there_is_one_answer_and_one_winner() -> None:
    """The first answers in the very moment in which it becomes late, in many orders of events."""
    winners: set[str] = set()

    async def one() -> str:
        async with nothing_left(), world(limits=Limits(), a=[answering(late=P95)], b=[answering(late=5)]) as w:
            w.season("a", usual=P95)
            asked = await hedged(w, stream=False)  # all of it comes at once
            await w.settled()
            assert asked.text == ANSWER
            assert [attempt["outcome"] for attempt in asked.attempts].count("ok") == 1
            assert {event.provider for event in asked.events if isinstance(event, Started)} == {asked.response.provider}
            assert asked.took < P95 + 0.1, "nobody waits for the loser"
            return str(asked.outcomes())

    for seed in range(60):
        winners.add(run_virtual(one, seed=seed))
    assert len(winners) > 1, "the orders differ"
