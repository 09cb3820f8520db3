"""The rate limiter: decides which requests may be sent, which wait and which are refused. Pure: time and jitter are
parameters.

``now`` is always the monotonic time in seconds. Decisions are added to a list that `decisions` returns and empties. A
method that may free capacity serves the queues before it returns, so no request that could go stays queued.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from math import inf
from typing import TYPE_CHECKING, final

from llm_actors.limiter.allowance import Deployment, DeploymentHolds
from llm_actors.limiter.callers import NO_LIMITS, Callers
from llm_actors.limiter.fair_queue import FairQueue, QueuedRequest
from llm_actors.limiter.leases import Lease, Leases
from llm_actors.limiter.limit_state import RETRY_AFTER_SECONDS, LimitState, exhausted_for
from llm_actors.limiter.patience import (
    LEAST_RETRY_SECONDS,
    Turn,
    held_back,
    refusal,
    too_late,
)
from llm_actors.limiter.results import Decision, Granted, LimiterStatistics, LimitRefused
from llm_actors.limiter.waiting import ProviderLine, WaitingRequests
from llm_protocol.dialect import RateLimits
from llm_protocol.failures import FailureKind, LimitOwner, Settlement
from llm_protocol.policy import Limits

if TYPE_CHECKING:
    from llm_actors.limiter.shared.wire import Receipt

MAX_LEASES = 65_536
"""The most open reservations."""

LEAST_LOOK_SECONDS = 0.05
"""The shortest time until it is checked again whether a request waits for its caller's limits. A caller's ``wait_s``
may be shorter, and would make the limiter poll.
"""

HOLD_JITTER_SECONDS = 0.5
"""A hold is extended by up to this many seconds at random, so that several processes do not resume together."""


@final
class RateLimiter:
    """The limits, queues and leases. ``other_callers``: the limits of each caller that is not in ``callers``.
    ``number`` is the number of a reservation. ``now`` is in seconds on one monotonic clock.
    """

    def __init__(
        self,
        providers: Mapping[str, Limits],
        callers: Mapping[str, Limits] | None = None,
        other_callers: Limits = NO_LIMITS,
        *,
        draw: Callable[[], float],
    ) -> None:
        """``draw`` returns the jitter, in [0, 1)."""
        self._limits = providers
        self._draw = draw
        self._providers = {name: ProviderLine(LimitState(limits), FairQueue()) for name, limits in providers.items()}
        self._callers = Callers(callers or {}, other_callers)
        self._waiting = WaitingRequests(self._provider)
        self._leases = Leases()
        self._holds = DeploymentHolds()
        self._decided: list[Decision] = []
        self._granted = 0
        self._refused = 0
        self._expired = 0

    def restart(self, former: RateLimiter) -> None:
        """Take over the leases, usage, debts and holds of ``former``, after a restart. The queues start empty. Limits
        that have changed in the meantime apply to them, as after `change`.
        """
        for name, (account, _) in former._providers.items():
            account.change(self._limits.get(name, NO_LIMITS))
            self._providers[name] = ProviderLine(account, FairQueue())
        self._callers.inherit(former._callers)
        for _, _, account in self.accounts():
            account.restart()
        self._leases = former._leases
        self._holds = former._holds
        for lease in self._leases.open.values():
            for account, charges in zip(lease.accounts, lease.taken, strict=True):
                account.adopt(charges)

    def change(self, providers: Mapping[str, Limits], callers: Mapping[str, Limits], now: float) -> None:
        """Replace all limits. Usage, open leases, queued requests and holds stay."""
        self._limits = providers
        for name in self._providers.keys() | providers.keys():
            self._provider(name).account.change(providers.get(name, NO_LIMITS))
        self._callers.change(callers)
        self.serve(now)

    # What happens

    def reserve(self, waiter: QueuedRequest, now: float) -> None:
        """Decide about a new request at once, or queue it."""
        waiter.limited = self._callers.find(waiter.caller)
        waiter.since = now - waiter.waited_s
        if self._refuse_if_held(waiter, now):
            return
        waiter.untils = tuple(waiter.since + self._provider(name).account.wait_s for name in waiter.names)
        if waiter.limited is not None:
            waiter.caller_until = now + waiter.limited.account.wait_s
        if len(self._leases) >= MAX_LEASES:
            self._refuse_full(waiter, f"{MAX_LEASES} requests are in progress, the most allowed", "server")
        elif (name := self._open_at_once(waiter, now)) is not None:
            self._grant(waiter, name, now)
        else:
            self._queue(waiter, now)

    def leave(self, number: int, now: float) -> Lease | None:
        """Remove a request whose sender has gone. If the request was granted in the meantime, end its lease and return
        the lease. Return ``None`` if the request was still queued, or has already ended.
        """
        waiter = self._waiting.get(number)
        if waiter is None:
            return self.end(number, Settlement.REFUNDED, now)
        self._waiting.remove(waiter)
        self.serve(now)
        return None

    def end(
        self,
        number: int,
        ending: Settlement,
        now: float,
        tokens: int | None = None,
        *,
        reported: RateLimits | None = None,
        hold_s: float | None = None,
        of_model: bool = False,
    ) -> Lease | None:
        """End a reservation and return its lease; ``None`` if it is unknown or has already ended.

        What the vendor reported is applied before the freed capacity is given to the next request.
        """
        lease = self._leases.pop(number)
        if lease is None:
            return None
        lease.end(ending, tokens, now)
        if reported is not None and reported.per_model:
            if (seconds := exhausted_for(reported)) > 0:
                self.hold_deployment(lease.deployment, seconds + self._jitter(), now)
        elif reported is not None:
            self.observe(lease.name, reported, now)
        if hold_s is not None and of_model:
            self.hold_deployment(lease.deployment, hold_s, now)
        elif hold_s is not None:
            self.hold(lease.name, hold_s, now)
        self.serve(now)
        return lease

    def lease(self, number: int) -> Lease:
        """Return the open lease with this number."""
        return self._leases.open[number]

    def confirm(self, number: int, receipt: Receipt, wait_s: float, now: float) -> Granted:
        """Record that the shared ledger has charged an open reservation, which may be used in ``wait_s`` seconds.
        Return the grant for the holder.
        """
        lease = self.lease(number).move(now + wait_s, now)._replace(receipt=receipt)
        self._leases.replace(number, lease)
        return Granted(number, lease.name, wait_s)

    def postpone(self, waiter: QueuedRequest, wait_s: float, owner: LimitOwner, now: float) -> None:
        """Take back a grant, because other processes use up the limit of ``owner`` for ``wait_s`` more seconds. The
        request returns to the head of its queues, or is refused if the wait would be too long.
        """
        lease = self._take_back(waiter, now)
        if self._refuse_if_held(waiter, now):
            return
        until = min(waiter.deadline, waiter.caller_until if owner == "caller" else waiter.until)
        # Token limits charge estimates. Some tokens may be returned earlier, so then the wait is not certain.
        is_certain = len(waiter.names) == 1 and all(each.tokens is None for each in lease.accounts)
        if now + wait_s > until and is_certain:
            self._refuse(too_late(waiter, owner, now + wait_s, now))
        else:
            self._queue(waiter, now, first=True)

    def refuse_held(self, waiter: QueuedRequest, seconds: float, now: float) -> None:
        """Take back a grant and refuse the request, because another process has reported that its deployment is
        held.
        """
        lease = self._take_back(waiter, now)
        self.hold_deployment(lease.deployment, seconds + self._jitter(), now)
        self._refuse(held_back(waiter, lease.deployment, self._holds.until(lease.deployment), now))

    def _take_back(self, waiter: QueuedRequest, now: float) -> Lease:
        lease = self._leases.pop(waiter.number)
        assert lease is not None
        lease.end(Settlement.REFUNDED, None, now)
        self._granted -= 1
        return lease

    def observe(self, name: str, reported: RateLimits, now: float) -> None:
        """Apply the remaining amounts that a vendor's headers report."""
        provider = self._provider(name)
        if provider.account.correct(reported, now, self._jitter()):
            self._refuse_late_ones(provider.line, now)

    def hold(self, name: str, seconds: float, now: float) -> None:
        """Send no request to a provider for ``seconds``, because its vendor asked for that."""
        if not seconds > 0:
            return
        provider = self._provider(name)
        if provider.account.hold(min(seconds, RETRY_AFTER_SECONDS) + self._jitter(), now):
            self._refuse_late_ones(provider.line, now)

    def hold_deployment(self, of: Deployment, seconds: float, now: float) -> None:
        """Send no request to a deployment for ``seconds``, because its vendor asked for that. Requests that wait for
        it are refused at once.
        """
        if not of.model or not seconds > 0:
            return
        self._holds.hold(of, seconds, now)
        for waiter in list(self._provider(of.provider).line.waiters()):
            if waiter.waiting and of in waiter.deployments:
                self._waiting.remove(waiter)
                self._refuse(held_back(waiter, of, self._holds.until(of), now))
        self.serve(now)

    def held_s(self, of: Deployment, now: float) -> float:
        """Return for how many more seconds a deployment is held."""
        return max(0.0, self._holds.until(of) - now)

    def go_on_alone(self, now: float) -> None:
        """Continue without the processes that share the limits, because Redis is unreachable. The usage of this
        process still counts.
        """
        for _, _, account in self.accounts():
            account.end_deferral(now)
        self.serve(now)

    def accounts(self) -> Iterator[tuple[str, str, LimitState]]:
        """Return all limits, each with ``"provider"`` or ``"caller"`` and its name."""
        yield from (("provider", name, account) for name, (account, _) in self._providers.items())
        yield from (("caller", name, caller.account) for name, caller in self._callers)

    def account(self, name: str) -> LimitState:
        """Return the state of a provider's limits."""
        return self._provider(name).account

    def serve(self, now: float) -> None:
        """Grant all requests that may be sent now, in order, and end expired leases."""
        for lease in self._leases.pop_expired(now):
            lease.end(Settlement.CHARGED, None, now)
            self._expired += 1
        moved = len(self._waiting) > 0
        while moved:  # a request that was granted from one queue may have been the first in another
            moved = False
            for name, (account, line) in self._providers.items():
                while line.count and self._serve_first(name, account, line, now):
                    moved = True
        for waiter in self._waiting.pop_due(now):
            self._refuse_if_waited_too_long(waiter, now)

    def due(self, now: float) -> float:
        """Return when `serve` should be called next if nothing else happens; infinity if never."""
        at = self._leases.next_end()
        if len(self._waiting):
            busy = (each for each in self._providers.values() if each.line.count)
            at = min(at, self._waiting.next_bound(), *(each.due(now) for each in busy))
        return at

    def decisions(self) -> list[Decision]:
        """Return the decisions since the last call."""
        decided, self._decided = self._decided, []
        return decided

    def statistics(self, now: float, *, shared: bool = False) -> LimiterStatistics:
        """Return the counters and gauges."""
        return LimiterStatistics(
            providers={
                name: each.account.statistics(sum(waiter.allowed(now) for waiter in each.line.waiters()), now)
                for name, each in self._providers.items()
            },
            waiting=len(self._waiting),
            leases=len(self._leases),
            callers={
                name: caller.account.statistics(
                    sum(not caller.allows(waiter, now) for waiter in caller.waiting.values()), now
                )
                for name, caller in self._callers
            },
            shared=shared,
            granted=self._granted,
            refused=self._refused,
            expired=self._expired,
        )

    # Limit states

    def _provider(self, name: str) -> ProviderLine:
        found = self._providers.get(name)
        if found is None:
            found = self._providers[name] = ProviderLine(LimitState(NO_LIMITS), FairQueue())
        return found

    def _jitter(self) -> float:
        return self._draw() * HOLD_JITTER_SECONDS

    # Granting

    def _open_at_once(self, waiter: QueuedRequest, now: float) -> str | None:
        if not waiter.allowed(now):
            return None
        for name in waiter.names:
            account, line = self._provider(name)
            if not line.count and account.has_room(waiter.tokens, now):
                return name
        return None

    def _grant(self, waiter: QueuedRequest, name: str, now: float) -> None:
        account = self._providers[name].account
        caller = waiter.limited.account if waiter.limited is not None else None
        taken = [account.take(waiter.tokens, now)]
        if caller is not None:
            taken.append(caller.take(waiter.tokens, now))
        model = next((each.model for each in waiter.deployments if each.provider == name), "")
        lease = Lease(name, account, caller, tuple(taken), now + waiter.lease_s, model=model)
        self._leases.add(waiter.number, lease)
        self._granted += 1
        self._decided.append(Granted(waiter.number, name))

    def _serve_first(self, name: str, account: LimitState, line: FairQueue, now: float) -> bool:
        first = line.first(lambda waiter: waiter.allowed(now))
        if first is None or not account.has_room(first.tokens, now):
            return False
        line.serve(first)
        self._waiting.remove(first)
        self._grant(first, name, now)
        return True

    def _queue(self, waiter: QueuedRequest, now: float, *, first: bool = False) -> None:
        if (full := self._waiting.full_for(waiter)) is not None:
            self._refuse_full(waiter, *full)
            return
        self._waiting.add(waiter, first=first)
        self.serve(now)
        if waiter.waiting and not self._refuse_if_late(waiter, self._waiting.expected(waiter, now), now):
            self._waiting.watch(waiter, now)

    # Refusing

    def _refuse_if_held(self, waiter: QueuedRequest, now: float) -> bool:
        """Remove the held deployments from a request. If all are held, refuse the request and return True."""
        held = [each for each in waiter.deployments if self._holds.until(each) > now]
        if held and len(held) == len(waiter.names):
            self._refuse(held_back(waiter, held[0], self._holds.until(held[0]), now))
            return True
        if held:
            waiter.leave_out(held)
        return False

    def _refuse_late_ones(self, line: FairQueue, now: float) -> None:
        """Refuse the requests in ``line`` that cannot wait for the end of a hold that has just begun."""
        for waiter in list(line.waiters()):
            if waiter.waiting:
                self._refuse_if_late(waiter, self._waiting.earliest(waiter, now), now)
        self.serve(now)

    def _refuse_if_late(self, waiter: QueuedRequest, turns: list[Turn], now: float) -> bool:
        refused = refusal(waiter, turns, now)
        if refused is not None:
            self._waiting.remove(waiter)
            self._refuse(refused)
        return refused is not None

    def _refuse_if_waited_too_long(self, waiter: QueuedRequest, now: float) -> None:
        """Refuse a request if it has waited too long: for a provider, since it was queued; for its caller's limits,
        without interruption.
        """
        waiter.note_wait_for_caller(now)
        caller, since = waiter.limited, waiter.waits_for_caller_since
        if now >= waiter.until or (caller is not None and now >= since + caller.account.wait_s):
            owner: LimitOwner = "provider" if since == inf else "caller"
            turns = self._waiting.earliest(waiter, now)
            self._waiting.remove(waiter)
            at = min(max(turn) if owner == "provider" else turn.caller_at for turn in turns)
            self._refuse(too_late(waiter, owner, at, now))
        elif caller is not None:
            self._waiting.look_again(waiter, now + max(caller.account.wait_s, LEAST_LOOK_SECONDS))

    def _refuse_full(self, waiter: QueuedRequest, why: str, owner: LimitOwner) -> None:
        self._refuse(LimitRefused(waiter.number, FailureKind.QUEUE_FULL, why, LEAST_RETRY_SECONDS, owner))

    def _refuse(self, refused: LimitRefused) -> None:
        self._refused += 1
        self._decided.append(refused)
