"""The shared ledger's arithmetic, on a clock that is moved by hand: the script itself runs, in this process."""

from __future__ import annotations

import os
from math import inf
from random import Random
from typing import NamedTuple

import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from llm_actors.limiter.limit_state import LimitState
from llm_actors.limiter.shared.wire import (
    Claim,
    Entry,
    Held,
    LedgerPause,
    LedgerReply,
    Receipt,
    Settle,
    SharedLimit,
    decode,
    encode,
)
from llm_actors.limiter.window import KEEP_SECONDS, MINUTE, Charge, Window
from llm_protocol.failures import Settlement
from llm_protocol.policy import Limits
from support.ledger import EPOCH, SOURCE, VirtualRedis
from support.redis import redis, server_binaries

DAY = 86_400.0
BEAT = 5.0
FORGOTTEN = 15.0

LIVES = 20
STEPS = 120


class Clock:
    """Time as it passes, and how wrong the server's clock is."""

    def __init__(self) -> None:
        self.time = 0.0
        self.off = 0.0

    def __call__(self) -> float:
        return EPOCH + self.time + self.off


class Out(NamedTuple):
    """A claim that was charged."""

    names: tuple[str, ...]
    receipt: Receipt
    wait_s: float


class Replica:
    """One process: what it holds, and what it says of it."""

    def __init__(self, redis: VirtualRedis, process: str, limits: dict[str, Limits], clock: Clock) -> None:
        self._redis = redis
        self._process = process
        self._clock = clock
        self._ahead = -inf
        self.limits = {name: SharedLimit(name, LimitState(each)) for name, each in limits.items()}
        self.out: list[Out] = []

    def ask(self, *wanted: tuple[tuple[str, ...], int, float]) -> list[LedgerReply]:
        """One batch of claims: names, tokens, patience."""
        claims = [
            Claim(number, tuple(self.limits[name] for name in names), tokens, patience)
            for number, (names, tokens, patience) in enumerate(wanted)
        ]
        self._count(claims, 1)
        answered = self.tell(*claims)
        self._count([claim for claim, answer in answered if not answer.charged], -1)
        for (names, _, _), (claim, answer) in zip(wanted, answered, strict=True):
            if answer.charged:
                self.out.append(Out(names, Receipt(claim, answer.marks), answer.wait_s))
        return [answer for _, answer in answered]

    def claim(self, *names: str, tokens: int = 0, patience: float = 0.0) -> LedgerReply:
        return self.ask((names, tokens, patience))[0]

    def end(self, place: int = -1, ending: Settlement = Settlement.CHARGED, tokens: int | None = None) -> Out:
        out = self.out.pop(place)
        self._count([out.receipt.claim], -1)
        self.tell(Settle(out.receipt, ending, tokens))
        return out

    def beat(self) -> None:
        self.tell(*(Held(limit) for limit in self.limits.values() if limit.account.in_flight))

    def look(self) -> None:
        self.tell(*map(Held, self.limits.values()))

    def hold(self, name: str, seconds: float) -> None:
        self.tell(LedgerPause(self.limits[name], seconds))

    def tell(self, *entries: Entry) -> list[tuple[Claim, LedgerReply]]:
        claims = [entry for entry in entries if isinstance(entry, Claim)]
        batch = encode("clock", self._process, max(0.0, self._clock.time + self._ahead), entries, claims)
        there, answered = decode(self._redis.run(batch.keys, batch.argument), claims)
        self._ahead = there - self._clock.time
        return answered

    @staticmethod
    def _count(claims: list[Claim], by: int) -> None:
        for claim in claims:
            for limit in claim.limits:
                limit.account.in_flight += by


class World:
    """Some processes, one server."""

    def __init__(self, count: int, **limits: Limits) -> None:
        self.clock = Clock()
        self.redis = VirtualRedis(self.clock)
        self.limits = limits
        self.born = 0
        self.replicas = [self.start() for _ in range(count)]

    def start(self) -> Replica:
        self.born += 1
        replica = Replica(self.redis, f"process-{self.born}", self.limits, self.clock)
        replica.tell()
        return replica

    def wait(self, seconds: float) -> None:
        """Time passes, and nobody forgets to beat."""
        end = self.clock.time + seconds
        while self.clock.time < end:
            self.clock.time = min(end, self.clock.time + BEAT)
            for each in self.replicas:
                each.beat()


# One process: the same as our own window


@settings(max_examples=60, derandomize=True, deadline=None)
@given(
    st.floats(0.01, 1.0),
    st.lists(st.tuples(st.integers(0, 5), st.integers(0, 20_000), st.integers(0, 900)), max_size=40),
)
def test_the_script_counts_like_our_own_windows(share: float, steps: list[tuple[int, int, int]]) -> None:
    """The same operations lead to the same counters and the same waits; so a refund never gives too much."""
    world = World(1, a=Limits(requests_per_minute=60, tokens_per_minute=600, burst=share))
    (one,) = world.replicas
    ours = (Window(60, max(1, int(60 * share))), Window(600, max(1, int(600 * share))))
    charges: list[tuple[Charge, Charge]] = []
    for what, millis, amount in steps:
        now = world.clock()
        if what < 2:
            expected = max(window.ready_at(cost, now) - now for window, cost in zip(ours, (1, amount), strict=True))
            answer = one.claim("a", tokens=amount)
            assert answer.wait_s == pytest.approx(expected, abs=1e-3)
            if not answer.charged:
                world.clock.time += answer.wait_s + 0.001  # its clock has a precision of microseconds
                now = world.clock()
                assert one.claim("a", tokens=amount).charged
            charges.append((ours[0].charge(1, now), ours[1].charge(amount, now)))
        elif what < 4 and charges:
            place = millis % len(charges)
            ending = (Settlement.REFUNDED, Settlement.REFUNDED_TOKENS, Settlement.CHARGED)[millis % 3]
            one.end(place, ending, amount)
            requests, tokens = charges.pop(place)
            if ending is Settlement.REFUNDED:
                requests.correct(0, now)
            tokens.correct(amount if ending is Settlement.CHARGED else 0, now)
        else:
            world.clock.time += millis / 1000
            one.look()
        now = world.clock()
        for window, field in zip(ours, "rt", strict=True):
            left = window.left(now)
            assert world.redis.used("a", field) == window._total + window._owed
            assert left == max(0, window.limit - window._total - window._owed)


def test_a_pause_is_the_one_of_our_own_account() -> None:
    """Nothing goes before its end, for any process; then one, and the others at the rate."""
    world = World(2, a=Limits(requests_per_minute=60))
    first, second = world.replicas
    world.wait(60)
    first.hold("a", 20.0)
    assert second.claim("a").wait_s == pytest.approx(20.0)
    world.wait(20)
    assert second.claim("a").charged
    assert first.claim("a").wait_s == pytest.approx(1.0)
    world.wait(60)
    assert all(each.claim("a").charged for each in (first, second, first))


@pytest.mark.parametrize("off", [0.0, -3.0, -DAY])
def test_a_pause_is_never_longer_than_an_hour_and_no_longer_if_the_clock_is_set_back(off: float) -> None:
    world = World(1, a=Limits(requests_per_minute=60), b=Limits(requests_per_minute=60))
    (one,) = world.replicas
    one.hold("a", 10 * DAY)
    one.hold("b", 20.0)
    world.clock.off = off
    assert one.claim("a").wait_s == pytest.approx(3600.0)
    assert one.claim("b").wait_s == pytest.approx(20.0)
    world.wait(20)
    assert one.claim("b").charged


# Several processes


class Event(NamedTuple):
    """Something that a meter was charged for. ``asked`` is 0 for what was found to be used only afterwards."""

    since: float
    wait_s: float
    asked: float
    cost: list[float]


class Meter:
    """An independent judge, who remembers everything that was let go, in the order in which it was charged."""

    def __init__(self, per_minute: int) -> None:
        self.limit = per_minute
        self.events: list[Event] = []

    def judge(self) -> None:
        """Each must fit into every 60 seconds that it is part of, beside all that was known when it was charged."""
        before: list[tuple[float, float]] = []
        for event in self.events:
            at, cost = event.since + event.wait_s, min(event.cost[0], self.limit)
            near = [one for one in before if abs(one[0] - at) < MINUTE]
            if event.asked:
                for start in {at, *(one[0] for one in near if one[0] <= at)}:
                    used = sum(one[1] for one in near if start <= one[0] < start + MINUTE)
                    assert used + cost <= self.limit, (event, used)
            before.append((at, cost))


WHOLE = Limits(tokens_per_minute=600, burst=1.0)
LIMITS = {
    "both": Limits(requests_per_minute=60, tokens_per_minute=1200, max_concurrency=6),
    "tokens": Limits(tokens_per_minute=600),
    "slots": Limits(max_concurrency=3),
    "caller": Limits(requests_per_minute=30, tokens_per_minute=900, max_concurrency=4),
}
ALONE = (("both",), ("tokens",), ("slots",))
TOGETHER = (("both", "caller"), ("tokens", "caller"), ("both",), ("slots", "caller"))


class Life(World):
    """Many replicas, and a judge for each limit."""

    def __init__(self, choices: tuple[tuple[str, ...], ...], *, jumps: bool) -> None:
        super().__init__(4, **LIMITS)
        self.choices = choices
        self.jumps = jumps
        self.meters = {
            (name, what): Meter(per_minute)
            for name, limits in LIMITS.items()
            for what in ("requests", "tokens")
            if (per_minute := getattr(limits, f"{what}_per_minute"))
        }
        self.events: dict[int, list[tuple[Meter, Event, str, str, str]]] = {}

    def batch(self, replica: Replica, draw: Random) -> None:
        wanted = [
            (draw.choice(self.choices), draw.choice((0, 1, 10, 100, 700)), draw.choice((0.0, 0.0, 1.0, 30.0, 900.0)))
            for _ in range(draw.randrange(1, 5))
        ]
        before = len(replica.out)
        replica.ask(*wanted)
        for out in replica.out[before:]:
            self.record(out)
        self.check()

    def record(self, out: Out) -> None:
        now, tokens = self.clock.time, out.receipt.claim.tokens
        assert out.wait_s <= out.receipt.claim.patience_s
        events = self.events[id(out.receipt)] = []
        for name, mark in zip(out.names, out.receipt.marks, strict=True):
            for what, cost in (("requests", 1.0), ("tokens", float(tokens))):
                metrics = self.meters.get((name, what))
                if metrics is not None:
                    metrics.events.append(Event(now, out.wait_s, cost, [cost]))
                    events.append((metrics, metrics.events[-1], what, name, mark.born))

    def finish(self, replica: Replica, draw: Random) -> None:
        place = draw.randrange(len(replica.out))
        out = replica.out[place]
        ending = draw.choice((Settlement.CHARGED, Settlement.CHARGED, Settlement.REFUNDED, Settlement.REFUNDED_TOKENS))
        gone = all(self.clock.time >= event.since + event.wait_s for _, event, *_ in self.events[id(out.receipt)])
        ending = ending if gone else Settlement.REFUNDED  # who still waits can only leave
        used = draw.choice((None, 0, 5, 50, 900)) if ending is Settlement.CHARGED else None
        replica.end(place, ending, used)
        for metrics, event, what, name, born in self.events.pop(id(out.receipt)):
            if what == "requests":
                event.cost[0] = 0.0 if ending is Settlement.REFUNDED else 1.0
            elif ending is not Settlement.CHARGED:
                event.cost[0] = 0.0
            elif used is not None:
                event.cost[0] = min(event.asked, float(used))
                if used > event.asked and self.redis.hashes[name]["born"] == born:  # else nobody knows of it any more
                    metrics.events.append(Event(self.clock.time, 0.0, 0.0, [used - event.asked]))
        self.check()

    def jump(self, seconds: float) -> None:
        """The server's clock is set."""
        self.clock.off += seconds
        for each in self.replicas:
            each.beat()

    def crash(self, replica: Replica) -> None:
        self.replicas.remove(replica)
        self.replicas.append(self.start())

    def check(self) -> None:
        """The living together keep to the slots."""
        for name, limits in LIMITS.items():
            if limits.max_concurrency is not None:
                taken = sum(each.limits[name].account.in_flight for each in self.replicas)
                assert taken <= limits.max_concurrency, name

    def end(self) -> None:
        """Nothing is stuck: once all have ended and the dead are forgotten, everything is there again."""
        for replica in self.replicas:
            while replica.out:
                replica.end(0, Settlement.CHARGED, None)
        self.start().look()  # where a clock was set back, the dead are forgotten so long after they were next seen
        self.wait(FORGOTTEN + 1)
        for name, limits in LIMITS.items():
            late = self.start()
            for _ in range(limits.max_concurrency or 1):
                answer = late.claim(name, tokens=10**6, patience=inf)
                assert answer.charged, name
            while late.out:
                late.end(0, Settlement.REFUNDED)
            assert not self.redis.slots(name)
        self.clock.time += DAY / 2
        for name, limits in LIMITS.items():
            one = self.start()
            assert one.claim(name, tokens=limits.tokens_per_minute or 1).charged
        for metrics in self.meters.values():
            metrics.judge()


@pytest.mark.parametrize("choices", [ALONE, TOGETHER], ids=["one-account", "two-accounts"])
@pytest.mark.parametrize("jumps", [False, True], ids=["steady", "clock-jumps"])
def test_together_they_keep_every_limit_and_nothing_is_stuck(choices: tuple[tuple[str, ...], ...], jumps: bool) -> None:
    """Random claims, ends, refunds, pauses, crashes and jumps of the server's clock by a day, in 4 processes.

    No 60 seconds hold more than the limit, whatever the server's clock shows.
    """

    @settings(max_examples=LIVES, derandomize=True, deadline=None, phases=[Phase.generate])
    @given(st.integers(0, 2**32 - 1))
    def live(seed: int) -> None:
        draw, life = Random(seed), Life(choices, jumps=jumps)
        for _ in range(STEPS):
            replica = draw.choice(life.replicas)
            match draw.randrange(20):
                case 0:
                    life.crash(replica)
                case 1 if jumps:
                    life.jump(draw.choice((DAY, -DAY, 3.0, -3.0)))
                case 2:
                    replica.hold(draw.choice(list(LIMITS)), draw.choice((0.5, 5.0, 60.0)))
                case 3 | 4 | 5 | 6 | 7 | 8 if replica.out:
                    life.finish(replica, draw)
                case 9 | 10 | 11:
                    life.wait(draw.choice((0.1, 1.0, 7.0, 70.0)))
                case _:
                    life.batch(replica, draw)
        life.end()

    live()


def test_a_refund_reaches_only_the_account_that_was_charged() -> None:
    """One that was forgotten and opened anew owes nothing for what the former gave."""
    world = World(1, a=Limits(tokens_per_minute=600))
    (one,) = world.replicas
    one.claim("a", tokens=100)
    del world.redis.hashes["a"]
    world.clock.time += 0.001
    one.claim("a", tokens=100)
    one.end(0, Settlement.REFUNDED)
    assert world.redis.used("a", "t") == 100


def test_in_one_batch_nobody_overtakes_who_has_to_wait() -> None:
    """Whether it has a place, or asks again; and only where that one waits."""
    world = World(1, a=WHOLE, b=WHOLE)
    (one,) = world.replicas
    one.claim("a", tokens=200)
    large, small, elsewhere = one.ask((("a",), 500, 1.0), (("a",), 1, 900.0), (("b",), 1, 0.0))
    assert (large.charged, small.charged, elsewhere.charged) == (False, False, True)
    assert small.wait_s == large.wait_s == pytest.approx(KEEP_SECONDS)
    large, small = one.ask((("a",), 500, 62.0), (("a",), 1, 900.0))
    assert (large.charged, small.charged) == (True, False)


def test_a_place_is_behind_those_of_other_processes_and_before_who_comes_later() -> None:
    """A large one is not starved by small ones of another process."""
    world = World(2, a=WHOLE)
    first, second = world.replicas
    assert first.claim("a", tokens=300).charged
    world.wait(20)
    assert second.claim("a", tokens=300).charged
    assert first.claim("a", tokens=500, patience=62.0).wait_s == pytest.approx(KEEP_SECONDS)
    assert second.claim("a", tokens=101).wait_s == pytest.approx(20 + KEEP_SECONDS + 41.5, abs=1)
    assert second.claim("a", tokens=100).wait_s == pytest.approx(KEEP_SECONDS)
    world.wait(KEEP_SECONDS)
    assert second.claim("a", tokens=100).charged
    assert not second.claim("a", tokens=1).charged


@pytest.mark.parametrize("jump", [0.0, -DAY], ids=["steady", "clock-set-back"])
def test_the_slots_of_a_dead_process_are_free_after_15_seconds(jump: float) -> None:
    """Slots are the sum of all processes, and those that live keep theirs."""
    world = World(3, a=Limits(max_concurrency=2))
    dead, living, late = world.replicas
    assert dead.claim("a").charged
    assert living.claim("a").charged
    assert not late.claim("a", patience=900.0).charged, "a slot becomes free when it does: there is no place for it"
    world.replicas.remove(dead)
    world.clock.off = jump
    living.beat()
    world.wait(FORGOTTEN - 1)
    assert not late.claim("a").charged
    world.wait(2)
    assert late.claim("a").charged
    assert not late.claim("a").charged


@pytest.mark.parametrize("binary", server_binaries(), ids=os.path.basename)
def test_a_real_server_answers_what_the_one_in_this_process_does(binary: str) -> None:
    """Every operation there is, both ways over the wire, with Redis' own msgpack."""
    limits = {
        "a": Limits(requests_per_minute=60, tokens_per_minute=600, max_concurrency=2),
        "none": Limits(),
        "größe": Limits(tokens_per_minute=10**12),
    }
    with redis(binary=binary) as server:

        class Real(VirtualRedis):
            def run(self, keys: list[str], argument: bytes) -> bytes:  # type: ignore[override]
                return server.evaluate(SOURCE, keys, argument)

        virtual, real = (_exercise(each, limits) for each in (VirtualRedis(Clock()), Real(Clock())))
        assert [each.wait_s for each in real] == pytest.approx([each.wait_s for each in virtual], abs=1.1)
        assert [each.open_s for each in real] == pytest.approx([each.open_s for each in virtual], abs=1.1)
        for one, other in zip(virtual, real, strict=True):
            assert (one.charged, one.last, len(one.marks)) == (other.charged, other.last, len(other.marks))
        assert [each.held_s for each in real][-2:] == [pytest.approx(50.0, abs=1.1), 0.0]
        for key in "a", "clock":
            assert int(server.command("PTTL", key)[1:]) > 604_000_000


def _exercise(server: VirtualRedis, limits: dict[str, Limits]) -> list[LedgerReply]:
    one = Replica(server, "p", limits, Clock())
    one.tell()
    answers = one.ask((("a",), 0, 0.0), (("a", "größe"), 100, 60.0), (("none",), 5, 0.0), (("a",), 1, 60.0))
    one.hold("größe", 100.0)
    answers += one.ask((("größe", "a"), 10**11, 900.0))
    one.end(0, Settlement.REFUNDED)
    one.end(0, Settlement.CHARGED, 10**9)
    one.end(0, Settlement.CHARGED, 3)
    answers += one.ask((("a",), 500, 0.5), (("a",), 0, 900.0))
    one.tell(LedgerPause(one.limits["none"], 50.0, "modèle"))
    for model in "modèle", "other":
        answers += [answer for _, answer in one.tell(Claim(0, (one.limits["none"],), 1, 0.0, model))]
    one.beat()
    return answers


def test_nothing_but_answers_is_read_as_answers() -> None:
    """Neither nonsense nor arrays in arrays without end."""
    deep = b"\x91\x96\xc3\x00\x00\x00\x90" + b"\x91" * 100_000
    for nonsense in b"", b"\xc1", b"\xc0", b"\x91\xc0", b"\xdd\xff\xff\xff\xff", deep:
        with pytest.raises(ValueError, match=r"."):
            decode(nonsense, ())
