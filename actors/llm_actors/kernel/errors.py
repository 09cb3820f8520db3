"""The errors that a caller of an actor can receive, and `exception_site`, which names the place of an exception.

The class tells the caller what to do: retry the same actor (`MailboxFull`, `NotRunning`), try another one (`Parked`,
`ActorCrashed`), or give up (`CallCycle`, which is a bug; `PoisonRefused`, a payload that crashes actors). The text
names actors and exception types, never the contents of a message.
"""

# ruff: noqa: N818  (a name that says what happened needs no suffix)

from __future__ import annotations

from pathlib import PurePath
from traceback import walk_tb


class KernelError(Exception):
    """The base class of the kernel's exceptions. `actor` is the path of the actor that the error is about."""

    def __init__(self, actor: str, problem: str) -> None:
        super().__init__(f"{actor}: {problem}")
        self.actor = actor
        self.problem = problem


class ActorCrashed(KernelError):
    """The actor raised an exception while it handled the message. `__cause__` is that exception.

    `bystander`: the actor crashed while it handled another message, and this one was only waiting for its reply. It is
    safe to send this message again.
    """

    bystander = False


class NotRunning(KernelError):
    """There will be no reply: the actor has ended, was never started, or accepts no messages."""


class ShuttingDown(NotRunning):
    """The actor was asked to stop before it reached the message."""


class Parked(NotRunning):
    """The actor's supervisor has parked it after too many crashes. The supervisor will start it again later."""


class SupervisorFailed(NotRunning):
    """A supervisor above the actor gave up after too many crashes, and cancelled the work in progress."""


class MailboxFull(KernelError):
    """The mailbox was full and refused the message, or a newer message displaced it; see `Overflow`."""


class CallExpired(KernelError):
    """The deadline of the call passed before the reply. If the caller's own cancel scope ends first, the caller is
    cancelled instead.
    """


class CallCycle(KernelError):
    """The call would have closed a cycle of actors that wait for one another. `cycle` names them in order."""

    def __init__(self, actor: str, cycle: tuple[str, ...]) -> None:
        super().__init__(actor, "call cycle " + " -> ".join(cycle))
        self.cycle = cycle


class PoisonRefused(KernelError):
    """The same payload has crashed this actor too often, and is refused for `poison.POISON_SECONDS`."""


class NoReply(KernelError):
    """The actor handled the call without replying to it or deferring it: a bug in the actor."""


class StartFailed(KernelError):
    """A child did not start. `__cause__` is the exception of its factory or its initialisation."""


class GaveUp(KernelError):
    """A supervisor exceeded its restart intensity. `__cause__` is the last failure. The chain of causes leads down to
    the crash that began it.
    """


class StillRunning(KernelError):
    """A child did not end within its grace period and ignored its cancellation. It is not restarted while it runs."""


class TooManyChildren(KernelError):
    """The supervisor already has its maximum of dynamic children."""


class NameTaken(KernelError):
    """The supervisor already has a child of that name."""


def crashed(actor: str, exc: BaseException, *, bystander: bool = False) -> ActorCrashed:
    """Return the error for a sender that gets no reply because the actor raised `exc`. `bystander`: the actor was
    handling the message of another sender.
    """
    error = ActorCrashed(actor, f"crashed with {type(exc).__name__}")
    error.bystander = bystander
    error.__cause__ = exc
    return error


def lineage(exc: BaseException) -> tuple[str, ...]:
    """Return the chain of causes, from `exc` down to its root: for each error the text `actor: type`, or only the type.
    The messages of the errors are left out.
    """
    links: list[str] = []
    seen: BaseException | None = exc
    while seen is not None:
        links.append(f"{seen.actor}: {type(seen).__name__}" if isinstance(seen, KernelError) else type(seen).__name__)
        inner = seen.exceptions[0] if isinstance(seen, BaseExceptionGroup) else None
        seen = inner or seen.__cause__
    return tuple(links)


def is_fatal(exc: BaseException | None) -> bool:
    """Return whether `exc` or one of its causes is a `MemoryError`, after which a restart cannot help."""
    if exc is None:
        return False
    if isinstance(exc, BaseExceptionGroup):
        return any(is_fatal(inner) for inner in exc.exceptions)
    return isinstance(exc, MemoryError) or is_fatal(exc.__cause__)


def exception_site(exc: BaseException) -> str:
    """Return where an exception was raised, as `ValueError at limiter.py:120 in admit`; for a group, where its first
    exception was raised. The exception's text is left out, because it may contain user data.
    """
    while isinstance(exc, BaseExceptionGroup):
        exc = exc.exceptions[0]
    frames = list(walk_tb(exc.__traceback__))
    if not frames:
        return type(exc).__name__
    frame, line = frames[-1]
    code = frame.f_code
    return f"{type(exc).__name__} at {PurePath(code.co_filename).name}:{line} in {code.co_name}"
