"""What the clients of a storm do. It depends only on a seed, so a storm can be repeated."""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import NamedTuple

SLOW_SLOTS = 200
SLOW_PER_SECOND = 20.0
SLOW_TOKENS = (60, 300)
"""As many slow streams are open at once; each lasts 3 to 15 s, and another follows."""

FAST_PER_SECOND = (500.0, 1_000.0)
FAST_TOKENS = (1_000, 5_000)

LEAVING = 1 / 3
FAULTY = 0.05
"""What share of the calls is cancelled, or meets a fault of the provider's."""

LEAVES = ("client", "deadline", "disconnect", "reset")
"""Who cancels. Over HTTP the client has no way but to disconnect."""

FAULTS = ("500", "429", "close", "reset", "truncate", "garbage", "error", "stall")
CRASH = "crash"

FLOODERS = 40
FLOOD_SECONDS = 0.25
FLOOD_PATIENCE_SECONDS = 1.0
"""So many ask at once, again at each such interval, and leave when there is no answer after so long."""

SHORTEST_DEADLINE_S = 0.02


class Call(NamedTuple):
    """One streamed call: what the provider is told to do, and when the client leaves."""

    number: int
    kind: str
    """slow, fast or broken (the provider whose decoder crashes)."""
    tokens: int
    per_second: float
    fault: str = ""
    fault_at: int = 0
    leaves: str = ""
    leaves_after: float = 0.0

    @property
    def model(self) -> str:
        return "broken/m" if self.kind == "broken" else "main/m"

    @property
    def prompt(self) -> str:
        """What the provider reads its part from."""
        return f"storm {self.number} {self.tokens} {self.per_second:g} {self.fault or 'none'} {self.fault_at}"

    @property
    def text(self) -> str:
        """What the provider says."""
        return "".join(token(self.number, index) for index in range(self.tokens))

    @property
    def seconds(self) -> float:
        """How long it says it."""
        return self.tokens / self.per_second

    @property
    def is_untouched(self) -> bool:
        """Whether it is to be whole."""
        return not (self.fault or self.leaves)


def token(number: int, index: int) -> str:
    """One token of a call's text; no two are alike."""
    return f" {number}.{index}"


class Slot(NamedTuple):
    """One client, that makes one call after the other."""

    number: int
    kind: str

    def calls(self, seed: int) -> Iterator[tuple[float, Call]]:
        """Seconds to wait, then the next call; without end."""
        draw = random.Random(f"{seed}/{self.number}")
        yield draw.uniform(0, 4), self._call(draw, 0)
        for count in range(1, 1_000_000):
            yield draw.uniform(0, 0.2), self._call(draw, count)

    def _call(self, draw: random.Random, count: int) -> Call:
        tokens = draw.randint(*(FAST_TOKENS if self.kind == "fast" else SLOW_TOKENS))
        per_second = round(draw.uniform(*FAST_PER_SECOND)) if self.kind == "fast" else SLOW_PER_SECOND
        call = Call(self.number * 1_000_000 + count, self.kind, tokens, per_second)
        at = draw.choice((0, draw.randrange(tokens)))
        if self.kind == "broken":
            call = call._replace(tokens=min(tokens, 40), fault=CRASH, fault_at=min(at, 39))
        elif draw.random() < FAULTY:
            call = call._replace(fault=draw.choice(FAULTS), fault_at=at)
        if draw.random() < LEAVING:
            after = max(SHORTEST_DEADLINE_S, draw.uniform(0, call.seconds))
            call = call._replace(leaves=draw.choice(LEAVES), leaves_after=after)
        return call


def slots(fast: int, slow: int = SLOW_SLOTS) -> list[Slot]:
    """All clients but the one that floods."""
    kinds = ["slow"] * slow + ["fast"] * fast + ["broken"]
    return [Slot(number, kind) for number, kind in enumerate(kinds, 1)]
