"""A request's deadline holds from its acceptance on, wherever the time goes. The clock moves at each reading."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, NamedTuple, Never

import msgspec
import pytest
import trio

from llm_actors.limiter import LimiterMessage
from llm_actors.orchestrator import Orchestrator, OrchestratorMessage, Setup, accept
from llm_actors.run import Run
from llm_actors.testing import MovingClock, ScriptedPeer, alone
from llm_protocol.content import Message
from llm_protocol.errors import DeadlineError, InternalError, LLMClientError
from llm_protocol.failures import FailureKind
from llm_protocol.policy import Policy
from llm_protocol.requests import ChatRequest, LLMProvider
from llm_protocol.response import LLMResponse
from llm_protocol.secret import Secret
from llm_runtime import open_runtime
from llm_runtime.config import Config, Provider
from support.attempts import World, world
from support.panels import saying, start
from support.peer import Peer, stall
from support.server import add_text, begin_text, end_text
from support.upstream import CANARY

SOON = 0.05
"""Seconds after its deadline by which a request has ended."""

HELLO = (Message.of("user", "hi"),)


class _Current(NamedTuple):
    setup: Setup


@pytest.fixture
def moving_clock() -> MovingClock:
    """For socket pairs, which deliver at once."""
    return MovingClock()


async def refused(asking: Callable[[], Awaitable[object]], after: float) -> LLMClientError:
    """The error, which comes ``after`` so many seconds."""
    began = trio.current_time()
    with pytest.raises(LLMClientError) as caught:
        await asking()
    assert after <= trio.current_time() - began < after + SOON
    return caught.value


# -- before it is accepted -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["deadline_s", "policy", "route"])
async def test_while_a_model_list_is_fetched(how: str) -> None:
    async with Peer(stall()) as peer:
        kind = LLMProvider.OPENAI_COMPATIBLE
        provider = Provider(kind=kind, base_url=f"{peer.url}/v1", api_key=Secret(CANARY))
        soon = Policy(deadline_s=1)
        config = Config(providers={"slow": provider}, routes={"r": Policy(deadline_s=1, candidates=("nobody",))})
        said: dict[str, dict[str, Any]] = {"deadline_s": {"deadline_s": 1}, "policy": {"policy": soon}}
        async with open_runtime(config) as rt:
            began = trio.current_time()
            with pytest.raises(DeadlineError, match="within the request's deadline of 1 s"):
                await rt.chat("hi", model="r" if how == "route" else "unheard-of", **said.get(how, {}))
            assert 1 <= trio.current_time() - began < 5, "in real time: the list would be given up after 10 s"


async def test_while_it_waits_for_the_orchestrator(moving_clock: MovingClock) -> None:
    orchestrator: ScriptedPeer[OrchestratorMessage] = ScriptedPeer("orchestrator")
    run = Run(ChatRequest(model="m", messages=HELLO), stream=True, deadline_s=1)
    error = await refused(lambda: accept(orchestrator.ref, run), 1)
    assert error.failure.kind is FailureKind.DEADLINE


async def test_a_response_that_is_there_in_the_moment_of_the_deadline_is_delivered(moving_clock: MovingClock) -> None:
    """The cache has answered, and the reply that says so comes too late."""
    orchestrator: ScriptedPeer[OrchestratorMessage] = ScriptedPeer("orchestrator")
    run = Run(ChatRequest(model="m", messages=HELLO), stream=True, deadline_s=1)
    begin_text(run)
    add_text(run, "hello")
    end_text(run)
    await accept(orchestrator.ref, run)
    assert run.folded().content == "hello"


async def test_it_counts_from_the_acceptance_of_what_waited_elsewhere(moving_clock: MovingClock) -> None:
    async with world(a=[stall()]) as w:
        began = trio.current_time()
        await trio.sleep(3)
        run = Run(w.request(deadline_s=5), stream=True, started_at=began)
        await accept(w.tree.orchestrator, run)
        asked = await w.see(run, began)
        assert asked.failure is not None
        assert asked.failure.kind is FailureKind.DEADLINE
        assert 5 <= asked.took < 5 + SOON


async def test_a_crash_before_it_is_accepted_is_an_internal_error_at_once(
    moving_clock: MovingClock, caplog: pytest.LogCaptureFixture
) -> None:
    class Broken:
        def deadline_s(self, request: object) -> float:
            return 60.0

        def route(self, request: object) -> Never:
            raise ZeroDivisionError

    async with world(a=[saying("fine")]) as w:
        with caplog.at_level(logging.ERROR):
            broken = Setup(w.tree.services, Broken())  # type: ignore[arg-type]
            async with alone(Orchestrator(_Current(broken))) as lone:
                error = await refused(lambda: accept(lone.ref, Run(w.request(), stream=True)), 0)
        assert isinstance(error, InternalError)
        assert w.tree.services.metrics.refused["internal"] == 1
        assert "crashed" in caplog.text


# -- after -----------------------------------------------------------------------------------------------------------


async def ends_in_time(w: World, seconds: float = 1.0, **how: Any) -> FailureKind | None:
    began = trio.current_time()
    asked = await w.see(await start(w, deadline_s=seconds, **how), began)
    assert asked.took < seconds + SOON
    return asked.failure.kind if asked.failure else None


STRATEGIES: Sequence[dict[str, Any]] = (
    {"strategy": "fallback"},
    {"strategy": "fallback", "hedge": True},
    {"strategy": "race"},
    {"strategy": "vote"},
    {"strategy": "panel"},
    {"strategy": "council"},
    {"strategy": "best_of", "judge": "b/m-b"},
    {"strategy": "fallback", "on_broken_stream": "buffer"},
    {"strategy": "fallback", "cache": "read"},
)


@pytest.mark.parametrize("how", STRATEGIES, ids=lambda how: "-".join(map(str, how.values())))
@pytest.mark.parametrize("stream", [True, False])
async def test_while_vendors_are_silent(moving_clock: MovingClock, how: dict[str, Any], stream: bool) -> None:
    async with world(a=[stall()], b=[stall()], c=[stall()]) as w:
        for name in "abc":
            w.season(name, usual=0.1)
        assert await ends_in_time(w, stream=stream, **how) is FailureKind.DEADLINE
        await w.settled()


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize(
    "how", [{"strategy": "panel", "synthesiser": "c/m-c"}, {"strategy": "best_of", "judge": "c/m-c"}], ids=str
)
async def test_while_a_synthesiser_or_judge_is_silent(
    moving_clock: MovingClock, how: dict[str, Any], stream: bool
) -> None:
    """The members' answers are not lost to it."""
    async with world(a=[saying("yes")], b=[saying("no")], c=[stall()]) as w:
        assert await ends_in_time(w, stream=stream, members=("a/m-a", "b/m-b"), **how) in (None, FailureKind.DEADLINE)
        await w.settled()


async def test_while_a_program_judges(moving_clock: MovingClock) -> None:
    async def judge(_: Sequence[LLMResponse]) -> int:
        await trio.sleep(100)
        return 0

    async with world(a=[saying("yes")], b=[saying("no")]) as w:
        assert await ends_in_time(w, strategy="best_of", judge=judge) in (None, FailureKind.DEADLINE)


@pytest.mark.parametrize("service", ["cache", "limiter"])
async def test_while_a_service_does_not_answer(moving_clock: MovingClock, service: str) -> None:
    stuck: ScriptedPeer[LimiterMessage] = ScriptedPeer(service)
    async with world(a=[saying("yes")]) as w:
        services = msgspec.structs.replace(w.tree.services, **{service: stuck.ref})
        async with alone(Orchestrator(_Current(Setup(services, w.tree.setup.router)))) as lone:
            for cache in ("read", "refresh"):
                began = trio.current_time()
                run = Run(w.request(deadline_s=1, cache=cache), stream=True)
                await accept(lone.ref, run)
                asked = await w.see(run, began)
                assert asked.took < 1 + SOON
                if service == "limiter":
                    assert asked.failure is not None
                    assert asked.failure.kind is FailureKind.DEADLINE
