"""Connects the local rate limiter and the shared ledger: which grants must be confirmed, and what follows from the
answers.

Synchronous throughout: the ledger's task calls `_answered`, and everything is consistent before it returns. Without a
server it does nothing, and the local rate limiter decides alone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple, final

import trio

from llm_actors.limiter.fair_queue import QueuedRequest
from llm_actors.limiter.leases import Lease
from llm_actors.limiter.rate_limiter import Granted, RateLimiter
from llm_actors.limiter.shared.redis import SharedLedger
from llm_actors.limiter.shared.wire import Claim, LedgerReply, Party, Receipt
from llm_actors.redis import RedisServer
from llm_protocol.failures import Settlement

PATIENCE_SECONDS = 1.0
"""How far ahead a request takes a place in the shared queue, plus as long again as it has waited already: a large one
would never find enough at once. Not more, because a request with a place goes neither elsewhere nor sooner, whatever is
returned in the meantime; and of estimated tokens, much is.
"""

AGAIN_SECONDS = 1.0
"""The longest time until the ledger is asked again for a request that was too large for what was left."""

AGAIN_JITTER = 0.5
"""Delays are extended by up to this share, so that several processes do not ask in step."""


MAX_MODEL_LENGTH = 200
"""The longest model name. Holds of models with longer names, which no vendor has, are not shared."""


class Postponed(NamedTuple):
    """A request that has to wait for ``wait_s`` because other processes use ``party``'s limits."""

    waiter: QueuedRequest
    wait_s: float
    party: Party


@final
class SharedLimits:
    """``waiter`` returns the request that still wants reservation ``number``; ``confirmed`` is called with those that
    may go.
    """

    def __init__(
        self,
        server: RedisServer | None,
        rate_limiter: RateLimiter,
        *,
        waiter: Callable[[int], QueuedRequest | None],
        confirmed: Callable[[Sequence[Granted]], None],
        draw: Callable[[], float],
        process: str,
    ) -> None:
        self._rate_limiter = rate_limiter
        self._waiter = waiter
        self._confirmed = confirmed
        self._draw = draw
        self._pauses: dict[str, float] = {}
        self._ledger: SharedLedger | None = None
        if server is not None:
            self._ledger = SharedLedger(
                server,
                wanted=self._wanted,
                answered=self._answered,
                alone=self._alone,
                held=self._held,
                process=process,
            )

    async def start(self, nursery: trio.Nursery) -> None:
        """Keep the session with the server in a task of ``nursery``. Waits until the server was reached, or was not."""
        if self._ledger is not None:
            nursery.start_soon(self._ledger.run)
            await self._ledger.tried.wait()

    @property
    def is_on(self) -> bool:
        """Whether the limits are shared at the moment."""
        return self._ledger is not None and self._ledger.is_open

    def claim(self, granted: Granted) -> bool:
        """Whether the ledger has to confirm what was granted locally."""
        waiter, ledger = self._waiter(granted.number), self._ledger
        if waiter is None or ledger is None or not ledger.is_open:
            return False
        parties = tuple(self._parties(ledger, granted, waiter.caller))
        if not parties:
            return False
        lease = self._rate_limiter.lease(granted.number)
        model = lease.model if lease.provider.limits.is_limited and len(lease.model) <= MAX_MODEL_LENGTH else ""
        ledger.claim(Claim(granted.number, parties, waiter.tokens, _patience(waiter, trio.current_time()), model))
        return True

    def _parties(self, ledger: SharedLedger, granted: Granted, caller: str) -> Iterator[Party]:
        lease = self._rate_limiter.lease(granted.number)
        if lease.provider.limits.is_limited:
            yield ledger.party("provider", lease.name, lease.provider)
        if lease.caller is not None:
            yield ledger.party("caller", caller, lease.caller)

    def ended(self, lease: Lease | None, ending: Settlement, tokens: int | None = None) -> None:
        """A lease has ended: correct what the ledger charged for it."""
        if self._ledger is None or lease is None or lease.receipt is None:
            return
        self._ledger.settle(lease.receipt, ending, tokens)
        for account in lease.accounts:  # a request that waits for other processes may use what this one returns
            limits = account.limits
            if (
                ending is Settlement.REFUNDED
                or limits.max_concurrency is not None
                or limits.tokens_per_minute is not None
            ):
                account.look_again(trio.current_time())

    def paused(self, name: str, now: float) -> None:
        """A vendor reported something. If that began a pause of the provider ``name``, tell the other processes."""
        if self._ledger is None:
            return
        account = self._rate_limiter.account(name)
        if account.held_until > self._pauses.get(name, now):
            self._pauses[name] = account.held_until
            self._ledger.hold(self._ledger.party("provider", name, account), account.held_until - now)

    def held(self, lease: Lease, now: float) -> None:
        """A vendor reported something for ``lease``. If its model is held, tell the other processes."""
        seconds = self._rate_limiter.held_s(lease.deployment, now)
        if self._ledger is None or not seconds or len(lease.model) > MAX_MODEL_LENGTH:
            return
        if lease.provider.limits.is_limited:
            self._ledger.hold(self._ledger.party("provider", lease.name, lease.provider), seconds, lease.model)

    def _held(self) -> Iterator[Party]:
        for sort, name, account in self._rate_limiter.accounts():
            if self._ledger is not None and account.in_flight and account.limits.max_concurrency is not None:
                yield self._ledger.party(sort, name, account)

    def _wanted(self, number: int) -> bool:
        return self._waiter(number) is not None

    def _alone(self, claims: Sequence[Claim]) -> None:
        """The ledger cannot be reached. What was granted locally goes, whether it was charged there or not."""
        self._rate_limiter.go_alone(trio.current_time())
        numbers = [claim.number for claim in claims if self._wanted(claim.number)]
        self._confirmed([Granted(number, self._rate_limiter.lease(number).name) for number in numbers])

    def _answered(self, answers: Sequence[tuple[Claim, LedgerReply]]) -> None:
        now = trio.current_time()
        confirmed: list[Granted] = []
        postponed: list[Postponed] = []
        for claim, answer in answers:
            waiter = self._waiter(claim.number)
            receipt = Receipt(claim, answer.marks)
            if answer.held_s > 0:
                if waiter is not None:
                    self._rate_limiter.shut_out(waiter, answer.held_s, now)
                continue
            self._defer(claim, answer, now)
            if answer.charged and waiter is None:
                self._return(receipt)
            elif answer.charged:
                confirmed.append(self._rate_limiter.confirm(claim.number, receipt, answer.wait_s, now))
            elif waiter is not None:
                postponed.append(Postponed(waiter, answer.wait_s, claim.parties[answer.last]))
        postponed += self._behind(now)
        for waiter, wait_s, party in reversed(postponed):  # each goes to the head of its queue: the first of them last
            own = waiter.limited is not None and party.account is waiter.limited.account
            self._rate_limiter.postpone(waiter, wait_s, "caller" if own else "provider", now)
        self._confirmed(confirmed)

    def _behind(self, now: float) -> Iterator[Postponed]:
        """Those about to be claimed although a request before them has to wait."""
        if self._ledger is None:
            return
        for claim in self._ledger.withdraw(lambda claim: _slowest(claim).account.deferred_until > now):
            waiter, slowest = self._waiter(claim.number), _slowest(claim)
            if waiter is not None:
                yield Postponed(waiter, slowest.account.deferred_until - now, slowest)

    def _return(self, receipt: Receipt) -> None:
        """The request that was claimed has left in the meantime."""
        if self._ledger is not None:
            self._ledger.settle(receipt, Settlement.REFUNDED, None)

    def _defer(self, claim: Claim, answer: LedgerReply, now: float) -> None:
        """The next requests need not ask before there is capacity."""
        if answer.wait_s > 0:
            again = 0.0 if answer.charged else min(answer.wait_s, AGAIN_SECONDS) * (1 + self._draw() * AGAIN_JITTER)
            claim.parties[answer.last].account.defer(max(answer.open_s, again), now)


def _patience(waiter: QueuedRequest, now: float) -> float:
    waiter.claimed_at = min(waiter.claimed_at, now)
    return min(waiter.deadline - now, waiter.until - now, PATIENCE_SECONDS + now - waiter.claimed_at)


def _slowest(claim: Claim) -> Party:
    return max(claim.parties, key=lambda party: party.account.deferred_until)
