"""Lifecycle events of actors, for subscribers and for the log.

Each subscriber has its own bounded queue. When it is full, the newest event displaces the oldest, and the subscriber
receives the number of events that it missed. Publishing never waits and never fails. Each event has a log level. The
log gets at most one line a minute per actor and kind of event, so that an unstable actor does not flood it.
"""

from __future__ import annotations

import logging
from collections import OrderedDict, deque
from typing import TypeAlias, final

import msgspec
import trio

EVENTS_KEPT = 256
"""The most events that wait for one subscriber."""

LOG_EVERY = 60.0
"""Seconds between two log lines of the same kind about the same actor."""

LOG_KEYS = 1024
"""The most pairs of actor and kind of event whose last log line is remembered."""

log = logging.getLogger("llm_actors.kernel")


class LifecycleEvent(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """An event of the actor with the path `name`. `template` is its log text; fields in braces are replaced by their
    values.
    """

    name: str

    level = logging.DEBUG
    template = ""

    def line(self) -> str:
        """Return the event as one line of text."""
        fields = msgspec.structs.asdict(self)
        shown = {key: ", from ".join(value) if isinstance(value, tuple) else value for key, value in fields.items()}
        return f"{self.name} {self.template.format_map(shown)}"


class ChildStarted(LifecycleEvent, frozen=True):
    """An incarnation of the actor has started."""

    template = "is up"


class ChildExited(LifecycleEvent, frozen=True):
    """An incarnation of the actor (one run, from its start to its end) ended: normally, stopped, killed, crashed, or
    before it had started.
    """

    template = "has ended: {reason}"
    reason: str


class ChildCrashed(LifecycleEvent, frozen=True):
    """An exception ended an incarnation, a start, or the handling of one message. `error` is its type and place."""

    level = logging.WARNING
    template = "crashed: {error}"
    error: str


class ChildRestarted(LifecycleEvent, frozen=True):
    """The `restarts`-th restart of this actor, `delay` seconds after it went down."""

    level = logging.INFO
    template = "is up again after {delay:.3g} s, restart {restarts}"
    restarts: int
    delay: float


class SupervisorGaveUp(LifecycleEvent, frozen=True):
    """A supervisor gave up after too many restarts. `causes`: the chain from the supervisor's error down to the
    exception that came first; see `errors.lineage`.
    """

    level = logging.ERROR
    template = "gave up after too many restarts: {causes}"
    causes: tuple[str, ...]


class ChildrenParked(LifecycleEvent, frozen=True):
    """A supervisor has parked all its children for `seconds`, after too many restarts. `causes`: see
    `SupervisorGaveUp`.
    """

    level = logging.WARNING
    template = "is parked for {seconds:.3g} s after too many restarts: {causes}"
    seconds: float
    causes: tuple[str, ...]


class LeftBehind(LifecycleEvent, frozen=True):
    """A child did not end within its grace period and ignored its cancellation. The other children continue without
    it.
    """

    level = logging.ERROR
    template = "was left behind: it ignored a request to stop and its cancellation"


class MailboxFilled(LifecycleEvent, frozen=True):
    """A mailbox has become full."""

    level = logging.WARNING
    template = "has a full mailbox: {capacity} messages wait"
    capacity: int


class DeadLetter(LifecycleEvent, frozen=True):
    """A message was sent to an actor that is not running."""

    template = "was sent a message while it was not running"


class CallTimedOut(LifecycleEvent, frozen=True):
    """The deadline of a call passed before the reply."""

    template = "did not reply before the deadline of a call"


class CallAbandoned(LifecycleEvent, frozen=True):
    """A caller was cancelled before the reply."""

    template = "was called, but the caller left before the reply"


class Lagged(msgspec.Struct, frozen=True):
    """The item that a slow subscriber receives in place of the `missed` events."""

    missed: int


Observed: TypeAlias = "LifecycleEvent | Lagged"


class BusStatistics(msgspec.Struct, frozen=True):
    """The number of published events, and the number of events that slow subscribers missed."""

    published: int
    missed: int
    subscribers: int


@final
class Subscription:
    """The queue of one subscriber. Use it as a context manager and iterate over it; leaving the block unsubscribes."""

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
        """Queue the event. Return False if it displaced an older one."""
        lost = len(self._queue) == self._queue.maxlen
        self._missed += lost
        self._queue.append(event)
        self._lot.unpark_all()
        return not lost

    def receive_nowait(self) -> Observed:
        """Return the next event, or `Lagged` if some were missed before it. Raises `trio.WouldBlock` if there is
        none.
        """
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
    """Passes the events of a tree of supervisors to its subscribers and to the log."""

    def __init__(self) -> None:
        self._subscribers: list[Subscription] = []
        self._published = 0
        self._missed = 0
        self._logged: OrderedDict[tuple[str, type[LifecycleEvent]], float] = OrderedDict()

    def subscribe(self, capacity: int = EVENTS_KEPT) -> Subscription:
        """Return a queue of all events from now on. When it holds `capacity` events, the oldest is dropped."""
        subscription = Subscription(self, capacity)
        self._subscribers.append(subscription)
        return subscription

    def drop(self, subscription: Subscription) -> None:
        """Send no further events to `subscription`."""
        if subscription in self._subscribers:
            self._subscribers.remove(subscription)

    def publish(self, event: LifecycleEvent) -> None:
        """Pass an event to all subscribers and to the log, without waiting."""
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
