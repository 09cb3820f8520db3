"""The runtime takes over another configuration while it runs: all of it or nothing, and nobody notices."""

from __future__ import annotations

import gc
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import msgspec
import pytest
import trio
from trio.testing import MockClock

from llm_actors.catalog import Candidate
from llm_actors.kernel import Cast, KernelError, Restart, task_child
from llm_actors.orchestrator import Setup
from llm_protocol.budgets import Budget
from llm_protocol.errors import BudgetError, LLMClientError, ModelNotFoundError
from llm_protocol.failures import FailureKind
from llm_protocol.policy import Limits, Policy
from llm_protocol.prices import OwnPrice
from llm_protocol.secret import Secret
from llm_runtime import open_runtime, tree
from llm_runtime import runtime as runtime_module
from llm_runtime.config import Config, ConfigError, Key, Provider, ProviderCache, Server
from llm_runtime.reloading import Reloader
from llm_runtime.runtime import Runtime
from llm_runtime.systemd import Notifier
from support.peer import Call, Peer, reply, sse
from support.upstream import END, HELLO, JSON, whole

NO_LIMITS = Limits()


def provider(peer: Peer, key: str = "k-one", *, limits: Limits = NO_LIMITS) -> Provider:
    return Provider(
        kind="openai_compatible", base_url=f"{peer.url}/v1", api_key=Secret(key), models=("m",), limits=limits
    )


def config(**providers: Provider) -> Config:
    return Config(providers=providers, server=Server(drain_s=1))


@asynccontextmanager
async def open_(given: Config) -> AsyncIterator[Runtime]:
    async with open_runtime(given) as runtime:
        yield runtime


def names(runtime: Runtime) -> Sequence[str]:
    core = next(each for each in runtime.tree().children if each.name == "core")
    providers = next(each for each in core.children if each.name == "providers")
    return [each.name for each in providers.children]


async def until_retired(runtime: Runtime) -> None:
    with trio.fail_after(10):
        while any(name.startswith("retiring-") for name in names(runtime)):  # noqa: ASYNC110 (it leaves after its event)
            await trio.sleep(0.01)


def keys_of(peer: Peer) -> list[str]:
    return [each.headers.get("authorization", "").removeprefix("Bearer ") for each in peer.requests]


async def test_a_provider_is_added_changed_and_removed() -> None:
    async with Peer(reply(whole(), headers=JSON)) as peer, open_(config(a=provider(peer), b=provider(peer))) as runtime:
        assert (await runtime.chat("Hi.", model="a/m")).content == "Hello there"
        done = await runtime.reload(config(a=provider(peer, "k-two"), c=provider(peer, "k-three")))
        assert (done.added, done.changed, done.removed) == (("c",), ("a",), ("b",))
        assert await runtime.models() == {"a": ["m"], "c": ["m"]}
        for model in ("a/m", "c/m"):
            await runtime.chat("Hi.", model=model)
        assert keys_of(peer) == ["k-one", "k-two", "k-three"]
        with pytest.raises(ModelNotFoundError):
            await runtime.chat("Hi.", model="b/m")
        await until_retired(runtime)
        assert names(runtime) == ["a~2", "c"]
        again = await runtime.reload(config(a=provider(peer, "k-four"), c=provider(peer, "k-three")))
        assert (again.added, again.changed, again.removed) == ((), ("a",), ())
        await until_retired(runtime)
        assert sorted(names(runtime)) == ["a", "c"]


async def test_a_running_stream_ends_on_what_it_began_with() -> None:
    half = trio.Event()

    async def slow(call: Call) -> None:
        if call.request is not None and call.request.headers["authorization"].endswith("k-one"):
            await sse(*HELLO, end=False)(call)
            await half.wait()
            await call.send(b"%x\r\ndata: %b\n\n\r\n" % (len(END[0]) + 8, END[0].encode()))
            await call.send(b"e\r\ndata: [DONE]\n\n\r\n0\r\n\r\n")
        else:
            await sse(*HELLO, *END)(call)

    async with Peer(slow) as peer, open_(config(a=provider(peer), b=provider(peer))) as runtime:
        async with runtime.stream("Hi.", model="b/m") as stream:
            pieces = stream.text()
            assert (await anext(pieces)).startswith("Hello")
            await runtime.reload(config(a=provider(peer, "k-two")))
            assert "retiring-1" in names(runtime), "it is not stopped while it answers"
            async with runtime.stream("Hi.", model="a/m") as other:
                assert "".join([each async for each in other.text()]) == "Hello there"
            half.set()
            assert all([each == " there" async for each in pieces])
            assert stream.response.content == "Hello there"
        await until_retired(runtime)
        assert names(runtime) == ["a~2"]
        assert peer.aborted == 0


def is_paused(runtime: Runtime) -> bool:
    """Whether b is, because its vendor has refused its key."""
    return runtime._tree.selector.circuits.unavailable(Candidate("b", "m"), trio.current_time()) is not None


async def test_what_stays_the_same_keeps_its_connections_circuits_and_what_was_used() -> None:
    limited = Limits(requests_per_minute=2, burst=1, wait_s=0.1)
    async with (
        Peer(reply(whole(), headers=JSON)) as peer,
        Peer(reply(b"{}", 401, JSON)) as locked,
        open_(config(a=provider(peer, limits=limited), b=provider(locked))) as runtime,
    ):
        await runtime.chat("Hi.", model="a/m")
        with pytest.raises(LLMClientError):
            await runtime.chat("Hi.", model="b/m")
        same = config(a=provider(peer, limits=limited), b=provider(locked), c=provider(peer))
        done = await runtime.reload(same)
        assert (done.changed, done.removed) == ((), ())
        await runtime.chat("Hi.", model="a/m")
        assert peer.connections == 1
        with pytest.raises(LLMClientError) as caught:
            await runtime.chat("Hi.", model="a/m")
        assert caught.value.kind is FailureKind.RATE_LIMITED, "two a minute, before and after together"
        assert is_paused(runtime)
        more = Limits(requests_per_minute=3, burst=1, wait_s=0.1)
        await runtime.reload(config(a=provider(peer, limits=more), b=provider(locked, "k-new"), c=provider(peer)))
        await runtime.chat("Hi.", model="a/m")
        with pytest.raises(LLMClientError):
            await runtime.chat("Hi.", model="a/m")
        assert not is_paused(runtime), "with a new key it is tried again"


async def test_prices_routes_and_callers_limits() -> None:
    async with Peer(reply(whole(), headers=JSON)) as peer:
        first = config(a=provider(peer))
        async with open_(first) as runtime:
            assert (await runtime.chat("Hi.", model="a/m")).cost is None
            priced = Config(
                providers={"a": provider(peer)},
                prices={"a/m": OwnPrice(input=1_000_000.0, output=0.0)},
                routes={"r": Policy(candidates=("a/m",))},
                keys={"me": Key(secret=Secret("s"), limits=Limits(requests_per_minute=1, wait_s=0.1))},
            )
            await runtime.reload(priced)
            assert (await runtime.chat("Hi.", model="r")).cost == 5.0
            assert runtime.route_names() == ["r"]
            snapshot = await runtime.statistics()
            assert sum(sum(each.values()) for each in snapshot.requests.values()) == 2, "counters go on"
            await runtime.reload(first)
            with pytest.raises(ModelNotFoundError):
                await runtime.chat("Hi.", model="r")


async def test_a_removed_provider_does_not_come_back_when_the_providers_are_restarted(
    autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    """What stops it after its last run is gone with their supervisor."""

    async def crash(task_status: trio.TaskStatus[None]) -> None:
        task_status.started()
        await trio.sleep(0.01)
        raise RuntimeError

    silent = Provider(kind="openai_compatible", base_url="http://127.0.0.1:9/v1", models=("m",))
    async with open_(config(a=silent, b=silent)) as runtime:
        with runtime._tree.setup:  # as a run that continues
            await runtime.reload(config(a=silent))
            assert sorted(names(runtime)) == ["a", "b", "retiring-1"]
            await runtime._tree._provider_actors.start_child(task_child("bad", crash, restart=Restart.PERMANENT))
            await trio.sleep(60)
            assert "restarted too often" in caplog.text or "gave up" in caplog.text
            assert names(runtime) == ["a"]


async def test_a_bad_configuration_changes_nothing() -> None:
    async with Peer(reply(whole(), headers=JSON)) as peer, open_(config(a=provider(peer))) as runtime:
        bad = Provider(kind="nonsense", base_url="http://127.0.0.1:9")
        with pytest.raises(ConfigError, match="nonsense"):
            await runtime.reload(config(a=provider(peer, "k-two"), b=bad))
        await runtime.chat("Hi.", model="a/m")
        assert (keys_of(peer), names(runtime), set(runtime.config.providers)) == (["k-one"], ["a"], {"a"})


async def test_a_provider_that_does_not_start_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    async with Peer(reply(whole(), headers=JSON)) as peer, open_(config(a=provider(peer))) as runtime:
        actors = runtime._tree._provider_actors
        add = actors.add_child

        async def fail_at_last(spec: object) -> object:
            if spec.name == "c":  # type: ignore[attr-defined]
                raise KernelError("c", "does not start")
            return await add(spec)  # type: ignore[arg-type]

        monkeypatch.setattr(type(actors), "add_child", lambda _, spec: fail_at_last(spec))
        with pytest.raises(KernelError):
            await runtime.reload(config(a=provider(peer, "k-two"), b=provider(peer), c=provider(peer)))
        await runtime.chat("Hi.", model="a/m")
        assert (keys_of(peer), names(runtime)) == (["k-one"], ["a"])


async def test_a_reload_that_is_cancelled_is_done_or_not() -> None:
    async with Peer(reply(whole(), headers=JSON)) as peer, open_(config(a=provider(peer))) as runtime:
        for number in range(30):
            with trio.CancelScope() as scope:
                trio.lowlevel.current_trio_token().run_sync_soon(scope.cancel) if number % 2 else scope.cancel()
                await runtime.reload(config(a=provider(peer, f"k-{number}")))
            await runtime.chat("Hi.", model="a/m")
            held = runtime.config.providers["a"].api_key
            assert held is not None
            assert Secret(keys_of(peer)[-1]) == held
        await until_retired(runtime)
        assert len(names(runtime)) == 1


async def test_former_providers_are_stopped_although_the_limiter_does_not_respond(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def hang(*_: object) -> None:
        await trio.sleep_forever()

    monkeypatch.setattr(tree, "change_limits", hang)
    monkeypatch.setattr(runtime_module, "SETTLE_SECONDS", 0.05)
    async with Peer(reply(whole(), headers=JSON)) as peer, open_(config(a=provider(peer))) as runtime:
        await runtime.reload(config(a=provider(peer, "k-two")))
        await until_retired(runtime)
        assert len(names(runtime)) == 1


async def test_a_storm_of_reloads_under_streams_loses_nothing() -> None:
    """Good and bad ones. Each request has the key that held when it began, or one that came while it did."""
    held = latest = 0
    wrong: list[str] = []

    async def answer(call: Call) -> None:
        assert call.request is not None
        key = int(call.request.headers["authorization"].removeprefix("Bearer k-"))
        began = int(msgspec.json.decode(call.request.body)["messages"][0]["content"])
        if not began <= key <= latest:
            wrong.append(f"{key} for one that began at {began}")
        await sse(*HELLO, *END, gap=0.002)(call)

    async with Peer(answer) as peer, open_(config(a=provider(peer, "k-0"))) as runtime:
        done, failed, stop = 0, list[str](), False

        async def stream() -> None:
            nonlocal done
            while not stop:
                try:
                    async with runtime.stream(str(held), model="a/m") as answered:
                        assert "".join([each async for each in answered.text()]) == "Hello there"
                except LLMClientError as exc:
                    failed.append(str(exc))
                done += 1

        async with trio.open_nursery() as nursery:
            for _ in range(20):
                nursery.start_soon(stream)
            for number in range(1, 51):
                if number % 3 == 0:
                    with pytest.raises(ConfigError):
                        await runtime.reload(config(a=Provider(kind="nonsense")))
                    continue
                latest = number
                more = {"b": provider(peer, "k-b")} if number % 2 else {}
                await runtime.reload(config(a=provider(peer, f"k-{number}"), **more))
                held = number
                await trio.sleep(0.02)
            stop = True
        assert (failed, wrong) == ([], [])
        assert done > 50
        await until_retired(runtime)
        assert len(names(runtime)) <= 2
        gc.collect()
        assert sum(isinstance(each, Setup) for each in gc.get_objects()) <= 2, "old configurations are let go of"


class Bomb(Cast, frozen=True):
    """Nobody knows it."""


async def test_the_limiter_that_crashes_begins_with_what_holds_now(mock_clock: MockClock) -> None:
    mock_clock.rate = 50
    one = Limits(requests_per_minute=1, wait_s=0.1)
    async with Peer(reply(whole(), headers=JSON)) as peer, open_(config(a=provider(peer))) as runtime:
        await runtime.reload(config(a=provider(peer, limits=one)))
        limiter = runtime._tree.services.limiter
        limiter.cast(Bomb())
        await trio.sleep(5)
        await runtime.chat("Hi.", model="a/m")
        with pytest.raises(LLMClientError) as caught:
            await runtime.chat("Hi.", model="a/m")
        assert caught.value.kind is FailureKind.RATE_LIMITED


async def test_a_budget_holds_until_the_next_start() -> None:
    async with Peer(reply(whole("hi"), headers=JSON)) as peer:
        price = {"a/m": OwnPrice(input=1_000.0, output=1_000.0)}
        given = msgspec.structs.replace(config(a=provider(peer)), prices=price)
        bounded = msgspec.structs.replace(given, budgets={"all": Budget(usd=0.0001, per="day")})
        async with open_(bounded) as runtime:
            for _ in range(2):
                with pytest.raises(BudgetError, match='budget "all" has'):
                    await runtime.chat("hello", model="a/m")
                await runtime.reload(given)
        assert peer.requests == []


async def test_what_holds_only_after_a_restart_is_what_would_change_then() -> None:
    """A provider that comes and says nothing of the cache has changed nothing there; one that does has."""
    one = Provider(kind="openai_compatible", base_url="http://127.0.0.1:1/v1", models=("m",))
    first = Config(providers={"one": one})
    read = [
        Config(providers={"one": one, "other": one}),
        Config(providers={"one": msgspec.structs.replace(one, cache=ProviderCache(ttl_s=7))}),
    ]
    async with open_runtime(first) as runtime:
        reloader = Reloader(runtime, lambda: read.pop(0), first, Notifier({}))
        added = await reloader.reload()
        assert (added.added, added.after_restart) == (("other",), ())
        assert (await reloader.reload()).after_restart == ("cache",)
