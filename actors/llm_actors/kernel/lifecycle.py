"""Lifecycle events of actors, for subscribers.

A bounded bus: each subscriber has its own short queue, the newest event displaces the oldest, and a subscriber that
fell behind is told how many it missed. Publishing never waits and never fails. Each event has a log level; the log gets
at most one line a minute per actor and kind of event, so that an unstable actor does not flood it.
"""

from __future__ import annotations

import logging
from collections import OrderedDict, deque
from typing import TypeAlias, final

import msgspec
import trio

EVENTS_KEPT = 256
"""Events that wait per subscriber."""

LOG_EVERY = 60.0
"""Seconds between two log lines of the same kind about the same actor."""

LOG_KEYS = 1024
"""Pairs of actor and kind remembered for that."""

log = logging.getLogger("llm_actors.kernel")


class LifecycleEvent(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """An event of the actor with the path `name`. `words` is its text, with the other fields in braces."""

    name: str

    level = logging.DEBUG
    words = ""

    def line(self) -> str:
        """Return one line for people."""
        fields = msgspec.structs.asdict(self)
        shown = {key: ", from ".join(value) if isinstance(value, tuple) else value for key, value in fields.items()}
        return f"{self.name} {self.words.format_map(shown)}"


class ChildStarted(LifecycleEvent, frozen=True):
    """An incarnation has started."""

    words = "is up"


class ChildExited(LifecycleEvent, frozen=True):
    """An incarnation ended: normally, stopped, killed, crashed, or before it had started."""

    words = "has ended: {reason}"
    reason: str


class ChildCrashed(LifecycleEvent, frozen=True):
    """An exception ended an incarnation, a start or one worker; `error` is its type and place, never its text."""

    level = logging.WARNING
    words = "crashed: {error}"
    error: str


class ChildRestarted(LifecycleEvent, frozen=True):
    """The `restarts`-th restart of this actor, `delay` seconds after it went down."""

    level = logging.INFO
    words = "is up again after {delay:.3g} s, restart {restarts}"
    restarts: int
    delay: float


class SupervisorGaveUp(LifecycleEvent, frozen=True):
    """Too many restarts; the cause chain, from the supervisor down to the exception at the leaf."""

    level = logging.ERROR
    words = "gave up after too many restarts: {causes}"
    causes: tuple[str, ...]


class ChildrenParked(LifecycleEvent, frozen=True):
    """Too many restarts; all children pause for `seconds`."""

    level = logging.WARNING
    words = "is parked for {seconds:.3g} s after too many restarts: {causes}"
    seconds: float
    causes: tuple[str, ...]


class LeftBehind(LifecycleEvent, frozen=True):
    """A child outlived its grace and its cancellation; the others continue without it."""

    level = logging.ERROR
    words = "was left behind: it outlived its grace and its cancellation"


class MailboxFilled(LifecycleEvent, frozen=True):
    """A mailbox has become full."""

    level = logging.WARNING
    words = "has a full mailbox: {capacity} messages wait"
    capacity: int


class DeadLetter(LifecycleEvent, frozen=True):
    """A message was sent to an actor that is not running."""

    words = "was sent a message while it was not running"


class CallTimedOut(LifecycleEvent, frozen=True):
    """A call's deadline passed before its reply."""

    words = "gave no answer before a call's deadline"


class CallAbandoned(LifecycleEvent, frozen=True):
    """A caller was cancelled before the reply."""

    words = "was called, and the caller left before the answer"


class Lagged(msgspec.Struct, frozen=True):
    """What a slow subscriber receives instead of the `missed` events."""

    missed: int


Observed: TypeAlias = "LifecycleEvent | Lagged"


class BusStatistics(msgspec.Struct, frozen=True):
    """The number of published events, and of events that slow subscribers missed."""

    published: int
    missed: int
    subscribers: int


@final
class Subscription:
    """One listener's queue. Use it as a context manager and iterate it; closing it ends the subscription."""

    def __init__(self, bus: Bus, capacity: int) -> None:
        self._bus = bus
        self._queue: deque[LifecycleEvent] = deque(maxlen=capacity)
        self._missed = 0
        self._lot = trio.lowlevel.ParkingLot()

    def __enter__(self) -> Subscription:
        return self

    def __exit__(self, *_: object) -> None:
        self._bus.drop(self)

    def offer(self, event: LifecycleEvent) -> bool:
        """Queue the event; False if an older one was displaced."""
        lost = len(self._queue) == self._queue.maxlen
        self._missed += lost
        self._queue.append(event)
        self._lot.unpark_all()
        return not lost

    def receive_nowait(self) -> Observed:
        """Return the next event, or how many were missed before it. Raise `trio.WouldBlock` if there is none."""
        if self._missed:
            missed, self._missed = self._missed, 0
            return Lagged(missed)
        if not self._queue:
            raise trio.WouldBlock
        return self._queue.popleft()

    def __aiter__(self) -> Subscription:
        return self

    async def __anext__(self) -> Observed:
        await trio.lowlevel.checkpoint()
        while not (self._missed or self._queue):
            await self._lot.park()
        return self.receive_nowait()


@final
class Bus:
    """Where a tree of supervisors publishes its events."""

    def __init__(self) -> None:
        self._subscribers: list[Subscription] = []
        self._published = 0
        self._missed = 0
        self._logged: OrderedDict[tuple[str, type[LifecycleEvent]], float] = OrderedDict()

    def subscribe(self, capacity: int = EVENTS_KEPT) -> Subscription:
        """Listen from now on."""
        subscription = Subscription(self, capacity)
        self._subscribers.append(subscription)
        return subscription

    def drop(self, subscription: Subscription) -> None:
        """End a subscription."""
        if subscription in self._subscribers:
            self._subscribers.remove(subscription)

    def publish(self, event: LifecycleEvent) -> None:
        """Publish an event to all subscribers, without waiting."""
        self._published += 1
        for subscription in self._subscribers:
            self._missed += not subscription.offer(event)
        if log.isEnabledFor(event.level) and self._due(event):
            log.log(event.level, "%s", event.line())

    def statistics(self) -> BusStatistics:
        """Return the counters."""
        return BusStatistics(self._published, self._missed, len(self._subscribers))

    def _due(self, event: LifecycleEvent) -> bool:
        key, now = (event.name, type(event)), trio.current_time()
        if now - self._logged.get(key, -LOG_EVERY) < LOG_EVERY:
            return False
        self._logged[key] = now
        self._logged.move_to_end(key)
        if len(self._logged) > LOG_KEYS:
            self._logged.popitem(last=False)
        return True
