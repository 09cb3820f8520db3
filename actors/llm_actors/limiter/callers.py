"""The callers with limits: their state, and the order of their waiting requests."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator, Mapping
from typing import Protocol, final

from llm_actors.limiter.limit_state import LimitState
from llm_protocol.policy import CALLER_WAIT_SECONDS, Limits

MAX_CALLERS = 4_096
"""The most callers whose limits are tracked. With more, the least recently seen one without requests is forgotten."""

NO_LIMITS = Limits()


class RankedRequest(Protocol):
    """The part of a `QueuedRequest` that its caller's limits use."""

    @property
    def tokens(self) -> int:
        """The estimated number of tokens of the request."""
        ...

    @property
    def rank(self) -> int:
        """The position of the request among the requests of its caller: the lowest is sent first."""
        ...


@final
class Caller:
    """The limits of one caller, and its queued requests for all providers, the oldest first."""

    __slots__ = ("account", "waiting")

    def __init__(self, account: LimitState) -> None:
        self.account = account
        self.waiting: OrderedDict[int, RankedRequest] = OrderedDict()

    def allows(self, waiter: RankedRequest, now: float) -> bool:
        """Return whether the limits allow ``waiter`` to be sent.

        The result is False while an older request waits for the same limits. Otherwise small requests would keep using
        up the capacity that a large request needs.
        """
        if not self.account.has_room(waiter.tokens, now):
            return False
        oldest = next(iter(self.waiting.values()), waiter)
        return oldest is waiter or oldest.rank > waiter.rank or self.account.has_room(oldest.tokens, now)

    def ready_at(self, waiter: RankedRequest, now: float) -> float:
        """Return when the limits may allow ``waiter``: when there is room for it or, if there is room for it now, when
        there is room for the caller's oldest request.
        """
        at = self.account.ready_at(waiter.tokens, now)
        return at if at > now else self.account.ready_at(next(iter(self.waiting.values())).tokens, now)


@final
class Callers:
    """All callers with limits. ``others``: the limits of each caller that is not in ``limits``."""

    def __init__(self, limits: Mapping[str, Limits], others: Limits) -> None:
        self._limits = limits
        self._others = others
        self._known: OrderedDict[str, Caller] = OrderedDict()

    def __len__(self) -> int:
        return len(self._known)

    def find(self, name: str) -> Caller | None:
        """Return the caller with that ``name``; ``None`` if it has no limits."""
        limits = self._limits.get(name, self._others)
        if not limits.is_limited:
            return None
        caller = self._known.get(name)
        if caller is None or caller.account.limits != limits:
            caller = Caller(LimitState(limits, CALLER_WAIT_SECONDS))
            self._known[name] = caller
            self._forget_one(but=name)
        self._known.move_to_end(name)
        return caller

    def change(self, limits: Mapping[str, Limits]) -> None:
        """Replace the limits. Usage stays. A caller that no longer has limits is forgotten once it is idle."""
        self._limits = limits
        for name, caller in self._known.items():
            caller.account.change(limits.get(name, self._others), CALLER_WAIT_SECONDS)

    def _forget_one(self, but: str) -> None:
        if len(self._known) <= MAX_CALLERS:
            return
        for name, caller in self._known.items():
            if name != but and not caller.account.in_flight and not caller.waiting:
                del self._known[name]
                return

    def inherit(self, former: Callers) -> None:
        """Take over the state of ``former``, after a restart. Its queued requests are dropped."""
        for name, caller in former._known.items():
            caller.account.change(self._limits.get(name, self._others), CALLER_WAIT_SECONDS)
            caller.waiting.clear()
            self._known[name] = caller

    def __iter__(self) -> Iterator[tuple[str, Caller]]:
        """Iterate over all known callers, with their names."""
        return iter(self._known.items())
