"""The shared ledger: the limits of several processes, kept in one Redis.

Each process keeps its own rate limiter, with its queues and limits. What that grants is claimed in the ledger before it
takes effect, together with everything else that happened meanwhile, in one step on the server (`ledger.lua`). The
server charges before the request goes, so the sum of all processes keeps to the limit. The requests that a process has
in progress are reported in absolute numbers and expire, so a process that dies leaves nothing behind for long.

Redis is optional: while it cannot be reached, each process decides alone. A claim whose answer did not arrive in time
goes without one, and is never claimed again or returned, since it is unknown whether it was charged.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Sequence
from functools import cache
from importlib.resources import files
from math import inf
from typing import final

import trio

from llm_actors.limiter.limit_state import LimitState
from llm_actors.limiter.shared.wire import (
    Claim,
    Entry,
    Held,
    LedgerPause,
    LedgerReply,
    Party,
    Receipt,
    Settle,
    decode,
    encode,
)
from llm_actors.redis import RedisAwayError, RedisProblem, RedisScript, RedisServer
from llm_actors.redis_link import RedisSessions
from llm_protocol.failures import Settlement

MAX_BATCH = 256
"""The most entries in one batch. It limits how long the server is busy: well below a millisecond."""

BEAT_SECONDS = 5.0
"""How often the requests in progress are reported again; the script forgets those that were not reported for 15 s."""

log = logging.getLogger(__name__)


@final
class SharedLedger:
    """The limiter's side. Give it to a task that calls `run`; none of its other methods wait.

    ``wanted`` tells whether reservation ``number`` is still open. ``answered`` is called with the decided claims,
    ``alone`` with those that were undecided when the server went away.
    """

    def __init__(
        self,
        server: RedisServer,
        *,
        wanted: Callable[[int], bool],
        answered: Callable[[Sequence[tuple[Claim, LedgerReply]]], None],
        alone: Callable[[Sequence[Claim]], None],
        held: Callable[[], Iterable[Party]],
        process: str,
    ) -> None:
        """``held``: the parties with requests in progress here. ``process``: a name that no other limiter has."""
        self._server = server
        self._wanted = wanted
        self._answered = answered
        self._alone = alone
        self._held = held
        self._process = process
        self._entries: list[Entry] = []
        """The pending entries: no more than what happens within one command's ``timeout_s``, after which all are
        dropped.
        """
        self._claims: list[Claim] = []
        self._news = trio.Event()
        self._beat_at = trio.current_time()
        self._ahead_s = -inf
        """How far the ledger's clock is ahead of ours at most; minus infinity while that is unknown."""
        self._sessions = RedisSessions(
            server,
            what="the shared ledger",
            without="until it is back, this process applies the limits on its own",
        )
        self.is_open = False
        self.tried = self._sessions.tried

    def party(self, sort: str, name: str, account: LimitState) -> Party:
        """The provider or caller called ``name``."""
        return Party(self._key(f"{sort}:{name}"), account)

    def _key(self, name: str) -> str:
        """The braces put all keys into one slot of a Redis cluster: a script can use only one slot."""
        return f"{{{self._server.prefix}}}:limits:{name}"

    def claim(self, claim: Claim) -> None:
        """Add a claim."""
        self._add(claim)

    def withdraw(self, hopeless: Callable[[Claim], bool]) -> list[Claim]:
        """Withdraw the claims of those that are ``hopeless``, unless they were sent already. Returns the withdrawn."""
        withdrawn = [each for each in self._entries if isinstance(each, Claim) and hopeless(each)]
        if withdrawn:
            gone = {each.number for each in withdrawn}
            self._entries = [each for each in self._entries if not isinstance(each, Claim) or each.number not in gone]
        return withdrawn

    def settle(self, receipt: Receipt, ending: Settlement, tokens: int | None) -> None:
        """Correct a charge. While the server cannot be reached it stays as it is."""
        self._add(Settle(receipt, ending, tokens))

    def hold(self, party: Party, seconds: float, model: str = "") -> None:
        """Make the other processes wait, too; with ``model``, for that model of the provider alone."""
        self._add(LedgerPause(party, seconds, model))

    def _add(self, entry: Entry) -> None:
        if self.is_open:
            self._entries.append(entry)
            self._news.set()

    async def run(self) -> None:
        """Keep a session with the server: see `RedisSessions.run`. A claim waits for no pause, and a bug here does not
        crash the limiter.
        """
        await self._sessions.run(_source(), self._serve, self._close)

    async def _serve(self, script: RedisScript) -> None:
        self._beat_at = trio.current_time()
        await self._exchange(script)
        self._open()
        while True:
            if not self._entries:
                self._news = trio.Event()
                with trio.move_on_at(self._beat_at):
                    await self._news.wait()
            await self._exchange(script)

    async def _exchange(self, script: RedisScript) -> None:
        """Send the entries, and handle the answers. Raises `RedisAwayError`."""
        self._beat()
        entries = [each for each in self._entries if not isinstance(each, Claim) or self._wanted(each.number)]
        sent, self._entries = entries[:MAX_BATCH], entries[MAX_BATCH:]
        self._claims = [each for each in sent if isinstance(each, Claim)]
        waiting = [each for each in entries if isinstance(each, Claim)]
        now = trio.current_time()
        batch = encode(self._key("clock"), self._process, max(0.0, now + self._ahead_s), sent, waiting)
        answer = await script.run(batch.keys, batch.argument)
        try:
            there, answered = decode(answer, self._claims)
        except ValueError:
            raise RedisAwayError(RedisProblem("answer", "the response does not fit the question")) from None
        self._ahead_s = there - now  # it was asked after ``now``
        self._answered(answered)  # if it crashes, the claims it did not reach go as if the server could not be reached
        self._claims = []

    def _beat(self) -> None:
        """At intervals, report again what the server would forget. Without anything to report, the clock is still
        written.
        """
        now = trio.current_time()
        if now >= self._beat_at:
            self._beat_at = now + BEAT_SECONDS
            self._entries.extend(map(Held, self._held()))

    def _open(self) -> None:
        self.is_open = True
        self._sessions.begun()
        log.info("limits are shared through redis at %s", self._server.name)

    def _close(self, _: RedisProblem) -> None:
        """The server cannot be reached. Nothing waits for it."""
        if self.is_open:
            self.is_open = False
            lost = [*self._claims, *(each for each in self._entries if isinstance(each, Claim))]
            self._claims, self._entries = [], []
            self._alone(lost)


@cache
def _source() -> str:
    return files("llm_actors.limiter.shared").joinpath("ledger.lua").read_text()
