"""The mailbox: a bounded queue that the supervisor owns, so it outlives the actor that reads it.

It contains the send end and the receive end of a memory channel. Each incarnation of the actor reads from a clone of
the receive end. Closing the clone stops the reader at once, even if messages are queued, and loses none of them. When
no incarnation follows, the mailbox is closed: it refuses new messages, then fails all calls that are queued or wait
for space.
"""

from __future__ import annotations

from collections.abc import Callable
from contextvars import copy_context
from enum import Enum
from typing import Any, final

import msgspec
import trio

from llm_actors.kernel.delivery import ActorMessage, AnyDelivery
from llm_actors.kernel.errors import KernelError, MailboxFull, NotRunning, PoisonRefused
from llm_actors.kernel.lifecycle import Bus, DeadLetter, MailboxFilled
from llm_actors.kernel.poison import Poison

DEFAULT_CAPACITY = 64
"""The default capacity of a mailbox, in messages."""

_EMPTY = trio.open_memory_channel[AnyDelivery](0)
"""The channel of all children that accept no messages. It is shared, because each open connection is such a child."""


class Overflow(Enum):
    """The handling of a message if the mailbox is full. A refused call or cast raises `MailboxFull`, and so does a call
    that a newer message displaces.
    """

    WAIT = "wait"
    """A call waits for space until its deadline. A cast cannot wait, so it is refused."""
    REFUSE = "refuse"
    """The message is refused, call or cast."""
    DROP_NEWEST = "drop newest"
    """A cast is dropped and counted; a call is refused."""
    DROP_OLDEST = "drop oldest"
    """The oldest message in the queue is dropped to make space."""


class MailboxSpec(msgspec.Struct, frozen=True):
    """The capacity of a mailbox in messages, and the handling of a message when it is full."""

    capacity: int = DEFAULT_CAPACITY
    overflow: Overflow = Overflow.WAIT

    def __post_init__(self) -> None:
        if self.capacity < 1:
            raise ValueError(f"the capacity of a mailbox must be at least 1: {self.capacity}")


class MailboxCounters(msgspec.Struct):
    """How often each event has happened to a message of one mailbox since the mailbox was created."""

    accepted: int = 0
    full: int = 0
    dropped: int = 0
    dead_letters: int = 0
    skipped: int = 0
    expired: int = 0
    abandoned: int = 0
    late_replies: int = 0
    poisoned: int = 0
    crashes: int = 0


class MailboxStatistics(MailboxCounters, kw_only=True):
    """A snapshot: the counters, which only grow, and the gauges `depth`, `waiting` and `in_hand` (calls being
    handled).
    """

    depth: int = 0
    capacity: int = 0
    waiting: int = 0
    in_hand: int = 0


@final
class Mailbox:
    """The queue of one actor's messages. Supervisors and the test kit create it; all other code uses a `Ref`."""

    __slots__ = (
        "_closed", "_queued", "_receive", "_send", "_spec", "_was_full", "at_once", "bus", "calling", "count",
        "in_hand", "name", "poison", "reads",
    )  # fmt: skip

    def __init__(self, name: str, spec: MailboxSpec | None) -> None:
        self.name = name
        self.bus: Bus | None = None
        self.count = MailboxCounters()
        self.poison = Poison()
        self.in_hand: dict[AnyDelivery, None] = {}
        self.calling: dict[Mailbox, int] = {}
        self.reads: dict[type[ActorMessage], Callable[[Any], object]] = {}
        """The running actor's functions that answer `Ref.read`, by message type."""
        self.at_once: Callable[[AnyDelivery], bool] | None = None
        """The running actor's function that handles a message before it is queued. The function returns False if
        the message must be queued."""
        self._queued = 0
        """Messages that were sent but not received yet, including those that wait for space."""
        self._spec = spec or MailboxSpec(1)
        self._send, self._receive = trio.open_memory_channel[AnyDelivery](spec.capacity) if spec else _EMPTY
        self._closed: tuple[type[NotRunning], str] | None = None
        self._was_full = False
        if spec is None:
            self.close(NotRunning, "takes no messages")

    @property
    def closed(self) -> bool:
        """Whether messages are refused."""
        return self._closed is not None

    def statistics(self) -> MailboxStatistics:
        """Return the counters and gauges."""
        channel = self._send.statistics()
        return MailboxStatistics(
            depth=channel.current_buffer_used,
            capacity=self._spec.capacity,
            waiting=channel.tasks_waiting_send,
            in_hand=len(self.in_hand),
            **msgspec.structs.asdict(self.count),
        )

    def reader(self) -> trio.MemoryReceiveChannel[AnyDelivery]:
        """Return a new receive end, for one incarnation."""
        return self._receive.clone()

    def put(self, delivery: AnyDelivery) -> bool:
        """Accept the message without waiting, and return True. If there is no space, return False: then use
        `put_waiting`. Raises `MailboxFull` or `NotRunning` if the message is refused.
        """
        if self._closed is not None:
            raise self._dead_letter()
        # Messages of one sender arrive in order, so no message may overtake a queued one.
        if self.at_once is not None and not self._queued and self.at_once(delivery):
            self.count.accepted += 1
            return True
        delivery.context = delivery.context or copy_context()
        try:
            self._send.send_nowait(delivery)
        except trio.WouldBlock:
            return self._overflowed(delivery)
        self._queued += 1
        self._was_full = False
        self.count.accepted += 1
        return True

    async def put_waiting(self, delivery: AnyDelivery) -> None:
        """Wait for space, then queue the message. If this is cancelled, the message is not queued."""
        self._queued += 1
        try:
            await self._send.send(delivery)
        except BaseException:
            self._queued -= 1
            raise
        self.count.accepted += 1

    def _overflowed(self, delivery: AnyDelivery) -> bool:
        self._report_full()
        if self._spec.overflow is Overflow.DROP_OLDEST:
            self._displace(self._taken())
            return self.put(delivery)
        if self._spec.overflow is Overflow.WAIT and delivery.is_call:
            return False
        if self._spec.overflow is Overflow.DROP_NEWEST and not delivery.is_call:
            self.count.dropped += 1
            return True
        raise MailboxFull(self.name, f"its mailbox is full: {self._spec.capacity} messages wait")

    def _taken(self) -> AnyDelivery:
        """Remove and return the oldest message in the queue. Raises `trio.WouldBlock` if there is none."""
        delivery = self._receive.receive_nowait()
        self._queued -= 1
        return delivery

    def _displace(self, oldest: AnyDelivery) -> None:
        self.count.dropped += 1
        if oldest.is_call and not oldest.abandoned:
            oldest.fail(MailboxFull(self.name, "a newer message took the place of this one in the full mailbox"))

    def _report_full(self) -> None:
        self.count.full += 1
        if not self._was_full and self.bus is not None:
            self.bus.publish(MailboxFilled(name=self.name, capacity=self._spec.capacity))
        self._was_full = True

    def _dead_letter(self) -> NotRunning:
        assert self._closed is not None
        self.count.dead_letters += 1
        if self.bus is not None:
            self.bus.publish(DeadLetter(name=self.name))
        kind, problem = self._closed
        return kind(self.name, problem)

    def close(self, kind: type[NotRunning], problem: str) -> None:
        """Refuse messages from now on, and fail all calls that are queued or wait for space, with an error of class
        `kind` and the text `problem`.
        """
        self._closed = kind, problem
        while True:
            try:
                self._turn_away(self._taken(), self._dead_letter())
            except trio.WouldBlock:
                return

    def reopen(self) -> None:
        """Accept messages again, because the actor is about to be started again."""
        self._closed = None

    def received(self, delivery: AnyDelivery) -> bool:
        """Record that a reader has taken the message out of the queue, and return what `admit` returns."""
        self._queued -= 1
        return self.admit(delivery)

    def admit(self, delivery: AnyDelivery) -> bool:
        """Return whether the message should be handled. If so, record that it is being handled."""
        if delivery.abandoned:
            self.count.skipped += 1
            return False
        if self.poison.suspects and self._is_poison(delivery):
            self.count.poisoned += 1
            self._turn_away(
                delivery,
                PoisonRefused(self.name, "refused a message, because equal messages have crashed the actor repeatedly"),
            )
            return False
        if delivery.is_call:
            self.in_hand[delivery] = None
        return True

    def _turn_away(self, delivery: AnyDelivery, error: KernelError) -> None:
        if delivery.is_call and not delivery.abandoned:
            delivery.fail(error)

    def forget(self, delivery: AnyDelivery) -> None:
        """Forget a call that was answered or abandoned."""
        self.in_hand.pop(delivery, None)

    def count_late_reply(self) -> None:
        """Count a reply whose caller had gone."""
        self.count.late_replies += 1

    def crashed(self, delivery: AnyDelivery, site: str) -> None:
        """Count a crash of the actor at `site` (see `exception_site`) on this message. The payload counts as the cause
        only if its caller was still waiting.
        """
        self.count.crashes += 1
        if not delivery.is_given_up and (fingerprint := delivery.message.fingerprint()) is not None:
            self.poison.crashed(fingerprint, site, trio.current_time())

    def handled(self, delivery: AnyDelivery) -> None:
        """Clear the payload of suspicion, because the actor did not crash on it. Does nothing for an abandoned message,
        which may not have been handled to its end.
        """
        if (
            self.poison.suspects
            and not delivery.is_given_up
            and (fingerprint := delivery.message.fingerprint()) is not None
        ):
            self.poison.handled(fingerprint)

    def _is_poison(self, delivery: AnyDelivery) -> bool:
        fingerprint = delivery.message.fingerprint()
        return fingerprint is not None and self.poison.refuses(fingerprint, trio.current_time())
