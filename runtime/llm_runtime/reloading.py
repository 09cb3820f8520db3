"""The daemon's reload: read the configuration again, and make the runtime apply it. All or nothing."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator
from typing import Final, final

import msgspec
import trio

from llm_actors.kernel import KernelError
from llm_actors.kernel.errors import exception_site, is_fatal
from llm_protocol.errors import InternalError, LLMClientError
from llm_runtime.config import Config, ConfigError
from llm_runtime.runtime import Runtime
from llm_runtime.systemd import Notifier

RELOADABLE: Final = frozenset(("allowed_origins", "allowed_hosts"))
"""The fields of ``[server]`` that a reload applies. The others apply at the next start."""

RELOAD_CRASHED: Final = "internal error: the configuration was not reloaded; see the daemon's log"

log = logging.getLogger(__name__)


class ReloadResult(msgspec.Struct, frozen=True, kw_only=True):
    """The changes of a reload: names of providers; other changes, such as ``keys.app.limits``; and changes that apply
    only after a restart.
    """

    added: tuple[str, ...] = ()
    changed: tuple[str, ...] = ()
    removed: tuple[str, ...] = ()
    sections: tuple[str, ...] = ()
    after_restart: tuple[str, ...] = ()

    def __str__(self) -> str:
        parts = {
            "added": _paths(self.added),
            "changed": [*_paths(self.changed), *self.sections],
            "removed": _paths(self.removed),
            "only after a restart:": self.after_restart,
        }
        return "; ".join(f"{what} {', '.join(names)}" for what, names in parts.items() if names) or "nothing changed"


@final
class Reloader:
    """Reloads one running runtime. ``read`` reads the configuration and blocks; ``config`` is the configuration that
    it read first.
    """

    def __init__(self, runtime: Runtime, read: Callable[[], Config], config: Config, notifier: Notifier) -> None:
        self._runtime = runtime
        self._read = read
        self._first = self._current = config
        self._notifier = notifier
        self._reloading = trio.Lock()

    async def reload(self) -> ReloadResult:
        """Read the configuration and apply it. Waits for a reload that is in progress. Raises `LLMClientError`, usually
        `ConfigError`: then nothing has changed, and the log gives the reason.
        """
        async with self._reloading:  # also while reading, so that the configuration that was read last takes effect
            return await self._reload()

    async def _reload(self) -> ReloadResult:
        self._notifier.reloading()
        try:
            config = await trio.to_thread.run_sync(self._read)
            done = await self._runtime.reload(config)
        except ConfigError as exc:
            for each in exc.all:
                log.error("not reloaded; the old configuration stays in effect: %s", each)  # noqa: TRY400
            raise
        except LLMClientError as exc:
            log.error("not reloaded; the old configuration stays in effect: %s", exc)  # noqa: TRY400
            raise
        except KernelError as exc:
            log.error("not reloaded; the old configuration stays in effect: %s", exc)  # noqa: TRY400
            raise InternalError("a provider of the new configuration did not start; see the daemon's log") from exc
        except Exception as exc:
            if is_fatal(exc):
                raise
            # The exception's text may contain anything, so only its place is logged.
            log.error("not reloaded; the old configuration stays in effect: %s", exception_site(exc))  # noqa: TRY400
            raise InternalError(RELOAD_CRASHED) from exc
        finally:
            self._notifier.ready()
        result = ReloadResult(
            added=done.added,
            changed=done.changed,
            removed=done.removed,
            sections=tuple(_changed_sections(self._current, config)),
            after_restart=tuple(self._left_aside(config)),
        )
        self._current = config
        log.info("reloaded: %s", result)
        for note in config.notes:
            log.warning("%s", note)
        return result

    def _left_aside(self, config: Config) -> Iterator[str]:
        """Return the settings that differ from those at the start and apply only after a restart."""
        was, now = msgspec.structs.asdict(self._first.server), msgspec.structs.asdict(config.server)
        yield from (f"server.{name}" for name in now if now[name] != was[name] and name not in RELOADABLE)
        if config.cache != self._first.cache or _has_other_ttl(config, self._first):
            yield "cache"
        for section in ("redis", "store", "budgets", "request_log", "otel"):
            if getattr(config, section) != getattr(self._first, section):
                yield section


def _has_other_ttl(config: Config, first: Config) -> bool:
    """Whether a provider has another ``cache.ttl_s`` than at the start. The setting of a new provider applies only
    after a restart.
    """
    were = {name: each.cache.ttl_s for name, each in first.enabled.items()}
    return any(each.cache.ttl_s != were.get(name) for name, each in config.enabled.items())


def _changed_sections(was: Config, now: Config) -> Iterator[str]:
    """Return the sections that differ and that a reload applies, apart from providers."""
    for section in ("timeouts", "attempts", "selection", "cross_model"):
        yield from _changed_fields(section, getattr(was, section), getattr(now, section))
    fields = {f"server.{name}" for name in RELOADABLE}
    yield from (path for path in _changed_fields("server", was.server, now.server) if path in fields)
    for section in ("keys", "routes"):
        old, new = getattr(was, section), getattr(now, section)
        for name in old | new:
            if name not in old or name not in new:
                yield f"{section}.{name}"
            else:
                yield from _changed_fields(f"{section}.{name}", old[name], new[name])
    if was.prices != now.prices:
        yield "prices"


def _changed_fields(path: str, was: msgspec.Struct, now: msgspec.Struct) -> Iterator[str]:
    return (f"{path}.{name}" for name in now.__struct_fields__ if getattr(was, name) != getattr(now, name))


def _paths(providers: Iterable[str]) -> list[str]:
    return [f"providers.{name}" for name in providers]
