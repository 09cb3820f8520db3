"""The books, on a clock moved by hand: who goes, who waits, who is refused."""

from __future__ import annotations

from collections import Counter
from math import inf

import pytest

from llm_actors.limiter.callers import MAX_CALLERS
from llm_actors.limiter.fair_queue import PRIORITY_TURNS
from llm_actors.limiter.waiting import MAX_WAITING_PER_CALLER
from llm_actors.limiter.window import KEEP_SECONDS
from llm_protocol.dialect import RateLimits
from llm_protocol.failures import RULES, FailureKind, Settlement
from llm_protocol.policy import Limits
from support.limits import NONE, Desk

RPM60 = Limits(requests_per_minute=60)
TPM600 = Limits(tokens_per_minute=600, burst=1.0)
ONE = Limits(max_concurrency=1)


# What is granted


def test_without_limits_everything_goes_at_once_and_is_counted() -> None:
    desk = Desk({"a": NONE})
    asked = [desk.ask("a", tokens=10**9) for _ in range(1000)]
    assert list(desk.granted) == asked
    assert desk.books.statistics(desk.now).providers["a"].in_flight == 1000


def test_a_fresh_limiter_has_the_whole_window_a_quarter_of_it_in_each_second() -> None:
    desk = Desk({"a": RPM60})
    for _ in range(100):
        desk.ask("a")
    assert len(desk.granted) == 15
    desk.wait(1)
    assert len(desk.granted) == 30
    desk.wait(2)
    assert len(desk.granted) == 60
    desk.wait(58)
    assert len(desk.granted) == 60
    desk.wait(1)
    assert len(desk.granted) == 75


def test_a_burst_can_be_the_whole_window_and_is_one_request_at_least() -> None:
    whole, least = Limits(requests_per_minute=60, burst=1.0), Limits(requests_per_minute=60, burst=0.001)
    desk = Desk({"whole": whole, "least": least})
    for _ in range(60):
        desk.ask("whole"), desk.ask("least")
    assert Counter(desk.granted.values()) == {"whole": 60, "least": 1}
    desk.wait(10)
    assert Counter(desk.granted.values()) == {"whole": 60, "least": 11}


def test_the_first_of_the_ranked_with_room_is_taken() -> None:
    desk = Desk({"a": ONE, "b": ONE, "c": ONE})
    asked = [desk.ask("a", "b", "c") for _ in range(3)]
    assert [desk.granted[number] for number in asked] == ["a", "b", "c"]


def test_whoever_of_the_ranked_frees_first_is_taken() -> None:
    desk = Desk({"a": ONE, "b": ONE})
    _, second = desk.ask("a"), desk.ask("b")
    waits = desk.ask("a", "b")
    desk.end(second)
    assert desk.granted[waits] == "b"
    assert desk.books.statistics(desk.now).waiting == 0


def test_leaving_one_line_makes_way_in_the_others() -> None:
    """The large request stood first at b too; when a takes it, those behind it at b go at once."""
    desk = Desk({"a": ONE, "b": TPM600})
    holder = desk.ask("a")
    desk.ask("b", tokens=550)
    large = desk.ask("a", "b", tokens=500)
    small = desk.ask("b", tokens=10)
    assert small not in desk.granted
    desk.end(holder)
    assert desk.granted[large] == "a"
    assert desk.granted[small] == "b"


def test_leaving_one_line_makes_way_in_those_before_it_too() -> None:
    desk = Desk({"b": TPM600, "a": ONE})
    holder = desk.ask("a")
    desk.ask("b", tokens=550)
    desk.ask("a", "b", tokens=500)
    small = desk.ask("b", tokens=10)
    desk.end(holder)
    assert small in desk.granted


def test_a_callers_limits_hold_across_providers() -> None:
    desk = Desk({"a": NONE, "b": NONE}, {"alice": ONE})
    first = desk.ask("a", caller="alice")
    second = desk.ask("b", caller="alice")
    other = desk.ask("b", caller="bob")
    assert set(desk.granted) == {first, other}
    desk.end(first)
    assert desk.granted[second] == "b"


# Who goes first


def test_callers_take_turns() -> None:
    """A caller who comes late waits for one turn of the busy one, not for its whole backlog."""
    desk = Desk({"a": ONE})
    held = desk.ask("a", caller="busy")
    busy = [desk.ask("a", caller="busy") for _ in range(100)]
    late = [desk.ask("a", caller="late") for _ in range(3)]
    for _ in range(7):
        desk.end(held)
        held = list(desk.granted)[-1]
    order = list(desk.granted)[1:]
    assert sum(number in late for number in order[:6]) == 3
    assert order[0] == busy[0]


def test_ever_new_callers_do_not_starve_one_who_was_served_before() -> None:
    desk = Desk({"a": ONE})
    held = desk.ask("a", caller="other")
    desk.ask("a", caller="old")
    again = desk.ask("a", caller="old")
    for n in range(20):
        desk.ask("a", caller=f"new {n}")
        desk.ask("a", caller=f"newer {n}")
        desk.end(held)
        held = list(desk.granted)[-1]
    assert again in desk.granted


@pytest.mark.parametrize("others", [1, 2, 5])
def test_leaving_and_coming_back_gives_no_extra_turns(others: int) -> None:
    """A caller who never has more than one waiting gets its share, and not more, beside those with a backlog."""
    desk = Desk({"a": ONE})
    held = desk.ask("a", caller="busy 0")
    for _ in range(60):
        for n in range(others):
            desk.ask("a", caller=f"busy {n}")
    single, again = 0, desk.ask("a", caller="single")
    for _ in range(40 * (others + 1)):
        desk.end(held)
        held = list(desk.granted)[-1]
        if held == again:
            single += 1
            again = desk.ask("a", caller="single")
    assert 38 <= single <= 42


def test_a_high_priority_goes_before_those_who_wait() -> None:
    desk = Desk({"a": ONE})
    held = desk.ask("a")
    usual, urgent = desk.ask("a"), desk.ask("a", priority=0)
    desk.end(held)
    assert urgent in desk.granted
    assert usual not in desk.granted


@pytest.mark.parametrize("other", ["", "someone else"])
def test_a_low_priority_is_not_starved(other: str) -> None:
    """Each level is worth so many turns, and no more, however many important ones keep coming."""
    desk = Desk({"a": ONE})
    held = desk.ask("a", caller=other)
    low = desk.ask("a", priority=9)
    for turns in range(1, 1000):
        desk.ask("a", priority=0, caller=other)
        desk.ask("a", priority=0, caller=other)
        desk.end(held)
        held = list(desk.granted)[-1]
        if held == low:
            assert 9 * PRIORITY_TURNS / 2 <= turns <= 9 * PRIORITY_TURNS * 2 + 2
            return
    pytest.fail("starved")


def test_a_big_request_is_not_starved_by_small_ones() -> None:
    """It waits for its own tokens and those before it; who comes later waits behind it."""
    desk = Desk({"a": TPM600})
    desk.ask("a", tokens=600)
    big = desk.ask("a", tokens=600)
    begun = desk.now
    for _ in range(200):
        desk.ask("a", tokens=1)
        desk.wait(0.5)
    assert desk.granted_at[big] - begun == pytest.approx(KEEP_SECONDS)


def test_a_request_larger_than_the_limit_waits_for_an_empty_window_and_leaves_a_debt() -> None:
    desk = Desk({"a": TPM600})
    big = desk.ask("a", tokens=1800)
    assert big in desk.granted
    assert desk.books.statistics(desk.now).providers["a"].tokens_left == 0
    after, begun = desk.ask("a", tokens=100), desk.now
    desk.wait(300)
    assert desk.granted_at[after] - begun == pytest.approx(3 * KEEP_SECONDS, abs=1)


def test_a_callers_big_request_is_not_starved_by_its_own_small_ones_elsewhere() -> None:
    desk = Desk({"a": NONE, "b": NONE}, {"alice": TPM600})
    desk.ask("a", tokens=600, caller="alice")
    big, begun = desk.ask("a", tokens=600, caller="alice"), desk.now
    for _ in range(200):
        desk.ask("b", tokens=1, caller="alice")
        desk.wait(0.5)
    assert desk.granted_at[big] - begun == pytest.approx(KEEP_SECONDS)


def test_a_caller_at_its_limit_is_in_nobodys_way() -> None:
    desk = Desk({"a": ONE}, {"alice": ONE})
    first = desk.ask("unheard of", caller="alice")
    alice, bob, carol = (desk.ask("a", caller=caller) for caller in ("alice", "bob", "carol"))
    assert set(desk.granted) == {first, bob}
    desk.end(bob)
    assert carol in desk.granted
    desk.end(first)
    desk.end(carol)
    assert alice in desk.granted


# What comes back


def test_real_usage_replaces_the_estimate_both_ways_and_shows_no_negative_numbers() -> None:
    desk = Desk({"a": TPM600})
    one = desk.ask("a", tokens=500)
    desk.end(one, tokens=100)
    assert desk.books.statistics(desk.now).providers["a"].tokens_left == 500
    two = desk.ask("a", tokens=100)
    desk.end(two, tokens=1100)
    assert desk.books.statistics(desk.now).providers["a"].tokens_left == 0
    debtor, begun = desk.ask("a", tokens=100), desk.now
    desk.wait(200)
    assert desk.granted_at[debtor] - begun == pytest.approx(2 * KEEP_SECONDS, abs=1), "1,200 of 600 are used"


@pytest.mark.parametrize(
    ("ending", "requests", "tokens"),
    [(Settlement.REFUNDED, 60, 600), (Settlement.REFUNDED_TOKENS, 59, 600), (Settlement.CHARGED, 59, 300)],
)
def test_what_comes_back_depends_on_how_far_the_request_got(ending: Settlement, requests: int, tokens: int) -> None:
    desk = Desk({"a": Limits(requests_per_minute=60, tokens_per_minute=600)}, {"me": TPM600})
    desk.end(desk.ask("a", tokens=300, caller="me"), ending)
    left = desk.books.statistics(desk.now).providers["a"]
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
    desk = Desk({"a": TPM600})
    one = desk.ask("a", tokens=300)
    desk.end(one, Settlement.REFUNDED)
    before = desk.books.statistics(desk.now)
    desk.end(one, Settlement.REFUNDED)
    desk.leave(one)
    assert desk.books.statistics(desk.now) == before


# Refusing


def test_what_cannot_be_served_in_time_is_refused_at_once_with_the_time_it_would_take() -> None:
    desk = Desk({"a": RPM60})
    asked = [desk.ask("a", within=10) for _ in range(70)]
    assert len(desk.granted) == 15
    assert set(desk.refused) == set(asked[60:])
    refused = desk.refused[asked[60]]
    assert refused.kind is FailureKind.RATE_LIMITED
    assert refused.retry_after == KEEP_SECONDS
    desk.wait(10)
    assert set(desk.granted) == set(asked[:60])


def test_nobody_waits_for_a_provider_longer_than_wait_s() -> None:
    desk = Desk({"a": Limits(max_concurrency=1, wait_s=30)})
    holder, begun = desk.ask("a"), desk.now
    waits = desk.ask("a")
    desk.wait(29.9)
    assert waits not in desk.refused
    desk.wait(0.2)
    refused = desk.refused[waits]
    assert (refused.kind, refused.owner, refused.retry_after) == (FailureKind.RATE_LIMITED, "provider", 1.0)
    assert refused.why == "the limits of provider a allow no request within 30 s (wait_s); try again in 1.0 s"
    desk.end(holder)
    assert desk.books.statistics(desk.now).waiting == 0
    assert desk.books.due(desk.now) == inf
    assert desk.now - begun == pytest.approx(30.1)


def test_what_is_certain_to_wait_longer_is_refused_at_once() -> None:
    """But of tokens in flight, which are charged by estimates, some may come back."""
    desk = Desk(
        {"a": Limits(requests_per_minute=4, burst=1.0, wait_s=30), "b": Limits(tokens_per_minute=600, wait_s=30)}
    )
    for _ in range(4):
        desk.ask("a")
    late = desk.refused[desk.ask("a")]
    assert (late.owner, late.retry_after) == ("provider", KEEP_SECONDS)
    desk.now += KEEP_SECONDS - 30
    assert desk.ask("a") not in desk.refused, "30 s are left"
    out = desk.ask("b", tokens=600)
    hopes, begun = desk.ask("b", tokens=500), desk.now
    desk.wait(3)
    desk.end(out, tokens=50)
    assert desk.granted_at[hopes] - begun == 3
    desk.end(hopes, tokens=600)
    assert desk.ask("b", tokens=1) in desk.refused


def test_a_vendors_pause_is_part_of_the_wait() -> None:
    desk = Desk({"a": Limits(wait_s=30)})
    desk.books.hold("a", 20, desk.now)
    assert desk.ask("a") not in desk.refused
    desk.books.hold("a", 40, desk.now)
    desk.look()
    assert {each.owner for each in desk.refused.values()} == {"provider"}
    refused = desk.refused[desk.ask("a")]
    assert refused.retry_after == 40


def test_a_wait_before_counts() -> None:
    desk = Desk({"a": Limits(max_concurrency=1, wait_s=30)})
    desk.ask("a")
    waits = desk.ask("a", waited=25)
    desk.wait(5)
    assert waits in desk.refused


def test_of_several_providers_the_most_patient_decides() -> None:
    desk = Desk({"a": Limits(max_concurrency=1, wait_s=2), "b": Limits(max_concurrency=1, wait_s=10)})
    desk.ask("a"), desk.ask("b")
    waits = desk.ask("a", "b")
    desk.wait(9)
    assert waits not in desk.refused
    desk.wait(1)
    assert "providers a, b allow no request within 10 s" in desk.refused[waits].why


def test_a_callers_own_limit_is_waited_for_a_second_and_the_refusal_says_whose_it_was() -> None:
    desk = Desk({"a": NONE}, {"me": Limits(requests_per_minute=60, wait_s=1)})
    asked = [desk.ask("a", caller="me") for _ in range(60)]
    desk.wait(1)
    assert set(desk.granted) == set(asked[:30]), "a burst, and a second later another"
    refused = desk.refused[asked[30]]
    assert (refused.kind, refused.owner, refused.retry_after) == (FailureKind.RATE_LIMITED, "caller", 2.0)
    assert refused.why == "the caller's own limits allow no request within 1 s (wait_s); try again in 2.0 s"


def test_a_callers_slots_are_waited_for_a_second_in_one_go() -> None:
    """The rest of a wait, for the provider, is not held against the caller."""
    desk = Desk({"a": ONE}, {"me": Limits(max_concurrency=1, wait_s=1)})
    mine = desk.ask("elsewhere", caller="me")
    waits = desk.ask("a", caller="me")
    desk.end(mine)
    other = desk.ask("a")
    desk.wait(0.5)
    mine = desk.ask("elsewhere", caller="me")
    late = desk.ask("a", caller="me")
    desk.wait(0.9)
    assert waits in desk.granted
    assert not desk.refused
    desk.wait(0.2)
    assert desk.refused[late].owner == "caller"
    assert (other, mine) != (waits, late)


def test_an_urgent_request_is_not_refused_because_of_those_it_overtakes() -> None:
    desk = Desk({"a": RPM60})
    for _ in range(60):
        desk.ask("a")
    assert desk.ask("a", within=5) in desk.refused
    urgent = desk.ask("a", within=5, priority=0)
    desk.wait(5)
    assert urgent in desk.granted


def test_another_callers_backlog_is_not_held_against_one() -> None:
    desk = Desk({"a": RPM60})
    for _ in range(80):
        desk.ask("a", caller="busy")
    late = desk.ask("a", caller="late", within=5)
    desk.wait(5)
    assert late in desk.granted


def test_those_who_can_no_longer_make_it_hear_so_when_a_pause_begins() -> None:
    desk = Desk({"a": Limits(requests_per_minute=60, max_concurrency=1)})
    holder = desk.ask("a")
    short, long = desk.ask("a", within=20), desk.ask("a", within=60)
    desk.books.hold("a", 30, desk.now)
    desk.look()
    assert short in desk.refused
    desk.end(holder)
    desk.wait(60)
    assert long in desk.granted


def test_the_line_is_bounded_and_one_caller_cannot_fill_it() -> None:
    desk = Desk({"a": ONE})
    desk.ask("a")
    hog = [desk.ask("a", caller="hog") for _ in range(MAX_WAITING_PER_CALLER + 1)]
    assert list(desk.refused) == hog[-1:]
    assert (desk.refused[hog[-1]].kind, desk.refused[hog[-1]].owner) == (FailureKind.QUEUE_FULL, "caller")
    other = desk.ask("a", caller="other")
    assert other not in desk.refused


def test_what_is_in_flight_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("llm_actors.limiter.rate_limiter.MAX_LEASES", 3)
    desk = Desk({"a": NONE})
    asked = [desk.ask("a") for _ in range(4)]
    assert list(desk.refused) == asked[3:]
    assert (desk.refused[asked[3]].kind, desk.refused[asked[3]].owner) == (FailureKind.QUEUE_FULL, "server")
    desk.end(asked[0])
    assert desk.ask("a") in desk.granted


def test_ended_leases_leave_nothing_behind() -> None:
    desk = Desk({"a": NONE})
    desk.ask("a", lease=100)
    for _ in range(1000):
        desk.end(desk.ask("a"))
    assert len(desk.books._leases._ends) < 100


def test_the_departed_leave_nothing_in_the_line() -> None:
    desk = Desk({"a": ONE, "b": ONE})
    desk.ask("a"), desk.ask("b")
    for _ in range(10_000):
        desk.leave(desk.ask("a", "b"))
    heaps = [queue.heap for _, line in desk.books._providers.values() for queue in line._queues.values()]
    assert not heaps
    first = desk.ask("a", "b")
    for _ in range(1000):
        desk.leave(desk.ask("a", "b"))
    heaps = [queue.heap for _, line in desk.books._providers.values() for queue in line._queues.values()]
    assert max(map(len, heaps)) < 30
    assert desk.books.statistics(desk.now).waiting == 1
    desk.leave(first)


def test_callers_books_are_bounded_and_those_in_use_are_kept() -> None:
    desk = Desk({"a": NONE}, others=Limits(requests_per_minute=1, max_concurrency=1))
    used = desk.ask("a", caller="in use")
    for n in range(MAX_CALLERS + 100):
        desk.end(desk.ask("a", caller=f"caller {n}"))
    assert len(desk.books.statistics(desk.now).callers) == MAX_CALLERS
    assert desk.ask("a", caller="in use") not in desk.granted
    assert used in desk.granted


# Headers


def test_headers_that_promise_more_raise_nothing() -> None:
    desk = Desk({"a": Limits(requests_per_minute=60, tokens_per_minute=600)})
    for _ in range(60):
        desk.ask("a", tokens=10)
    desk.wait(5)
    assert len(desk.granted) == 60
    lie = RateLimits(requests_limit=10**6, requests_remaining=10**6, tokens_limit=10**9, tokens_remaining=10**9)
    desk.books.observe("a", lie, desk.now)
    assert desk.ask("a", tokens=10) not in desk.granted
    desk.wait(56)
    assert len(desk.granted) == 60
    desk.wait(1)
    assert len(desk.granted) == 61


def test_headers_that_say_less_are_believed_until_the_refill() -> None:
    desk = Desk({"a": RPM60})
    desk.books.observe("a", RateLimits(requests_remaining=5, requests_reset_s=55), desk.now)
    for _ in range(20):
        desk.ask("a")
    assert len(desk.granted) == 5
    desk.wait(5)
    assert len(desk.granted) == 10


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
    desk = Desk({"a": limits})
    desk.books.observe("a", said, desk.now)
    asked = desk.ask("a")
    desk.wait(65)
    assert asked in desk.granted


def test_remaining_that_goes_backwards_only_narrows() -> None:
    """Answers overtake one another, so an old header may come last."""
    desk = Desk({"a": RPM60})
    for left in (50, 10, 40, 60):
        desk.books.observe("a", RateLimits(requests_remaining=left), desk.now)
    assert desk.books.statistics(desk.now).providers["a"].requests_left == 10


def test_a_retry_after_is_obeyed_and_a_pace_follows_it_where_no_limit_is_known() -> None:
    desk = Desk({"a": NONE})
    desk.books.hold("a", 300, desk.now)
    asked = [desk.ask("a") for _ in range(100)]
    assert desk.wait(299) == 0
    assert not desk.granted
    desk.wait(2)
    assert 1 <= len(desk.granted) <= 12
    desk.wait(20)
    assert list(desk.granted) == asked
    desk.wait(120)
    for _ in range(1000):
        desk.ask("a")
    assert len(desk.granted) == 1100


def test_after_a_pause_our_own_rate_goes_on_and_no_minutes_worth_is_let_go_at_once() -> None:
    desk = Desk({"a": RPM60})
    desk.books.hold("a", 30, desk.now)
    for _ in range(60):
        desk.ask("a")
    desk.wait(30)
    assert len(desk.granted) == 1
    desk.wait(10)
    assert len(desk.granted) == 11


# Restarts and leases


def test_after_a_restart_leases_windows_and_debts_are_what_they_were() -> None:
    desk = Desk({"a": Limits(requests_per_minute=4, burst=1.0, max_concurrency=3)}, {"me": TPM600})
    out = desk.ask("a", caller="me", tokens=600)
    desk.end(desk.ask("a"), tokens=10)
    before = desk.books.statistics(desk.now)
    desk.crash()
    assert desk.books.statistics(desk.now).providers == before.providers
    desk.crash()
    asked = [desk.ask("a") for _ in range(3)]
    assert [number in desk.granted for number in asked] == [True, True, False]
    desk.end(out, Settlement.REFUNDED)
    assert asked[2] in desk.granted, "the slot is free, and the request came back to the window it was counted in"


def test_a_pause_survives_a_restart() -> None:
    desk = Desk({"a": NONE})
    desk.books.hold("a", 30, desk.now)
    desk.crash()
    asked = desk.ask("a")
    desk.wait(29)
    assert asked not in desk.granted
    desk.wait(2)
    assert asked in desk.granted


def test_a_lease_that_nobody_ends_expires_and_its_late_end_is_ignored() -> None:
    desk = Desk({"a": ONE})
    lost = desk.ask("a", lease=100)
    waits = desk.ask("a")
    assert desk.wait(99) == 0
    desk.wait(2)
    assert waits in desk.granted
    desk.end(lost)
    assert desk.books.statistics(desk.now).providers["a"].in_flight == 1
    assert desk.books.statistics(desk.now).expired == 1


def test_an_hour_that_passes_at_once_lets_one_burst_go_and_no_more() -> None:
    """The machine slept. Nothing goes beyond the window, and the timer does not spin."""
    desk = Desk({"a": RPM60})
    for _ in range(300):
        desk.ask("a", lease=86_400)
    desk.now += 3600
    desk.books.serve(desk.now)
    desk.look()
    assert len(desk.granted) == 30
    assert desk.books.due(desk.now) > desk.now
    assert desk.wait(10) == 3
    assert len(desk.granted) == 75


def test_a_request_waits_for_its_callers_limits_or_for_the_providers() -> None:
    desk = Desk({"a": Limits(max_concurrency=2)}, callers={"small": Limits(max_concurrency=1)})
    desk.ask("a", caller="small")
    desk.ask("a", caller="small")  # for its own caller: the provider has room
    before = desk.books.statistics(desk.now)
    assert (before.providers["a"].waiting, before.callers["small"].waiting) == (0, 1)
    desk.ask("a", caller="large")
    desk.ask("a", caller="large")  # for the provider
    after = desk.books.statistics(desk.now)
    assert (after.providers["a"].waiting, after.callers["small"].waiting) == (1, 1)
    assert after.waiting == 2
