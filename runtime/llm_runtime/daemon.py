"""The life of the daemon: start the actor tree, whose last branch is the server; serve until a signal; drain; exit.

The first SIGTERM or SIGINT lets responses in progress finish within ``server.drain_s`` seconds. The second ends
everything at once. If the process still exists after that, a watchdog thread logs the stack of every thread and ends
the process. In a worker, the messages of the workers' parent take the place of signals: see `Manager`.
"""

from __future__ import annotations

import faulthandler
import gc
import logging
import signal
import socket
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from typing import Never, Protocol, final

import msgspec
import trio

from llm_actors.kernel import ChildSpec, GaveUp, StartFailed, lineage
from llm_actors.orchestrator.log_line import WaitingLines
from llm_actors.shared_responses import SharedResponses
from llm_protocol.errors import LLMClientError
from llm_runtime.config import Config, ConfigError
from llm_runtime.descriptors import fit, preload
from llm_runtime.reloading import Reloader
from llm_runtime.runtime import Runtime
from llm_runtime.server import CannotListenError, ListenAddress, server_child
from llm_runtime.server.listener import listen, removed_after
from llm_runtime.server.siblings import Siblings
from llm_runtime.server.state import Reload
from llm_runtime.systemd import Notifier

STOPPED, GAVE_UP, CUT_OFF = 0, 1, 130
"""Exit codes: stopped on request; the actor tree did not start or gave up; a second signal ended the daemon."""

END_SECONDS = 8.0
"""The most seconds of a shutdown after the drain. Each connection and each process has a shorter limit."""

WATCHDOG_SECONDS = 5.0
"""Seconds that the process may still exist after it was told to end at once."""

YOUNG_OBJECTS = 10_000
"""The number of new objects between two garbage collections. Nearly all objects of a request are freed by reference
counting by then.
"""

OLDER_GENERATIONS = (1, 1)
"""How many collections of one generation precede a collection of the next older one. Objects that survive during a
stream are old when the stream ends. With Python's own (10, 10), an hour of such objects would accumulate: about 10 MiB
a minute at 30 requests/s.
"""

IGNORED = (signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2)
"""Signals whose default action would end the daemon by accident."""

log = logging.getLogger(__name__)


async def run(
    config: Config,
    ready: Callable[[str], None] = lambda _: None,
    *,
    inherited: Sequence[socket.socket] = (),
    manager: Manager | None = None,
    read: Callable[[], Config] | None = None,
    file: str | None = None,
    siblings: Siblings | None = None,
) -> int:
    """Serve, and return the exit code. ``ready`` is called with the URL once requests are accepted. ``inherited`` are
    sockets to listen on instead of the configured address. ``manager`` decides when to stop; by default signals do.
    ``read`` reads the configuration again, when the manager or a client asks for a reload; it blocks. ``file`` is the
    file that it reads. ``siblings`` are the other workers, if this process is one of several.

    Takes over the process's signals until it returns, so it is meant for the main task of its own process.
    """
    life = _Life(config, inherited, manager or SignalManager(Notifier({})), read, file, siblings)
    try:
        with _signals_ignored(), _watchdog():
            await life.live(ready)
    except BaseExceptionGroup as group:
        return _explained(group)
    log.info("stopped")
    return life.code


async def check_address(config: Config) -> None:
    """Raise `ConfigError` if the server cannot listen on its address. Call this before anything else is started."""
    try:
        for listener in await listen(config.server):
            with removed_after(config.server.unix):
                listener.close()
    except CannotListenError as exc:
        raise ConfigError(str(exc)) from exc


def _shared_responses(config: Config) -> SharedResponses | None:
    """Return the storage of responses for all replicas, if the configuration enables it."""
    if config.redis is None or config.store is None or not config.store.redis:
        return None
    return SharedResponses(config.redis, ttl_s=config.store.ttl_s)


@final
class _Life:
    """The daemon from its start to its exit."""

    def __init__(
        self,
        config: Config,
        inherited: Sequence[socket.socket],
        manager: Manager,
        read: Callable[[], Config] | None,
        file: str | None,
        siblings: Siblings | None,
    ) -> None:
        self._given = config
        self._config = msgspec.structs.replace(config, server=fit(config.server))
        self._read = read
        self._file = file
        self._reloader: Reloader | None = None
        self._inherited = inherited
        self._manager = manager
        self._siblings = siblings
        self._stopping = trio.Event()
        self._orders = 0
        self._serving = False
        self._address: ListenAddress | None = None
        self.code = STOPPED

    async def live(self, ready: Callable[[str], None]) -> None:
        async with trio.open_nursery() as nursery:
            await nursery.start(self._manager.stops, partial(self._stop, nursery.cancel_scope))
            await nursery.start(WaitingLines().run)
            async with Runtime(self._config, servers=self._servers).running():
                assert self._address is not None, "the server must have started"
                self._serving = True
                ready(self._address.url)
                self._manager.ready(self._address.url)
                nursery.start_soon(self._manager.watch)
                if self._reloader is not None:
                    nursery.start_soon(self._manager.obey, self._reloader)
                await preload()
                _spare_what_stays()
                await self._stopping.wait()
            nursery.cancel_scope.cancel(reason="stopped")

    def _servers(self, runtime: Runtime) -> Sequence[ChildSpec[Never]]:
        if self._read is not None:
            self._reloader = Reloader(runtime, self._read, self._given, self._manager.notifier)
        return server_child(
            self._config.server,
            runtime,
            self._found,
            keys=self._config.keys,
            inherited=self._inherited,
            reload=self._manager.asked_to_reload(self._reloader) if self._reloader else None,
            file=self._file,
            siblings=self._siblings,
            shared=_shared_responses(self._config),
        )

    def _found(self, address: ListenAddress) -> None:
        self._address = address

    def _stop(self, scope: trio.CancelScope) -> None:
        """Carry out an order to stop: the first drains, the second ends at once."""
        drain_s, delay_s = self._config.server.drain_s, self._config.server.ready_delay_s
        self._orders += 1
        if self._orders > 1:
            _set_watchdog(WATCHDOG_SECONDS)
            log.warning("stopping at once")
            self.code = CUT_OFF
            scope.cancel(reason="second order to stop: ending at once")
            return
        _set_watchdog(delay_s + drain_s + END_SECONDS + WATCHDOG_SECONDS)
        self._manager.stopping()
        if not self._serving:
            scope.cancel(reason="order to stop during the start")
            return
        log.info("stopping: responses in progress have %g s to finish; a second signal ends them now", drain_s)
        self._stopping.set()
        scope.deadline = trio.current_time() + delay_s + drain_s + END_SECONDS


def _spare_what_stays() -> None:
    """Exclude objects that exist until the end, such as modules and the actor tree, from garbage collection, and
    collect young objects less often.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(YOUNG_OBJECTS, *OLDER_GENERATIONS)


def _explained(group: BaseExceptionGroup[BaseException]) -> int:
    """Log why the tree did not start or gave up, and return the exit code. Any other exception propagates."""
    known, others = group.split((GaveUp, StartFailed))
    if known is None or others is not None:
        raise group
    error: BaseException = known
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    causes = " <- ".join(lineage(error))
    if isinstance(error, StartFailed):
        log.critical("the runtime did not start: %s", causes)
    else:
        log.critical("the runtime exits with code %d, because a supervisor gave up: %s", GAVE_UP, causes)
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


class Manager(Protocol):
    """The interface between the daemon and whatever started its process: a shell, a service manager, or the workers'
    parent.
    """

    @property
    def notifier(self) -> Notifier:
        """The object that reports the result of a reload to the service manager."""
        ...

    def ready(self, url: str) -> None:
        """Report that requests are accepted at ``url``."""
        ...

    def stopping(self) -> None:
        """Report that the process is about to end."""
        ...

    async def watch(self) -> None:
        """Report regularly that the process is alive, until cancelled."""
        ...

    async def stops(self, stop: Callable[[], None], *, task_status: trio.TaskStatus[None]) -> None:
        """Call ``stop`` at each order to stop, until cancelled: the first lets responses in progress finish, the
        second ends them.
        """
        ...

    async def obey(self, reloader: Reloader) -> None:
        """Reload on each request to do so, until cancelled."""
        ...

    def asked_to_reload(self, reloader: Reloader) -> Reload:
        """Return the function to call when a client asks for a reload."""
        ...


@final
class SignalManager:
    """SIGTERM and SIGINT stop the daemon, SIGHUP reloads it, and systemd is notified."""

    def __init__(self, notifier: Notifier) -> None:
        self.notifier = notifier

    def ready(self, url: str) -> None:  # noqa: ARG002
        """See `Manager`."""
        self.notifier.ready()

    def stopping(self) -> None:
        """See `Manager`."""
        self.notifier.stopping()

    async def watch(self) -> None:
        """See `Manager`."""
        await self.notifier.watch()

    async def stops(self, stop: Callable[[], None], *, task_status: trio.TaskStatus[None]) -> None:
        """See `Manager`."""
        with trio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
            task_status.started()
            async for _ in signals:
                stop()

    async def obey(self, reloader: Reloader) -> None:
        """See `Manager`."""
        with trio.open_signal_receiver(signal.SIGHUP) as signals:
            async for _ in signals:
                with suppress(LLMClientError):  # the reloader has logged it
                    await reloader.reload()

    def asked_to_reload(self, reloader: Reloader) -> Reload:
        """See `Manager`."""
        return reloader.reload
