"""How several answers become one: the mission's `ResponseSynthesizer`."""

from __future__ import annotations

import json
from typing import Any

import pytest
import trio
from trio.testing import MockClock

from llm_actors.orchestrator import accept
from llm_actors.orchestrator.strategies.merging import as_json, merge_json
from llm_actors.orchestrator.strategies.prompts import ANSWER_CHARACTERS, about
from llm_actors.run import Run
from llm_protocol.content import Message
from llm_protocol.events import TextDelta
from llm_protocol.failures import FailureKind
from llm_protocol.policy import Policy
from llm_protocol.requests import ChatRequest, CodeRequest, CompletionRequest
from support.attempts import breaking, close, stall, status, world
from support.panels import ask, bodies, prompts, saying

TWO: dict[str, Any] = {"a": [saying("a long answer", late=2)], "b": [saying("short", late=1)]}


@pytest.mark.parametrize(
    ("way", "content"), [("longest", "a long answer"), ("first", "short"), ("none", "a long answer")]
)
@pytest.mark.parametrize("stream", [True, False])
async def test_response_synthesizer_without_a_model(
    autojump_clock: MockClock, way: str, content: str, stream: bool
) -> None:
    async with world(**TWO) as w:
        asked = await ask(w, strategy="panel", synthesiser=way, stream=stream)

        assert asked.text == asked.response.content == content
        assert asked.decision["synthesis"] == {"by": way, "outcome": "ok"}
        assert w.calls == 2


async def test_response_synthesizer_merges_json(autojump_clock: MockClock) -> None:
    one = '{"name": "Ann", "tags": ["x"], "age": 3}'
    two = '```json\n{"tags": ["x", "y"], "age": 4, "more": {"k": 1}}\n```'
    async with world(a=[saying(one)], b=[saying(two)], c=[saying('{"age": 4}')]) as w:
        asked = await ask(w, strategy="panel", synthesiser="merge_json")

    assert json.loads(asked.response.content) == {"name": "Ann", "tags": ["x", "y"], "age": 4, "more": {"k": 1}}


async def test_merged_json_that_exceeds_the_log_fails_the_request(autojump_clock: MockClock) -> None:
    members: dict[str, Any] = {name: [saying(json.dumps({name: "x" * 5_000}))] for name in "abcdef"}
    async with world(**members) as w:
        policy = Policy(strategy="panel", members=w.candidates, synthesiser="merge_json")
        request = ChatRequest(messages=(Message.of("user", "hi"),), policy=policy)
        run = Run(request, stream=False, log_limit_bytes=22_000)
        await accept(w.tree.orchestrator, run)
        asked = await w.see(run, trio.current_time())
        await w.settled()

    assert asked.failure is not None
    assert asked.failure.kind is FailureKind.LOG_LIMIT
    assert asked.decision["synthesis"] == {"by": "merge_json", "outcome": "failed"}


async def test_what_is_no_json_is_not_merged_and_the_record_says_so(autojump_clock: MockClock) -> None:
    async with world(**TWO) as w:
        asked = await ask(w, strategy="panel", synthesiser="merge_json")

    assert asked.response.content == "a long answer"
    assert asked.decision["synthesis"] == {
        "by": "merge_json",
        "outcome": "degraded",
        "why": "none of the answers is a JSON object",
        "answer": "a/m-a",
    }


async def test_response_synthesizer_follows_the_template_of_the_route(autojump_clock: MockClock) -> None:
    route = Policy(strategy="panel", members=("a/m-a", "b/m-b"), template="Q: {question} / {answers} / {braces}")
    async with world(a=[saying("one {own}"), saying("made")], b=[saying("two")], routes={"r": route}) as w:
        asked = await ask(w, "How {question}?", model="r")

        assert asked.response.content == "made"
        last = bodies(w, "a")[1]["messages"][-1]["content"]
        assert last.startswith("Q: How {question}? / <answer")
        assert "one {own}" in last, "nothing in an answer is taken for a place"
        assert last.endswith(" / {braces}")


async def test_the_synthesis_streams(autojump_clock: MockClock) -> None:
    async with world(a=[saying("one"), saying("a ", "b ", "c", gap=1)], b=[saying("two")]) as w:
        asked = await ask(w, strategy="panel")

    assert [event.text for event in asked.events if isinstance(event, TextDelta)] == ["a ", "b ", "c"]


@pytest.mark.parametrize("bad", [status(401), stall(), saying(), breaking(words=0)])
async def test_a_synthesiser_that_fails_before_a_word_degrades_to_the_best_answer(
    autojump_clock: MockClock, bad: object
) -> None:
    async with world(a=[saying("one")], b=[saying("two")], c=[bad]) as w:  # type: ignore[list-item]
        members = ("a/m-a", "b/m-b")
        asked = await ask(w, strategy="panel", members=members, synthesiser="c/m-c", deadline_s=10)

        assert asked.failure is None
        assert asked.response.content == "one"
        assert asked.decision["synthesis"]["outcome"] == "degraded"
        assert asked.took <= 10


async def test_the_best_answer_is_one_that_was_not_cut_short(autojump_clock: MockClock) -> None:
    async with world(a=[saying("cut", finish="length")], b=[saying("whole")], c=[status(401)]) as w:
        asked = await ask(w, strategy="panel", members=("a/m-a", "b/m-b"), synthesiser="c/m-c")

    assert asked.response.content == "whole"


@pytest.mark.parametrize(("stream", "mode"), [(False, "error"), (True, "buffer")])
async def test_a_synthesis_that_breaks_unseen_degrades_too(autojump_clock: MockClock, stream: bool, mode: str) -> None:
    broken = [breaking(), close()]
    async with world(a=[saying("one")], b=[saying("two")], c=[broken]) as w:
        how: dict[str, Any] = {"members": ("a/m-a", "b/m-b"), "synthesiser": "c/m-c", "on_broken_stream": mode}
        asked = await ask(w, strategy="panel", stream=stream, **how)

    assert asked.response.content == "one"
    assert asked.decision["synthesis"]["outcome"] == "degraded"


async def test_a_synthesis_that_breaks_after_words_were_delivered_is_an_error_with_them(
    autojump_clock: MockClock,
) -> None:
    """As everywhere: what was delivered is not replaced behind the reader's back. The members' answers are there."""
    async with world(a=[saying("one")], b=[saying("two")], c=[breaking(end=True)]) as w:
        asked = await ask(w, strategy="panel", members=("a/m-a", "b/m-b"), synthesiser="c/m-c")

    assert asked.failure is not None
    assert asked.failure.kind is FailureKind.TRUNCATED
    assert asked.failure.partial
    assert asked.response.content == "One two "
    assert [each.content for each in asked.response.members] == ["one", "two"]
    assert asked.decision["synthesis"]["outcome"] == "broken"


async def test_a_synthesiser_that_nobody_offers_degrades(autojump_clock: MockClock) -> None:
    async with world(**TWO) as w:
        asked = await ask(w, strategy="panel", synthesiser="longst")

    assert asked.response.content == "a long answer"
    assert "there is no model 'longst'" in asked.decision["synthesis"]["why"]


async def test_answers_are_shown_without_names(autojump_clock: MockClock) -> None:
    async with world(a=[saying("one")], b=[saying("two")], c=[saying("made")]) as w:
        await ask(w, strategy="panel", members=("a/m-a", "b/m-b"), synthesiser="c/m-c")

        shown = prompts(w, "c")[0]
        assert '<answer name="A">\none\n</answer>' in shown
        assert "m-a" not in shown


def test_what_is_shown_of_an_answer_is_bounded() -> None:
    request = about(ChatRequest(messages=(Message.of("user", "q"),)), "{answers}", ["x" * 1_000_000])
    assert isinstance(request, ChatRequest)
    assert len(request.messages[-1].text) < ANSWER_CHARACTERS + 100
    assert "[cut]" in request.messages[-1].text


def test_code_stays_code_and_a_completion_becomes_a_question() -> None:
    code = about(CodeRequest(instruction="sort", language="python"), "{answers}", ["x"])
    assert isinstance(code, CodeRequest)
    assert code.instruction.startswith("sort\n\n")
    assert code.language == "python"
    text = about(CompletionRequest(prompt="It was "), "{answers}", ["x"])
    assert isinstance(text, ChatRequest)
    assert "It was " in text.messages[0].text


@pytest.mark.parametrize(
    ("texts", "merged"),
    [
        (['{"a":1}', "no"], {"a": 1}),
        (['{"a":1}', '{"a":2}', '{"a":2}'], {"a": 2}),
        (['{"a":1}', '{"a":2}'], {"a": 1}),
        (['{"a":[1]}', '{"a":"x"}'], {"a": [1]}),
        (['{"a":{"b":[{"c":1}]}}', '{"a":{"b":[{"c":1},{"c":2}]}}'], {"a": {"b": [{"c": 1}, {"c": 2}]}}),
    ],
)
def test_merge_json_takes_what_most_say_and_the_earliest_at_a_tie(texts: list[str], merged: object) -> None:
    result = merge_json(texts)
    assert result is not None
    assert json.loads(result) == merged


@pytest.mark.parametrize("text", ["", "no", "[" * 100_000, "{", "```", "``````"])
def test_what_is_no_json_is_none(text: str) -> None:
    assert as_json(text) is None
    assert merge_json([text]) is None


def test_nesting_is_bounded() -> None:
    deep = '{"a":' * 500 + "1" + "}" * 500
    merged = merge_json([deep, deep])
    assert merged is not None
    assert json.loads(merged) == json.loads(deep)
