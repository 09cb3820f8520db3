"""The shared ledger: the limits of several processes, kept in one Redis.

Our own books stay what they are: they hold the waiting lines, and no process goes beyond the limits on its own. What
they grant is claimed in the ledger before it is told, with everything else that happened in the meantime, in one step
on the server (`ledger.lua`). The charge is made on the server before the request goes, so that the sum of all
processes keeps to the limit; what a process holds is told in absolute numbers and forgotten after a while, so
that one that dies leaves nothing behind for long.

Redis is an option: while it is away our own books decide alone. A claim whose answer did not come in time goes
without one, and is never claimed again or given back, for nobody knows whether it was charged.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Sequence
from functools import cache
from importlib.resources import files
from math import inf
from random import random
from typing import final

import trio

from llm_actors.kernel.errors import is_fatal
from llm_actors.kernel.supervisor_run import PARK_PAUSES
from llm_actors.kernel.trace import exception_site
from llm_actors.kernel.window import Streak
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
from llm_actors.redis import RedisAwayError, RedisProblem, RedisScript, RedisServer, session
from llm_protocol.failures import Settlement

MAX_BATCH = 256
"""Entries told at once. It bounds how long the server is busy with us: well below a millisecond."""

BEAT_SECONDS = 5.0
"""How often the slots that are held are told again; the script forgets those of which it does not hear for 15 s."""

AWAY_SECONDS = 1.0
"""From the end of one session to the next, and up to half as long again. A claim never waits for it."""

log = logging.getLogger(__name__)


@final
class SharedLedger:
    """The limiter's side. Give it to a task that runs `run`; nothing else of it waits.

    ``wanted`` tells whether reservation number so-and-so is still open. ``answered`` is given the claims that were
    decided, ``alone`` those that were not when the server went away.
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
        """``held``: those parties of which slots are taken here. ``process``: no other limiter's name."""
        self._server = server
        self._wanted = wanted
        self._answered = answered
        self._alone = alone
        self._held = held
        self._process = process
        self._entries: list[Entry] = []
        """What is to be told: no more than happens within one command's ``timeout_s``, after which all of it goes."""
        self._asked: list[Claim] = []
        self._news = trio.Event()
        self._beat_at = trio.current_time()
        self._ahead_s = -inf
        """How far the ledger's clock is ahead of ours at most; minus infinity while nobody has told."""
        self._trouble: RedisProblem | None = None
        self.is_open = False
        self.tried = trio.Event()
        """Set when the first attempt to reach the server is over, whichever way."""

    def party(self, sort: str, name: str, account: LimitState) -> Party:
        """The provider or caller called ``name``."""
        return Party(self._key(f"{sort}:{name}"), account)

    def _key(self, name: str) -> str:
        """The braces put all keys into one slot of a Redis cluster: a script reads and writes in one slot only."""
        return f"{{{self._server.prefix}}}:limits:{name}"

    def claim(self, claim: Claim) -> None:
        """Ask."""
        self._tell(claim)

    def withdraw(self, hopeless: Callable[[Claim], bool]) -> list[Claim]:
        """Do not ask for those that are ``hopeless``, unless it was done already. Return them."""
        withdrawn = [each for each in self._entries if isinstance(each, Claim) and hopeless(each)]
        if withdrawn:
            gone = {each.number for each in withdrawn}
            self._entries = [each for each in self._entries if not isinstance(each, Claim) or each.number not in gone]
        return withdrawn

    def settle(self, receipt: Receipt, ending: Settlement, tokens: int | None) -> None:
        """Correct a charge. While the server is away it stands as it is."""
        self._tell(Settle(receipt, ending, tokens))

    def hold(self, party: Party, seconds: float, model: str = "") -> None:
        """Let the other processes wait, too; with ``model``, for that model of the provider alone."""
        self._tell(LedgerPause(party, seconds, model))

    def _tell(self, entry: Entry) -> None:
        if self.is_open:
            self._entries.append(entry)
            self._news.set()

    async def run(self) -> None:
        """Keep a session with the server; when it ends, begin another after a while.

        A bug here is no crash of the limiter: it is as if the server were away, with pauses that grow.
        """
        crashes = Streak(PARK_PAUSES)
        while True:
            pause = AWAY_SECONDS
            try:
                trouble = await session(self._server, _source(), self._serve)
            except Exception as exc:
                if is_fatal(exc):
                    raise
                trouble = RedisProblem("crashed", f"the shared ledger crashed: {exception_site(exc)}")
                pause = crashes.next_delay(trio.current_time(), random())  # noqa: S311
            self._close(trouble)
            self.tried.set()
            await trio.sleep(pause * (1 + random() / 2))  # noqa: S311 - those who lost it together come apart

    async def _serve(self, script: RedisScript) -> None:
        self._beat_at = trio.current_time()
        await self._exchange(script)
        self._open()
        self.tried.set()
        while True:
            if not self._entries:
                self._news = trio.Event()
                with trio.move_on_at(self._beat_at):
                    await self._news.wait()
            await self._exchange(script)

    async def _exchange(self, script: RedisScript) -> None:
        """Tell what there is, and hear the answers. Raises `RedisAwayError`."""
        self._beat()
        entries = [each for each in self._entries if not isinstance(each, Claim) or self._wanted(each.number)]
        told, self._entries = entries[:MAX_BATCH], entries[MAX_BATCH:]
        self._asked = [each for each in told if isinstance(each, Claim)]
        waiting = [each for each in entries if isinstance(each, Claim)]
        now = trio.current_time()
        batch = encode(self._key("clock"), self._process, max(0.0, now + self._ahead_s), told, waiting)
        answer = await script.run(batch.keys, batch.argument)
        try:
            there, answered = decode(answer, self._asked)
        except ValueError:
            raise RedisAwayError(RedisProblem("answer", "an answer to something else")) from None
        self._ahead_s = there - now  # it was asked after ``now``
        self._answered(answered)  # should it crash, those it did not come to go as if the server were away
        self._asked = []

    def _beat(self) -> None:
        """When it is time: tell again what the server would forget. With nothing to tell the clock is still written."""
        now = trio.current_time()
        if now >= self._beat_at:
            self._beat_at = now + BEAT_SECONDS
            self._entries.extend(map(Held, self._held()))

    def _open(self) -> None:
        self.is_open = True
        self._trouble = None
        log.info("limits are shared through redis at %s", self._server.name)

    def _close(self, trouble: RedisProblem) -> None:
        """The server is away. Nobody waits for it."""
        if self._trouble is None or trouble.sort != self._trouble.sort:
            log.warning(
                "redis at %s is away (%s): until it is back, this process keeps to its limits alone",
                self._server.name,
                trouble.detail,
            )
        self._trouble = trouble
        if self.is_open:
            self.is_open = False
            lost = [*self._asked, *(each for each in self._entries if isinstance(each, Claim))]
            self._asked, self._entries = [], []
            self._alone(lost)


@cache
def _source() -> str:
    return files("llm_actors.limiter.shared").joinpath("ledger.lua").read_text()
