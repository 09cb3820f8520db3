"""The results of the calls of a storm, and the gaps between their tokens."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Awaitable, Callable
from typing import Any, final

import trio

from bench._storm.plan import Call

LATE_SECONDS = 5.0
"""So much later than its deadline a call may end."""

LATE = "deadline passed, and the call did not end"

PATIENCE_SECONDS = 65.0
"""A call that has no end so long after it should have is hung. Of two attempts each may wait 30 s (``wait_s``) for the
circuit of the provider that crashes.
"""

LAG_SECONDS = 0.01
"""How often a client looks whether it is late itself."""


def percentile(counts: Counter[int], share: float) -> int:
    """The value below which ``share`` of the counted ones are."""
    left = share * counts.total()
    for value in sorted(counts):
        left -= counts[value]
        if left <= 0:
            return value
    return 0


@final
class Ended:
    """How one call ended."""

    def __init__(self, call: Call, now: float) -> None:
        self.call = call
        self.outcome = ""
        self.began = now
        self.pieces: list[str] = []
        self.gaps: list[int] = []
        self._last = 0.0

    def add(self, text: str, now: float) -> None:
        """Some text has come."""
        if self._last:
            self.gaps.append(int((now - self._last) * 1000))
        self._last = now
        self.pieces.append(text)


@final
class Score:
    """All calls of one storm."""

    def __init__(self) -> None:
        self.outcomes: defaultdict[str, Counter[str]] = defaultdict(Counter)
        self.gaps: defaultdict[str, Counter[int]] = defaultdict(Counter)
        self.lag: Counter[int] = Counter()
        self.wrong: Counter[str] = Counter()
        self.flood: Counter[str] = Counter()
        self.tokens = 0

    def end(self, ended: Ended, now: float) -> None:
        """Count a call that has ended."""
        call, text, outcome = ended.call, "".join(ended.pieces), ended.outcome
        self.tokens += len(ended.gaps) + 1
        kind = "broken" if call.kind == "broken" else call.leaves or (call.fault and "fault") or call.kind
        self.outcomes[kind][outcome] += 1
        if not call.text.startswith(text):
            self.wrong[f"{kind}: text that was not sent"] += 1
        elif outcome == "whole" and text != call.text:
            self.wrong[f"{kind}: called whole, with text missing"] += 1
        if outcome == "hung":
            self.wrong[f"{kind}: hung"] += 1
        if call.is_untouched:
            self.gaps[call.kind].update(ended.gaps)
            if outcome != "whole":
                self.wrong[f"untouched {call.kind} stream: {outcome}"] += 1
        if call.leaves == "deadline" and now - ended.began > call.leaves_after + LATE_SECONDS:
            self.wrong[LATE] += 1

    def to_json(self) -> dict[str, Any]:
        """For another process."""
        return dict(vars(self))

    @classmethod
    def from_json(cls, told: dict[str, Any]) -> Score:
        """What `to_json` has told."""
        score = cls()
        for name, counts in told["outcomes"].items():
            score.outcomes[name].update(counts)
        for name, counts in told["gaps"].items():
            score.gaps[name].update({int(value): count for value, count in counts.items()})
        score.lag.update({int(value): count for value, count in told["lag"].items()})
        score.wrong.update(told["wrong"])
        score.flood.update(told["flood"])
        score.tokens = told["tokens"]
        return score


async def call_once(score: Score, call: Call, way: Callable[[Ended], Awaitable[None]], *, goes: bool) -> None:
    """Make one call and count how it ends. With ``goes`` it is cancelled when the call says that its client leaves."""
    ended = Ended(call, trio.current_time())
    with trio.move_on_after(call.leaves_after if goes else call.seconds + PATIENCE_SECONDS) as scope:
        try:
            await way(ended)
        except (OSError, trio.BrokenResourceError) as exc:
            ended.outcome = f"cut: {type(exc).__name__}"
    if scope.cancelled_caught:
        ended.outcome = "left" if goes else "hung"
    score.end(ended, trio.current_time())


async def watch_lag(score: Score) -> None:
    """Count by how many milliseconds this process wakes up too late."""
    while True:
        due = trio.current_time() + LAG_SECONDS
        await trio.sleep_until(due)
        score.lag[int((trio.current_time() - due) * 1000)] += 1
