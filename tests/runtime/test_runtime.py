"""The runtime as a program embeds it: the whole tree, real sockets, providers that misbehave by script."""

from __future__ import annotations

import gc
import logging
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from importlib.metadata import version
from typing import Any, Never

import msgspec
import pytest
import trio
import trio.testing

import llm_runtime
from llm_actors.kernel import ChildSpec, StartFailed, TreeNode, task_child
from llm_protocol.content import Message
from llm_protocol.errors import BadRequestError, ShuttingDownError
from llm_protocol.events import TextDelta
from llm_protocol.failures import FailureKind
from llm_protocol.policy import Attempts, Policy, Timeouts
from llm_protocol.requests import ChatRequest, LLMProvider
from llm_protocol.secret import Secret
from llm_runtime.config import Config, Limits, Provider
from llm_runtime.options import as_messages
from llm_runtime.stream import outcome
from support.peer import Peer, Script, reply, sse, stall
from support.upstream import CANARY, END, HELLO, JSON, chunk, whole, word


def config(models: tuple[str, ...] = ("m",), **peers: Peer) -> Config:
    return Config(
        providers={
            name: Provider(
                kind=LLMProvider.OPENAI_COMPATIBLE,
                base_url=f"{peer.url}/v1",
                api_key=Secret(CANARY),
                models=models,
                limits=Limits(max_concurrency=4),
                timeouts=Timeouts(connect=2, first_token=5, idle=5, total=20),
            )
            for name, peer in peers.items()
        }
    )


@asynccontextmanager
async def running(*scripts: Script) -> AsyncIterator[tuple[llm_runtime.Runtime, Peer]]:
    """A runtime with one provider. Afterwards nothing is open at it."""
    async with Peer(*scripts) as peer:
        async with llm_runtime.open_runtime(config(fake=peer)) as rt:
            yield rt, peer
        with trio.fail_after(2):
            await peer.until(lambda: peer.open_connections == 0)


async def test_chat_gives_the_whole_answer_with_everything_it_promises() -> None:
    async with running(reply(whole(), headers=JSON)) as (rt, _):
        response = await rt.chat("Say hello.", temperature=0.5, metadata={"job": 7})

    assert response.content == "Hello there"
    assert (response.provider, response.model) == ("fake", "m")
    assert response.finish_reason is llm_runtime.FinishReason.STOP
    assert response.usage is not None
    assert response.usage.total_tokens == 7
    assert response.request_id.startswith("req_")
    assert response.response_id.startswith("resp_")
    assert response.processing_time_ms > 0


async def test_a_request_that_a_server_accepts_while_it_starts_is_answered() -> None:
    """A client may have connected to the socket before the daemon started, as with workers and under systemd."""
    contents: list[str] = []
    async with Peer(reply(whole(), headers=JSON)) as peer:

        def server(runtime: llm_runtime.Runtime) -> list[ChildSpec[Never]]:
            async def serve(task_status: trio.TaskStatus[None]) -> None:
                contents.append((await runtime.chat("Say hello.")).content)
                task_status.started()
                await trio.sleep_forever()

            return [task_child("server", serve)]

        async with llm_runtime.Runtime(config(fake=peer), servers=server).running():
            pass
    assert contents == ["Hello there"]


async def test_a_runtime_that_did_not_start_says_so() -> None:
    async def fail(task_status: trio.TaskStatus[None]) -> None:
        raise OSError("the port is in use")

    async with Peer() as peer:
        runtime = llm_runtime.Runtime(config(fake=peer), servers=lambda _: [task_child("server", fail)])
        with pytest.RaisesGroup(StartFailed, flatten_subgroups=True):
            async with runtime.running():
                pytest.fail("it cannot have started")
        with pytest.raises(ShuttingDownError, match="is not open"):
            await runtime.chat("Say hello.")


async def test_complete_continues_a_text() -> None:
    async with running(reply(whole("the end."), headers=JSON)) as (rt, peer):
        response = await rt.complete("It was ", max_output_tokens=5)

    assert response.content == "the end."
    assert b"It was " in peer.requests[0].body


async def test_a_stream_gives_text_as_it_is_made_and_then_the_response() -> None:
    async with running(sse(*HELLO, *END, gap=0.01)) as (rt, _), rt.stream("Say hello.") as answer:
        pieces = [text async for text in answer.text()]

        assert pieces == ["Hello", " there"]
        assert answer.response.content == "Hello there"


async def test_a_stream_that_breaks_raises_with_the_text_so_far() -> None:
    async with running(sse(*HELLO)) as (rt, _), rt.stream("Say hello.") as answer:
        with pytest.raises(llm_runtime.LLMClientError) as caught:
            async for _ in answer.text():
                pass

    assert caught.value.failure.kind is FailureKind.TRUNCATED
    assert caught.value.partial is not None
    assert caught.value.partial.content == "Hello there"
    assert caught.value.partial.finish_reason is None


async def test_leaving_a_stream_early_ends_the_call_at_the_vendor() -> None:
    """By scope, not by garbage collection."""
    gc.disable()
    try:
        async with running([sse(*HELLO, end=False), stall()]) as (rt, peer):
            async with rt.stream("Say hello.") as answer:
                async for event in answer:
                    if isinstance(event, TextDelta):
                        break
            with trio.fail_after(1):
                await peer.until(lambda: peer.aborted == 1 and peer.open_connections == 0)
    finally:
        gc.enable()


async def test_cancelling_a_call_ends_it_at_the_vendor() -> None:
    async with running(stall()) as (rt, peer):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(rt.chat, "Say hello.")
            await peer.until(lambda: peer.open_requests == 1)
            nursery.cancel_scope.cancel()
        with trio.fail_after(1):
            await peer.until(lambda: peer.aborted == 1)


async def test_the_deadline_of_the_request_ends_it() -> None:
    async with running(stall()) as (rt, _):
        with pytest.raises(llm_runtime.LLMClientError) as caught:
            await rt.chat("Say hello.", deadline_s=0.1)

    assert caught.value.failure.kind is FailureKind.DEADLINE
    assert "0.1 s" in caught.value.failure.message


@pytest.mark.parametrize("left", [0, -1.5])
async def test_who_has_no_time_left_is_told_at_once(left: float) -> None:
    async with running(reply(whole(), headers=JSON)) as (rt, peer):
        with pytest.raises(llm_runtime.LLMClientError) as caught:
            await rt.chat("Say hello.", deadline_s=left)
        assert peer.requests == []

    assert caught.value.failure.kind is FailureKind.DEADLINE


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (
            {"policy": Policy(strategy="pannel")},
            'policy.strategy: not one of single, fallback, race, panel, council, best_of, vote; did you mean "panel"?',
        ),
        ({"policy": Policy(priority=99)}, "policy.priority"),
        ({"policy": Policy(members=0)}, "policy.members"),
        ({"deadline_s": float("nan")}, "deadline_s must be a number of seconds"),
        ({"deadline_s": float("inf")}, "deadline_s must be a number of seconds"),
        ({"deadline_s": "1"}, "deadline_s: expected a number, got text"),
        ({"stop": "END"}, "stop: expected a list, got text"),
        ({"tool_choice": "required"}, "tool_choice: expected an object, got text"),
        ({"tools": [{"type": "function"}]}, "tools[0].name is missing"),
    ],
)
async def test_a_programs_mistake_is_told_as_a_clients_is(options: Any, said: str) -> None:
    async with running(reply(whole(), headers=JSON)) as (rt, peer):
        with pytest.raises(BadRequestError) as caught:
            await rt.chat("Say hello.", **options)
        assert peer.requests == []

    assert said in str(caught.value)


async def test_an_option_there_is_not_is_told_with_the_one_that_was_meant() -> None:
    async with running(reply(whole(), headers=JSON)) as (rt, _):
        with pytest.raises(TypeError, match=r"no option 'max_tokens'; did you mean \"max_output_tokens\""):
            await rt.chat("Say hello.", max_tokens=5)  # type: ignore[call-overload]


async def test_a_message_whose_content_is_a_text_is_refused_before_it_crashes_anything() -> None:
    async with running(reply(whole(), headers=JSON)) as (rt, peer):
        with pytest.raises(BadRequestError, match=r"messages\[0\].content is not a tuple of parts.*Message.of"):
            await rt.chat([Message("user", "Say hello.")])  # type: ignore[arg-type]
        assert peer.requests == []


async def test_lists_do_where_tuples_are_meant() -> None:
    async with running(reply(whole(), headers=JSON)) as (rt, peer):
        await rt.chat("Say hello.", tools=[llm_runtime.Tool(name="look")], stop=["END"], temperature=None)  # type: ignore[call-overload]

    body = msgspec.json.decode(peer.requests[0].body)
    assert (body["stop"], body["tools"][0]["function"]["name"]) == (["END"], "look")


async def test_one_member_may_be_named_by_a_text_alone() -> None:
    async with running(reply(whole(), headers=JSON)) as (rt, _):
        [answer] = await rt.collaborate("Say hello.", members="fake/m")
    assert answer.content == "Hello there"


async def test_a_policy_may_be_written_with_lists() -> None:
    async with running(reply(whole(), headers=JSON)) as (rt, _):
        policy = Policy(strategy="vote", members=["fake/m", "fake/m"])  # type: ignore[arg-type]
        assert (await rt.chat("Say hello.", policy=policy)).content == "Hello there"


async def test_an_unknown_model_is_refused_before_anything_is_sent() -> None:
    async with running() as (rt, peer):
        with pytest.raises(llm_runtime.LLMClientError, match="there is no model 'nope'"):
            await rt.chat("Say hello.", model="nope")

        assert not peer.requests


async def test_one_failing_provider_gives_an_empty_list_and_one_logged_error(caplog: pytest.LogCaptureFixture) -> None:
    """The client manager lists the models of all providers."""
    listing = b'{"object":"list","data":[{"id":"m1","object":"model"}]}'
    async with Peer(reply(listing, headers=JSON)) as good, Peer(reply(b"", status=500)) as bad:
        async with llm_runtime.open_runtime(config((), good=good, bad=bad)) as rt:
            with caplog.at_level(logging.ERROR):
                assert await rt.models() == {"good": ["m1"], "bad": []}
                assert await rt.models() == {"good": ["m1"], "bad": []}

    errors = [record.getMessage() for record in caplog.records if record.levelno >= logging.ERROR]
    assert len(errors) == 1
    assert "bad" in errors[0]
    assert CANARY not in caplog.text


async def test_a_bare_name_is_found_although_the_lists_are_not_in_yet() -> None:
    listing = b'{"object":"list","data":[{"id":"m1","object":"model"}]}'
    async with Peer(reply(listing, headers=JSON), reply(listing, headers=JSON), reply(whole(), headers=JSON)) as peer:
        async with llm_runtime.open_runtime(config((), fake=peer)) as rt:
            assert (await rt.chat("Say hello.", model="m1")).content == "Hello there"


async def test_completion_is_logged_with_id_and_provider_and_no_prompt(caplog: pytest.LogCaptureFixture) -> None:
    """And no key at any level."""
    caplog.set_level(logging.DEBUG)
    async with running(reply(whole("SECRET-ANSWER"), headers=JSON)) as (rt, _):
        response = await rt.chat("SECRET-PROMPT")

    assert f"{response.request_id} completed by fake/m" in caplog.text
    assert not {"SECRET-PROMPT", "SECRET-ANSWER", CANARY} & {word for word in caplog.text.split() if word}
    assert "SECRET" not in caplog.text
    assert CANARY not in caplog.text


async def test_two_runtimes_in_one_process_share_nothing() -> None:
    async with AsyncExitStack() as stack:
        peers = [await stack.enter_async_context(Peer(reply(whole(name), headers=JSON))) for name in ("one", "two")]
        runtimes = [await stack.enter_async_context(llm_runtime.open_runtime(config(fake=peer))) for peer in peers]
        answers = [(await rt.chat("hi")).content for rt in runtimes]

    assert answers == ["one", "two"]


async def test_leaving_lets_a_request_in_hand_finish() -> None:
    async with Peer(sse(*HELLO, *END, gap=0.05)) as peer:
        pieces: list[str] = []
        async with trio.open_nursery() as nursery, llm_runtime.open_runtime(config(fake=peer)) as rt:

            async def listen(task_status: trio.TaskStatus[None]) -> None:
                async with rt.stream("Say hello.") as answer:
                    task_status.started()
                    pieces.extend([text async for text in answer.text()])

            await nursery.start(listen)

        assert pieces == ["Hello", " there"]


async def test_a_closed_runtime_says_so() -> None:
    async with running() as (rt, _):
        kept = rt
    with pytest.raises(llm_runtime.LLMClientError) as caught:
        await kept.chat("hi")

    assert caught.value.failure.kind is FailureKind.SHUTTING_DOWN


async def test_the_tree_shows_every_actor() -> None:
    async with running() as (rt, _):
        names = {node.name for node in _all(rt.tree())}

    assert names == {
        "llm-runtime",
        "core",
        "limiter",
        "selector",
        "cache",
        "providers",
        "fake",
        "provider",
        "catalog",
        "orchestrator",
    }


def _all(node: TreeNode) -> list[TreeNode]:
    return [node, *(found for child in node.children for found in _all(child))]


async def test_messages_may_be_plain_mappings_and_what_is_neither_is_refused() -> None:
    async with running(reply(whole(), headers=JSON)) as (rt, peer):
        await rt.chat([{"role": "system", "content": "Be brief."}, {"role": "user", "content": "hi"}])
        assert b'{"role":"system","content":"Be brief."}' in peer.requests[0].body
        with pytest.raises(llm_runtime.LLMClientError, match=r"messages\[0\] is neither"):
            await rt.chat([{"role": "robot", "content": "hi"}])


@pytest.mark.parametrize(
    ("messages", "told"),
    [
        (5, "messages is of type int: it must be a string, or a list of at least one message"),
        ({"role": "user", "content": "hi"}, "messages is of type dict"),
        ([], "messages is empty"),
        ([5], r"messages\[0\] is neither a Message nor"),
        (b"hi", r"messages\[0\] is neither a Message nor"),
    ],
)
def test_what_are_no_messages_is_told_as_a_bad_request(messages: Any, told: str) -> None:
    """By the name of the argument, before anybody is asked."""
    with pytest.raises(BadRequestError, match=told) as caught:
        as_messages(messages)
    assert (caught.value.failure.param or "").startswith("messages")


async def test_tool_calls_come_whole() -> None:
    call = {"index": 0, "id": "call_1", "type": "function", "function": {"name": "f", "arguments": '{"a":'}}
    more = {"index": 0, "function": {"arguments": "1}"}}
    script = sse(chunk({"tool_calls": [call]}), chunk({"tool_calls": [more]}), chunk(finish="tool_calls"), "[DONE]")
    async with running(script) as (rt, _), rt.stream("use f") as answer:
        async for _ in answer:
            pass
        (found,) = answer.response.tool_calls

    assert (found.id, found.name, found.parsed()) == ("call_1", "f", {"a": 1})


async def test_tool_arguments_cut_in_the_middle_are_never_handed_over() -> None:
    call = {"index": 0, "id": "call_1", "type": "function", "function": {"name": "f", "arguments": '{"a":'}}
    async with running(sse(word("Let me see"), chunk({"tool_calls": [call]}))) as (rt, _), rt.stream("use f") as answer:
        with pytest.raises(llm_runtime.LLMClientError) as caught:
            async for _ in answer:
                pass

    assert caught.value.partial is not None
    assert caught.value.partial.tool_calls == ()
    assert caught.value.partial.content == "Let me see"


@pytest.mark.parametrize("stream", [False, True])
async def test_an_answer_that_the_vendor_ends_with_an_error_is_a_failed_attempt(stream: bool) -> None:
    """Gemini's malformed calls, and what it has no word for, come as the regular end of an answer without content."""

    def said(**candidate: object) -> Script:
        body = msgspec.json.encode({"candidates": [{"index": 0, **candidate}], "modelVersion": "g"}).decode()
        return sse(body) if stream else reply(body.encode(), headers=JSON)

    good = said(content={"role": "model", "parts": [{"text": "Hello"}]}, finishReason="STOP")
    async with Peer(said(finishReason="MALFORMED_FUNCTION_CALL"), good) as peer:
        provider = Provider(kind=LLMProvider.GEMINI, base_url=peer.url, api_key=Secret(CANARY), models=("g",))
        configured = Config(providers={"ge": provider}, attempts=Attempts(wait_min_s=0.01, wait_max_s=0.01))
        async with llm_runtime.open_runtime(configured) as rt:
            run = await rt.submit(ChatRequest(messages=(Message.of("user", "hi"),)), stream=stream)
            with run.follow() as follower:
                while await follower.next():
                    pass
    answer = outcome(run)
    first, second = answer.decision["attempts"]

    assert answer.content == "Hello"
    assert (first["outcome"], second["outcome"]) == ("server_error", "ok")
    assert "the vendor ended its response with MALFORMED_FUNCTION_CALL" in first["error"]


async def test_cost_calculator_an_unknown_price_is_none_and_said_once(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    async with running(reply(whole(), headers=JSON)) as (rt, _):
        assert [(await rt.chat("hi")).cost for _ in range(3)] == [None, None, None]

    assert caplog.text.count("the price of fake/m is unknown") == 1


async def test_cost_calculator_a_name_that_only_the_vendor_knows_does_not_cost_the_price() -> None:
    """It was asked by a name that has one; answer and attempt say the same."""
    async with Peer(reply(whole().replace(b'"m"', b'"in-house-snapshot"'), headers=JSON)) as peer:
        provider = Provider(
            kind=LLMProvider.OPENAI, base_url=f"{peer.url}/v1", api_key=Secret(CANARY), models=("gpt-4o-mini",)
        )
        async with llm_runtime.open_runtime(Config(providers={"o": provider})) as rt:
            response = await rt.chat("hi")

    assert response.model == "in-house-snapshot"
    assert response.cost is not None
    assert response.cost == response.decision["attempts"][0]["cost"]


async def test_model_selector_weighted_shares_decide_who_comes_first_how_often() -> None:
    async with Peer(reply(whole(), headers=JSON)) as one, Peer(reply(whole(), headers=JSON)) as two:
        policy = Policy(
            candidates=("one/m", "two/m"), select="weighted", shares={"one/m": 1_000_000, "two/m": 0.000_001}
        )
        route = Policy(candidates=("one/m", "two/m"), select="weighted", shares={"one/m": 1, "two/m": 9})
        configured = msgspec.structs.replace(config(one=one, two=two), routes={"spread": route})
        async with llm_runtime.open_runtime(configured) as rt:
            request = ChatRequest(messages=(Message.of("user", "hi"),), policy=policy)
            answers = [await rt.send(request) for _ in range(5)]

            explained = await rt.explain("spread")

    assert [answer.provider for answer in answers] == ["one"] * 5
    assert [(str(each.candidate), each.reason) for each in explained.choices] == [
        ("two/m", "drawn at random, its share is 90%"),
        ("one/m", "drawn at random, its share is 10%"),
    ]


def test_the_version_is_the_distributions() -> None:
    assert llm_runtime.__version__ == version("llm-runtime")


async def test_a_local_model_costs_nothing_and_an_unknown_price_is_not_zero() -> None:
    local = Provider(kind=LLMProvider.LOCAL, models=("smollm2",))
    other = Provider(
        kind=LLMProvider.OPENAI_COMPATIBLE, base_url="http://other.test/v1", api_key=Secret("k"), models=("x",)
    )
    async with llm_runtime.open_runtime(Config(providers={"local": local, "other": other})) as rt:
        rankings = [await rt.explain(name) for name in ("local/smollm2", "other/x")]
    assert [each.choices[0].figures.cost_usd for each in rankings] == [0.0, None]
