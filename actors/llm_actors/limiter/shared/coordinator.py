"""Connects the rate limiter of this process to the shared ledger.

It claims grants that the ledger must confirm, and applies the replies. All of this is synchronous: the ledger's task
calls `_apply_replies`, and the state is consistent when that returns. Without a Redis server this does nothing, and
the rate limiter decides alone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple, final

import trio

from llm_actors.limiter.fair_queue import QueuedRequest
from llm_actors.limiter.leases import Lease
from llm_actors.limiter.rate_limiter import RateLimiter
from llm_actors.limiter.results import Granted
from llm_actors.limiter.shared.redis import SharedLedger
from llm_actors.limiter.shared.wire import Claim, LedgerReply, Receipt, SharedLimit
from llm_actors.redis import RedisServer
from llm_protocol.failures import Settlement

PATIENCE_SECONDS = 1.0
"""The ledger may charge a request this many seconds before it may be sent, which secures its place. The time since the
first claim is added, because a large request might otherwise never find enough capacity free at one moment. The time is
short because a charged request is sent neither earlier nor to another provider, even if capacity is returned in the
meantime.
"""

AGAIN_SECONDS = 1.0
"""The most seconds until a request that was too large for the capacity left is claimed again."""

AGAIN_JITTER = 0.5
"""Delays are extended by up to this fraction at random, so that several processes do not claim at the same time."""


MAX_MODEL_LENGTH = 200
"""The most characters of a model name. Holds of models with longer names are not shared; no vendor has such names."""


class Postponed(NamedTuple):
    """A request that must wait for ``wait_s`` seconds, because other processes use up ``limit``."""

    waiter: QueuedRequest
    wait_s: float
    limit: SharedLimit


@final
class SharedLimits:
    """The limits that are shared with other processes. If ``server`` is ``None``, nothing is shared.

    ``waiter`` is called with the number of a reservation, and returns the queued request that still wants the
    reservation, or ``None``. ``confirmed`` is called with the grants that the ledger has confirmed.
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
                answered=self._apply_replies,
                alone=self._go_on_alone,
                held=self._held,
                process=process,
            )

    async def start(self, nursery: trio.Nursery) -> None:
        """Start the session with the server in ``nursery``, and wait until the first attempt to connect has ended."""
        if self._ledger is not None:
            nursery.start_soon(self._ledger.run)
            await self._ledger.tried.wait()

    @property
    def is_on(self) -> bool:
        """Whether the limits are shared now: there is a server, and it responds."""
        return self._ledger is not None and self._ledger.is_open

    def claim(self, granted: Granted) -> bool:
        """Claim a grant in the ledger, if the ledger must confirm it. Return whether it must."""
        waiter, ledger = self._waiter(granted.number), self._ledger
        if waiter is None or ledger is None or not ledger.is_open:
            return False
        limits = tuple(self._shared_limits(ledger, granted, waiter.caller))
        if not limits:
            return False
        lease = self._rate_limiter.lease(granted.number)
        model = lease.model if lease.provider.limits.is_limited and len(lease.model) <= MAX_MODEL_LENGTH else ""
        ledger.claim(Claim(granted.number, limits, waiter.tokens, _patience(waiter, trio.current_time()), model))
        return True

    def _shared_limits(self, ledger: SharedLedger, granted: Granted, caller: str) -> Iterator[SharedLimit]:
        lease = self._rate_limiter.lease(granted.number)
        if lease.provider.limits.is_limited:
            yield ledger.limit("provider", lease.name, lease.provider)
        if lease.caller is not None:
            yield ledger.limit("caller", caller, lease.caller)

    def ended(self, lease: Lease | None, ending: Settlement, tokens: int | None = None) -> None:
        """Correct the ledger's charges for a lease that has ended."""
        if self._ledger is None or lease is None or lease.receipt is None:
            return
        self._ledger.settle(lease.receipt, ending, tokens)
        for account in lease.accounts:  # a refund may release a request that waits for other processes
            limits = account.limits
            if (
                ending is Settlement.REFUNDED
                or limits.max_concurrency is not None
                or limits.tokens_per_minute is not None
            ):
                account.end_deferral(trio.current_time())

    def paused(self, name: str, now: float) -> None:
        """Report a hold of the provider ``name`` to the other processes, if a vendor's response has just begun one."""
        if self._ledger is None:
            return
        account = self._rate_limiter.account(name)
        if account.held_until > self._pauses.get(name, now):
            self._pauses[name] = account.held_until
            self._ledger.hold(self._ledger.limit("provider", name, account), account.held_until - now)

    def held(self, lease: Lease, now: float) -> None:
        """Report to the other processes that the deployment of ``lease`` is held, if it is."""
        seconds = self._rate_limiter.held_s(lease.deployment, now)
        if self._ledger is None or not seconds or len(lease.model) > MAX_MODEL_LENGTH:
            return
        if lease.provider.limits.is_limited:
            self._ledger.hold(self._ledger.limit("provider", lease.name, lease.provider), seconds, lease.model)

    def _held(self) -> Iterator[SharedLimit]:
        for sort, name, account in self._rate_limiter.accounts():
            if self._ledger is not None and account.in_flight and account.limits.max_concurrency is not None:
                yield self._ledger.limit(sort, name, account)

    def _wanted(self, number: int) -> bool:
        return self._waiter(number) is not None

    def _go_on_alone(self, claims: Sequence[Claim]) -> None:
        """Confirm all local grants, because the ledger cannot be reached. The ledger may have charged them."""
        self._rate_limiter.go_on_alone(trio.current_time())
        numbers = [claim.number for claim in claims if self._wanted(claim.number)]
        self._confirmed([Granted(number, self._rate_limiter.lease(number).name) for number in numbers])

    def _apply_replies(self, answers: Sequence[tuple[Claim, LedgerReply]]) -> None:
        now = trio.current_time()
        confirmed: list[Granted] = []
        postponed: list[Postponed] = []
        for claim, answer in answers:
            waiter = self._waiter(claim.number)
            receipt = Receipt(claim, answer.marks)
            if answer.held_s > 0:
                if waiter is not None:
                    self._rate_limiter.refuse_held(waiter, answer.held_s, now)
                continue
            self._defer(claim, answer, now)
            if answer.charged and waiter is None:
                self._return(receipt)
            elif answer.charged:
                confirmed.append(self._rate_limiter.confirm(claim.number, receipt, answer.wait_s, now))
            elif waiter is not None:
                postponed.append(Postponed(waiter, answer.wait_s, claim.limits[answer.last]))
        postponed += self._behind(now)
        for waiter, wait_s, limit in reversed(
            postponed
        ):  # each goes to the head of its queue, so the first one is put there last
            own = waiter.limited is not None and limit.account is waiter.limited.account
            self._rate_limiter.postpone(waiter, wait_s, "caller" if own else "provider", now)
        self._confirmed(confirmed)

    def _behind(self, now: float) -> Iterator[Postponed]:
        """Withdraw the claims that were not sent yet and whose limits make later requests wait (see `_defer`), and
        return their requests.
        """
        if self._ledger is None:
            return
        for claim in self._ledger.withdraw(lambda claim: _slowest(claim).account.deferred_until > now):
            waiter, slowest = self._waiter(claim.number), _slowest(claim)
            if waiter is not None:
                yield Postponed(waiter, slowest.account.deferred_until - now, slowest)

    def _return(self, receipt: Receipt) -> None:
        """Return the charge of a request that has left in the meantime."""
        if self._ledger is not None:
            self._ledger.settle(receipt, Settlement.REFUNDED, None)

    def _defer(self, claim: Claim, answer: LedgerReply, now: float) -> None:
        """If this claim must wait, let later requests wait, too, before they are claimed: until the ledger has
        capacity.
        """
        if answer.wait_s > 0:
            again = 0.0 if answer.charged else min(answer.wait_s, AGAIN_SECONDS) * (1 + self._draw() * AGAIN_JITTER)
            claim.limits[answer.last].account.defer(max(answer.open_s, again), now)


def _patience(waiter: QueuedRequest, now: float) -> float:
    waiter.claimed_at = min(waiter.claimed_at, now)
    return min(waiter.deadline - now, waiter.until - now, PATIENCE_SECONDS + now - waiter.claimed_at)


def _slowest(claim: Claim) -> SharedLimit:
    return max(claim.limits, key=lambda limit: limit.account.deferred_until)
