"""The shared ledger: the limits of several processes, kept in one Redis.

Each process has its own rate limiter, with its queues and limits. Before a grant takes effect, it is claimed in the
ledger. The server handles a batch of claims and other messages in one step (`ledger.lua`). It charges before the
request goes, so all processes together keep to the limit. Each process reports how many requests it has in progress.
The report expires, so that soon after a crash a process counts as having none.

Redis is optional: while it is unreachable, each process decides alone. If the reply to a claim does not arrive in time,
the request is sent without the reply. Nothing is returned to the ledger for this request, because it is unknown whether
the ledger has charged it.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Sequence
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
    Receipt,
    Settle,
    SharedLimit,
    decode,
    encode,
)
from llm_actors.redis import RedisAwayError, RedisProblem, RedisScript, RedisServer, script_of
from llm_actors.redis_link import RedisSessions
from llm_protocol.failures import Settlement

MAX_BATCH = 256
"""The most entries in one batch, so that the server needs well below a millisecond for it."""

BEAT_SECONDS = 5.0
"""Seconds between two reports of the requests in progress. The script forgets reports that are older than 15 s."""

log = logging.getLogger(__name__)


@final
class SharedLedger:
    """The client of the ledger. A task must call `run`; no other method waits.

    ``wanted`` returns whether reservation ``number`` is still wanted. ``answered`` is called with claims and their
    replies, ``alone`` with the claims that had no reply when the connection was lost.
    """

    def __init__(
        self,
        server: RedisServer,
        *,
        wanted: Callable[[int], bool],
        answered: Callable[[Sequence[tuple[Claim, LedgerReply]]], None],
        alone: Callable[[Sequence[Claim]], None],
        held: Callable[[], Iterable[SharedLimit]],
        process: str,
    ) -> None:
        """``held`` returns the limits under which this process has requests in progress. ``process``: a name that no
        other process has.
        """
        self._server = server
        self._wanted = wanted
        self._answered = answered
        self._alone = alone
        self._held = held
        self._process = process
        self._entries: list[Entry] = []
        """The entries to send. They are dropped when a command takes longer than its ``timeout_s``, so their number
        is bounded.
        """
        self._claims: list[Claim] = []
        self._news = trio.Event()
        self._beat_at = trio.current_time()
        self._ahead_s = -inf
        """The most seconds that the ledger's clock is ahead of the clock of this process; minus infinity while that
        is unknown.
        """
        self._sessions = RedisSessions(
            server,
            what="the shared ledger",
            without="until it is reachable again, this process applies the limits on its own",
        )
        self.is_open = False
        self.tried = self._sessions.tried

    def limit(self, sort: str, name: str, account: LimitState) -> SharedLimit:
        """Return the shared limit of the provider or caller ``name``."""
        return SharedLimit(self._key(f"{sort}:{name}"), account)

    def _key(self, name: str) -> str:
        """Return the key for ``name``. The braces put all keys into one slot of a Redis cluster, as a script
        requires.
        """
        return f"{{{self._server.prefix}}}:limits:{name}"

    def claim(self, claim: Claim) -> None:
        """Add a claim to the next batch."""
        self._add(claim)

    def withdraw(self, hopeless: Callable[[Claim], bool]) -> list[Claim]:
        """Withdraw and return the claims that are ``hopeless`` and were not sent yet."""
        withdrawn = [each for each in self._entries if isinstance(each, Claim) and hopeless(each)]
        if withdrawn:
            gone = {each.number for each in withdrawn}
            self._entries = [each for each in self._entries if not isinstance(each, Claim) or each.number not in gone]
        return withdrawn

    def settle(self, receipt: Receipt, ending: Settlement, tokens: int | None) -> None:
        """Correct a charge in the next batch. While the server cannot be reached, the charge stays as it is."""
        self._add(Settle(receipt, ending, tokens))

    def hold(self, limit: SharedLimit, seconds: float, model: str = "") -> None:
        """Hold the provider in the other processes too, for ``seconds``; with ``model``, only that model of it."""
        self._add(LedgerPause(limit, seconds, model))

    def _add(self, entry: Entry) -> None:
        if self.is_open:
            self._entries.append(entry)
            self._news.set()

    async def run(self) -> None:
        """Keep a session with the server: see `RedisSessions.run`. Between two sessions, requests do not wait for the
        server. A bug here does not crash the limiter.
        """
        await self._sessions.run(script_of("llm_actors.limiter.shared", "ledger.lua"), self._serve, self._close)

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
        """Send the entries, and handle the replies. Raises `RedisAwayError`."""
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
            raise RedisAwayError(RedisProblem("answer", "the reply does not match the request")) from None
        self._ahead_s = there - now  # the server read its clock after ``now``
        self._answered(answered)  # if this raises, the other claims go as if the server could not be reached
        self._claims = []

    def _beat(self) -> None:
        """Add the reports of requests in progress when they are due. A batch is sent even if there are none, so that
        the ledger's clock does not expire.
        """
        now = trio.current_time()
        if now >= self._beat_at:
            self._beat_at = now + BEAT_SECONDS
            self._entries.extend(map(Held, self._held()))

    def _open(self) -> None:
        self.is_open = True
        self._sessions.begun()
        log.info("limits are shared through Redis at %s", self._server.name)

    def _close(self, _: RedisProblem) -> None:
        """Continue without the server: confirm all claims."""
        if self.is_open:
            self.is_open = False
            lost = [*self._claims, *(each for each in self._entries if isinstance(each, Claim))]
            self._claims, self._entries = [], []
            self._alone(lost)
