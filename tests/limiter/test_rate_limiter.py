"""The books, on a clock moved by hand: who goes, who waits, who is refused."""

from __future__ import annotations

from collections import Counter
from math import inf

import pytest

from llm_actors.limiter.callers import MAX_CALLERS
from llm_actors.limiter.fair_queue import PRIORITY_TURNS, QueuedRequest
from llm_actors.limiter.waiting import MAX_WAITING_PER_CALLER
from llm_actors.limiter.window import KEEP_SECONDS
from llm_protocol.dialect import RateLimits
from llm_protocol.failures import RULES, FailureKind, Settlement
from llm_protocol.policy import Limits
from support.limits import NONE, LimiterWorld

RPM60 = Limits(requests_per_minute=60)
TPM600 = Limits(tokens_per_minute=600, burst=1.0)
ONE = Limits(max_concurrency=1)


# What is granted


def test_without_limits_everything_goes_at_once_and_is_counted() -> None:
    world = LimiterWorld({"a": NONE})
    asked = [world.ask("a", tokens=10**9) for _ in range(1000)]
    assert list(world.granted) == asked
    assert world.rate_limiter.statistics(world.now).providers["a"].in_flight == 1000


def test_a_fresh_limiter_has_the_whole_window_a_quarter_of_it_in_each_second() -> None:
    world = LimiterWorld({"a": RPM60})
    for _ in range(100):
        world.ask("a")
    assert len(world.granted) == 15
    world.wait(1)
    assert len(world.granted) == 30
    world.wait(2)
    assert len(world.granted) == 60
    world.wait(58)
    assert len(world.granted) == 60
    world.wait(1)
    assert len(world.granted) == 75


def test_a_burst_can_be_the_whole_window_and_is_one_request_at_least() -> None:
    whole, least = Limits(requests_per_minute=60, burst=1.0), Limits(requests_per_minute=60, burst=0.001)
    world = LimiterWorld({"whole": whole, "least": least})
    for _ in range(60):
        world.ask("whole"), world.ask("least")
    assert Counter(world.granted.values()) == {"whole": 60, "least": 1}
    world.wait(10)
    assert Counter(world.granted.values()) == {"whole": 60, "least": 11}


def test_the_first_of_the_ranked_with_room_is_taken() -> None:
    world = LimiterWorld({"a": ONE, "b": ONE, "c": ONE})
    asked = [world.ask("a", "b", "c") for _ in range(3)]
    assert [world.granted[number] for number in asked] == ["a", "b", "c"]


def test_whoever_of_the_ranked_frees_first_is_taken() -> None:
    world = LimiterWorld({"a": ONE, "b": ONE})
    _, second = world.ask("a"), world.ask("b")
    waits = world.ask("a", "b")
    world.end(second)
    assert world.granted[waits] == "b"
    assert world.rate_limiter.statistics(world.now).waiting == 0


def test_leaving_one_line_makes_way_in_the_others() -> None:
    """The large request stood first at b too; when a takes it, those behind it at b go at once."""
    world = LimiterWorld({"a": ONE, "b": TPM600})
    holder = world.ask("a")
    world.ask("b", tokens=550)
    large = world.ask("a", "b", tokens=500)
    small = world.ask("b", tokens=10)
    assert small not in world.granted
    world.end(holder)
    assert world.granted[large] == "a"
    assert world.granted[small] == "b"


def test_leaving_one_line_makes_way_in_those_before_it_too() -> None:
    world = LimiterWorld({"b": TPM600, "a": ONE})
    holder = world.ask("a")
    world.ask("b", tokens=550)
    world.ask("a", "b", tokens=500)
    small = world.ask("b", tokens=10)
    world.end(holder)
    assert small in world.granted


def test_a_callers_limits_hold_across_providers() -> None:
    world = LimiterWorld({"a": NONE, "b": NONE}, {"alice": ONE})
    first = world.ask("a", caller="alice")
    second = world.ask("b", caller="alice")
    other = world.ask("b", caller="bob")
    assert set(world.granted) == {first, other}
    world.end(first)
    assert world.granted[second] == "b"


# Who goes first


def test_callers_take_turns() -> None:
    """A caller who comes late waits for one turn of the busy one, not for its whole backlog."""
    world = LimiterWorld({"a": ONE})
    held = world.ask("a", caller="busy")
    busy = [world.ask("a", caller="busy") for _ in range(100)]
    late = [world.ask("a", caller="late") for _ in range(3)]
    for _ in range(7):
        world.end(held)
        held = list(world.granted)[-1]
    order = list(world.granted)[1:]
    assert sum(number in late for number in order[:6]) == 3
    assert order[0] == busy[0]


def test_ever_new_callers_do_not_starve_one_who_was_served_before() -> None:
    world = LimiterWorld({"a": ONE})
    held = world.ask("a", caller="other")
    world.ask("a", caller="old")
    again = world.ask("a", caller="old")
    for n in range(20):
        world.ask("a", caller=f"new {n}")
        world.ask("a", caller=f"newer {n}")
        world.end(held)
        held = list(world.granted)[-1]
    assert again in world.granted


@pytest.mark.parametrize("others", [1, 2, 5])
def test_leaving_and_coming_back_gives_no_extra_turns(others: int) -> None:
    """A caller who never has more than one waiting gets its share, and not more, beside those with a backlog."""
    world = LimiterWorld({"a": ONE})
    held = world.ask("a", caller="busy 0")
    for _ in range(60):
        for n in range(others):
            world.ask("a", caller=f"busy {n}")
    single, again = 0, world.ask("a", caller="single")
    for _ in range(40 * (others + 1)):
        world.end(held)
        held = list(world.granted)[-1]
        if held == again:
            single += 1
            again = world.ask("a", caller="single")
    assert 38 <= single <= 42


def test_a_high_priority_goes_before_those_who_wait() -> None:
    world = LimiterWorld({"a": ONE})
    held = world.ask("a")
    usual, urgent = world.ask("a"), world.ask("a", priority=0)
    world.end(held)
    assert urgent in world.granted
    assert usual not in world.granted


@pytest.mark.parametrize("other", ["", "someone else"])
def test_a_low_priority_is_not_starved(other: str) -> None:
    """Each level is worth so many turns, and no more, however many important ones keep coming."""
    world = LimiterWorld({"a": ONE})
    held = world.ask("a", caller=other)
    low = world.ask("a", priority=9)
    for turns in range(1, 1000):
        world.ask("a", priority=0, caller=other)
        world.ask("a", priority=0, caller=other)
        world.end(held)
        held = list(world.granted)[-1]
        if held == low:
            assert 9 * PRIORITY_TURNS / 2 <= turns <= 9 * PRIORITY_TURNS * 2 + 2
            return
    pytest.fail("starved")


def test_a_big_request_is_not_starved_by_small_ones() -> None:
    """It waits for its own tokens and those before it; who comes later waits behind it."""
    world = LimiterWorld({"a": TPM600})
    world.ask("a", tokens=600)
    big = world.ask("a", tokens=600)
    begun = world.now
    for _ in range(200):
        world.ask("a", tokens=1)
        world.wait(0.5)
    assert world.granted_at[big] - begun == pytest.approx(KEEP_SECONDS)


def test_a_request_larger_than_the_limit_waits_for_an_empty_window_and_leaves_a_debt() -> None:
    world = LimiterWorld({"a": TPM600})
    big = world.ask("a", tokens=1800)
    assert big in world.granted
    assert world.rate_limiter.statistics(world.now).providers["a"].tokens_left == 0
    after, begun = world.ask("a", tokens=100), world.now
    world.wait(300)
    assert world.granted_at[after] - begun == pytest.approx(3 * KEEP_SECONDS, abs=1)


def test_a_callers_big_request_is_not_starved_by_its_own_small_ones_elsewhere() -> None:
    world = LimiterWorld({"a": NONE, "b": NONE}, {"alice": TPM600})
    world.ask("a", tokens=600, caller="alice")
    big, begun = world.ask("a", tokens=600, caller="alice"), world.now
    for _ in range(200):
        world.ask("b", tokens=1, caller="alice")
        world.wait(0.5)
    assert world.granted_at[big] - begun == pytest.approx(KEEP_SECONDS)


def test_a_caller_at_its_limit_is_in_nobodys_way() -> None:
    world = LimiterWorld({"a": ONE}, {"alice": ONE})
    first = world.ask("unheard of", caller="alice")
    alice, bob, carol = (world.ask("a", caller=caller) for caller in ("alice", "bob", "carol"))
    assert set(world.granted) == {first, bob}
    world.end(bob)
    assert carol in world.granted
    world.end(first)
    world.end(carol)
    assert alice in world.granted


# What comes back


def test_real_usage_replaces_the_estimate_both_ways_and_shows_no_negative_numbers() -> None:
    world = LimiterWorld({"a": TPM600})
    one = world.ask("a", tokens=500)
    world.end(one, tokens=100)
    assert world.rate_limiter.statistics(world.now).providers["a"].tokens_left == 500
    two = world.ask("a", tokens=100)
    world.end(two, tokens=1100)
    assert world.rate_limiter.statistics(world.now).providers["a"].tokens_left == 0
    debtor, begun = world.ask("a", tokens=100), world.now
    world.wait(200)
    assert world.granted_at[debtor] - begun == pytest.approx(2 * KEEP_SECONDS, abs=1), "1,200 of 600 are used"


@pytest.mark.parametrize(
    ("ending", "requests", "tokens"),
    [(Settlement.REFUNDED, 60, 600), (Settlement.REFUNDED_TOKENS, 59, 600), (Settlement.CHARGED, 59, 300)],
)
def test_what_comes_back_depends_on_how_far_the_request_got(ending: Settlement, requests: int, tokens: int) -> None:
    world = LimiterWorld({"a": Limits(requests_per_minute=60, tokens_per_minute=600)}, {"me": TPM600})
    world.end(world.ask("a", tokens=300, caller="me"), ending)
    left = world.rate_limiter.statistics(world.now).providers["a"]
    assert (left.requests_left, left.tokens_left, left.in_flight) == (requests, tokens, 0)


@pytest.mark.parametrize("kind", list(FailureKind))
def test_only_what_is_proven_unused_comes_back(kind: FailureKind) -> None:
    """A timeout, a cut stream or a cancellation may have been worked on and billed."""
    unproven = {
        FailureKind.TIMEOUT_FIRST_TOKEN,
        FailureKind.TIMEOUT_IDLE,
        FailureKind.TIMEOUT_TOTAL,
        FailureKind.NETWORK,
        FailureKind.TRUNCATED,
        FailureKind.SERVER_ERROR,
        FailureKind.CANCELLED,
        FailureKind.CRASHED,
    }
    assert (RULES[kind].settlement is Settlement.CHARGED) or kind not in unproven


def test_ending_twice_changes_nothing() -> None:
    world = LimiterWorld({"a": TPM600})
    one = world.ask("a", tokens=300)
    world.end(one, Settlement.REFUNDED)
    before = world.rate_limiter.statistics(world.now)
    world.end(one, Settlement.REFUNDED)
    world.leave(one)
    assert world.rate_limiter.statistics(world.now) == before


# Refusing


def test_what_cannot_be_served_in_time_is_refused_at_once_with_the_time_it_would_take() -> None:
    world = LimiterWorld({"a": RPM60})
    asked = [world.ask("a", within=10) for _ in range(70)]
    assert len(world.granted) == 15
    assert set(world.refused) == set(asked[60:])
    refused = world.refused[asked[60]]
    assert refused.kind is FailureKind.RATE_LIMITED
    assert refused.retry_after == KEEP_SECONDS
    world.wait(10)
    assert set(world.granted) == set(asked[:60])


def test_nobody_waits_for_a_provider_longer_than_wait_s() -> None:
    world = LimiterWorld({"a": Limits(max_concurrency=1, wait_s=30)})
    holder, begun = world.ask("a"), world.now
    waits = world.ask("a")
    world.wait(29.9)
    assert waits not in world.refused
    world.wait(0.2)
    refused = world.refused[waits]
    assert (refused.kind, refused.owner, refused.retry_after) == (FailureKind.RATE_LIMITED, "provider", 1.0)
    wait_s = "30 s ([providers.a.limits] wait_s)"
    assert refused.why == f"the limits of provider a allow no request within {wait_s}; try again in 1.0 s"
    world.end(holder)
    assert world.rate_limiter.statistics(world.now).waiting == 0
    assert world.rate_limiter.due(world.now) == inf
    assert world.now - begun == pytest.approx(30.1)


def test_what_is_certain_to_wait_longer_is_refused_at_once() -> None:
    """But of tokens in flight, which are charged by estimates, some may come back."""
    world = LimiterWorld(
        {"a": Limits(requests_per_minute=4, burst=1.0, wait_s=30), "b": Limits(tokens_per_minute=600, wait_s=30)}
    )
    for _ in range(4):
        world.ask("a")
    late = world.refused[world.ask("a")]
    assert (late.owner, late.retry_after) == ("provider", KEEP_SECONDS)
    world.now += KEEP_SECONDS - 30
    assert world.ask("a") not in world.refused, "30 s are left"
    out = world.ask("b", tokens=600)
    hopes, begun = world.ask("b", tokens=500), world.now
    world.wait(3)
    world.end(out, tokens=50)
    assert world.granted_at[hopes] - begun == 3
    world.end(hopes, tokens=600)
    assert world.ask("b", tokens=1) in world.refused


def test_a_vendors_pause_is_part_of_the_wait() -> None:
    world = LimiterWorld({"a": Limits(wait_s=30)})
    world.rate_limiter.hold("a", 20, world.now)
    assert world.ask("a") not in world.refused
    world.rate_limiter.hold("a", 40, world.now)
    world.look()
    assert {each.owner for each in world.refused.values()} == {"provider"}
    refused = world.refused[world.ask("a")]
    assert refused.retry_after == 40


def test_a_wait_before_counts() -> None:
    world = LimiterWorld({"a": Limits(max_concurrency=1, wait_s=30)})
    world.ask("a")
    waits = world.ask("a", waited=25)
    world.wait(5)
    assert waits in world.refused


def test_of_several_providers_the_most_patient_decides() -> None:
    world = LimiterWorld({"a": Limits(max_concurrency=1, wait_s=2), "b": Limits(max_concurrency=1, wait_s=10)})
    world.ask("a"), world.ask("b")
    waits = world.ask("a", "b")
    world.wait(9)
    assert waits not in world.refused
    world.wait(1)
    assert "providers a, b allow no request within 10 s" in world.refused[waits].why


def test_a_callers_own_limit_is_waited_for_a_second_and_the_refusal_says_whose_it_was() -> None:
    world = LimiterWorld({"a": NONE}, {"me": Limits(requests_per_minute=60, wait_s=1)})
    asked = [world.ask("a", caller="me") for _ in range(60)]
    world.wait(1)
    assert set(world.granted) == set(asked[:30]), "a burst, and a second later another"
    refused = world.refused[asked[30]]
    assert (refused.kind, refused.owner, refused.retry_after) == (FailureKind.RATE_LIMITED, "caller", 2.0)
    wait_s = "1 s ([keys.me.limits] wait_s)"
    assert refused.why == f"the caller's own limits allow no request within {wait_s}; try again in 2.0 s"


def test_a_callers_slots_are_waited_for_a_second_in_one_go() -> None:
    """The rest of a wait, for the provider, is not held against the caller."""
    world = LimiterWorld({"a": ONE}, {"me": Limits(max_concurrency=1, wait_s=1)})
    mine = world.ask("elsewhere", caller="me")
    waits = world.ask("a", caller="me")
    world.end(mine)
    other = world.ask("a")
    world.wait(0.5)
    mine = world.ask("elsewhere", caller="me")
    late = world.ask("a", caller="me")
    world.wait(0.9)
    assert waits in world.granted
    assert not world.refused
    world.wait(0.2)
    assert world.refused[late].owner == "caller"
    assert (other, mine) != (waits, late)


def test_an_urgent_request_is_not_refused_because_of_those_it_overtakes() -> None:
    world = LimiterWorld({"a": RPM60})
    for _ in range(60):
        world.ask("a")
    assert world.ask("a", within=5) in world.refused
    urgent = world.ask("a", within=5, priority=0)
    world.wait(5)
    assert urgent in world.granted


def test_another_callers_backlog_is_not_held_against_one() -> None:
    world = LimiterWorld({"a": RPM60})
    for _ in range(80):
        world.ask("a", caller="busy")
    late = world.ask("a", caller="late", within=5)
    world.wait(5)
    assert late in world.granted


def test_those_who_can_no_longer_make_it_hear_so_when_a_pause_begins() -> None:
    world = LimiterWorld({"a": Limits(requests_per_minute=60, max_concurrency=1)})
    holder = world.ask("a")
    short, long = world.ask("a", within=20), world.ask("a", within=60)
    world.rate_limiter.hold("a", 30, world.now)
    world.look()
    assert short in world.refused
    world.end(holder)
    world.wait(60)
    assert long in world.granted


def test_the_line_is_bounded_and_one_caller_cannot_fill_it() -> None:
    world = LimiterWorld({"a": ONE})
    world.ask("a")
    hog = [world.ask("a", caller="hog") for _ in range(MAX_WAITING_PER_CALLER + 1)]
    assert list(world.refused) == hog[-1:]
    assert (world.refused[hog[-1]].kind, world.refused[hog[-1]].owner) == (FailureKind.QUEUE_FULL, "caller")
    other = world.ask("a", caller="other")
    assert other not in world.refused


def test_what_is_in_flight_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("llm_actors.limiter.rate_limiter.MAX_LEASES", 3)
    world = LimiterWorld({"a": NONE})
    asked = [world.ask("a") for _ in range(4)]
    assert list(world.refused) == asked[3:]
    assert (world.refused[asked[3]].kind, world.refused[asked[3]].owner) == (FailureKind.QUEUE_FULL, "server")
    world.end(asked[0])
    assert world.ask("a") in world.granted


def test_ended_leases_leave_nothing_behind() -> None:
    world = LimiterWorld({"a": NONE})
    world.ask("a", lease=100)
    for _ in range(1000):
        world.end(world.ask("a"))
    assert len(world.rate_limiter._leases._ends) < 100


def test_the_departed_leave_nothing_in_the_line() -> None:
    world = LimiterWorld({"a": ONE, "b": ONE})
    world.ask("a"), world.ask("b")
    for _ in range(10_000):
        world.leave(world.ask("a", "b"))
    heaps = [queue.heap for _, line in world.rate_limiter._providers.values() for queue in line._queues.values()]
    assert not heaps
    first = world.ask("a", "b")
    for _ in range(1000):
        world.leave(world.ask("a", "b"))
    heaps = [queue.heap for _, line in world.rate_limiter._providers.values() for queue in line._queues.values()]
    assert max(map(len, heaps)) < 30
    assert world.rate_limiter.statistics(world.now).waiting == 1
    world.leave(first)


def test_callers_books_are_bounded_and_those_in_use_are_kept() -> None:
    world = LimiterWorld({"a": NONE}, others=Limits(requests_per_minute=1, max_concurrency=1))
    used = world.ask("a", caller="in use")
    for n in range(MAX_CALLERS + 100):
        world.end(world.ask("a", caller=f"caller {n}"))
    assert len(world.rate_limiter.statistics(world.now).callers) == MAX_CALLERS
    assert world.ask("a", caller="in use") not in world.granted
    assert used in world.granted


# Headers


def test_headers_that_promise_more_raise_nothing() -> None:
    world = LimiterWorld({"a": Limits(requests_per_minute=60, tokens_per_minute=600)})
    for _ in range(60):
        world.ask("a", tokens=10)
    world.wait(5)
    assert len(world.granted) == 60
    lie = RateLimits(requests_limit=10**6, requests_remaining=10**6, tokens_limit=10**9, tokens_remaining=10**9)
    world.rate_limiter.observe("a", lie, world.now)
    assert world.ask("a", tokens=10) not in world.granted
    world.wait(56)
    assert len(world.granted) == 60
    world.wait(1)
    assert len(world.granted) == 61


def test_headers_that_say_less_are_believed_until_the_refill() -> None:
    world = LimiterWorld({"a": RPM60})
    world.rate_limiter.observe("a", RateLimits(requests_remaining=5, requests_reset_s=55), world.now)
    for _ in range(20):
        world.ask("a")
    assert len(world.granted) == 5
    world.wait(5)
    assert len(world.granted) == 10


@pytest.mark.parametrize(
    "said",
    [
        RateLimits(),
        RateLimits(requests_remaining=-5, requests_reset_s=-1),
        RateLimits(requests_remaining=0),
        RateLimits(requests_remaining=0, requests_reset_s=float("nan")),
        RateLimits(requests_remaining=0, requests_reset_s=float("inf"), requests_limit=0),
        RateLimits(tokens_remaining=0, tokens_reset_s=1e9, tokens_limit=-3),
        RateLimits(requests_limit=1, requests_reset_s=0.0),
    ],
)
@pytest.mark.parametrize("limits", [NONE, RPM60, Limits(requests_per_minute=60, tokens_per_minute=600)])
def test_no_header_stops_the_work_for_more_than_a_minute(said: RateLimits, limits: Limits) -> None:
    """Missing parts, nonsense, and resets in a hundred years."""
    world = LimiterWorld({"a": limits})
    world.rate_limiter.observe("a", said, world.now)
    asked = world.ask("a")
    world.wait(65)
    assert asked in world.granted


def test_remaining_that_goes_backwards_only_narrows() -> None:
    """Answers overtake one another, so an old header may come last."""
    world = LimiterWorld({"a": RPM60})
    for left in (50, 10, 40, 60):
        world.rate_limiter.observe("a", RateLimits(requests_remaining=left), world.now)
    assert world.rate_limiter.statistics(world.now).providers["a"].requests_left == 10


def test_a_retry_after_is_obeyed_and_a_pace_follows_it_where_no_limit_is_known() -> None:
    world = LimiterWorld({"a": NONE})
    world.rate_limiter.hold("a", 300, world.now)
    asked = [world.ask("a") for _ in range(100)]
    assert world.wait(299) == 0
    assert not world.granted
    world.wait(2)
    assert 1 <= len(world.granted) <= 12
    world.wait(20)
    assert list(world.granted) == asked
    world.wait(120)
    for _ in range(1000):
        world.ask("a")
    assert len(world.granted) == 1100


def test_after_a_pause_our_own_rate_goes_on_and_no_minutes_worth_is_let_go_at_once() -> None:
    world = LimiterWorld({"a": RPM60})
    world.rate_limiter.hold("a", 30, world.now)
    for _ in range(60):
        world.ask("a")
    world.wait(30)
    assert len(world.granted) == 1
    world.wait(10)
    assert len(world.granted) == 11


# Restarts and leases


def test_after_a_restart_leases_windows_and_debts_are_what_they_were() -> None:
    world = LimiterWorld({"a": Limits(requests_per_minute=4, burst=1.0, max_concurrency=3)}, {"me": TPM600})
    out = world.ask("a", caller="me", tokens=600)
    world.end(world.ask("a"), tokens=10)
    before = world.rate_limiter.statistics(world.now)
    world.crash()
    assert world.rate_limiter.statistics(world.now).providers == before.providers
    world.crash()
    asked = [world.ask("a") for _ in range(3)]
    assert [number in world.granted for number in asked] == [True, True, False]
    world.end(out, Settlement.REFUNDED)
    assert asked[2] in world.granted, "the slot is free, and the request came back to the window it was counted in"


def test_limits_that_were_changed_meanwhile_apply_to_what_was_used_before_a_restart() -> None:
    """As with a reload while the limiter is parked: it begins with the new limits."""
    world = LimiterWorld({"a": Limits(requests_per_minute=4, burst=1.0)}, {"me": Limits(requests_per_minute=4)})
    out = [world.ask("a", caller="me"), world.ask("a")]
    world.change({"a": Limits(max_concurrency=3, requests_per_minute=5, burst=1.0)}, {"me": ONE})
    world.crash()
    of_me, of_others = world.ask("a", caller="me"), world.ask("a")
    assert (of_me in world.granted, of_others in world.granted) == (False, True)
    assert world.rate_limiter.statistics(world.now).providers["a"].in_flight == 3
    world.end(out[0])
    assert of_me in world.granted
    world.end(out[1])
    world.end(of_me)
    assert world.rate_limiter.statistics(world.now).providers["a"].requests_left == 1


def test_a_pause_survives_a_restart() -> None:
    world = LimiterWorld({"a": NONE})
    world.rate_limiter.hold("a", 30, world.now)
    world.crash()
    asked = world.ask("a")
    world.wait(29)
    assert asked not in world.granted
    world.wait(2)
    assert asked in world.granted


def test_a_lease_that_nobody_ends_expires_and_its_late_end_is_ignored() -> None:
    world = LimiterWorld({"a": ONE})
    lost = world.ask("a", lease=100)
    waits = world.ask("a")
    assert world.wait(99) == 0
    world.wait(2)
    assert waits in world.granted
    world.end(lost)
    assert world.rate_limiter.statistics(world.now).providers["a"].in_flight == 1
    assert world.rate_limiter.statistics(world.now).expired == 1


def test_an_hour_that_passes_at_once_lets_one_burst_go_and_no_more() -> None:
    """The machine slept. Nothing goes beyond the window, and the timer does not spin."""
    world = LimiterWorld({"a": RPM60})
    for _ in range(300):
        world.ask("a", lease=86_400)
    world.now += 3600
    world.rate_limiter.serve(world.now)
    world.look()
    assert len(world.granted) == 30
    assert world.rate_limiter.due(world.now) > world.now
    assert world.wait(10) == 3
    assert len(world.granted) == 75


def test_a_request_waits_for_its_callers_limits_or_for_the_providers() -> None:
    world = LimiterWorld({"a": Limits(max_concurrency=2)}, callers={"small": Limits(max_concurrency=1)})
    world.ask("a", caller="small")
    world.ask("a", caller="small")  # for its own caller: the provider has room
    before = world.rate_limiter.statistics(world.now)
    assert (before.providers["a"].waiting, before.callers["small"].waiting) == (0, 1)
    world.ask("a", caller="large")
    world.ask("a", caller="large")  # for the provider
    after = world.rate_limiter.statistics(world.now)
    assert (after.providers["a"].waiting, after.callers["small"].waiting) == (1, 1)
    assert after.waiting == 2


# A grant that is taken back


@pytest.mark.parametrize("room", [False, True])
def test_a_grant_that_was_taken_back_and_refused_is_not_granted_later(
    room: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It waited at both, and is behind another one at b when a takes it; another process had used up a."""
    world = LimiterWorld({"a": ONE, "b": ONE})
    at_a, at_b = world.ask("a"), world.ask("b")
    first = world.ask("b")
    waiter = QueuedRequest(100, ("a", "b"), 1, deadline=inf, lease_s=900.0)
    world.rate_limiter.reserve(waiter, world.now)
    world.end(at_a)
    assert world.granted[100] == "a"
    last = world.ask("b")
    monkeypatch.setattr("llm_actors.limiter.waiting.MAX_WAITING", 8 if room else 2)
    world.rate_limiter.account("a").defer(60.0, world.now)
    world.rate_limiter.postpone(waiter, 60.0, "provider", world.now)
    world.look()
    assert (100 in world.refused) is not room
    if room:
        assert world.rate_limiter.statistics(world.now).providers["b"].waiting == 3
    for each in (at_b, 100, first, last):
        world.end(each)
    statistics = world.rate_limiter.statistics(world.now)
    assert (statistics.leases, statistics.waiting) == (0, 0)


def test_a_caller_that_hardly_waits_for_its_limits_may_wait_for_a_provider_without_polling() -> None:
    world = LimiterWorld({"a": ONE}, {"me": Limits(requests_per_minute=600, wait_s=0.001)})
    world.ask("a")
    waits = world.ask("a", caller="me")
    assert world.wait(10) < 1000
    assert waits not in world.refused
