"""Retry-After, back-off, outages, and clocks that jump: the whole path on a virtual clock."""

from __future__ import annotations

import itertools
import logging
import time
from typing import Any

import pytest
import trio
import trio.testing
from trio.testing import MockClock

from llm_actors.catalog import Candidate
from llm_actors.kernel import Ref
from llm_actors.orchestrator.log_line import LogFields
from llm_actors.selector.breaker import FAILURES_IN_A_ROW
from llm_protocol.failures import FailureKind
from llm_protocol.policy import Attempts, AttemptsPatch, Limits, Timeouts
from llm_protocol.response import Usage
from support.attempts import (
    ANSWER,
    Asked,
    Vendor,
    World,
    answer,
    answering,
    breaking,
    error,
    status,
    tokens,
    world,
)
from support.peer import Call, Script, close, sse, stall

DATE = "Tue, 01 Jul 2025 10:00:00 GMT"
IN_5_S = "Tue, 01 Jul 2025 10:00:05 GMT"
WINDOW = (4.0, 10.0)


def waits(asked: Asked) -> list[float]:
    return [attempt["waited_ms"] / 1000 for attempt in asked.attempts[1:]]


# -- Retry-After ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("headers", "least", "most"),
    [
        ({"retry_after": "7"}, 7, 7.7),
        ({"retry_after": "0.5"}, 0.5, 0.55),
        ({"retry_after": IN_5_S, "date": DATE}, 5, 5.5),
        ({"retry_after": DATE, "date": IN_5_S}, 0, 0),
        ({"retry_after_ms": "1500"}, 1.5, 1.65),
        ({"retry_after_ms": "250", "retry_after": "9"}, 0.25, 0.275),
        ({"retry_after": "0"}, 0, 0),
        ({"retry_after": "-5"}, 0, 0),
        ({"retry_after": "soon"}, *WINDOW),
        ({"retry_after": "nan"}, *WINDOW),
        ({"retry_after": ""}, *WINDOW),
    ],
)
@pytest.mark.parametrize("code", [429, 503])
async def test_retry_after_is_waited_for_in_all_its_forms(
    code: int, headers: dict[str, str], least: float, most: float, autojump_clock: MockClock
) -> None:
    async with world(a=[status(code, **headers), answer]) as w:
        asked = await w.ask()
        await w.settled()

    assert asked.text == ANSWER
    assert [least <= wait <= most for wait in waits(asked)] == [True]
    assert asked.took >= least


@pytest.mark.parametrize("value", ["61", "1000000000", "99999999999999999999"])
@pytest.mark.parametrize("cache", ["off", "read"])
async def test_a_retry_after_past_the_deadline_is_told_at_once(
    value: str, cache: str, autojump_clock: MockClock
) -> None:
    async with world(a=[status(429, retry_after=value)]) as w:
        asked = await w.ask(deadline_s=60, cache=cache)

    assert asked.took < 0.1
    assert asked.failure is not None
    assert (asked.failure.kind, asked.failure.retry_after) == (FailureKind.RATE_LIMITED, float(value))
    assert asked.decision["stopped"] == "the wait would pass the deadline"


async def test_a_long_retry_after_keeps_others_away_for_that_time(autojump_clock: MockClock) -> None:
    async with world(a=[status(429, retry_after="20"), answer], b=[answer]) as w:
        assert (await w.ask()).outcomes() == ["a:rate_limited", "b:ok"]
        assert (await w.ask()).outcomes() == ["b:ok"]
        await trio.sleep(21)
        assert (await w.ask()).outcomes() == ["a:ok"]


# -- full jitter, bounded ------------------------------------------------------------------------------------


@pytest.mark.parametrize("code", [429, 500, 502, 503, 504, 529])
@pytest.mark.parametrize(("draw", "expected"), [(0.0, [4.0, 4.0]), (0.5, [6.0, 7.0]), (0.999, [7.996, 9.994])])
async def test_two_retries_at_most_with_full_jitter(
    code: int, draw: float, expected: list[float], autojump_clock: MockClock
) -> None:
    async with world(a=[status(code)], draw=draw) as w:
        asked = await w.ask()

    assert w["a"].calls == 3
    assert waits(asked) == pytest.approx(expected)
    gaps = [later - earlier for earlier, later in itertools.pairwise(w["a"].asked_at)]
    assert gaps == pytest.approx(expected)
    assert asked.decision["stopped"] == "it was tried 3 times"


async def test_callers_that_fail_together_do_not_come_back_together(autojump_clock: MockClock) -> None:
    async with world(a=[*[status(500)] * 4, answer]) as w:
        async with trio.open_nursery() as nursery:
            for _ in range(4):
                nursery.start_soon(w.ask)
        again = w["a"].asked_at[4:]

    assert len(set(again)) == 4
    assert all(4 <= at <= 10 for at in again)


@pytest.mark.parametrize("deadline", [3.0, 9.0, 15.0])
async def test_no_wait_passes_the_deadline(deadline: float, autojump_clock: MockClock) -> None:
    async with world(a=[status(500)], draw=0.5) as w:
        asked = await w.ask(deadline_s=deadline)

    assert w["a"].calls == {3.0: 1, 9.0: 2, 15.0: 3}[deadline]
    assert asked.took < deadline
    assert asked.failure is not None
    assert asked.failure.kind is FailureKind.SERVER_ERROR


async def test_mission_retry_three_attempts_exponential_4_to_10_seconds_all_settable(
    autojump_clock: MockClock,
) -> None:
    """The limiter is consulted on each attempt."""
    async with world(a=[status(500)]) as w:
        asked = await w.ask()
        assert w["a"].calls == 3
        assert 4 <= waits(asked)[0] <= 8
        assert 4 <= waits(asked)[1] <= 10
        granted = (await w.statistics()).granted
        assert granted == 3

    quick = Attempts(max=5, wait_min_s=0.1, wait_max_s=0.2)
    async with world(a=[status(500)], attempts=quick) as w:
        asked = await w.ask()
        assert w["a"].calls == 5
        assert asked.took <= 0.8

    async with world(a=[status(500)]) as w:
        await w.ask(attempts=AttemptsPatch(max=1))
        assert w["a"].calls == 1


# -- an outage -----------------------------------------------------------------------------------------------

BEGINS, ENDS = 10.0, 70.0
PER_SECOND = 50


async def _outage(call: Call) -> None:
    """A vendor that takes 0.2 s to answer, and to fail while its outage lasts."""
    await trio.sleep(0.2)
    down = BEGINS <= trio.current_time() < ENDS
    await (status(500) if down else answer)(call)


@pytest.mark.parametrize("backed", [True, False], ids=["backed", "alone"])
async def test_an_outage_costs_few_calls_and_is_over_when_it_is_over(backed: bool, autojump_clock: MockClock) -> None:
    """The breaker is open in under 2 s, then one probe at a time asks; the primary is used again within 30 s."""
    a, b = Vendor(_outage), Vendor(answering(late=0.2))
    others: dict[str, Any] = {"b": b} if backed else {}
    asked: list[tuple[float, Asked]] = []

    async def one(w: World) -> None:
        at = trio.current_time()
        asked.append((at, await w.ask(stream=False, deadline_s=30)))

    async with world(limits=Limits(max_concurrency=64), a=a, **others) as w:
        async with trio.open_nursery() as nursery:

            async def traffic(until: float, per_second: float) -> None:
                while trio.current_time() < until:
                    nursery.start_soon(one, w)
                    await trio.sleep(1 / per_second)

            await traffic(BEGINS + 2, PER_SECOND)
            a.most_at_once = 0
            await traffic(ENDS, PER_SECOND)
            probes = [at for at in a.asked_at if BEGINS + 2 <= at < ENDS]
            assert a.most_at_once == 1
            assert 3 <= len(probes) <= 20
            await traffic(ENDS + 35, 5)
        await w.settled()

    during = [each for at, each in asked if BEGINS <= at < ENDS]
    extra = sum(max(0, each.called("a") - 1) for each in during)
    assert len(during) > 2_900
    assert extra <= 0.2 * len(during)
    assert sum(1 for at in a.asked_at if BEGINS <= at < ENDS) <= 1.2 * len(during)
    healed = [each for at, each in asked if at >= ENDS + 30]
    assert healed
    assert all(each.response.provider == "a" and each.text == ANSWER for each in healed)
    assert all(each.text == ANSWER for _, each in asked) or not backed
    assert all(each.took <= 31 for _, each in asked)


# -- limits, streams, reports and deadlines -------------------------------------------------------------------------


async def test_after_the_first_token_nobody_else_is_asked_unless_wished(autojump_clock: MockClock) -> None:
    async with world(a=[[breaking(), close()]], b=[answer]) as w:
        asked = await w.ask()
        assert (w.calls, asked.text) == (1, "One two ")
        assert asked.decision["stopped"] == "content had been delivered"
        assert asked.failure is not None
        assert asked.failure.partial

        asked = await w.ask(on_broken_stream="buffer")
        assert asked.text == ANSWER


async def test_an_answer_that_was_lost_is_one_request_and_its_usage_a_guess(autojump_clock: MockClock) -> None:
    """None of the five vendors documents an idempotency key: equal bytes are what a retry is known by."""

    async def works_and_closes(call: Call) -> None:
        await trio.sleep(3)
        await close()(call)

    async with world(a=[works_and_closes, answer]) as w:
        asked = await w.ask()

    first, second = w["a"].requests
    assert first.body == second.body
    lost, won = asked.attempts
    assert (lost["outcome"], lost["usage"]["estimated"]) == ("network", True)
    assert not won["usage"]["estimated"]
    assert asked.response.usage == tokens("a")


async def test_what_found_no_connection_used_nothing_and_leaves_its_room(autojump_clock: MockClock) -> None:
    """Neither in the books of the limiter, nor in what is told of tokens and of calls without a known price."""
    async with world(
        limits=Limits(requests_per_minute=1, tokens_per_minute=200),
        attempts=Attempts(max=1),
        z=Vendor(answer, bad_dials=1),
    ) as w:
        refused = await w.ask()
        assert refused.outcomes() == ["z:network"]
        metrics = w.tree.services.metrics
        assert (metrics.tokens.total(), metrics.unpriced.total(), metrics.caller_tokens.total()) == (0, 0, 0)

        asked = await w.ask()
        await w.settled()
    assert (asked.text, asked.took) == (ANSWER, 0)


async def test_a_request_costs_at_most_four_actor_calls(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """docs/architecture.md: submit, cache, limiter, provider."""
    called: list[str] = []
    call = Ref.call

    async def counted(ref: Ref[Any], message: Any, **more: Any) -> Any:
        called.append(ref.name.rpartition("/")[2])
        return await call(ref, message, **more)

    monkeypatch.setattr(Ref, "call", counted)
    async with world(a=[answer]) as w:
        called.clear()
        with trio.fail_after(60):  # a call without any deadline passes through `call` twice
            assert (await w.ask(cache="read")).text == ANSWER
        assert called == ["orchestrator", "cache", "limiter", "provider"]


LOG = "llm_actors.orchestrator.log_line"


async def test_every_request_has_one_line_in_the_log_however_it_ended(
    autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, LOG)
    async with world(a=[answer, stall(), stall(), status(400, {"error": {"message": "no"}})]) as w:
        answered = await w.ask(cache="read")
        kept = await w.ask(cache="read")
        late = await w.ask(deadline_s=2)
        run = await w.submit()
        with trio.fail_after(1):
            await w["a"].until(lambda: w["a"].calls == 3)
        run.cancel("the client has left")
        await w.see(run, 0)
        refused = await w.ask()
        await w.settled()

    records = [record for record in caplog.records if record.name == LOG]
    assert [_logged(record) for record in records] == [
        (answered.response.request_id, "a/m-a", "", 1, ""),
        (kept.response.request_id, "a/m-a", "", 0, "hit"),
        (late.response.request_id, "a/m-a", "deadline", 1, ""),
        (run.request.request_id, "a/m-a", "cancelled", 1, ""),
        (refused.response.request_id, "a/m-a", "bad_request", 1, ""),
    ]


def _logged(record: logging.LogRecord) -> tuple[str, str, str, int, str]:
    fields = record.__dict__["fields"]
    assert isinstance(fields, LogFields)
    return fields.id, fields.deployment, fields.failure or "", fields.attempts, fields.cache


async def test_one_error_names_every_attempt_with_its_cause(autojump_clock: MockClock) -> None:
    async with world(
        a=[status(500, {"error": {"message": "broken pipe"}})],
        b=[status(401, {"error": {"message": "bad key"}})],
        c=[[breaking(words=0), stall()]],
    ) as w:
        asked = await w.ask(deadline_s=30)

    assert asked.outcomes() == ["a:server_error", "a:server_error", "b:auth", "c:timeout_first_token"]
    assert asked.failure is not None
    assert asked.failure.message == (
        "all 4 attempts failed: a/m-a: broken pipe (2 times); b/m-b: bad key; "
        "c/m-c: no first token within 5 s (timeouts.first_token)"
    )
    assert asked.failure.kind is FailureKind.TIMEOUT_FIRST_TOKEN
    assert asked.took < 30


async def test_an_only_attempt_is_told_with_its_name(autojump_clock: MockClock) -> None:
    """``Incorrect API key``: whose, and which?"""
    async with world(a=[status(401, {"error": {"message": "bad key"}})]) as w:
        asked = await w.ask()

    assert asked.failure is not None
    assert (
        asked.failure.message
        == "a/m-a: bad key (The provider refused the API key that this runtime is configured with.)"
    )


async def test_a_fallback_that_is_slower_than_the_time_left_is_not_asked(autojump_clock: MockClock) -> None:
    async with world(a=[stall()], b=[answering(late=2, gap=1)], c=[answer]) as w:
        for _ in range(5):
            assert (await w.ask(model="b/m-b")).text == ANSWER
        asked = await w.ask(deadline_s=12)

    assert w["b"].calls == 5
    assert asked.outcomes() == ["a:timeout_first_token", "b:timeout_total", "c:ok"]
    skipped = asked.attempts[1]
    assert skipped["asked"] is False
    assert "usually takes" in skipped["error"]
    assert asked.calls == 2


async def test_who_rests_is_not_counted_as_asked(autojump_clock: MockClock) -> None:
    """More calls than reported attempts, or fewer, fail `test_faults` too."""
    async with world(a=[status(401)], b=[status(500)]) as w:
        await w.ask()
        before = w.calls
        asked = await w.ask()

    assert asked.calls == w.calls - before == 2
    assert asked.outcomes() == ["b:server_error", "b:server_error", "a:auth"]
    assert asked.attempts[-1]["asked"] is False
    assert asked.failure is not None
    assert asked.failure.message.startswith("all 2 attempts failed: b/m-b: no (2 times); a/m-a: not tried (")


async def test_many_that_find_it_resting_for_a_second_all_wait_and_are_answered(autojump_clock: MockClock) -> None:
    down = [status(500)] * FAILURES_IN_A_ROW
    asked: list[Asked] = []

    async def one(w: World) -> None:
        asked.append(await w.ask())

    async with world(limits=Limits(max_concurrency=64), a=[*down, answer]) as w:
        for _ in down:
            await w.ask(attempts=AttemptsPatch(max=1))
        async with trio.open_nursery() as nursery:
            for _ in range(40):
                nursery.start_soon(one, w)
        await w.settled()

    assert [each.text for each in asked] == [ANSWER] * 40
    assert w["a"].calls == len(down) + 40


async def test_one_attempt_beside_one_who_rests_is_told_in_the_singular(autojump_clock: MockClock) -> None:
    async with world(a=[status(401)], b=[status(404)]) as w:
        await w.ask()
        asked = await w.ask()

    assert asked.calls == 1
    assert asked.failure is not None
    assert asked.failure.message.startswith("the only attempt failed: b/m-b: no; a/m-a: not tried (")


async def test_a_retry_goes_on_to_who_has_room_instead_of_waiting_for_a_minute(autojump_clock: MockClock) -> None:
    one_a_minute = {"a": Limits(requests_per_minute=1), "b": Limits(max_concurrency=4)}
    async with world(limits=one_a_minute, a=[status(500), answer], b=[answer]) as w:
        asked = await w.ask()

    assert asked.outcomes() == ["a:server_error", "b:ok"]
    assert asked.took <= 2.1


async def test_a_count_before_an_error_is_no_content_and_is_the_vendors_own(autojump_clock: MockClock) -> None:
    counted = '{"id": "c", "model": "m", "choices": [], "usage": {"prompt_tokens": 7, "completion_tokens": 0}}'
    overloaded = '{"error": {"message": "no", "code": "overloaded"}}'
    async with world(a=[sse(counted, overloaded)], b=[answer]) as w:
        asked = await w.ask(on_broken_stream="error")

    assert asked.outcomes() == ["a:overloaded", "a:overloaded", "b:ok"]
    assert asked.response.usage == tokens("b")
    assert (asked.attempts[0]["usage"]["input_tokens"], asked.attempts[0]["usage"]["estimated"]) == (7, False)
    assert "first_token_ms" not in asked.attempts[0]


async def test_who_is_left_while_it_writes_does_not_look_slow_to_begin(autojump_clock: MockClock) -> None:
    a = Candidate("a", "m-a")
    async with world(timeouts=Timeouts(idle=60), a=[answering(gap=20)]) as w:
        w.season("a", usual=1.0)
        with trio.move_on_after(100):
            await w.ask(deadline_s=300)
        await w.settled()
        known = w.tree.selector.known(a)

    assert known.latency_s(Usage(input_tokens=1_000, output_tokens=300)) == pytest.approx(1.0, rel=0.01)
    assert known.percentile(95, 100, stream=True, least=1) == 1.0


@pytest.mark.parametrize("cache", ["off", "refresh"])
async def test_what_has_no_room_before_its_deadline_is_refused_at_once(cache: str, autojump_clock: MockClock) -> None:
    async with world(limits=Limits(requests_per_minute=1), a=[answer]) as w:
        assert (await w.ask(cache=cache)).text == ANSWER
        asked = await w.ask(cache=cache, deadline_s=10)
        await w.settled()

    assert asked.failure is not None
    assert (asked.failure.kind, asked.took) == (FailureKind.RATE_LIMITED, 0)
    assert asked.failure.retry_after == pytest.approx(61, abs=1)
    assert (w["a"].calls, asked.attempts) == (1, [])


async def test_who_begins_to_rest_while_we_stand_in_line_is_passed_over_at_once(autojump_clock: MockClock) -> None:
    async def refuse_late(call: Call) -> None:
        await trio.sleep(1)
        await status(429)(call)

    async with world(limits=Limits(max_concurrency=1), a=[refuse_late, answer], b=[answering(late=1.2)]) as w:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(lambda: w.ask(model="a/m-a", attempts=AttemptsPatch(max=1)))
            nursery.start_soon(lambda: w.ask(model="b/m-b"))
            await trio.sleep(0.5)
            asked = await w.ask()
        await w.settled()

    assert asked.outcomes() == ["a:rate_limited", "b:ok"]
    assert asked.attempts[0]["asked"] is False
    assert w["a"].calls == 1
    assert asked.took == pytest.approx(0.7 + 1.2)


@pytest.mark.parametrize("kind", ["insufficient_quota", "invalid_api_key"])
async def test_quota_and_auth_mark_the_candidate_and_the_next_requests_go_elsewhere(
    kind: str, autojump_clock: MockClock
) -> None:
    async with world(a=[status(400, error(kind)), answer], b=[answer]) as w:
        assert [(await w.ask()).response.provider for _ in range(3)] == ["b", "b", "b"]
        assert w["a"].calls == 1
        await trio.sleep(31)
        assert (await w.ask()).response.provider == "a"


# -- clocks ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("jump", [86_400.0, -86_400.0, -3_600.0])
async def test_a_jump_of_the_wall_clock_changes_no_wait(
    jump: float, autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The wall clock is wrong by more at each look."""
    looks = itertools.count(1)
    now = time.time()
    monkeypatch.setattr(time, "time", lambda: now + jump * next(looks))
    scripts: list[Script] = [status(429, retry_after="3"), status(500), [breaking(), stall()]]
    async with world(limits=Limits(), a=scripts, b=[answer], draw=0.5) as w:
        asked = await w.ask(candidates=("a/m-a",), on_broken_stream="buffer")
        assert [round(at, 2) for at in w["a"].asked_at] == [0, 3.15, 10.15]
        assert asked.took == pytest.approx(15.15)
        assert (await w.ask(model="b/m-b")).took < 0.1
        await w.settled()


async def test_a_jump_of_the_monotonic_clock_ends_waits_once_and_then_all_is_normal(
    mock_clock: MockClock,
) -> None:
    """After a suspend of an hour: what waited is over, once each, and no storm of calls follows."""
    mock_clock.rate = 0
    async with world(a=[stall(), stall(), status(500), answer]) as w:
        asked: list[Asked] = []

        async def one() -> None:
            asked.append(await w.ask())

        async with trio.open_nursery() as nursery:
            for _ in range(3):
                nursery.start_soon(one)
            await w["a"].until(lambda: w["a"].calls == 3)
            await trio.testing.wait_all_tasks_blocked()
            mock_clock.jump(3_600)
        assert w["a"].calls == 3
        assert {each.failure.kind for each in asked if each.failure} == {FailureKind.DEADLINE}
        assert len(asked) == 3
        await w.settled()
        assert (await w.ask()).text == ANSWER
        assert w["a"].calls == 4
