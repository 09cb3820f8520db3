"""Equal requests share one upstream call, and whole answers are kept: through the whole runtime, on real sockets."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import msgspec
import pytest
import trio

import llm_runtime
from llm_actors.kernel import ActorMessage, Call, Cast, Ref
from llm_protocol import content
from llm_protocol.events import Failed
from llm_protocol.failures import FailureKind
from llm_protocol.policy import CachePolicy, Limits, Policy
from llm_protocol.requests import ChatRequest, EmbeddingRequest, LLMProvider
from llm_protocol.response import LLMResponse
from llm_runtime.config import Config, Provider
from support.peer import Call as Peers
from support.peer import Peer, Script, Step, pause, reply, sse, stall
from support.upstream import END, HELLO, JSON, whole, word


@asynccontextmanager
async def runtime(*scripts: Script, enabled: bool = True) -> AsyncIterator[tuple[llm_runtime.Runtime, Peer]]:
    async with Peer(*scripts) as peer:
        provider = Provider(kind=LLMProvider.OPENAI_COMPATIBLE, base_url=f"{peer.url}/v1", models=("m",))
        config = Config(providers={"fake": provider}, cache=CachePolicy(enabled=enabled))
        async with llm_runtime.open_runtime(config) as rt:
            yield rt, peer
        with trio.fail_after(2):
            await peer.until(lambda: peer.open_connections == 0)


def chat(caller: str = "", text: str = "hi", **policy: object) -> ChatRequest:
    made = msgspec.convert(policy, Policy) if policy else None
    return ChatRequest(messages=(content.Message.of("user", text),), caller=caller, policy=made)


async def test_response_cache_a_hit_is_returned_without_a_call() -> None:
    """The response cache gets and sets by request."""
    async with runtime(reply(whole(), headers=JSON)) as (rt, peer):
        first = await rt.send(chat())
        second = await rt.send(chat())

        assert len(peer.requests) == 1
    assert first.content == second.content == "Hello there"
    assert first.decision["cache"] == "miss"
    assert second.decision["cache"] == "hit"
    assert (second.cost, second.request_id != first.request_id) == (0.0, True)
    assert second.response_id != first.response_id


async def test_a_hit_streams() -> None:
    async with runtime(sse(*HELLO, *END)) as (rt, peer):
        for _ in range(2):
            async with rt.stream_request(chat()) as answer:
                text = "".join([piece async for piece in answer.text()])
            assert text == "Hello there"

        assert len(peer.requests) == 1


async def test_without_the_cache_every_request_is_a_call() -> None:
    async with runtime(reply(whole(), headers=JSON), enabled=False) as (rt, peer):
        assert (await rt.send(chat())).decision["cache"] == "off"
        await rt.send(chat())

        assert len(peer.requests) == 2


async def test_a_request_says_whether_it_is_cached() -> None:
    async with runtime(reply(whole("one"), headers=JSON), reply(whole("two"), headers=JSON)) as (rt, peer):
        assert (await rt.send(chat())).content == "one"
        assert (await rt.send(chat(cache="refresh"))).content == "two"
        assert (await rt.send(chat())).content == "two"
        assert (await rt.send(chat(cache="off"))).content == "two"

        assert len(peer.requests) == 3


async def test_who_wants_a_fresh_answer_does_not_get_a_kept_one_by_way_of_another() -> None:
    """A flight of those who take what is kept may end with a hit."""
    async with runtime(reply(whole("one"), headers=JSON), reply(whole("two"), headers=JSON)) as (rt, peer):
        await rt.send(chat())
        said: dict[str, str] = {}

        async def ask(mode: str) -> None:
            said[mode] = (await rt.send(chat(cache=mode))).content

        async with trio.open_nursery() as nursery:
            nursery.start_soon(ask, "read")
            nursery.start_soon(ask, "refresh")

        assert len(peer.requests) == 2
    assert said == {"read": "one", "refresh": "two"}


async def test_a_hundred_equal_requests_at_once_are_one_call() -> None:
    texts: list[str] = []
    async with runtime([pause(0.1), sse(*HELLO, *END)]) as (rt, peer):

        async def ask() -> None:
            async with rt.stream_request(chat()) as answer:
                texts.append("".join([piece async for piece in answer.text()]))

        async with trio.open_nursery() as nursery:
            for _ in range(100):
                nursery.start_soon(ask)

        assert len(peer.requests) == 1
    assert texts == ["Hello there"] * 100


async def test_the_leaders_cancel_hands_over() -> None:
    async with runtime([sse(*HELLO, end=False), pause(0.2), sse_rest()]) as (rt, peer):
        leader = await rt.submit(chat(), stream=True)
        follower = await rt.submit(chat(), stream=True)
        with leader.follow() as mine, follower.follow() as theirs:
            await mine.next()
            leader.cancel("the client left")
            while await theirs.next():
                pass

        assert isinstance(leader.log.end, Failed)
        assert leader.log.end.failure.kind is FailureKind.CANCELLED
        assert follower.log.end is not None
        assert follower.log.end.response is not None
        assert follower.log.end.response.content == "Hello there, you"
        assert len(peer.requests) == 1
        assert peer.aborted == 0


def sse_rest() -> Step:
    async def step(call: Peers) -> None:
        for event in (word(", you"), *END):
            data = f"data: {event}\n\n".encode()
            await call.send(b"%x\r\n%b\r\n" % (len(data), data))
        await call.send(b"0\r\n\r\n")

    return step


async def test_the_upstream_call_ends_when_the_last_follower_has_gone() -> None:
    async with runtime([sse(*HELLO, end=False), stall()]) as (rt, peer):
        runs = [await rt.submit(chat(), stream=True) for _ in range(3)]
        followers = [run.follow() for run in runs]
        await followers[0].next()
        for follower in followers:
            assert peer.aborted == 0
            follower.close()
        with trio.fail_after(1):
            await peer.until(lambda: peer.aborted == 1)


async def test_another_callers_equal_request_does_not_get_this_callers_answer() -> None:
    async with runtime(reply(whole("for a"), headers=JSON), reply(whole("for b"), headers=JSON)) as (rt, peer):
        assert (await rt.send(chat("a"))).content == "for a"
        assert (await rt.send(chat("b"))).content == "for b"
        assert (await rt.send(chat("a"))).content == "for a"

        assert len(peer.requests) == 2


async def test_nor_when_both_are_in_flight() -> None:
    async with runtime([pause(0.05), reply(whole(), headers=JSON)]) as (rt, peer):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(rt.send, chat("a"))
            nursery.start_soon(rt.send, chat("b"))

        assert len(peer.requests) == 2


async def test_what_is_not_whole_is_not_stored() -> None:
    cut = reply(whole("cut", finish="length"), headers=JSON)
    async with runtime(cut, sse(*HELLO), sse(*HELLO, *END)) as (rt, peer):
        assert (await rt.send(chat())).content == "cut"
        async with rt.stream_request(chat(attempts={"max": 1})) as broken:
            with pytest.raises(llm_runtime.LLMClientError):
                async for _ in broken:
                    pass
        async with rt.stream_request(chat()) as answer:
            assert "".join([text async for text in answer.text()]) == "Hello there"

        assert len(peer.requests) == 3


async def test_what_another_model_of_the_same_provider_answered_is_not_stored() -> None:
    async with Peer(reply(b"{}", status=404, headers=JSON), reply(whole("of n"), headers=JSON)) as peer:
        provider = Provider(kind=LLMProvider.OPENAI_COMPATIBLE, base_url=f"{peer.url}/v1", models=("m", "n"))
        async with llm_runtime.open_runtime(Config(providers={"fake": provider})) as rt:
            for _ in range(2):
                two = chat(candidates=("fake/m", "fake/n"), strategy="fallback", cache="read")
                answer = await rt.send(two)
                assert (answer.content, answer.decision["cache"]) == ("of n", "miss")


async def test_a_flight_that_crashes_fails_its_followers_and_nobody_hangs(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with runtime([pause(0.1), reply(whole(), headers=JSON)]) as (rt, _):
        kinds: list[FailureKind] = []

        async def ask() -> None:
            try:
                await rt.send(chat())
            except llm_runtime.LLMClientError as exc:
                kinds.append(exc.failure.kind)

        def broken(*_: object, **__: object) -> None:
            raise RuntimeError("a bug of ours")

        monkeypatch.setattr("llm_actors.orchestrator.attempt_loop.AttemptLoop._rank", broken)
        with trio.fail_after(2):
            async with trio.open_nursery() as nursery:
                for _ in range(3):
                    nursery.start_soon(ask)

    assert kinds == [FailureKind.INTERNAL] * 3


def vectors(*values: float) -> Script:
    data = [{"object": "embedding", "index": i, "embedding": [value, 0.5]} for i, value in enumerate(values)]
    usage = {"prompt_tokens": len(values), "total_tokens": len(values)}
    body = msgspec.json.encode({"object": "list", "data": data, "model": "m", "usage": usage})
    return reply(body, headers=JSON)


def numbers(answer: LLMResponse) -> list[list[float]]:
    return [embedding.tolist() for embedding in answer.embeddings]


async def test_embeddings_are_cached_per_input() -> None:
    async with runtime(vectors(1.0, 2.0), vectors(3.0)) as (rt, peer):
        first = await rt.send(EmbeddingRequest(inputs=("a", "b")))
        second = await rt.send(EmbeddingRequest(inputs=("b", "c", "a")))
        third = await rt.send(EmbeddingRequest(inputs=("c", "a")))

        assert len(peer.requests) == 2
        assert msgspec.json.decode(peer.requests[1].body)["input"] == ["c"]
    assert numbers(first) == [[1.0, 0.5], [2.0, 0.5]]
    assert numbers(second) == [[2.0, 0.5], [3.0, 0.5], [1.0, 0.5]]
    assert numbers(third) == [[3.0, 0.5], [1.0, 0.5]]
    assert third.decision["cache"] == "hit"


async def test_a_cached_and_limited_request_costs_at_most_four_actor_calls(monkeypatch: pytest.MonkeyPatch) -> None:
    """submit, cache, limiter, provider."""
    calls: list[str] = []
    casts: list[str] = []
    real, real_cast = Ref.call, Ref.cast

    def counted_cast(self: Ref[ActorMessage], message: Cast) -> None:
        casts.append(type(message).__name__)
        real_cast(self, message)

    monkeypatch.setattr(Ref, "cast", counted_cast)

    async def counted(self: Ref[ActorMessage], message: Call[object], **more: Any) -> object:
        calls.append(type(message).__name__)
        return await real(self, message, **more)

    monkeypatch.setattr(Ref, "call", counted)
    async with Peer(reply(whole(), headers=JSON)) as peer:
        provider = Provider(
            kind=LLMProvider.OPENAI_COMPATIBLE,
            base_url=f"{peer.url}/v1",
            models=("m",),
            limits=Limits(requests_per_minute=100, tokens_per_minute=100_000),
        )
        config = Config(providers={"fake": provider}, cache=CachePolicy(enabled=True))
        async with llm_runtime.open_runtime(config) as rt:
            with trio.fail_after(5):  # a call without a deadline is given one first, by a call within it
                await rt.send(chat())
                first, calls[:] = list(calls), []
                await rt.send(chat())

    assert first == ["Accept", "Lookup", "Reserve", "Generate"]
    assert "Store" in casts
    assert "Release" not in casts, "no other process waits for it"
    assert calls == ["Accept"]  # what is in memory is read there


@pytest.mark.parametrize("steps", range(1, 13))
async def test_who_comes_while_a_deserted_flight_ends_does_not_end_with_it(steps: int) -> None:
    """Before the first step the flight is not deserted yet: who comes then takes the leader's place."""
    async with runtime([sse(*HELLO, end=False), stall()], sse(*HELLO, *END)) as (rt, _):
        leader = await rt.submit(chat(), stream=True)
        with leader.follow() as mine:
            await mine.next()
        for _ in range(steps):
            await trio.lowlevel.cancel_shielded_checkpoint()
        with trio.fail_after(2):
            async with rt.stream_request(chat()) as answer:
                assert "".join([piece async for piece in answer.text()]) == "Hello there"
