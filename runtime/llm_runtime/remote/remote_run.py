"""One run on its way through a daemon: what is known of it here, and who waits for more."""

from __future__ import annotations

from enum import Enum, auto
from typing import final

import trio

from llm_actors.run import LogLimitExceeded, Run
from llm_protocol.events import TERMINAL, Event
from llm_protocol.failures import Failure, FailureKind
from llm_protocol.native import Refused


class RemoteState(Enum):
    """Where a run stands on its connection."""

    SENT = auto()
    """It was asked for, and more is to come."""
    REFUSED = auto()
    """The daemon does not take it on, or does not know it."""
    CUT = auto()
    """The connection broke."""
    ENDED = auto()
    """Its last event is here."""


@final
class RemoteRun:
    """The daemon's run is mirrored in ``run``: its events are appended to that log, which whoever asked follows.

    ``body`` is its request as JSON.
    """

    def __init__(self, run: Run, body: bytes) -> None:
        self.run = run
        self.body = body
        self.state = RemoteState.SENT
        self.number = -1
        """The number of the last event that has come."""
        self.was_accepted = False
        self.is_over = False
        """Whether nothing is done for it any more."""
        self.refused: Failure | None = None
        self.refused_code = ""
        self._changed = trio.Event()

    @property
    def id(self) -> str:
        """The response's id."""
        return self.run.response_id

    def send(self) -> None:
        """It is asked for, on a connection."""
        self.state = RemoteState.SENT

    def accept(self) -> None:
        """The daemon has taken it on."""
        self.was_accepted = True
        self._change()

    def add(self, number: int, events: tuple[Event, ...]) -> None:
        """Events have come, the last of them with this number."""
        self.number = number
        try:
            for event in events:
                self.run.log.append(event)
        except LogLimitExceeded:
            self.run.cancel("the answer outgrew the run log's limit", FailureKind.LOG_LIMIT)
        if events and isinstance(events[-1], TERMINAL):
            self.state = RemoteState.ENDED
            self._change()

    def refuse(self, refused: Refused) -> None:
        """The daemon does not take it on."""
        self.refused, self.refused_code = refused.reason(), refused.code
        self.state = RemoteState.REFUSED
        self._change()

    def fail(self, failure: Failure) -> None:
        """It is given up."""
        self.refused = failure

    def cut(self) -> None:
        """Its connection broke."""
        self.state = RemoteState.CUT
        self._change()

    def end(self) -> None:
        """Nothing is done for it any more."""
        self.is_over = True
        self._change()

    def _change(self) -> None:
        self._changed.set()
        self._changed = trio.Event()

    async def change(self) -> None:
        """Wait until something has changed."""
        await self._changed.wait()
