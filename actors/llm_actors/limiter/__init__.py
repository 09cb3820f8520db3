"""The rate limiter: requests, tokens and concurrency, per provider and per caller.

with await reserve(limiter, ("openai", "backup"), tokens=1200, caller="alice") as reservation:
    reservation.sent()
    outcome = await providers[reservation.provider].call(Generate(…))
    reservation.settle(usage, outcome.limits)
"""

from llm_actors.limiter.actor import LimiterActor, change_limits, limiter_child
from llm_actors.limiter.messages import LIMITER_MAILBOX, LimiterMessage, LimiterRef
from llm_actors.limiter.reservation import Reservation, reserve, snapshot, statistics
from llm_actors.limiter.results import LimiterStatistics, LimitStatistics

__all__ = [
    "LIMITER_MAILBOX",
    "LimitStatistics",
    "LimiterActor",
    "LimiterMessage",
    "LimiterRef",
    "LimiterStatistics",
    "Reservation",
    "change_limits",
    "limiter_child",
    "reserve",
    "snapshot",
    "statistics",
]
