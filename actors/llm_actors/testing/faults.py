"""Faults at the n-th message: an actor that crashes, dawdles or forgets, without a line changed in it."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import count
from typing import Generic, TypeAlias, TypeVar

import msgspec
import trio

from llm_actors.kernel.delivery import Delivery
from llm_actors.kernel.inbox import Inbox
from llm_actors.kernel.message import Message
from llm_actors.kernel.spec import Actor, ChildSpec, Previous

M = TypeVar("M", bound=Message)


class InjectedCrash(Exception):  # noqa: N818  (it says what happened)
    """The crash that a test asked for."""


class Crash(msgspec.Struct, frozen=True):
    """The actor crashes with the message in hand."""


class Delay(msgspec.Struct, frozen=True):
    """The actor gets the message so many seconds late."""

    seconds: float


class Drop(msgspec.Struct, frozen=True):
    """The actor never sees the message; its sender waits for the deadline."""


Fault: TypeAlias = "Crash | Delay | Drop"


def with_faults(spec: ChildSpec[M], faults: Mapping[int, Fault]) -> ChildSpec[M]:
    """Return `spec` with faults at the messages of those numbers, counted from 1 over all incarnations."""
    numbers = count(1)

    def factory(previous: Previous) -> Actor[M]:
        return _Faulty(spec.factory(previous), faults, numbers)

    return msgspec.structs.replace(spec, factory=factory)


class _Faulty(Generic[M]):
    def __init__(self, actor: Actor[M], faults: Mapping[int, Fault], numbers: count[int]) -> None:
        self._actor = actor
        self._faults = faults
        self._numbers = numbers

    async def run(self, inbox: Inbox[M], *, task_status: trio.TaskStatus[None]) -> object:
        return await self._actor.run(_FaultyInbox(inbox, self._faults, self._numbers), task_status=task_status)


class _FaultyInbox(Inbox[M]):
    def __init__(self, inner: Inbox[M], faults: Mapping[int, Fault], numbers: count[int]) -> None:
        super().__init__(inner.mailbox)
        self._inner = inner
        self._faults = faults
        self._numbers = numbers
        inner.when_stopping(lambda: self.close(final=inner.final))

    async def receive(self) -> Delivery[M]:
        while True:
            delivery = await super().receive()
            match self._faults.get(next(self._numbers)):
                case None:
                    return delivery
                case Delay(seconds):
                    await trio.sleep(seconds)
                    return delivery
                case Crash():
                    raise InjectedCrash
                case Drop():
                    continue

    def checkpoint(self, state: msgspec.Struct) -> None:
        self._inner.checkpoint(state)
