"""Asking together from a program, and by a route's name; real sockets."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import pytest
import trio

import llm_runtime
from llm_protocol.events import MemberDelta, MemberStarted
from llm_protocol.failures import FailureKind
from llm_protocol.policy import Attempts, Policy
from llm_protocol.requests import LLMProvider
from llm_runtime.config import Config, CrossModel, Provider, parse
from support.attempts import said, status
from support.panels import saying
from support.peer import Peer, Script


@asynccontextmanager
async def running(**settings: Any) -> AsyncIterator[tuple[llm_runtime.Runtime, dict[str, Peer]]]:
    """A runtime with a provider for each script among ``settings``. Afterwards nothing is open at any of them."""
    scripts: dict[str, Sequence[Script]] = {name: it for name, it in settings.items() if isinstance(it, list)}
    more = {name: it for name, it in settings.items() if name not in scripts}
    async with AsyncExitStack() as stack:
        peers = {name: await stack.enter_async_context(Peer(*each)) for name, each in scripts.items()}
        kind = LLMProvider.OPENAI_COMPATIBLE
        providers = {
            name: Provider(kind=kind, base_url=f"{peer.url}/v1", models=(f"m-{name}",)) for name, peer in peers.items()
        }
        async with llm_runtime.open_runtime(Config(providers=providers, attempts=Attempts(max=1), **more)) as rt:
            yield rt, peers
        with trio.fail_after(1):
            for peer in peers.values():
                await peer.until(lambda peer=peer: peer.open_connections == 0)  # type: ignore[misc]


async def test_cross_model_orchestrator_two_members_and_synthesis_give_three_answers() -> None:
    async with running(a=[saying("one"), saying("both")], b=[saying("two")]) as (rt, _):
        answers = await rt.collaborate("What is it?", members=["a/m-a", "b/m-b"])

    assert [answer.content for answer in answers] == ["one", "two", "both"]
    ids = [answer.request_id for answer in answers]
    assert ids == [f"{ids[2]}_a", f"{ids[2]}_b", ids[2]]


async def test_cross_model_orchestrator_without_synthesize_responses_gives_the_members_answers() -> None:
    settings = CrossModel(synthesize_responses=False)
    async with running(a=[saying("one")], b=[saying("two")], cross_model=settings) as (rt, peers):
        answers = await rt.collaborate("What is it?", members=["a/m-a", "b/m-b"])

        assert [answer.content for answer in answers] == ["one", "two"]
        assert [len(peer.requests) for peer in peers.values()] == [1, 1]


async def test_cross_model_orchestrator_chooses_the_collaborating_models() -> None:
    async with running(a=[saying("x")], b=[saying("y")], c=[saying("z")], d=[saying("v")]) as (rt, _):
        answers = await rt.collaborate("What is it?", members=4)

    assert sorted(answer.provider for answer in answers[:4]) == ["a", "b", "c", "d"]
    assert len(answers) == 5


async def test_cross_model_orchestrator_drops_the_failed() -> None:
    async with running(a=[status(401)], b=[saying("two")]) as (rt, _):
        [answer] = await rt.collaborate("What is it?")

    assert (answer.content, answer.provider) == ("two", "b")


async def test_cross_model_orchestrator_falls_back_to_a_single_request() -> None:
    async with running(a=[saying("one")]) as (rt, peers):
        [answer] = await rt.collaborate("What is it?")

        assert answer.content == "one"
        assert len(peers["a"].requests) == 1


async def test_cross_model_orchestrator_raises_when_nobody_answers() -> None:
    async with running(a=[status(401)], b=[status(401)]) as (rt, _):
        with pytest.raises(llm_runtime.LLMClientError) as caught:
            await rt.collaborate("What is it?")

    assert caught.value.failure.kind is FailureKind.AUTH


async def test_context_manager_shares_the_context_with_each_member() -> None:
    async with running(a=[saying("one")], b=[saying("two")]) as (rt, peers):
        policy = Policy(synthesiser="none")
        await rt.collaborate("What is it?", context={"project": "Apollo"}, policy=policy)

        assert all(b"Apollo" in peer.requests[0].body for peer in peers.values())


async def test_a_route_and_the_caller_say_how_and_the_caller_comes_first() -> None:
    routes = {"mine": Policy(strategy="panel", members=("a/m-a", "b/m-b"), synthesiser="longest", share_context="none")}
    async with running(a=[saying("one")], b=[saying("longer")], routes=routes) as (rt, peers):
        context = {"project": "Apollo"}
        answers = await rt.collaborate("What is it?", model="mine", context=context)
        fewer = await rt.collaborate("What is it?", model="mine", members=["a/m-a"])

        assert [answer.content for answer in answers] == ["one", "longer", "longer"]
        assert [answer.content for answer in fewer] == ["one"]
        assert not any(b"Apollo" in seen.body for seen in peers["a"].requests)


async def test_a_program_can_judge() -> None:
    async with running(a=[saying("one")], b=[saying("two")]) as (rt, _):
        policy = Policy(strategy="best_of", samples=2)
        [answer] = await rt.collaborate("?", members=["a/m-a", "b/m-b"], policy=policy, judge=lambda answers: 1)

    assert answer.content == "two"


async def test_a_routes_name_is_a_model_for_plain_chats_and_streams() -> None:
    routes = {"panel": Policy(strategy="panel", members=("a/m-a", "b/m-b"), synthesiser="longest")}
    async with running(a=[saying("one")], b=[saying("longer")], routes=routes) as (rt, _):
        whole = await rt.chat("What is it?", model="panel")
        async with rt.stream("What is it?", model="panel") as answer:
            text = "".join([text async for text in answer.text()])

    assert whole.content == text == "longer"
    assert whole.decision["strategy"] == "panel"


async def test_a_program_follows_the_members_that_asked_to() -> None:
    routes = {"panel": Policy(strategy="panel", members=("a/m-a", "b/m-b"), synthesiser="longest")}
    async with running(a=[saying("o", "ne")], b=[saying("longer")], routes=routes) as (rt, _):
        policy = Policy(stream_members=True)
        async with rt.stream("What is it?", model="panel", policy=policy) as answer:
            events = [event async for event in answer]

    assert {event.member for event in events if isinstance(event, MemberStarted)} == {"a/m-a", "b/m-b"}
    said_by_a = [event.text for event in events if isinstance(event, MemberDelta) and event.member == "a/m-a"]
    assert "".join(said_by_a) == "one"


async def test_a_conversation_is_forgotten_on_request() -> None:
    async with running(a=[saying("blue")]) as (rt, _):
        await rt.chat("?", policy=Policy(share_knowledge=True), metadata={"conversation_id": "talk"})

        assert rt.forget("talk") == 1
        assert rt.forget() == 0


async def test_a_member_that_hangs_ends_at_its_vendor_within_a_second() -> None:
    async def hang(call: Any) -> None:
        assert said(call)
        await trio.sleep_forever()

    async with running(a=[saying("one")], b=[hang]) as (rt, peers):
        policy = Policy(quorum=1, synthesiser="none")
        await rt.collaborate("What is it?", policy=policy)
        with trio.fail_after(1):
            await peers["b"].until(lambda: peers["b"].aborted == 1)


def test_a_route_names_its_members_in_the_configuration() -> None:
    provider = '[providers.a]\nkind = "openai_compatible"\nbase_url = "http://127.0.0.1:1/v1"\n'
    route = '[routes.panel]\nstrategy = "panel"\nmembers = ["a/m1", "a/m2"]\nquorum = 2\n[cross_model]\n'
    config = parse((provider + route + "synthesize_responses = false").encode(), {})
    assert config.routes["panel"] == Policy(strategy="panel", members=("a/m1", "a/m2"), quorum=2)
    assert config.cross_model == CrossModel(synthesize_responses=False)


@pytest.mark.parametrize(
    ("line", "complaint"),
    [
        ('members = ["b/m"]', 'routes.panel.members: no configured provider for "b/m"'),
        ('synthesiser = "b/m"', 'routes.panel.synthesiser: no configured provider for "b/m"'),
        ('judge = "b/m"', 'routes.panel.judge: no configured provider for "b/m"'),
        ("members = 99", "routes.panel.members: expected a whole number of at most 16"),
        (
            'strategy = "pannel"',
            'not one of single, fallback, race, panel, council, best_of, vote; did you mean "panel"?',
        ),
        ('template = "no place"', "template must contain {answers}, the place where the answers are inserted"),
        ("quorun = 2", 'routes.panel.quorun: unknown key; did you mean "quorum"?'),
    ],
)
def test_mistakes_in_a_route_are_told(line: str, complaint: str) -> None:
    provider = '[providers.a]\nkind = "openai_compatible"\nbase_url = "http://127.0.0.1:1/v1"\n'
    with pytest.raises(llm_runtime.ConfigError) as caught:
        parse(f"{provider}[routes.panel]\n{line}".encode(), {})
    assert complaint in str(caught.value)


def test_a_route_is_no_member_of_a_route() -> None:
    """But for one that has a model's name, where the model may exist."""
    provider = '[providers.a]\nkind = "openai_compatible"\nbase_url = "http://127.0.0.1:1/v1"\n'
    route = '[routes.m]\nmembers = ["m"]\n'
    parse(f"{provider}{route}".encode(), {})
    parse(f'{provider}models = ["m"]\n{route}'.encode(), {})
    with pytest.raises(
        llm_runtime.ConfigError, match=r'routes.m.members: "m" is a route, but a route can only contain models'
    ):
        parse(f'{provider}models = ["n"]\n{route}'.encode(), {})
