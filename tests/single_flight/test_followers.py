"""Who follows a flight: pays nothing, and never joins one that is ending."""

from __future__ import annotations

import pytest
import trio
import trio.testing
from trio.testing import MockClock

import llm_runtime
from llm_actors.orchestrator import Services
from llm_actors.orchestrator.single_flight import SingleFlight
from llm_actors.run import Run
from llm_protocol import content
from llm_protocol.events import Failed, Finished
from llm_protocol.policy import CachePolicy, Limits
from llm_protocol.requests import ChatRequest, LLMProvider
from llm_protocol.response import FinishReason, LLMResponse
from llm_protocol.secret import Secret
from llm_runtime.config import Config, Provider
from support.peer import Peer, pause, reply
from support.upstream import JSON, whole

PRICED = "gpt-4o-mini"
QUESTION = ChatRequest(messages=(content.Message.of("user", "hi"),), caller="me")


def config(url: str) -> Config:
    provider = Provider(
        kind=LLMProvider.OPENAI,
        base_url=f"{url}/v1",
        api_key=Secret("sk-x"),
        models=(PRICED,),
        limits=Limits(requests_per_minute=100, tokens_per_minute=100_000),
    )
    return Config(providers={"p": provider}, cache=CachePolicy(enabled=True))


async def test_only_the_first_of_those_who_share_a_flight_is_charged() -> None:
    """In dollars, in the caller's tokens, and by the limits."""
    answers: list[LLMResponse] = []
    async with Peer([pause(0.1), reply(whole(), headers=JSON)]) as peer:
        async with llm_runtime.open_runtime(config(peer.url)) as rt:

            async def ask() -> None:
                answers.append(await rt.send(QUESTION))

            async with trio.open_nursery() as nursery:
                for _ in range(3):
                    nursery.start_soon(ask)
            counted = await rt.statistics()
        assert len(peer.requests) == 1
    led, *followed = sorted(answers, key=lambda answer: answer.cost or 0.0, reverse=True)
    assert led.decision["cache"] == "miss"
    assert led.cost is not None
    assert led.cost > 0
    assert [(each.decision["cache"], each.cost) for each in followed] == [("coalesced", 0.0)] * 2
    assert led.usage is not None
    assert counted.callers["me"].cost == led.cost
    assert counted.callers["me"].tokens == led.usage.total_tokens
    limits = counted.providers["p"].limits
    assert limits is not None
    assert (limits.requests_left, limits.tokens_left) == (99, 100_000 - led.usage.total_tokens)


@pytest.mark.parametrize("ending_s", [0.0, 0.5])
async def test_a_flight_that_is_being_cancelled_takes_nobody_on(ending_s: float, autojump_clock: MockClock) -> None:
    """Its last follower has left, and it takes a moment to end."""
    calls: list[Run] = []

    async def upstream(_: Services, run: Run, *rest: object) -> Finished:
        calls.append(run)
        if len(calls) == 1:
            try:
                await trio.sleep_forever()
            finally:
                with trio.move_on_after(1, shield=True):
                    await trio.sleep(ending_s)
        return Finished(reason=FinishReason.STOP, response=run.folded())

    async with llm_runtime.open_runtime(config("http://127.0.0.1:9")) as rt:
        routed = rt._tree.setup.router.route(QUESTION)
        async with trio.open_nursery() as nursery:
            flights = SingleFlight(upstream, nursery)
            left = Run(QUESTION, stream=True)
            with left.scope, trio.move_on_after(1):
                await flights.share(left, routed, rt._tree.setup)
            late = Run(QUESTION, stream=True)
            with trio.fail_after(5), late.scope:
                await flights.share(late, routed, rt._tree.setup)
    assert isinstance(late.log.end, Finished)
    assert len(calls) == 2


@pytest.mark.parametrize("is_first", [True, False])
async def test_a_request_that_leaves_a_shared_call_says_whose_call_it_was(
    is_first: bool, autojump_clock: MockClock
) -> None:
    """A call of another is none of its own: the ledger has a row for such a request."""

    async def upstream(_: Services, run: Run, *rest: object) -> Finished:
        await trio.sleep(3)
        return Finished(reason=FinishReason.STOP, response=run.folded())

    async with llm_runtime.open_runtime(config("http://127.0.0.1:9")) as rt:
        routed = rt._tree.setup.router.route(QUESTION)
        runs = Run(QUESTION, stream=True), Run(QUESTION, stream=True)
        async with trio.open_nursery() as nursery:
            flights = SingleFlight(upstream, nursery)
            for run, seconds in zip(runs, (1, 9) if is_first else (9, 1), strict=True):

                async def share(run: Run = run, seconds: float = seconds) -> None:
                    with run.scope, trio.move_on_after(seconds):
                        await flights.share(run, routed, rt._tree.setup)

                nursery.start_soon(share)
                await trio.testing.wait_all_tasks_blocked()
    left = runs[0 if is_first else 1].log.end
    assert isinstance(left, Failed)
    assert left.response is not None
    assert left.response.decision["cache"] == ("miss" if is_first else "coalesced")
