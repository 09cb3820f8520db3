"""The connections to a daemon: as many WebSockets as the runs need, reopened when they break.

Each run has a task that ensures that the run is not executed twice. If the connection of a run breaks, the response is
resumed on another connection at the same position. A request that the daemon has not received is sent again. If the
daemon no longer has the response, because it was restarted, the run fails: the request may have been executed.
"""

from __future__ import annotations

import random
from math import inf
from typing import Final, final

import trio

from llm_actors.run import Run
from llm_protocol.errors import LLMClientError, ShuttingDownError, error_for
from llm_protocol.events import Failed
from llm_protocol.failures import Failure, FailureKind
from llm_protocol.native import RESUME_SECONDS
from llm_runtime.remote.address import Address
from llm_runtime.remote.connection import CLOSE_SECONDS, LIFETIME_OVER, Connection
from llm_runtime.remote.remote_run import RemoteRun, RemoteState

MOST_CONNECTIONS: Final = 64
"""The most WebSockets to one daemon. Runs beyond their capacity wait."""

FIRST_PAUSE_SECONDS: Final = 0.05
MOST_PAUSE_SECONDS: Final = 1.0
"""The longest delay, in seconds, between attempts to open a connection. The delay doubles each time, and up to half
of it is added at random.
"""

TIMES_SENT: Final = 3
"""The most times that a request which the daemon has not received is sent."""

_UNKNOWN = "response_not_found"
"""The daemon's error code for a response that does not exist."""


@final
class Link:
    """The connections to one daemon. ``capacity`` is the number of runs per WebSocket. Its tasks run in ``nursery``."""

    def __init__(self, nursery: trio.Nursery, address: Address, capacity: int) -> None:
        self._nursery = nursery
        self._address = address
        self._capacity = capacity
        self._connections: list[Connection] = []
        self._opening = trio.Lock()
        self._failed: LLMClientError | None = None
        """How the last attempt to open a connection failed, if it did."""
        self._room = trio.Event()
        self._closed = False

    async def submit(self, run: Run, body: bytes) -> None:
        """Submit a run, whose request is ``body`` as JSON. Waits until the daemon accepts it; raises `LLMClientError`
        if it does not.
        """
        if self._closed:
            raise ShuttingDownError("this program has closed its connection to the daemon")
        entry = RemoteRun(run, body)
        self._nursery.start_soon(self._carry, entry)
        try:
            while not (entry.was_accepted or entry.is_over):
                await entry.change()
        except BaseException:
            run.cancel("cancelled by the caller")
            raise
        end = run.log.end
        if not entry.was_accepted and isinstance(end, Failed):
            raise error_for(end.failure)

    async def close(self) -> None:
        """Accept no new runs, and close all connections, within twice `CLOSE_SECONDS`. The daemon then keeps no
        response for this client.
        """
        self._closed = True
        for connection in self._connections:
            connection.close()
        with trio.move_on_after(2 * CLOSE_SECONDS, shield=True):
            while self._connections:
                await self._room.wait()

    async def _carry(self, entry: RemoteRun) -> None:
        run = entry.run
        try:
            with run.scope:
                await self._deliver(entry)
        except LLMClientError as exc:
            entry.fail(exc.failure)
        finally:
            for connection in self._connections:
                connection.cancel(entry)  # does nothing if the run has ended
            if entry.refused is not None:
                run.fail(entry.refused)
            run.close()
            entry.end()

    async def _deliver(self, entry: RemoteRun) -> None:
        created, is_known = 0, False
        while entry.state is not RemoteState.ENDED:
            connection = await self._connection()
            entry.send()
            if is_known:
                connection.resume(entry)
            else:
                created += 1
                connection.create(entry)
            while entry.state is RemoteState.SENT:
                await entry.change()
            if entry.state is RemoteState.CUT:
                is_known = True  # the daemon may have the response
            elif entry.state is RemoteState.REFUSED:
                if entry.refused_code == _UNKNOWN and is_known and not entry.was_accepted and created < TIMES_SENT:
                    is_known = False  # the request was lost with the connection
                elif entry.refused_code != LIFETIME_OVER:
                    break
        if entry.refused_code == _UNKNOWN and is_known:
            words = "the connection to the daemon broke, and the daemon no longer has the response"
            entry.fail(Failure(kind=FailureKind.NETWORK, message=words, partial=entry.run.has_content))

    async def _connection(self) -> Connection:
        """Return a connection that can take a run. Opens one if necessary."""
        give_up_at, pause = inf, FIRST_PAUSE_SECONDS
        while True:
            if len(self._connections) >= MOST_CONNECTIONS and self._with_room() is None:
                await self._room.wait()
                continue
            before = self._failed
            async with self._opening:
                if self._closed:
                    raise ShuttingDownError("this program has closed its connection to the daemon")
                if (found := self._with_room()) is not None:
                    return found
                # While this run waited, another may have failed to connect. If each tried, they would wait for minutes.
                shared = failed = None if self._failed is before else self._failed
                if failed is None:
                    try:
                        opened: Connection = await self._nursery.start(self._live)
                    except LLMClientError as exc:
                        failed = self._failed = exc
                    else:
                        self._failed = None
                        return opened
                give_up_at = min(give_up_at, trio.current_time() + RESUME_SECONDS)
                if not failed.failure.rule.client_retry or trio.current_time() + pause > give_up_at:
                    raise error_for(failed.failure)
                if shared is None:
                    await trio.sleep(pause * random.uniform(1, 1.5))  # noqa: S311 - no secret
                    pause = min(2 * pause, MOST_PAUSE_SECONDS)

    def _with_room(self) -> Connection | None:
        return next((each for each in self._connections if each.can_take), None)

    async def _live(self, *, task_status: trio.TaskStatus[Connection]) -> None:
        connection = Connection(self._address, self._capacity, self._is_surplus, self._note_room)
        self._connections.append(connection)
        try:
            await connection.live(lambda: task_status.started(connection))
        finally:
            self._connections.remove(connection)
            self._note_room()

    def _is_surplus(self) -> bool:
        return sum(each.can_take for each in self._connections) > 1

    def _note_room(self) -> None:
        self._room.set()
        self._room = trio.Event()
