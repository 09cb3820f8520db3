"""The members' own streams, copied into the run's log while the members write, if its followers asked for them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import final

from llm_actors.orchestrator.strategies.members import Member
from llm_actors.run import LogLimitExceeded, RunLog, weigh
from llm_protocol.events import MemberDelta, MemberEvent, MemberStarted, TextDelta

LOG_SHARE = 0.5
"""The share of a run's log for the members' streams. It is also the size limit of each member's own log."""


@final
class MemberEvents:
    """Reports the members' events to the followers of ``log``, if ``on``."""

    def __init__(self, log: RunLog, *, on: bool) -> None:
        self.on = on
        self._log = log

    def started(self, member: Member) -> None:
        """Report that a member was called."""
        self._emit(MemberStarted(member=member.name, request_id=member.request.request_id, round=member.round))

    def ended(self, member: Member) -> None:
        """Report that a member has ended."""
        self._emit(member.last_word())

    def _emit(self, event: MemberEvent) -> None:
        if self.on:
            with suppress(LogLimitExceeded):
                self._log.append(event)

    @contextmanager
    def passing_on(self, member: Member) -> Iterator[None]:
        """During the block, pass on the events of a member."""

        def pass_on() -> None:
            for event in follower.take():
                if isinstance(event, TextDelta):
                    self._append(MemberDelta(member.name, event.text))

        if not self.on:
            yield
            return
        with member.log.follow(wake=pass_on) as follower:
            yield

    def _append(self, event: MemberDelta) -> None:
        """Append an event. Raises `LogLimitExceeded` if less than `LOG_SHARE` of the log would be left for the
        response. That ends the member that writes too much.
        """
        if self._log.size + weigh(event) > self._log.limit_bytes * LOG_SHARE:
            raise LogLimitExceeded
        self._log.append(event)
