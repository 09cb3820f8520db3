"""Confirms the limiter's grants for requests that budgets pay for. If the budgets are shared, Redis must confirm the
cost first. Then the ledger must have a row for the request. Only then is the holder told that the request may be sent.
Grants that arrive in the meantime are confirmed in one batch.

One task confirms the grants. If budgets are shared, another task keeps the session with Redis. Both waits are bounded:
while Redis is unreachable each process keeps to its share, and while the store does not respond, rows are written
later.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import final

import trio

from llm_actors.limiter.budget_wire import BudgetQuestion, decode, encode
from llm_actors.limiter.budgets import BudgetHold, Budgets
from llm_actors.redis import RedisAwayError, RedisProblem, RedisScript, RedisServer, script_of
from llm_actors.redis_link import RedisSessions
from llm_actors.store import StoreRef, persist
from llm_actors.store.ledger import DropEntry, Ledger, LedgerEntry, OpenEntry

BEAT_SECONDS = 1.0
"""Seconds between two reports of this process's spending to Redis. The reply contains the spending of the other
processes.
"""

START_SECONDS = 5.0
"""The most seconds that a process keeps to its shares after it has connected to Redis. In this time every process
reports its spending to a Redis that is new, or has lost its data.
"""

AGAIN_SECONDS = 0.5
"""Seconds between two reports during that time."""

MAX_BATCH = 256
"""The most reservations that are confirmed in one batch."""


@final
class BudgetCoordinator:
    """Confirms reservations. ``paid`` is called with the numbers of confirmed reservations, ``unpaid`` with the
    number of a refused one and the reason. ``wanted`` returns whether a reservation still has a holder that waits for
    it.
    """

    def __init__(
        self,
        budgets: Budgets,
        *,
        store: StoreRef | None,
        ledger: Ledger | None,
        server: RedisServer | None,
        process: str,
        wanted: Callable[[int], bool],
        paid: Callable[[Sequence[int]], None],
        unpaid: Callable[[int, str], None],
        wall: Callable[[], float],
    ) -> None:
        self._budgets = budgets
        self._store = store
        self._ledger = ledger
        self._server = server
        self._process = process
        self._wanted = wanted
        self._paid = paid
        self._unpaid = unpaid
        self._wall = wall
        self._waiting: list[int] = []
        self._news = trio.Event()
        self._script: RedisScript | None = None
        self._asking = trio.Lock()
        self._remembers = True
        self._lost: tuple[trio.Event, list[RedisProblem]] = (trio.Event(), [])
        self._sessions: RedisSessions | None = None
        if server is not None:
            without = "until it is reachable again, this process keeps to its share of each budget"
            self._sessions = RedisSessions(server, what="the shared budgets", without=without)

    async def start(self, nursery: trio.Nursery) -> None:
        """Run in two tasks of ``nursery``. Waits until the first attempt to reach Redis has ended."""
        nursery.start_soon(self._run)
        if self._sessions is not None:
            script = script_of("llm_actors.limiter", "budgets.lua")
            nursery.start_soon(self._sessions.run, script, self._hold, self._go_alone)
            await self._sessions.tried.wait()

    def submit(self, number: int) -> None:
        """Queue a reservation to be confirmed."""
        self._waiting.append(number)
        self._news.set()

    async def _run(self) -> None:
        while True:
            if not self._waiting:
                self._news = trio.Event()
                with trio.move_on_after(BEAT_SECONDS if self._server is not None else float("inf")):
                    await self._news.wait()
            batch, self._waiting = self._waiting[:MAX_BATCH], self._waiting[MAX_BATCH:]
            await self._confirm([each for each in batch if self._wanted(each)])

    async def _confirm(self, numbers: list[int]) -> None:
        script = self._script
        numbers = self._pay_alone(numbers) if script is None else await self._claim(script, numbers)
        rows = [(number, hold) for number in numbers if (hold := self._budgets.holds.get(number)) is not None]
        if rows and self._store is not None:
            opened_at = self._wall()
            await persist(self._store, tuple(OpenEntry(number, _row(hold, opened_at)) for number, hold in rows))
            for number, _ in rows:
                if not self._wanted(number) and self._ledger is not None:
                    self._ledger.add(DropEntry(number))
        self._paid([number for number in numbers if self._wanted(number)])

    def _pay_alone(self, numbers: Sequence[int]) -> list[int]:
        """Confirm and return the reservations that this process can pay from its shares, without Redis. Refuses the
        others.
        """
        paid: list[int] = []
        for number in numbers:
            if number not in self._budgets.holds:
                continue
            if self._budgets.sharing == "off":
                self._budgets.confirm(number)
            elif why := self._budgets.pay_alone(number, self._wall()):
                self._unpaid(number, why)
                continue
            paid.append(number)
        return paid

    async def _claim(self, script: RedisScript, numbers: list[int]) -> list[int]:
        """Confirm reservations through Redis, and return the confirmed ones. If Redis is unreachable, pay them from
        this process's shares.
        """
        try:
            question, refused = await self._ask(script, numbers)
        except RedisAwayError as exc:
            event, problems = self._lost
            problems.append(exc.problem)
            event.set()
            self._go_alone(exc.problem)
            return self._pay_alone(numbers)
        confirmed: list[int] = []
        for number, place in zip(numbers, refused, strict=True):
            hold = self._budgets.holds.get(number)
            if hold is None:
                continue
            if place:
                name, state = question.windows[place - 1]
                wanted = next(part.amount for part in hold.parts if part.state is state)
                self._unpaid(number, self._budgets.refusal(name, state, wanted, self._wall(), but=wanted))
            else:
                self._budgets.confirm(number)
                confirmed.append(number)
        return confirmed

    async def _ask(
        self, script: RedisScript, numbers: Sequence[int], *, leaves: bool = False
    ) -> tuple[BudgetQuestion, tuple[int, ...]]:
        """Report to Redis, and apply its reply to the windows. Returns the results of the claims. Raises
        `RedisAwayError`.
        """
        assert self._server is not None
        async with self._asking:
            question = encode(
                self._budgets,
                numbers,
                process=self._process,
                prefix=self._server.prefix,
                wall=self._wall(),
                remembers=self._remembers,
                leaves=leaves,
            )
            told, refused = decode(await script.run(question.keys, question.argument), question)
        for (_, state), each in zip(question.windows, told, strict=True):
            self._budgets.heard(state, each, question.number)
        self._remembers = not all(each.complete for each in told)
        return question, refused

    async def leave(self) -> None:
        """Return the unused part of this process's shares to Redis. Waits for at most one reply."""
        script, self._script = self._script, None
        if script is not None:
            with suppress(RedisAwayError):
                await self._ask(script, [], leaves=True)

    # -- the session -------------------------------------------------------------------------------------------------

    async def _hold(self, script: RedisScript) -> None:
        """Use ``script`` for claims until a call fails. First wait until every process has reported its spending;
        until then this process keeps to its shares.
        """
        self._remembers = True
        begun = trio.current_time()
        await self._ask(script, [])
        while self._remembers and trio.current_time() < begun + START_SECONDS:
            await trio.sleep(AGAIN_SECONDS)
            await self._ask(script, [])
        event, problems = self._lost = (trio.Event(), [])
        self._budgets.join()
        self._script = script
        assert self._sessions is not None
        self._sessions.begun()
        await event.wait()
        raise RedisAwayError(problems[0])

    def _go_alone(self, _: RedisProblem) -> None:
        self._script = None
        self._budgets.go_alone()


def _row(hold: BudgetHold, opened_at: float) -> LedgerEntry:
    """Return the ledger row of a request that was not sent yet: who pays, and the reserved amount."""
    ask, provider = hold.ask, hold.names[0]
    usd = max((part.amount.usd for part in hold.parts), default=0.0)
    return LedgerEntry(
        run=ask.payer.run,
        caller=ask.payer.caller,
        team=ask.payer.team,
        route=ask.payer.route,
        provider=provider,
        model=ask.models.get(provider, ""),
        opened_at=opened_at,
        input_tokens=ask.input_tokens,
        output_tokens=ask.tokens - ask.input_tokens,
        estimated=True,
        cost=usd,
    )
