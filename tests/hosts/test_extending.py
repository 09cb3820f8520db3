"""Strategies, orderings and stores of a program, on every host that runs the runtime itself."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest
import trio

import llm_runtime
from hosts.adapters import HOSTS, REMOTE, in_a_thread, on_asyncio
from hosts.conftest import Upstream
from llm_protocol.errors import BadRequestError, RequestCancelledError, ShuttingDownError
from llm_runtime import ConfigError, LLMClientError, Policy, RankedCandidate

LOCAL = {name: host for name, host in HOSTS.items() if name not in REMOTE}
on_local_hosts = pytest.mark.parametrize("host", LOCAL.values(), ids=LOCAL)

Host = Callable[..., None]


async def begun(upstream: Upstream) -> None:
    """Return when a call has reached the vendor."""
    while not upstream.journal()["open"]:  # noqa: ASYNC110 - the vendor is another process
        await asyncio.sleep(0.01)


def for_host(host: Host, strategy: Callable[[Any, Callable[..., Any]], Any]) -> Callable[[Any], Any]:
    """``strategy``, a coroutine function over a team and "how to await there", as the host takes it."""
    if host is not in_a_thread:

        async def here(value: Any) -> Any:
            return await value

        return lambda team: strategy(team, here)

    async def at_once(value: Any) -> Any:
        return value

    def blocking(team: Any) -> Any:
        coroutine = strategy(team, at_once)
        try:
            coroutine.send(None)
        except StopIteration as end:
            return end.value
        raise AssertionError("it waited for an event loop")

    return blocking


@on_local_hosts
def test_a_strategy_runs_where_the_program_does_and_is_chosen_by_name(host: Host, upstream: Upstream) -> None:
    threads: list[int] = []

    async def joined(team: Any, here: Callable[..., Any]) -> str:
        threads.append(threading.get_ident())
        assert team.candidates == ("fake/m",)
        assert team.request.messages[0].text == "Say hello."
        answers = await here(team.ask(["fake/m", "fake/m"]))
        team.note("asked", len(answers))
        return " / ".join(answer.content for answer in answers)

    async def scenario(rt: Any) -> None:
        response = await rt.chat("Say hello.", model="fake/m", policy=Policy(strategy="joined"))
        assert response.content == "You said: Say hello. / You said: Say hello."
        assert response.decision["notes"] == {"asked": 2}
        async with rt.stream("Say hello.", model="by-route") as stream:
            assert [piece async for piece in stream.text()] == [response.content]

    config = msgspec.structs.replace(
        upstream.config, routes={"by-route": Policy(candidates=("fake/m",), strategy="joined")}
    )
    host(scenario, config, strategies={"joined": for_host(host, joined)})
    assert len(threads) == 2
    assert (threading.get_ident() in threads) is (host is not in_a_thread)


@on_local_hosts
def test_a_strategy_streams_and_its_errors_are_typed(host: Host, upstream: Upstream) -> None:
    async def streamed(team: Any, here: Callable[..., Any]) -> Any:
        with pytest.raises(LLMClientError, match="nobody"):
            await here(team.ask(["nobody/m"]))
        return await here(team.stream("fake/m", team.about([], "Add nothing to {answers}.")))

    async def wrong(team: Any, here: Callable[..., Any]) -> Any:
        raise KeyError("secret")

    async def scenario(rt: Any) -> None:
        async with rt.stream("Say hello.", model="fake/m", policy=Policy(strategy="streamed")) as stream:
            pieces = [piece async for piece in stream.text()]
        assert "".join(pieces) == stream.response.content == "You said: Add nothing to ."
        with pytest.raises(LLMClientError, match="the strategy wrong raised KeyError"):
            await rt.chat("Say hello.", model="fake/m", policy=Policy(strategy="wrong"))

    both = {"streamed": for_host(host, streamed), "wrong": for_host(host, wrong)}
    host(scenario, upstream.config, strategies=both)


def test_cancelling_a_task_of_asyncio_ends_its_strategy_and_the_models_calls(upstream: Upstream) -> None:
    ended: list[str] = []

    async def waiting(team: Any) -> Any:
        try:
            return await team.ask(["fake/silent"])
        except asyncio.CancelledError:
            ended.append("cancelled")
            raise

    async def scenario(rt: Any) -> None:
        task = asyncio.create_task(rt.chat("Hi.", model="fake/m", policy=Policy(strategy="waiting")))
        await begun(upstream)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    on_asyncio(scenario, upstream.config, strategies={"waiting": waiting})
    assert ended == ["cancelled"]
    assert upstream.is_left()


@on_local_hosts
def test_an_ordering_decides_who_is_asked_first_and_explain_shows_it(host: Host, upstream: Upstream) -> None:
    def by_length(choices: list[RankedCandidate], _: Any) -> list[RankedCandidate]:
        return sorted(choices, key=lambda each: -len(each.candidate.model))

    names = ("fake/m", "fake/slow", "fake/endless")

    async def scenario(rt: Any) -> None:
        response = await rt.chat("Hi.", policy=Policy(candidates=names[:2], select="by-length", strategy="single"))
        assert response.model == "slow"
        assert response.decision["candidates"][0]["reason"] == "place 1 by by-length"
        ranking = await rt.explain("longest")
        assert [str(each) for each in ranking.candidates] == ["fake/endless", "fake/slow", "fake/m"]

    config = msgspec.structs.replace(upstream.config, routes={"longest": Policy(candidates=names, select="by-length")})
    host(scenario, config, orderings={"by-length": by_length})


class Shelf:
    """A cache's store in a dict."""

    def __init__(self) -> None:
        self.kept: dict[bytes, bytes] = {}

    def get(self, key: bytes, /) -> bytes | None:
        return self.kept.get(key)

    def put(self, key: bytes, value: bytes, ttl_s: float, /) -> None:
        self.kept[key] = value


@on_local_hosts
def test_cached_responses_are_in_the_programs_store(host: Host, upstream: Upstream) -> None:
    shelf, outcomes = Shelf(), list[str]()

    async def scenario(rt: Any) -> None:
        response = await rt.chat("Remember.", model="fake/m", policy=Policy(cache="read"))
        outcomes.append(response.decision["cache"])

    for _ in range(2):  # a new runtime each time
        host(scenario, upstream.config, cache_store=shelf)
    assert outcomes == ["miss", "hit"]
    assert len(shelf.kept) == 1


@on_local_hosts
def test_an_unknown_name_is_refused_with_those_that_there_are(host: Host, upstream: Upstream) -> None:
    async def mine(team: Any, here: Callable[..., Any]) -> Any:
        raise AssertionError("nobody asks for it")

    async def scenario(rt: Any) -> None:
        with pytest.raises(
            BadRequestError, match=r"policy\.strategy: not one of .*, vote, mine; did you mean \"mine\""
        ):
            await rt.chat("Hi.", policy=Policy(strategy="mien"))
        with pytest.raises(BadRequestError, match=r"policy\.select: not one of .*, sticky$"):
            await rt.chat("Hi.", policy=Policy(select="mine"))
        with pytest.raises(ConfigError, match=r'routes\.r\.strategy: not one of .*did you mean "mine"'):
            await rt.reload(msgspec.structs.replace(upstream.config, routes={"r": Policy(strategy="mien")}))

    host(scenario, upstream.config, strategies={"mine": for_host(host, mine)})


@pytest.mark.parametrize(
    ("extensions", "message"),
    [
        ({"strategies": {"race": print}}, "strategies.race: the names "),
        (
            {"orderings": {"score": print}},
            "orderings.score: the names score, order, ",
        ),
        ({"strategies": {"my own": print}}, "strategies.my own: a name is 1 to 64 letters"),
        ({"orderings": {"mine": "no"}}, "orderings.mine: expected a function, got str"),
    ],
)
def test_names_and_functions_that_cannot_be_are_refused_at_once(
    extensions: dict[str, Any], message: str, upstream: Upstream
) -> None:
    async def main() -> None:
        async with llm_runtime.open_runtime(upstream.config, **extensions):
            raise AssertionError("it opened")

    with pytest.raises(ConfigError) as caught:
        trio.run(main)
    assert str(caught.value).startswith(message)


def test_a_file_may_use_the_programs_names_and_is_told_of_others(upstream: Upstream, tmp_path: Path) -> None:
    file = tmp_path / "my.toml"
    base = upstream.config.providers["fake"].base_url
    file.write_text(
        f'[providers.fake]\nkind = "openai_compatible"\nbase_url = "{base}"\nmodels = ["m"]\n'
        '[routes.r]\ncandidates = ["fake/m"]\nselect = "mine"\nstrategy = "own"\n'
    )

    async def own(team: llm_runtime.Team) -> llm_runtime.LLMResponse:
        return await team.stream("fake/m")

    async def main(**extensions: Any) -> None:
        async with llm_runtime.open_runtime(file, **extensions) as rt:
            assert (await rt.chat("Hi.", model="r")).content == "You said: Hi."

    trio.run(lambda: main(strategies={"own": own}, orderings={"mine": lambda choices, _: choices}))
    with pytest.raises(ConfigError) as caught:
        trio.run(lambda: main(strategies={"own": own}))
    assert str(caught.value).startswith(f"{file}:7: routes.r.select: not one of score, order")


def test_a_strategy_of_sync_that_is_async_is_refused(upstream: Upstream) -> None:
    async def mine(team: Any) -> str:
        return ""

    asynchronous: Any = {"mine": mine}
    with pytest.raises(TypeError, match="strategies must be plain functions"):
        llm_runtime.sync.open_runtime(upstream.config, strategies=asynchronous)


def test_closing_a_runtime_of_asyncio_ends_its_strategies(upstream: Upstream) -> None:
    config = msgspec.structs.replace(upstream.config, server=llm_runtime.config.Server(drain_s=0.1))

    async def waiting(team: Any) -> Any:
        return (await team.ask(["fake/silent"]))[0]

    async def main() -> None:
        async with llm_runtime.aio.open_runtime(config, strategies={"waiting": waiting}) as rt:
            task = asyncio.create_task(rt.chat("Hi.", model="fake/m", policy=Policy(strategy="waiting")))
            await begun(upstream)
        with pytest.raises((RequestCancelledError, LLMClientError)):
            await task

    asyncio.run(main())
    assert upstream.is_left()


def test_calls_that_a_strategy_leaves_behind_on_asyncio_end_with_it(upstream: Upstream) -> None:
    left: list[asyncio.Task[Any]] = []

    async def careless(team: Any) -> Any:
        left.append(asyncio.ensure_future(team.ask(["fake/fault-stall"])))
        await begun(upstream)
        return (await team.ask(["fake/m"]))[0]

    async def scenario(rt: Any) -> None:
        response = await rt.chat("Say hello.", model="fake/m", policy=Policy(strategy="careless"))
        assert response.content == "You said: Say hello."
        await asyncio.wait(left, timeout=5)
        assert [type(task.exception()) for task in left] == [ShuttingDownError]
        assert upstream.is_left()

    on_asyncio(scenario, upstream.config, strategies={"careless": careless})
