"""Generic actors for the kernel's tests: they count, crash on request, and keep a journal."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias, assert_never

import msgspec
import trio

from llm_actors.kernel import (
    Backoff,
    Call,
    Cast,
    ChildSpec,
    Delivery,
    Inbox,
    MailboxSpec,
    Previous,
    Restart,
    serve,
)

Journal: TypeAlias = list[str]

NO_WAIT = Backoff.none()

DEFAULT_MAILBOX = MailboxSpec()


class Ask(Call[int], frozen=True):
    """Answered with how many messages this incarnation has had."""

    payload: str = ""


class Crash(Call[None], frozen=True):
    """The actor raises `error`."""

    error: type[BaseException] = ValueError


class CrashCast(Cast, frozen=True):
    """The same without an answer."""


class Leave(Cast, frozen=True):
    """The actor returns normally."""


class Sleep(Call[str], frozen=True):
    """Answered after so many seconds."""

    seconds: float


class Count(msgspec.Struct, frozen=True):
    """A durable number."""

    value: int


MemberMessage: TypeAlias = "Ask | Crash | CrashCast | Leave | Sleep"


class Member:
    """Writes `up NAME` and `down NAME` into a journal, and does what its messages say."""

    def __init__(self, name: str, journal: Journal) -> None:
        self._name = name
        self._journal = journal
        self._seen = 0
        self._scope = trio.CancelScope()

    async def run(self, inbox: Inbox[MemberMessage], *, task_status: trio.TaskStatus[None]) -> None:
        self._journal.append(f"up {self._name}")
        try:
            task_status.started()
            with self._scope:
                await serve(inbox, self._handle)
        finally:
            self._journal.append(f"down {self._name}")

    async def _handle(self, delivery: Delivery[MemberMessage]) -> None:
        self._seen += 1
        match delivery.message:
            case Ask() as message:
                delivery.reply(message, self._seen)
            case Sleep() as message:
                await trio.sleep(message.seconds)
                delivery.reply(message, self._name)
            case Crash(error):
                raise error
            case CrashCast():
                raise ValueError
            case Leave():
                self._scope.cancel()
            case _ as never:
                assert_never(never)


def member(
    name: str,
    journal: Journal | None = None,
    *,
    restart: Restart = Restart.PERMANENT,
    shutdown: float = 5.0,
    mailbox: MailboxSpec = DEFAULT_MAILBOX,
) -> ChildSpec[MemberMessage]:
    """Make the spec of a `Member`."""
    pages: Journal = [] if journal is None else journal
    return ChildSpec(name, lambda _: Member(name, pages), restart, shutdown, mailbox=mailbox)


class FailsToStart:
    """Raises before it is up."""

    async def run(self, inbox: Inbox[MemberMessage], *, task_status: trio.TaskStatus[None]) -> None:
        await trio.lowlevel.checkpoint()
        raise OSError("no such thing")


def flaky(
    name: str, journal: Journal, starts: Callable[[], bool], restart: Restart = Restart.PERMANENT
) -> ChildSpec[MemberMessage]:
    """Make the spec of a `Member` whose start fails whenever `starts()` is false."""

    def factory(_: Previous) -> Member | FailsToStart:
        if starts():
            return Member(name, journal)
        journal.append(f"fail {name}")
        return FailsToStart()

    return ChildSpec(name, factory, restart)
