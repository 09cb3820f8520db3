"""Whether a request should join a queue for a provider's slots, or be refused at once. Pure.

Whoever joins a queue that leaves too little time is served when it is too late: the vendor is paid for an answer that
nobody receives, and everybody behind waits for it. Two rules keep that from happening:

* A request is refused when the queue would leave it less than the time in which one in ten comparable answers is
  complete (`HOPELESS_PERCENT`): it could hardly succeed.
* A *standing* queue, one that has not been empty for `STANDING_SECONDS`, may cost a request no more than
  `WAIT_SHARE` of its time. A burst makes a queue that empties again and may be long. A queue that stays means that more
  is asked for than can be done; its length serves nobody, and a short one keeps the slots just as busy.

Nobody is refused at an empty queue, or while too little is known. The estimates are of the mean, not a promise.
"""

from __future__ import annotations

from collections.abc import Sequence

HOPELESS_PERCENT = 10
LEAST_TIMES = 10
"""Service times that must be known before anybody is refused."""

STANDING_SECONDS = 1.0
WAIT_SHARE = 0.25


def expected_wait(waiting: float, serving: int, slots: int, mean_s: float) -> float:
    """Seconds until a slot is free for a request that joins now, behind ``waiting`` others; 0.0 at an empty queue."""
    ahead = waiting - (slots - serving)
    return 0.0 if ahead < 0 else (ahead + 1) * mean_s / slots


def least_time(times: Sequence[float]) -> float | None:
    """The time within which `HOPELESS_PERCENT` of comparable answers are complete; ``None``: too little is known."""
    if len(times) < LEAST_TIMES:
        return None
    return sorted(times)[len(times) * HOPELESS_PERCENT // 100]


def refused_for(wait_s: float, left_s: float, least_s: float | None, *, standing: bool) -> float | None:
    """Seconds after which a refused request may come back; ``None``: it may join the queue.

    ``wait_s`` is the expected wait, ``left_s`` the time that the request has, ``least_s`` its `least_time`, and
    ``standing`` whether the queue has been there for `STANDING_SECONDS`.
    """
    if wait_s <= 0 or least_s is None:
        return None
    longest = left_s - least_s
    if standing:
        longest = min(longest, WAIT_SHARE * left_s)
    return None if wait_s <= longest else wait_s - max(0.0, longest)
