"""The specification of a child: how to make, start, stop and restart it. It is validated when it is created.

`Restart` and `Strategy` say which children are restarted when one fails, as in Erlang/OTP.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from enum import Enum
from typing import Generic, Protocol, TypeAlias, TypeVar, assert_never, final

import msgspec
import trio

from llm_actors.kernel.delivery import ActorMessage
from llm_actors.kernel.inbox import Inbox
from llm_actors.kernel.mailbox import MailboxSpec


class Restart(Enum):
    """When a child that has ended is restarted."""

    PERMANENT = "permanent"
    """Always, even after a normal return."""
    TRANSIENT = "transient"
    """Only after a crash."""
    TEMPORARY = "temporary"
    """Never, not even when its siblings are restarted as a group."""


class Strategy(Enum):
    """Which children are restarted when one fails: that child only, all children, or that child and those started after
    it.
    """

    ONE_FOR_ONE = "one for one"
    ONE_FOR_ALL = "one for all"
    REST_FOR_ONE = "rest for one"


def wants_restart(restart: Restart, *, crashed: bool) -> bool:
    """Return whether a child that ended by itself is restarted."""
    return restart is Restart.PERMANENT or (restart is Restart.TRANSIENT and crashed)


def affected(strategy: Strategy, names: Sequence[str], failed: str) -> Sequence[str]:
    """Return the children to restart because `failed` failed, in start order. Stop them in reverse order, then start
    them in order.
    """
    match strategy:
        case Strategy.ONE_FOR_ONE:
            return (failed,)
        case Strategy.ONE_FOR_ALL:
            return names
        case Strategy.REST_FOR_ONE:
            return names[names.index(failed) :]
        case _:
            assert_never(strategy)


DEFAULT_SHUTDOWN = 5.0
"""The grace period: seconds that a child has to end after it is asked to stop. Then it is cancelled."""

DEFAULT_START_TIMEOUT = 10.0
"""Seconds that a child has to call `task_status.started()`."""

M_contra = TypeVar("M_contra", bound=ActorMessage, contravariant=True)

Previous: TypeAlias = "msgspec.Struct | None"
"""The state that an incarnation inherits from the one before it: the struct that the earlier one returned when it
stopped cleanly, or that it last saved with `Inbox.checkpoint` when it crashed.
"""


class Actor(Protocol[M_contra]):
    """Any object that handles the messages of an inbox."""

    async def run(self, inbox: Inbox[M_contra], *, task_status: trio.TaskStatus[None]) -> object:
        """Initialise, call `task_status.started()`, then handle messages until the inbox ends. If this returns a
        struct, the next incarnation inherits it.
        """


class ChildSpec(msgspec.Struct, Generic[M_contra], frozen=True):
    """How to make, stop and restart one child. `factory` is called for each incarnation, with the inherited state.

    `shutdown` and `start_timeout` are in seconds.
    """

    name: str
    factory: Callable[[Previous], Actor[M_contra]]
    restart: Restart = Restart.PERMANENT
    shutdown: float = DEFAULT_SHUTDOWN
    start_timeout: float = DEFAULT_START_TIMEOUT
    mailbox: MailboxSpec | None = MailboxSpec()
    """The child's mailbox. None: the child accepts no messages."""

    def __post_init__(self) -> None:
        if not self.name or "/" in self.name:
            raise ValueError(f"a child's name must not be empty or contain '/': {self.name!r}")
        if not callable(self.factory):
            raise TypeError(f"{self.name}: factory must be callable, not {type(self.factory).__name__}")
        if not isinstance(self.restart, Restart):
            raise TypeError(f"{self.name}: restart must be a Restart, not {self.restart!r}")
        if self.shutdown < 0:
            raise ValueError(f"{self.name}: shutdown must not be negative: {self.shutdown}")
        if self.start_timeout <= 0:
            raise ValueError(f"{self.name}: start_timeout must be longer than 0 s: {self.start_timeout}")


@final
class _Task:
    """A coroutine function as an actor that accepts no messages and is cancelled when asked to stop."""

    def __init__(self, run: Callable[[trio.TaskStatus[None]], Awaitable[object]]) -> None:
        self._run = run

    async def run(self, inbox: Inbox[ActorMessage], *, task_status: trio.TaskStatus[None]) -> None:
        inbox.when_stopping(inbox.scope.cancel)
        await self._run(task_status)


def task_child(
    name: str,
    run: Callable[[trio.TaskStatus[None]], Awaitable[object]],
    *,
    restart: Restart = Restart.TEMPORARY,
    shutdown: float = DEFAULT_SHUTDOWN,
    start_timeout: float = DEFAULT_START_TIMEOUT,
) -> ChildSpec[ActorMessage]:
    """Make a child of `async def run(task_status)`: a task under supervision that gets no messages, such as one
    connection.

    `run` must call `task_status.started()`. When the child is asked to stop, `run` is cancelled at once, and has
    `shutdown` seconds for its cleanup.
    """
    return ChildSpec(name, lambda _: _Task(run), restart, shutdown, start_timeout, None)
