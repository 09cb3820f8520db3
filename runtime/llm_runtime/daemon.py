"""The daemon's life: start the tree with the front door as its last branch, serve until a signal, drain, go.

The first SIGTERM or SIGINT lets running answers finish within ``server.drain_s``; the second ends everything at once.
Should even that not end the process, a watchdog does, after writing down where every thread stands.
"""

from __future__ import annotations

import faulthandler
import gc
import logging
import signal
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Never, final

import msgspec
import trio

from llm_actors.kernel import ChildSpec, GaveUp, StartFailed, lineage
from llm_runtime.config import Config, ConfigError
from llm_runtime.descriptors import fit, preload
from llm_runtime.runtime import Runtime
from llm_runtime.server import CannotListenError, ListenAddress, server_child
from llm_runtime.server.listener import bind

STOPPED, GAVE_UP, CUT_OFF = 0, 1, 130
"""Exit codes: told to and did; the tree failed for good; told to a second time."""

END_SECONDS = 8.0
"""How long ending may take after the drain: every connection and process is given its own, shorter time."""

WATCHDOG_SECONDS = 5.0
"""How long a process that has been told to end at once may still be there."""

YOUNG_OBJECTS = 10_000
"""New objects before the garbage collector looks at them; nearly all of a request's are gone by themselves by then."""

OLDER_GENERATIONS = (1, 1)
"""Collections of one generation before the next older one is looked at. What is left of a stream is old by its end, and
Python's own (10, 10) would let an hour of it pile up: some 10 MiB a minute at 30 requests/s."""

IGNORED = (signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2)
"""Signals whose default would end the daemon without anyone having meant that."""

log = logging.getLogger(__name__)


async def run(config: Config, ready: Callable[[str], None] = lambda _: None) -> int:
    """Serve, and return the exit code. ``ready`` is called with the URL once requests are taken.

    Takes over the process's signals until it returns, so it is for the main task of a process of its own.
    """
    life = _Life(msgspec.structs.replace(config, server=fit(config.server)))
    try:
        with _signals_ignored(), _watchdog():
            await life.live(ready)
    except BaseExceptionGroup as group:
        return _explained(group)
    log.info("stopped")
    return life.code


async def check_address(config: Config) -> None:
    """Raise `ConfigError` when the address cannot be listened on: to be known before everything else has started."""
    try:
        for listener in await bind(config.server.host, config.server.port):
            listener.close()
    except CannotListenError as exc:
        raise ConfigError(str(exc)) from exc


@final
class _Life:
    """One run of the daemon."""

    def __init__(self, config: Config) -> None:
        self._config = config
        self._stopping = trio.Event()
        self._serving = False
        self._address: ListenAddress | None = None
        self.code = STOPPED

    async def live(self, ready: Callable[[str], None]) -> None:
        async with trio.open_nursery() as nursery:
            await nursery.start(self._obey_signals, nursery.cancel_scope)
            async with Runtime(self._config, doors=self._doors).running():
                assert self._address is not None, "the door has started"
                self._serving = True
                ready(self._address.url)
                await preload()
                _spare_what_stays()
                await self._stopping.wait()
            nursery.cancel_scope.cancel(reason="stopped")

    def _doors(self, runtime: Runtime) -> Sequence[ChildSpec[Never]]:
        return server_child(self._config.server, runtime, self._found, keys=self._config.keys)

    def _found(self, address: ListenAddress) -> None:
        self._address = address

    async def _obey_signals(self, scope: trio.CancelScope, *, task_status: trio.TaskStatus[None]) -> None:
        drain_s = self._config.server.drain_s
        with trio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
            task_status.started()
            await anext(signals)
            _set_watchdog(drain_s + END_SECONDS + WATCHDOG_SECONDS)
            if not self._serving:
                scope.cancel(reason="told to stop during the start")
                return
            log.info("stopping: running answers have %g s to finish; a second signal ends them", drain_s)
            self._stopping.set()
            scope.deadline = trio.current_time() + drain_s + END_SECONDS
            await anext(signals)
            _set_watchdog(WATCHDOG_SECONDS)
            log.warning("stopping at once")
            self.code = CUT_OFF
            scope.cancel(reason="told to stop at once")


def _spare_what_stays() -> None:
    """Let the collector pass over modules and tree, which stay for good, and look at the young less often."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(YOUNG_OBJECTS, *OLDER_GENERATIONS)


def _explained(group: BaseExceptionGroup[BaseException]) -> int:
    """The exit code for a tree that did not come up or gave up; anything else goes on."""
    known, others = group.split((GaveUp, StartFailed))
    if known is None or others is not None:
        raise group
    error: BaseException = known
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    log.critical("the runtime gave up: %s", " <- ".join(lineage(error)))
    return GAVE_UP


def _set_watchdog(seconds: float) -> None:
    faulthandler.dump_traceback_later(seconds, exit=True, file=2)


@contextmanager
def _watchdog() -> Iterator[None]:
    try:
        yield
    finally:
        faulthandler.cancel_dump_traceback_later()


@contextmanager
def _signals_ignored() -> Iterator[None]:
    before = {number: signal.signal(number, signal.SIG_IGN) for number in IGNORED}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
