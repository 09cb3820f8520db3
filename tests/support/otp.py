"""Scripts of exits, an oracle of OTP's rules, and the same scripts run by our supervisor.

A script is a tree of one supervisor and a list of events; its result is the journal of starts and stops. The oracle is
written from OTP's documentation and source (`supervisor.erl`), not from our code: it keeps a list of children,
restarts at once, and retries a failed start as one more failure.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
from trio.testing import wait_all_tasks_blocked

from llm_actors.kernel import ChildSpec, ChildStatus, GaveUp, Intensity, Restart, Strategy, Supervisor, running
from support.actors import NO_WAIT, CrashCast, Journal, Leave, flaky


class ScriptEvent(msgspec.Struct, frozen=True):
    """`child` ends by a crash or normally; the next `failing[name]` starts of each child named there fail."""

    child: str
    crash: bool
    failing: tuple[tuple[str, int], ...] = ()


class OtpScript(msgspec.Struct, frozen=True):
    """One supervisor's children in start order, its rules, and what happens to them."""

    children: tuple[tuple[str, Restart], ...]
    strategy: Strategy
    intensity: int
    events: tuple[ScriptEvent, ...]


GAVE_UP = "gave up"


class Oracle:
    """What OTP does with a script."""

    def __init__(self, script: OtpScript) -> None:
        self._script = script
        self._order = [name for name, _ in script.children]
        self._restart = dict(script.children)
        self._alive: set[str] = set()
        self._failing: dict[str, int] = {}
        self._ticks = 0
        self.journal: Journal = []

    def run(self) -> Journal:
        """Return the journal up to the last event, or to giving up."""
        for name in self._order:
            self._start(name)
        for event in self._script.events:
            if event.child not in self._alive:
                continue
            self._failing = dict(event.failing)
            if not self._exit(event.child, crash=event.crash):
                self.journal.append(GAVE_UP)
                return self.journal
        return self.journal

    def _start(self, name: str) -> bool:
        if self._failing.get(name, 0) > 0:
            self._failing[name] -= 1
            self.journal.append(f"fail {name}")
            return False
        self._alive.add(name)
        self.journal.append(f"up {name}")
        return True

    def _stop(self, name: str) -> None:
        if name in self._alive:
            self._alive.discard(name)
            self.journal.append(f"down {name}")
            if self._restart[name] is Restart.TEMPORARY:
                self._order.remove(name)

    def _exit(self, name: str, *, crash: bool) -> bool:
        self._alive.discard(name)
        self.journal.append(f"down {name}")
        kind = self._restart[name]
        if kind is Restart.TEMPORARY:
            self._order.remove(name)
        if kind is Restart.TEMPORARY or (kind is Restart.TRANSIENT and not crash):
            return True
        failed: str | None = name
        while failed is not None:
            self._ticks += 1
            if self._ticks > self._script.intensity:
                self._stop_all(self._order)
                return False
            failed = self._restart_from(failed)
        return True

    def _restart_from(self, failed: str) -> str | None:
        """Replace the failed child and whoever shares its fate; return a child whose start failed."""
        at = self._order.index(failed)
        group = {
            Strategy.ONE_FOR_ONE: [failed],
            Strategy.REST_FOR_ONE: self._order[at:],
            Strategy.ONE_FOR_ALL: list(self._order),
        }[self._script.strategy]
        self._stop_all(group)
        for name in group:
            if name in self._order and not self._start(name):
                return name
        return None

    def _stop_all(self, names: Sequence[str]) -> None:
        for name in reversed(tuple(names)):
            self._stop(name)


async def run_ours(script: OtpScript) -> Journal:
    """Run the script on our supervisor, with backoff and parking off. Needs an autojump clock."""
    journal: Journal = []
    failing: dict[str, int] = {}

    def spec(name: str, restart: Restart) -> ChildSpec[CrashCast]:
        def starts() -> bool:
            failing[name] = failing.get(name, 0) - 1
            return failing[name] < 0

        return flaky(name, journal, starts, restart)

    root = Supervisor(
        [spec(name, restart) for name, restart in script.children],
        strategy=script.strategy,
        intensity=Intensity(script.intensity, 1e6),
        backoff=NO_WAIT,
    )
    try:
        async with running(root):
            for event in script.events:
                if event.child in _alive(root):
                    failing.clear()
                    failing.update(event.failing)
                    root.ref(event.child).cast(CrashCast() if event.crash else Leave())
                    await wait_all_tasks_blocked()
            length = len(journal)
    except* GaveUp:
        journal.append(GAVE_UP)
        length = len(journal)
    return journal[:length]


def _alive(root: Supervisor) -> set[str]:
    return {child.name for child in root.tree().children if child.status is ChildStatus.RUNNING}
