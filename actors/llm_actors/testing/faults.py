"""Faults at the n-th message: an actor crashes, is slow or drops a message, without any change to its code.

`with_faults` adds faults to one spec. `crashing` makes actors of a whole program crash repeatedly, selected by their
path in the tree: it replaces the specs that supervisors are given, so the program needs no change.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from fnmatch import fnmatch
from itertools import count
from typing import Any, Generic, TypeAlias, TypeVar, final
from unittest.mock import patch

import msgspec
import trio

from llm_actors.kernel import child_state
from llm_actors.kernel.delivery import ActorMessage, BaseCall, Delivery
from llm_actors.kernel.inbox import Inbox
from llm_actors.kernel.spec import Actor, ChildSpec, Previous

M = TypeVar("M", bound=ActorMessage)
R = TypeVar("R")


class InjectedCrash(Exception):  # noqa: N818  (it says what happened)
    """A crash that a test injected."""


class Crash(msgspec.Struct, frozen=True):
    """The actor crashes while it handles the message."""


class Delay(msgspec.Struct, frozen=True):
    """The actor gets the message this many seconds late."""

    seconds: float


class Drop(msgspec.Struct, frozen=True):
    """The actor never sees the message; its sender waits for the deadline."""


Fault: TypeAlias = "Crash | Delay | Drop"

FaultAt: TypeAlias = Callable[[int], "Fault | None"]
"""Returns the fault at the message with this number, counted from 1 over all incarnations; ``None`` for no fault."""

ON_START = 0
"""For `crashing`: crash in the factory, and not at a message."""

CONNECTION_SECONDS = 0.05
"""The lifetime, in seconds, of an actor without a mailbox that is to crash."""


def with_faults(spec: ChildSpec[M], faults: Mapping[int, Fault]) -> ChildSpec[M]:
    """Return `spec` with `faults`, by the number of the message, counted from 1 over all incarnations."""
    numbers = count(1)

    def factory(previous: Previous) -> Actor[M]:
        return _Faulty(spec.factory(previous), faults.get, numbers)

    return msgspec.structs.replace(spec, factory=factory)


@final
class Crashes:
    """The crashes of `crashing`, until `stop`. ``starts`` and ``crashed`` count over all affected actors."""

    def __init__(self, every: int) -> None:
        self.starts = 0
        self.crashed = 0
        self._every = every
        self._on = True
        self._numbers = count(1)

    def stop(self) -> None:
        """Stop the crashes."""
        self._on = False

    def alter(self, spec: ChildSpec[M]) -> ChildSpec[M]:
        """Return `spec` with these crashes."""

        def factory(previous: Previous) -> Actor[M]:
            self.starts += 1
            if self._on and self._every == ON_START:
                self._crash()
            actor = spec.factory(previous)
            if spec.mailbox is not None:
                return _Faulty(actor, self._at, self._numbers)
            return _Mortal(actor) if self._on and self._at(next(self._numbers)) else actor

        return msgspec.structs.replace(spec, factory=factory)

    def _at(self, number: int) -> Fault | None:
        if not self._on or self._every == ON_START or number % self._every:
            return None
        self.crashed += 1
        return Crash()

    def _crash(self) -> None:
        self.crashed += 1
        raise InjectedCrash


@contextmanager
def crashing(where: str, every: int) -> Iterator[Crashes]:
    """Make actors crash at every n-th message (1: at each), or with `ON_START` at every start.

    `where` is a pattern for the end of a path in the tree: ``supervisor/child``, such as ``cache/cache`` or
    ``sessions/*``. It applies to the children of supervisors that are created in the block. Of actors without a
    mailbox, every n-th crashes, soon after its start.
    """
    crashes = Crashes(every)
    make = child_state.ChildState.__init__

    def init(self: child_state.ChildState, spec: ChildSpec[M], path: str, *args: object, **kwargs: object) -> None:
        make(self, crashes.alter(spec) if fnmatch(f"/{path}", f"*/{where}") else spec, path, *args, **kwargs)  # type: ignore[arg-type]

    with patch.object(child_state.ChildState, "__init__", init):
        yield crashes


class _Mortal(Generic[M]):
    def __init__(self, actor: Actor[M]) -> None:
        self._actor = actor

    async def run(self, inbox: Inbox[M], *, task_status: trio.TaskStatus[None]) -> object:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._crash)
            result = await self._actor.run(inbox, task_status=task_status)
            nursery.cancel_scope.cancel()
        return result

    async def _crash(self) -> None:
        await trio.sleep(CONNECTION_SECONDS)
        raise InjectedCrash


class _Faulty(Generic[M]):
    def __init__(self, actor: Actor[M], faults: FaultAt, numbers: count[int]) -> None:
        self._actor = actor
        self._faults = faults
        self._numbers = numbers

    async def run(self, inbox: Inbox[M], *, task_status: trio.TaskStatus[None]) -> object:
        return await self._actor.run(_FaultyInbox(inbox, self._faults, self._numbers), task_status=task_status)


class _FaultyInbox(Inbox[M]):
    def __init__(self, inner: Inbox[M], faults: FaultAt, numbers: count[int]) -> None:
        super().__init__(inner.mailbox)
        self.scope = inner.scope
        self._inner = inner
        self._faults = faults
        self._numbers = numbers
        self._decided: dict[Delivery[Any], Fault | None] = {}
        """The faults of messages that were not taken at their arrival, and now wait in the queue."""
        inner.when_stopping(lambda: self.close(final=inner.final, failed=inner.failed))

    async def receive(self) -> Delivery[M]:
        while True:
            delivery = await super().receive()
            match self._fault_of(delivery):
                case None:
                    return delivery
                case Delay(seconds):
                    await trio.sleep(seconds)
                    return delivery
                case Crash():
                    raise InjectedCrash
                case Drop():
                    continue

    def take_at_once(self, take: Callable[[Any], bool]) -> None:
        def faulty(delivery: Delivery[Any]) -> bool:
            fault = self._fault_of(delivery)
            if isinstance(fault, Crash) and self.mailbox.admit(delivery):
                self.crash_with(InjectedCrash())
                return True
            if fault is None and take(delivery):
                return True
            self._decided[delivery] = fault
            return False

        super().take_at_once(faulty)

    def _fault_of(self, delivery: Delivery[Any]) -> Fault | None:
        return self._decided.pop(delivery) if delivery in self._decided else self._faults(next(self._numbers))

    def answer_reads(self, kind: type[BaseCall[R]], answer: Callable[[Any], R | None]) -> None:
        def faulty(message: BaseCall[R]) -> R | None:
            match self._faults(next(self._numbers)):
                case Crash():
                    raise InjectedCrash
                case Drop():
                    return None
                case _:
                    return answer(message)

        self._inner.answer_reads(kind, faulty)

    def checkpoint(self, state: msgspec.Struct) -> None:
        self._inner.checkpoint(state)
