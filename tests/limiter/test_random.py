"""Random lives of the books, and what must hold in all of them."""

from __future__ import annotations

from collections import deque
from math import inf
from random import Random

from hypothesis import given, settings
from hypothesis import strategies as st

from llm_actors.limiter.window import MINUTE
from llm_protocol.dialect import RateLimits
from llm_protocol.failures import Settlement
from llm_protocol.policy import Limits
from support.limits import NONE, LimiterWorld

PROVIDERS = {
    "busy": Limits(requests_per_minute=30, tokens_per_minute=900, max_concurrency=4),
    "rated": Limits(requests_per_minute=120, burst=1.0),
    "tokens": Limits(tokens_per_minute=600),
    "free": NONE,
}
CALLERS = {"small": Limits(requests_per_minute=20, tokens_per_minute=300, max_concurrency=2)}
CHOICES = (("busy",), ("rated",), ("tokens",), ("busy", "rated"), ("tokens", "busy", "rated"), ("free",))
WHO = ("", "small", "big")

LEASE = 200.0

STEPS = 1000
LIVES = 100
"""Together 10^5 steps."""


class Meter:
    """An independent judge, who remembers every request and looks at every 60 seconds that end with one."""

    def __init__(self, per_minute: int, burst: float) -> None:
        self.limit = per_minute
        self.burst = max(1, int(per_minute * burst))
        self.events: list[list[float]] = []  # time, what was asked for (0 for a late charge), what it cost in the end

    def judge(self) -> None:
        recent: deque[list[float]] = deque()
        for event in sorted(self.events, key=lambda event: event[0]):
            time, asked, cost = event
            while recent and recent[0][0] <= time - MINUTE:
                recent.popleft()
            if asked:
                used = sum(min(one[2], self.limit) for one in recent)
                assert used + min(cost, self.limit) <= self.limit, (time, used, asked)
                second = sum(one[2] for one in recent if one[1] and int(one[0]) == int(time))
                assert not second or second + cost <= self.burst, (time, second, asked)
            recent.append(event)


class Life(LimiterWorld):
    """A desk with a judge for every limit, and a ledger of everyone who ever asked."""

    def __init__(self) -> None:
        super().__init__(PROVIDERS, CALLERS)
        self.meters: dict[tuple[str, str], Meter] = {}
        for name, limits in (PROVIDERS | CALLERS).items():
            for what in ("requests", "tokens"):
                per_minute = getattr(limits, f"{what}_per_minute")
                if per_minute:
                    self.meters[name, what] = Meter(per_minute, limits.burst)
        self.asked: dict[int, tuple[int, str]] = {}
        self.waiting: list[int] = []
        self.open: list[int] = []
        self.charged: dict[int, list[tuple[Meter, list[float], str]]] = {}
        self.deadlines: dict[int, float] = {}
        self.ends: dict[int, float] = {}

    def request(self, names: tuple[str, ...], tokens: int, caller: str, priority: int, within: float) -> None:
        number = len(self.asked) + 1
        self.asked[number] = tokens, caller
        self.waiting.append(number)
        self.deadlines[number] = self.now + within
        self.ask(*names, tokens=tokens, caller=caller, priority=priority, within=within, lease=LEASE)

    def look(self) -> None:
        before = len(self.granted)
        super().look()
        for number in list(self.granted)[before:]:
            self._went(number)
        self.waiting = [number for number in self.waiting if number not in self.refused]
        self.open = [number for number in self.open if self.ends[number] > self.now]
        self._check()

    def _went(self, number: int) -> None:
        tokens, caller = self.asked[number]
        self.waiting.remove(number)
        self.open.append(number)
        self.ends[number] = self.now + LEASE
        charges = self.charged[number] = []
        for name in (self.granted[number], caller):
            for what, cost in (("requests", 1), ("tokens", tokens)):
                metrics = self.meters.get((name, what))
                if metrics is not None:
                    event = [self.now, float(cost), float(cost)]
                    metrics.events.append(event)
                    charges.append((metrics, event, what))

    def finish(self, which: int, ending: Settlement, used: int | None) -> None:
        number = self.open.pop(which)
        for metrics, event, what in self.charged.pop(number):
            if what == "requests":
                event[2] = 0.0 if ending is Settlement.REFUNDED else 1.0
            elif ending is not Settlement.CHARGED:
                event[2] = 0.0
            elif used is not None:
                event[2] = min(event[1], float(used))
                if used > event[1]:
                    metrics.events.append([self.now, 0.0, used - event[1]])
        self.end(number, ending, used)

    def _check(self) -> None:
        """Sums balance, at every step."""
        seen = self.rate_limiter.statistics(self.now)
        assert seen.leases == len(self.open)
        assert seen.waiting == len(self.waiting)
        for name, provider in seen.providers.items():
            out = sum(self.granted[number] == name for number in self.open)
            most = PROVIDERS[name].max_concurrency
            assert provider.in_flight == out <= (most or out)
        assert sum(self.asked[number][1] == "small" for number in self.open) <= 2

    def pass_time(self, seconds: float) -> None:
        """Wait; then those whose deadline has passed leave, as callers do."""
        self.wait(seconds)
        for number in [number for number in self.waiting if self.deadlines[number] <= self.now]:
            if number in self.waiting:  # else one that left before it made room, or was the reason to refuse it
                self.waiting.remove(number)
                self.leave(number)

    def crash_and_come_back(self) -> None:
        self.waiting.clear()
        self.crash()
        self._check()

    def drain(self, *, holders_gone: bool) -> None:
        """Never stuck: all who wait are served once those before them end, or their leases do, and nothing is left."""
        for _ in range(5000):
            while self.open and not holders_gone:
                self.finish(0, Settlement.CHARGED, None)
            if not self.waiting and not self.open:
                break
            due = self.rate_limiter.due(self.now)
            assert due < inf, "someone waits and nothing is due"
            self.wait(max(0.0, due - self.now))
        assert not self.waiting
        assert self.rate_limiter.statistics(self.now).leases == 0
        assert not any(caller.waiting for caller in self.rate_limiter._callers._known.values())
        for metrics in self.meters.values():
            metrics.judge()


@settings(max_examples=LIVES, derandomize=True, deadline=None)
@given(st.integers(0, 2**64 - 1))
def test_never_over_the_limit_never_stuck_and_the_sums_balance(seed: int) -> None:
    """10^5 random steps of reserve, settle, refund, leave, wait, vendor's headers, lost leases and crash."""
    draw = Random(seed)
    life = Life()
    for _ in range(STEPS):
        _do(life, *draw.randbytes(4))
    life.drain(holders_gone=bool(seed % 2))


def _do(life: Life, what: int, a: int, b: int, c: int) -> None:
    if what < 100:
        within = 600.0 if a % 3 else float(b)
        life.request(CHOICES[a % len(CHOICES)], (b * b) // 60, WHO[c % len(WHO)], c % 10, within)
    elif what < 170:
        if life.open:
            used = None if b < 20 else c * 4
            life.finish(
                a % len(life.open),
                (Settlement.CHARGED, Settlement.CHARGED, Settlement.REFUNDED, Settlement.REFUNDED_TOKENS)[b % 4],
                used,
            )
    elif what < 190:
        if life.waiting:
            number = life.waiting.pop(a % len(life.waiting))
            life.leave(number)
    elif what < 245:
        life.pass_time((a * a) / 2000)
    elif what < 250:
        name = CHOICES[a % 3][0]
        life.rate_limiter.observe(
            name, RateLimits(requests_remaining=b, tokens_remaining=c * 10, tokens_reset_s=1.0), life.now
        )
        life.look()
    elif what < 253:
        life.rate_limiter.hold(CHOICES[a % 3][0], b / 10, life.now)
        life.look()
    elif a < 64:
        life.crash_and_come_back()
