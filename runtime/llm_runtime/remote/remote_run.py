"""One run in a daemon: what this client knows about it, and the tasks that wait for a change."""

from __future__ import annotations

from enum import Enum, auto
from typing import final

import trio

from llm_actors.run import LogLimitExceeded, Run
from llm_protocol.events import TERMINAL, Event
from llm_protocol.failures import Failure, FailureKind
from llm_protocol.native import Refused


class RemoteState(Enum):
    """The state of a run on its connection."""

    SENT = auto()
    """The run was requested, and more events will follow."""
    REFUSED = auto()
    """The daemon has refused the run, or does not know it."""
    CUT = auto()
    """The connection broke."""
    ENDED = auto()
    """The last event of the run has arrived."""


@final
class RemoteRun:
    """One run in a daemon. Its events are appended to the log of the local ``run``, which the program follows.
    ``body`` is the request as JSON.
    """

    def __init__(self, run: Run, body: bytes) -> None:
        self.run = run
        self.body = body
        self.state = RemoteState.SENT
        self.number = -1
        """The sequence number of the last event that has arrived."""
        self.was_accepted = False
        self.is_over = False
        """Whether the run is over for this client."""
        self.refused: Failure | None = None
        self.refused_code = ""
        self._changed = trio.Event()

    @property
    def id(self) -> str:
        """The response's id."""
        return self.run.response_id

    def send(self) -> None:
        """Record that the run was requested over a connection. An earlier refusal no longer counts."""
        self.state = RemoteState.SENT
        self.refused, self.refused_code = None, ""

    def accept(self) -> None:
        """Record that the daemon has accepted the run."""
        self.was_accepted = True
        self._change()

    def add(self, number: int, events: tuple[Event, ...]) -> None:
        """Append events that have arrived. ``number`` is the sequence number of the last of them."""
        self.number = number
        try:
            for event in events:
                self.run.log.append(event)
        except LogLimitExceeded:
            mib = self.run.log.limit_bytes // 2**20
            self.run.cancel(f"the response exceeds {mib} MiB, the limit of a connected runtime", FailureKind.LOG_LIMIT)
        if events and isinstance(events[-1], TERMINAL):
            self.state = RemoteState.ENDED
            self._change()

    def refuse(self, refused: Refused) -> None:
        """Record that the daemon has refused the run."""
        self.refused, self.refused_code = refused.reason(), refused.code
        self.state = RemoteState.REFUSED
        self._change()

    def fail(self, failure: Failure) -> None:
        """Record the failure with which the run ends for this client."""
        self.refused = failure

    def cut(self) -> None:
        """Record that the connection of the run broke."""
        self.state = RemoteState.CUT
        self._change()

    def end(self) -> None:
        """Record that the run is over for this client."""
        self.is_over = True
        self._change()

    def _change(self) -> None:
        self._changed.set()
        self._changed = trio.Event()

    async def change(self) -> None:
        """Wait for the next change of this run's state."""
        await self._changed.wait()
