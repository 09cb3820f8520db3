"""Shares of budgets: whatever breaks, all processes together spend no more than there is. On a virtual clock."""

from __future__ import annotations

from copy import deepcopy
from typing import NamedTuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llm_actors.limiter.budget_window import NOTHING, Amount
from llm_actors.limiter.budget_wire import BudgetQuestion, decode, encode
from llm_actors.limiter.budgets import BudgetRefused, Budgets, SpendAsk
from llm_actors.redis import script_of
from llm_protocol.budgets import Budget, Payer
from support.ledger import VirtualRedis

NOON = 1_796_040_000.0  # 2026-11-30T12:00:00Z
DAY = 86_400.0
PRICE = 0.03
LIMIT = 1.0
BUDGETS = {"b": Budget(usd=LIMIT, per="day")}
COMPLETE_SECONDS = 4.0


class Row(NamedTuple):
    """What a process wrote into its ledger: who, when, and what it counts."""

    owner: str
    at: float
    usd: float


class World:
    """Processes, their ledgers, one Redis, and what was billed in each window."""

    def __init__(self) -> None:
        self.mono = 0.0
        self.wall = NOON
        self.redis = VirtualRedis(lambda: NOON + self.mono, script_of("llm_actors.limiter", "budgets.lua"))
        self.billed: dict[float, float] = {}
        self.unheard: dict[tuple[str, float], float] = {}
        self.lost_at = -100.0
        self.count = 0

    def bill(self, at: float, usd: float) -> None:
        day = at // DAY
        self.billed[day] = self.billed.get(day, 0.0) + usd

    def check(self) -> None:
        for day, billed in self.billed.items():
            unheard = sum(usd for (_, of), usd in self.unheard.items() if of == day)
            assert billed <= LIMIT + unheard + 1e-5

    def lose_memory(self, processes: list[Process]) -> None:
        """What nobody but a process itself knows of its share is lost, unless it tells in time."""
        for one in processes:
            for day in (self.wall // DAY, self.wall // DAY + 1):
                known = [other.remembered(one.name, day) for other in processes if other is not one and other.alive]
                gap = one.share(day) - max(known, default=0.0)
                self.unheard[one.name, day] = max(gap, self.unheard.get((one.name, day), 0.0))
        self.redis.hashes.clear()
        self.lost_at = self.mono


class Process:
    """The budgets of one, and the part of the coordinator that decides."""

    def __init__(self, world: World, rows: list[Row] | None = None) -> None:
        world.count += 1
        self.world, self.name = world, f"p{world.count}"
        self.budgets = Budgets(BUDGETS, shared=True)
        self.rows = rows or []
        self.budgets.load(((row.owner, Payer(""), row.at, row.usd, 1) for row in self.rows), own=self.name)
        self.budgets.gone = {row.owner for row in self.rows}
        self.alive = self.reaches = self.remembers = True
        self.waiting: list[int] = []
        self.sent: dict[int, float] = {}
        self.number = 0

    def share(self, day: float) -> float:
        state = self.budgets.state("b", day * DAY)
        return max(state.share.usd, state.own.usd)

    def remembered(self, name: str, day: float) -> float:
        told = self.budgets.state("b", day * DAY).others.get(name)
        return 0.0 if told is None else max(told.share.usd, told.own.usd)

    def claim(self, usd: float) -> bool:
        self.number += 1
        ask = SpendAsk(Payer("run"), {"p": usd}, {"p": "m"}, 1, 2)
        if isinstance(self.budgets.reserve(self.number, ask, self.world.wall), BudgetRefused):
            return False
        self.waiting.append(self.number)
        return True

    def question(self, numbers: list[int], *, leaves: bool = False) -> BudgetQuestion:
        return encode(
            self.budgets, numbers, process=self.name, prefix="x", wall=self.world.wall, remembers=self.remembers,
            leaves=leaves,
        )  # fmt: skip

    def take(self) -> list[int]:
        """All that wait."""
        numbers, self.waiting = self.waiting, []
        return numbers

    def ask(self, *, lose: str = "", leaves: bool = False) -> None:
        """Ask for all that wait; ``lose``: the question or its answer is lost."""
        numbers = self.take()
        if not self.reaches or lose == "question":
            if self.reaches:
                self.question(numbers)
            self.alone(numbers)
            return
        if self.budgets.sharing == "alone":
            self.alone(numbers)
            numbers = []
        question = self.question(numbers, leaves=leaves)
        answer = self.world.redis.run(question.keys, question.argument)
        if self.world.mono < self.world.lost_at + COMPLETE_SECONDS:
            for key in [key for key in self.world.unheard if key[0] == self.name]:
                del self.world.unheard[key]
        if lose == "answer":
            self.alone(numbers)
            return
        told, refused = decode(answer, question)
        for (_, state), each in zip(question.windows, told, strict=True):
            self.budgets.heard(state, each, question.number)
        self.remembers = not all(each.complete for each in told)
        self.budgets.join()
        for number, place in zip(numbers, refused, strict=True):
            if place:
                self.budgets.release(number)
            else:
                self.budgets.confirm(number)
                self.send(number)

    def alone(self, numbers: list[int]) -> None:
        self.remembers = True
        self.budgets.go_alone()
        for number in numbers:
            if self.budgets.pay_alone(number, self.world.wall):
                self.budgets.release(number)
            else:
                self.send(number)

    def send(self, number: int) -> None:
        """It is in the ledger before the call, with what was reserved, which may be the bill."""
        (part,) = self.budgets.holds[number].parts
        self.sent[number] = part.state.window.start
        self.rows.append(Row(f"{self.name}/{number}", part.state.window.start, part.amount.usd))
        self.world.bill(part.state.window.start, part.amount.usd)

    def settle(self, usd: float) -> None:
        """The oldest call ends, and took so much, or all that was reserved."""
        if not self.sent:
            return
        number, at = next(iter(self.sent.items()))
        del self.sent[number]
        reserved = self.budgets.holds[number].parts[0].amount.usd
        cost = min(usd, reserved)
        self.world.bill(at, cost - reserved)
        place = next(each for each, row in enumerate(self.rows) if row.owner == f"{self.name}/{number}")
        self.rows[place] = Row(self.name, at, cost)
        self.budgets.end(number, usd=cost, tokens=1)

    def restart(self) -> Process:
        """After its end: another one that has its ledger."""
        self.alive = False
        return Process(self.world, [Row(row.owner.partition("/")[0], row.at, row.usd) for row in self.rows])


STEPS = ["claim"] * 2 + ["ask"] * 2 + ["beat"] * 3 + ["spend"] * 4 + ["all down", "all up"]
STEPS += ["settle", "lost question", "lost answer", "cut", "join", "kill", "start", "leave", "wait", "wait long"]
STEPS += ["midnight", "redis", "flush"]
USD = [0.01, 0.03, 0.1, 0.3]


@settings(max_examples=50)
@given(st.lists(st.tuples(st.sampled_from(STEPS), st.integers(0, 2), st.sampled_from(USD)), max_size=80))
def test_all_together_spend_no_more_than_there_is_whatever_breaks(steps: list[tuple[str, int, float]]) -> None:
    """Calls cost at most what was reserved. Only what a process had in the last moment before it and Redis both lost
    their memory is unknown to all.
    """
    world, processes = settled(3)
    dead = list[Process]()
    for step, which, usd in steps:
        one = processes[which]
        if step in ("kill", "start"):
            one.alive = False
            dead.append(one)
            processes[which] = one.restart() if step == "start" else Process(world)
        elif step in ("redis", "flush"):
            world.lose_memory([*processes, *dead])
            for each in processes if step == "redis" else ():
                each.alone(each.take())
        else:
            happen(step, world, processes, one, usd)
        world.check()


def happen(step: str, world: World, processes: list[Process], one: Process, usd: float) -> None:
    """What happens to all, or to ``one``."""
    match step.split():
        case ["claim"]:
            one.claim(usd)
        case ["settle"]:
            one.settle(usd)
        case ["spend"]:
            spend_all(world, one, usd)
        case ["cut" | "join"]:
            one.reaches = step == "join"
        case ["all", how]:
            for each in processes:
                each.reaches = how == "up"
        case ["midnight"]:
            world.wall += DAY
        case ["beat"]:
            beat(world, processes, 1)
        case ["wait", *long]:
            world.mono += 40 if long else 5
        case ["lost", what]:
            one.ask(lose=what)
        case _:
            one.ask(leaves=step == "leave")


def settled(count: int) -> tuple[World, list[Process]]:
    """Processes that have made a call each, and know of each other."""
    world = World()
    processes = [Process(world) for _ in range(count)]
    for _ in range(8):
        world.mono += 1
        for one in processes:
            one.ask()
    for one in processes:
        assert one.claim(PRICE)
    beat(world, processes)
    return world, processes


def beat(world: World, processes: list[Process], seconds: int = 3) -> None:
    for _ in range(seconds):
        world.mono += 1
        for one in processes:
            one.ask()


def spend_all(world: World, one: Process, usd: float = PRICE) -> float:
    """As much as it is given, call after call. Return how much."""
    before = sum(world.billed.values())
    while one.claim(usd):
        one.ask()
        if not one.sent:
            break
        one.settle(usd)
    return sum(world.billed.values()) - before


def test_half_of_what_is_left_is_set_aside_and_given_back_when_it_is_needed() -> None:
    world, processes = settled(4)
    shares = [one.budgets.state("b", NOON).share.usd - PRICE for one in processes]
    assert shares == pytest.approx([(LIMIT - 4 * PRICE) / 8] * 4, rel=0.15)
    for _ in range(10):
        spend_all(world, processes[0])
        beat(world, processes)
    assert LIMIT - PRICE < sum(world.billed.values()) <= LIMIT + 1e-6, "the last of it, too"


def test_while_redis_is_away_a_share_is_all_there_is_and_over_midnight_there_is_another() -> None:
    world, processes = settled(4)
    for one in processes:
        for _ in range(20):
            assert one.claim(PRICE), "Redis would be asked"
        one.ask(lose="question")
        one.reaches = False
        world.check()
    world, processes = settled(4)
    for one in processes:
        one.reaches = False
        assert spend_all(world, one) > 2 * PRICE
    world.check()
    world.wall += DAY
    spent = [spend_all(world, one) for one in processes]
    assert min(spent) > 2 * PRICE
    assert sum(spent) <= LIMIT
    world.wall += DAY
    assert not processes[0].claim(0.001), "so far ahead nothing was set aside"


def test_who_is_killed_keeps_its_share_until_its_ledger_tells_what_it_spent() -> None:
    world, (first, second) = settled(2)
    first.alive = False
    lost = first.share(NOON // DAY) - PRICE
    beat(world, [second], 40)
    while spend_all(world, second):
        beat(world, [second])
    assert lost > PRICE
    assert sum(world.billed.values()) == pytest.approx(LIMIT - lost, abs=PRICE)
    again = first.restart()
    for _ in range(4):
        beat(world, [second, again])
        spend_all(world, second)
    assert LIMIT - PRICE < sum(world.billed.values()) <= LIMIT + 1e-6


def test_who_leaves_gives_back_all_but_what_it_spent() -> None:
    world, (first, second) = settled(2)
    first.settle(PRICE)
    first.ask(leaves=True)
    for _ in range(6):
        spend_all(world, second)
        beat(world, [second])
    assert LIMIT - PRICE < sum(world.billed.values()) <= LIMIT + 1e-6


def test_a_server_that_comes_back_with_old_data_is_found_out() -> None:
    """A snapshot from before the calls, or a replica that was behind: the first who asks knows more."""
    world, processes = settled(3)
    old = deepcopy(world.redis.hashes)
    spend_all(world, processes[0])
    beat(world, processes)
    world.redis.hashes = old
    processes[1].ask()
    assert not processes[1].budgets.state("b", NOON).complete
    for one in (processes[1], processes[2]):
        spend_all(world, one)
    world.check()
    beat(world, processes, 10)
    for one in processes:
        spend_all(world, one)
    world.check()


def test_a_server_that_forgot_hears_of_all_before_it_gives_more() -> None:
    """Of one that is there, and late; then of one that is no more, which is waited for and then remembered."""
    world, (first, late, gone) = settled(3)
    for _ in range(5):
        assert late.claim(PRICE)
        late.ask()
    beat(world, [first, late, gone], 2)
    shares = {one.name: one.share(NOON // DAY) for one in (late, gone)}
    gone.alive = False
    world.redis.hashes.clear()
    assert spend_all(world, first) < first.share(NOON // DAY)
    world.mono += COMPLETE_SECONDS + 1
    first.ask()
    assert spend_all(world, first) == 0, "the others have not told yet"
    late.ask()
    first.ask()
    assert spend_all(world, first) == 0, "one has not told yet"
    beat(world, [first, late], 30)
    assert spend_all(world, first) > 0
    assert shares[gone.name] > 2 * PRICE
    assert first.share(NOON // DAY) + late.share(NOON // DAY) + shares[gone.name] <= LIMIT + 1e-6


def test_an_answer_that_is_lost_leaves_nobody_with_more_than_redis_knows_of() -> None:
    """Redis gave to another what the first has given up, and the first cannot know."""
    world, (first, second) = settled(2)
    while spend_all(world, second):
        second.ask()
    first.ask()  # and hears that it is to keep nothing
    first.ask(lose="answer")
    while spend_all(world, second):
        second.ask()
    first.reaches = False
    spend_all(world, first, 0.01)
    world.check()


def test_a_question_that_comes_late_changes_nothing() -> None:
    """Its connection was closed, and a server that was frozen reads it after a newer one."""
    world, processes = settled(2)
    late = processes[0].question([])
    spend_all(world, processes[0])
    before = deepcopy(world.redis.hashes)
    assert world.redis.run(late.keys, late.argument) == b"\x90"
    assert world.redis.hashes == before


def test_who_never_claimed_anything_has_no_share() -> None:
    """A process that crashes at its start again and again takes nothing with it."""
    world = World()
    for _ in range(20):
        beat(world, [Process(world)], 6)
    one = Process(world)
    beat(world, [one], 40)
    assert one.claim(0.9)
    one.ask()
    assert one.sent


def test_a_request_that_is_refused_or_long_over_costs_a_process_no_share() -> None:
    """Only the last one that was paid says which share is too small to be of use."""
    world, (first, second) = settled(2)
    for _ in range(10):
        assert second.claim(PRICE)
        second.ask()
    assert first.claim(0.9), "Redis would be asked"
    first.ask()
    assert len(first.sent) == 1
    beat(world, [first, second])
    assert first.share(NOON // DAY) > 2 * PRICE
    assert first.claim(0.4)
    beat(world, [first, second])
    first.settle(PRICE)
    first.settle(PRICE)
    assert first.claim(0.01)
    beat(world, [first, second])
    assert first.share(NOON // DAY) > first.budgets.state("b", NOON).own.usd + PRICE


def test_processes_that_are_gone_and_had_nothing_are_not_told_again_and_again() -> None:
    world = World()
    for _ in range(20):
        one = Process(world)
        one.ask()
        one.ask(leaves=True)
    last = Process(world)
    last.budgets.gone = {f"old{number}" for number in range(20)}
    for _ in range(2):
        last.ask()
    assert last.budgets.state("b", NOON).others == {}
    assert not [who for fields in world.redis.hashes.values() for who in fields if "old" in str(who)]


def test_tokens_are_shared_like_dollars() -> None:
    world = World()
    budgets = Budgets({"t": Budget(tokens=1_000)}, shared=True)

    def ask(*numbers: int) -> tuple[int, ...]:
        world.mono += 2
        question = encode(budgets, numbers, process="p", prefix="x", wall=NOON, remembers=True, leaves=False)
        told, refused = decode(world.redis.run(question.keys, question.argument), question)
        for (_, state), each in zip(question.windows, told, strict=True):
            budgets.heard(state, each, question.number)
        budgets.join()
        return refused

    assert [ask() for _ in range(3)] == [()] * 3
    for number, tokens in ((1, 100), (2, 901), (3, 900)):
        budgets.reserve(number, SpendAsk(Payer("run"), {"p": None}, {}, 1, tokens), NOON)
        if number == 2:
            assert number not in budgets.holds
            continue
        assert ask(number) == (0,)
        budgets.confirm(number)
        assert budgets.state("t", NOON).share == Amount(NOTHING.usd, 550 if number == 1 else 1_000)
