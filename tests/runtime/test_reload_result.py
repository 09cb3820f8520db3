"""What a reload says of itself."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec
import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from llm_protocol.errors import InternalError
from llm_protocol.policy import Attempts, CachePolicy, Limits, Policy
from llm_protocol.prices import OwnPrice
from llm_protocol.secret import Secret
from llm_runtime import open_runtime
from llm_runtime.config import Config, Key, Provider, Server
from llm_runtime.config.model import ProviderCache
from llm_runtime.reloading import Reloader, ReloadResult
from llm_runtime.systemd import Notifier

A = Provider(kind="openai_compatible", base_url="http://127.0.0.1:9/v1", models=("m",))
FIRST = Config(
    providers={"a": A},
    server=Server(drain_s=1),
    keys={"app": Key(secret=Secret("k-app-0123456789")), "old": Key(secret=Secret("k-old-0123456789"))},
)


async def result_of(*later: Config, first: Config = FIRST) -> ReloadResult:
    """Of the last of these reloads."""
    found: ReloadResult | None = None
    configs = iter(later)
    async with open_runtime(first) as runtime:
        reloader = Reloader(runtime, lambda: next(configs), first, Notifier({}))
        for _ in later:
            found = await reloader.reload()
    assert found is not None
    return found


def with_own_ttl(seconds: float) -> Config:
    own = msgspec.structs.replace(A, cache=ProviderCache(ttl_s=seconds))
    return msgspec.structs.replace(FIRST, providers={"a": A, "b": own})


async def test_nothing_changed() -> None:
    assert str(await result_of(FIRST)) == "nothing changed"


async def test_every_changed_section_is_named() -> None:
    app = Key(secret=Secret("k-app-0123456789"), limits=Limits(requests_per_minute=5))
    now = msgspec.structs.replace(
        FIRST,
        providers={"a": A, "b": A},
        keys={"app": app, "new": Key(secret=Secret("k-new-0123456789"))},
        routes={"fast": Policy(candidates=("a/m",))},
        prices={"a/m": OwnPrice(input=1.0, output=1.0)},
        attempts=Attempts(max=2),
        server=Server(drain_s=1, allowed_origins=("https://x.example",)),
    )
    done = await result_of(now)
    assert done.sections == (
        "attempts.max",
        "server.allowed_origins",
        "keys.app.limits",
        "keys.old",
        "keys.new",
        "routes.fast",
        "prices",
    )
    assert str(done) == f"added providers.b; changed {', '.join(done.sections)}"
    assert (await result_of(now, now)).sections == (), "compared with the one before"
    back = await result_of(now, FIRST)
    assert back.sections == (*done.sections[:3], "keys.new", "keys.old", "routes.fast", "prices")
    assert back.removed == ("b",)


@pytest.mark.parametrize(
    ("first", "now", "expected"),
    [
        (FIRST, msgspec.structs.replace(FIRST, providers={"a": A, "b": A}), ()),
        (msgspec.structs.replace(FIRST, providers={"a": A, "b": A}), FIRST, ()),
        (FIRST, with_own_ttl(60), ("cache",)),
        (with_own_ttl(60), with_own_ttl(30), ("cache",)),
        (FIRST, msgspec.structs.replace(FIRST, cache=CachePolicy(enabled=True)), ("cache",)),
    ],
)
async def test_the_cache_holds_until_a_restart_if_it_differs(
    first: Config, now: Config, expected: tuple[str, ...]
) -> None:
    assert (await result_of(now, first=first)).after_restart == expected


async def test_the_configuration_that_was_read_last_is_in_effect(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two reloads at the same time, by a signal and by a client: the first takes longer to read its file."""
    with_b = msgspec.structs.replace(FIRST, providers={"a": A, "b": A})
    with_c = msgspec.structs.replace(FIRST, providers={"a": A, "c": A})
    files, slow = iter((with_b, with_c)), trio.Event()

    async def in_thread(read: Callable[[], Config]) -> Config:
        found = read()
        if found is with_b:
            await slow.wait()
        return found

    async with open_runtime(FIRST) as runtime:
        reloader = Reloader(runtime, lambda: next(files), FIRST, Notifier({}))
        with monkeypatch.context() as patched:
            patched.setattr(trio.to_thread, "run_sync", in_thread)
            async with trio.open_nursery() as nursery:
                nursery.start_soon(reloader.reload)
                await wait_all_tasks_blocked()
                nursery.start_soon(reloader.reload)
                await wait_all_tasks_blocked()
                slow.set()
        assert list(runtime.config.providers) == ["a", "c"]


async def test_a_reload_that_crashes_leaves_the_daemon_as_it_was() -> None:
    def crash() -> Any:
        raise RuntimeError("can't start new thread")

    async with open_runtime(FIRST) as runtime:
        with pytest.raises(InternalError):
            await Reloader(runtime, crash, FIRST, Notifier({})).reload()
        assert runtime.config.providers == FIRST.providers
