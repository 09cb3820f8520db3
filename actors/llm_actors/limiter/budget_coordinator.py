"""Between the limiter's grants and their holders: a call that budgets pay is confirmed by the shared books and has its
row in the ledger before it is told that it may go. What happens in the meantime goes in one batch.

One task does it, and one more keeps the session with Redis, where budgets are shared. Nobody waits for either longer
than a bound: while Redis is away each process keeps to its share, and while the store is, rows are written later.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from functools import cache
from importlib.resources import files
from random import random
from typing import Annotated, NamedTuple, final

import msgspec
import trio

from llm_actors.kernel.errors import is_fatal
from llm_actors.kernel.supervisor_run import PARK_PAUSES
from llm_actors.kernel.trace import exception_site
from llm_actors.kernel.window import Streak
from llm_actors.limiter.budgets import Amount, BudgetHold, Budgets, WindowState
from llm_actors.redis import RedisAwayError, RedisProblem, RedisScript, RedisServer, session
from llm_actors.store import StoreRef, persist
from llm_actors.store.ledger import DropEntry, Ledger, LedgerEntry, OpenEntry

AWAY_SECONDS = 1.0
"""From the end of one session to the next, and up to half as long again."""

BEAT_SECONDS = 1.0
"""How often the shared books are told what this process has, and asked what the others have."""

COMPLETE_SECONDS = 4
"""A server that has heard of budgets for less long may have been empty: not all that share it have told it what they
have. Until then each keeps to its share. More than it takes them to find it again.
"""

AGAIN_SECONDS = 0.5
"""How often such a server is asked."""

MAX_BATCH = 256
"""Calls confirmed at once."""

EXTRA_SECONDS = 2 * 86_400
"""How long a window is kept on the server after its end."""

MICRO = 1_000_000
"""Dollars are told in millionths: scripts of Redis have no exact fractions."""

log = logging.getLogger(__name__)


class _WindowUsage(msgspec.Struct, frozen=True, array_like=True):
    """Of one budget's window: what others have, and how many share it."""

    usd: Annotated[int, msgspec.Meta(ge=0)]
    tokens: Annotated[int, msgspec.Meta(ge=0)]
    processes: Annotated[int, msgspec.Meta(ge=1)]


class _Reply(msgspec.Struct, frozen=True, array_like=True):
    since: Annotated[int, msgspec.Meta(ge=0)]
    """For how many seconds the server has heard of budgets."""
    windows: tuple[_WindowUsage, ...]
    refused: tuple[int, ...]
    """For each claim: which of the told windows has too little left, from 1 on; 0: it is paid."""


_replies = msgspec.msgpack.Decoder(_Reply)


class _Batch(NamedTuple):
    keys: list[str]
    windows: list[tuple[str, WindowState]]
    argument: bytes


@final
class BudgetCoordinator:
    """``paid`` is given the numbers of the reservations that may go, ``unpaid`` one that may not, and why. ``wanted``
    tells whether anybody still waits for it.
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
        self._lost: tuple[trio.Event, list[RedisProblem]] = (trio.Event(), [])
        self._problem: RedisProblem | None = None
        self.tried = trio.Event()
        """Set when the first attempt to reach the server is over, whichever way; at once without one."""

    async def start(self, nursery: trio.Nursery) -> None:
        """Run in two tasks of ``nursery``. Waits until the server was reached, or was not."""
        nursery.start_soon(self._run)
        if self._server is not None:
            nursery.start_soon(self._keep_session, self._server)
            await self.tried.wait()

    def submit(self, number: int) -> None:
        """Have a reservation confirmed."""
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
        if self._script is not None:
            numbers = await self._ask(self._script, numbers)
        else:
            for number in numbers:
                self._budgets.confirm(number)
        rows = [(number, hold) for number in numbers if (hold := self._budgets.holds.get(number)) is not None]
        if rows and self._store is not None:
            opened_at = self._wall()
            await persist(self._store, tuple(OpenEntry(number, _row(hold, opened_at)) for number, hold in rows))
            for number, _ in rows:
                if not self._wanted(number) and self._ledger is not None:
                    self._ledger.add(DropEntry(number))
        self._paid([number for number in numbers if self._wanted(number)])

    async def _ask(self, script: RedisScript, numbers: list[int]) -> list[int]:
        """The reservations of ``numbers`` that the shared books confirm; all of them should those be away."""
        batch = self._encode(numbers)
        try:
            answer = await script.run(batch.keys, batch.argument)
            found = self._decode(answer, batch, len(numbers))
        except RedisAwayError as exc:
            event, problems = self._lost
            problems.append(exc.problem)
            event.set()
            self._go_alone()
            for number in numbers:
                self._budgets.confirm(number)
            return numbers
        self._hear(batch, found)
        confirmed: list[int] = []
        for number, place in zip(numbers, found.refused, strict=True):
            hold = self._budgets.holds.get(number)
            if hold is None:
                continue
            if place:
                name, state = batch.windows[place - 1]
                wanted = next(part.amount for part in hold.parts if part.state is state)
                self._unpaid(number, self._budgets.refusal(name, state, wanted, self._wall(), but=wanted))
            else:
                self._budgets.confirm(number)
                confirmed.append(number)
        return confirmed

    def _hear(self, batch: _Batch, found: _Reply) -> None:
        for (name, state), each in zip(batch.windows, found.windows, strict=True):
            self._budgets.heard(name, state, Amount(each.usd / MICRO, each.tokens), each.processes)

    def _encode(self, numbers: Sequence[int]) -> _Batch:
        """All windows of now and those of ``numbers``, with what this process has of each and what is asked of it."""
        wall = self._wall()
        windows = {id(state): (name, state) for name, state in self._budgets.current(wall)}
        holds = [self._budgets.holds.get(number) for number in numbers]
        for hold in holds:
            for part in () if hold is None else hold.parts:
                windows.setdefault(id(part.state), (part.name, part.state))
        places = {key: place for place, key in enumerate(windows)}
        reports = []
        for name, state in windows.values():
            budget, own = self._budgets.table.budgets[name], state.own.minus(state.pending)
            reports.append(
                (
                    -1 if budget.usd is None else round(budget.usd * MICRO),
                    -1 if budget.tokens is None else budget.tokens,
                    max(0, round(own.usd * MICRO)),
                    max(0, own.tokens),
                    [(who, round(each.usd * MICRO), each.tokens) for who, each in state.base.items()],
                    int((max(0.0, state.window.end - wall) + EXTRA_SECONDS) * 1000),
                )
            )
        claims = [
            [(places[id(part.state)], round(part.amount.usd * MICRO), part.amount.tokens) for part in hold.parts]
            if hold is not None
            else []
            for hold in holds
        ]
        assert self._server is not None
        clock = f"{{{self._server.prefix}}}:budgets"
        keys = [clock, *(self._key(name, state) for name, state in windows.values())]
        argument = msgspec.msgpack.encode((self._process, reports, claims))
        return _Batch(keys, list(windows.values()), argument)

    def _key(self, name: str, state: WindowState) -> str:
        """The braces put all keys into one slot of a Redis cluster: a script reads and writes in one slot only."""
        assert self._server is not None
        per = self._budgets.table.budgets[name].per
        return f"{{{self._server.prefix}}}:budgets:{name}:{per}:{state.window.start}"

    def _decode(self, answer: bytes, batch: _Batch, claims: int) -> _Reply:
        try:
            found = _replies.decode(answer)
        except msgspec.MsgspecError:
            raise RedisAwayError(RedisProblem("answer", "an answer to something else")) from None
        places = all(0 <= each <= len(batch.windows) for each in found.refused)
        if len(found.windows) != len(batch.windows) or len(found.refused) != claims or not places:
            raise RedisAwayError(RedisProblem("answer", "an answer to something else"))
        return found

    # -- the session -------------------------------------------------------------------------------------------------

    async def _keep_session(self, server: RedisServer) -> None:
        """Keep a session with the server; when it ends, begin another after a while. A bug is as if it were away."""
        crashes = Streak(PARK_PAUSES)
        while True:
            pause = AWAY_SECONDS
            try:
                problem = await session(server, _source(), self._hold)
            except Exception as exc:
                if is_fatal(exc):
                    raise
                problem = RedisProblem("crashed", f"the shared budgets crashed: {exception_site(exc)}")
                pause = crashes.next_delay(trio.current_time(), random())  # noqa: S311
            self._go_alone()
            if self._problem is None or self._problem.sort != problem.sort:
                log.warning(
                    "redis at %s is away (%s): until it is back, this process keeps to its share of each budget",
                    server.name,
                    problem.detail,
                )
            self._problem = problem
            self.tried.set()
            await trio.sleep(pause * (1 + random() / 2))  # noqa: S311 - those who lost it together come apart

    async def _hold(self, script: RedisScript) -> None:
        """Have the other task use the script, from when all have told what they have, until it finds trouble."""
        while True:
            batch = self._encode([])
            found = self._decode(await script.run(batch.keys, batch.argument), batch, 0)
            if found.since >= COMPLETE_SECONDS:
                break
            await trio.sleep(AGAIN_SECONDS)
        self._lost = (trio.Event(), [])
        self._budgets.join()
        self._hear(batch, found)
        self._script = script
        self._problem = None
        self.tried.set()
        event, problems = self._lost
        await event.wait()
        raise RedisAwayError(problems[0])

    def _go_alone(self) -> None:
        self._script = None
        self._budgets.go_alone(self._wall())


def _row(hold: BudgetHold, opened_at: float) -> LedgerEntry:
    """The row of a call that is not made yet: who pays, and what was reserved."""
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


@cache
def _source() -> str:
    return files("llm_actors.limiter").joinpath("budgets.lua").read_text()
