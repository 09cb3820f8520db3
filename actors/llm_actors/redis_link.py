"""Sessions with Redis that are started again when they end, for code that can continue without a reply.

`RedisSessions` keeps a session open, and logs once when Redis becomes unreachable. `RedisLink` calls one script: one
task keeps the session (`run`), any task may `call`. Calls are made one after another, urgent ones first. While Redis is
unreachable, calls fail at once. One line is logged when Redis is reachable again.
"""

from __future__ import annotations

import logging
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Sequence
from math import inf
from random import random
from typing import TypeAlias, final

import msgspec
import trio

from llm_actors.kernel.errors import exception_site, is_fatal
from llm_actors.kernel.supervisor_run import PARK_PAUSES
from llm_actors.kernel.window import Streak
from llm_actors.redis import UNREACHABLE, RedisAwayError, RedisProblem, RedisScript, RedisServer, run_session

AWAY_SECONDS = 1.0
"""Seconds between two sessions; up to half of that is added at random."""

QUEUE_BYTES = 64_000_000
"""The most bytes of calls that wait. A call that would exceed them fails."""

QUEUE_CALLS = 256
"""The most calls that wait. One more call fails, unless it is urgent."""

QUEUE_SECONDS = 5.0
"""Seconds that a call waits for its reply. Then it fails, unless it is urgent."""

LEAST_TIMEOUT_SECONDS = 2.0
"""The time limit of one command in seconds, unless the server's ``timeout_s`` is longer. It is longer than the default
of ``timeout_s``, because these commands transfer whole responses, and a caller can stop waiting earlier.
"""

Argument: TypeAlias = str | bytes | int | float

log = logging.getLogger(__name__)


@final
class RedisSessions:
    """Sessions with one server, one after another. For the log: ``what`` uses the sessions, and ``without`` describes
    what happens while the server is unreachable.
    """

    def __init__(self, server: RedisServer, *, what: str, without: str) -> None:
        self._server = server
        self._what = what
        self._without = without
        self._problem: RedisProblem | None = None
        """Why the last session ended; ``None`` once the server has been reached again."""
        self.tried = trio.Event()
        """Set when the first attempt to reach the server has ended, successful or not."""

    async def run(
        self, source: str, use: Callable[[RedisScript], Awaitable[None]], ended: Callable[[RedisProblem], None]
    ) -> None:
        """Run ``use`` with the script ``source`` in each session. When a session ends, call ``ended`` with the
        reason, and start another after a pause. Runs until cancelled.

        A bug in ``use`` counts as an unreachable server; the pauses then grow.
        """
        crashes = Streak(PARK_PAUSES)
        while True:
            pause = AWAY_SECONDS
            try:
                problem = await run_session(self._server, source, use)
            except Exception as exc:
                if is_fatal(exc):
                    raise
                problem = RedisProblem("crashed", f"{self._what} crashed: {exception_site(exc)}")
                pause = crashes.next_delay(trio.current_time(), random())  # noqa: S311
            if self._problem is None or problem.sort != self._problem.sort:
                log.warning("Redis at %s is unavailable (%s): %s", self._server.name, problem.detail, self._without)
            self._problem = problem
            ended(problem)
            self.tried.set()
            # Random, so that clients that lost the server at the same time return at different times.
            await trio.sleep(pause * (1 + random() / 2))  # noqa: S311

    def begun(self) -> None:
        """Record that the server was reached and can be used."""
        self._problem = None
        self.tried.set()


@final
class _Call:
    __slots__ = ("answer", "arguments", "done", "keys", "problem", "size")

    def __init__(self, keys: Sequence[str], arguments: Sequence[Argument]) -> None:
        self.keys = keys
        self.arguments = arguments
        self.size = sum(len(each) for each in arguments if isinstance(each, (str, bytes)))
        self.done = trio.Event()
        self.answer: list[bytes] | None = None
        self.problem = RedisProblem("queue", "too many calls of this process wait for Redis")


@final
class RedisLink:
    """Calls of one script. For the log: ``what`` is stored in Redis, and ``without`` describes what happens while
    Redis is unreachable. ``first`` are the keys and arguments of a call that shows whether the server can be used.
    """

    def __init__(
        self,
        server: RedisServer,
        source: str,
        *,
        what: str,
        without: str,
        first: tuple[Sequence[str], Sequence[Argument]],
    ) -> None:
        server = msgspec.structs.replace(server, timeout_s=max(server.timeout_s, LEAST_TIMEOUT_SECONDS))
        self._server = server
        self._source = source
        self._what = what
        self._kept = RedisSessions(server, what="the link", without=without)
        self._first = first
        self._calls: OrderedDict[_Call, None] = OrderedDict()
        self._bytes = 0
        self._news = trio.Event()
        self._problem: RedisProblem | None = None
        self.is_open = False
        self.sessions = 0
        """The number of times the server has been reached. Between two sessions the server may have lost all its data.
        """
        self.tried = self._kept.tried

    async def call(self, keys: Sequence[str], *arguments: Argument, is_urgent: bool = False) -> list[bytes]:
        """Call the script and return its result. Waits for the earlier calls, at most `QUEUE_SECONDS`. An urgent call
        waits only for the call that is being made; only one task at a time may make urgent calls. Raises
        `RedisAwayError`; then it is unknown whether the script has run. Cancelling this does not undo a call that was
        sent.
        """
        call = _Call(keys, arguments)
        if not self.is_open or not (is_urgent or self._has_room(call)):
            await trio.lowlevel.checkpoint()
            raise RedisAwayError(self._problem or call.problem)
        self._calls[call] = None
        if is_urgent:
            self._calls.move_to_end(call, last=False)
        self._bytes += call.size
        self._news.set()
        try:
            with trio.move_on_after(inf if is_urgent else QUEUE_SECONDS):
                await call.done.wait()
        finally:
            self._take(call)
        if call.answer is None:
            raise RedisAwayError(call.problem)
        return call.answer

    def _has_room(self, call: _Call) -> bool:
        return not self._calls or (len(self._calls) < QUEUE_CALLS and self._bytes + call.size <= QUEUE_BYTES)

    def _take(self, call: _Call) -> None:
        """Remove a call from the queue."""
        if call in self._calls:
            del self._calls[call]
            self._bytes -= call.size

    async def run(self) -> None:
        """Keep a session with the server: see `RedisSessions.run`."""
        try:
            await self._kept.run(self._source, self._serve, self._close)
        finally:
            self._close(RedisProblem(UNREACHABLE, "the connection was closed"))

    async def _serve(self, script: RedisScript) -> None:
        await script.run_list(*self._first)
        self._open()
        while True:
            while self._calls:
                await self._answer(script, next(iter(self._calls)))
            self._news = trio.Event()
            await self._news.wait()

    async def _answer(self, script: RedisScript, call: _Call) -> None:
        self._take(call)
        try:
            call.answer = await script.run_list(call.keys, call.arguments)
        except RedisAwayError as exc:
            call.problem = exc.problem
            raise
        finally:
            call.done.set()

    def _open(self) -> None:
        self.is_open = True
        self.sessions += 1
        self._problem = None
        self._kept.begun()
        log.info("%s in Redis at %s", self._what, self._server.name)

    def _close(self, problem: RedisProblem) -> None:
        self._problem = problem
        self.is_open = False
        for call in self._calls:
            call.problem = problem
            call.done.set()
        self._calls.clear()
        self._bytes = 0
