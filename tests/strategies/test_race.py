"""``race``: the first whole answer wins."""

from __future__ import annotations

import pytest
import trio
from trio.testing import MockClock

from llm_actors.orchestrator import accept
from llm_actors.run import Run
from llm_protocol.embedding import Embedding
from llm_protocol.failures import FailureKind
from llm_protocol.policy import Policy
from llm_protocol.requests import EmbeddingRequest
from support.attempts import said, stall, status, world
from support.panels import ask, outcomes, saying
from support.peer import Call, reply
from support.upstream import JSON


@pytest.mark.parametrize("stream", [True, False])
async def test_the_first_whole_answer_wins_and_the_others_are_cancelled(
    autojump_clock: MockClock, stream: bool
) -> None:
    async with world(a=[saying("slow", late=4)], b=[saying("fa", "st", late=1)], c=[stall()]) as w:
        asked = await ask(w, strategy="race", stream=stream)

        assert asked.response.content == "fast"
        assert asked.response.provider == "b"
        assert asked.took == pytest.approx(1)
        assert outcomes(asked) == {"a/m-a": "cancelled", "b/m-b": "ok", "c/m-c": "cancelled"}
        assert (w["a"].aborted, w["c"].aborted) == (1, 1)


async def test_who_begins_first_does_not_win_who_ends_first_does(autojump_clock: MockClock) -> None:
    async with world(a=[saying(*"abcdef", gap=1)], b=[saying("whole", late=3)]) as w:
        asked = await ask(w, strategy="race")

    assert asked.text == "whole"


async def test_who_fails_first_has_not_won(autojump_clock: MockClock) -> None:
    async with world(a=[status(401)], b=[saying("two", late=2)]) as w:
        asked = await ask(w, strategy="race")

    assert asked.response.content == "two"
    assert outcomes(asked) == {"a/m-a": "auth", "b/m-b": "ok"}


async def test_a_race_that_nobody_finishes_ends_in_time(autojump_clock: MockClock) -> None:
    async with world(a=[stall()], b=[stall()]) as w:
        asked = await ask(w, strategy="race", deadline_s=3)

    assert asked.failure is not None
    assert asked.failure.kind is FailureKind.DEADLINE
    assert asked.took <= 3


async def test_vectors_can_be_raced_for(autojump_clock: MockClock) -> None:
    async def vectors(call: Call) -> None:
        data = b'{"data":[{"index":0,"embedding":[1.0,2.0]}],"model":"%b","usage":{"prompt_tokens":3,"total_tokens":3}}'
        await reply(data % said(call)["model"].encode(), headers=JSON)(call)

    async with world(a=[stall()], b=[vectors]) as w:
        policy = Policy(strategy="race", members=w.candidates)
        run = Run(EmbeddingRequest(inputs=("x",), policy=policy), stream=False)
        await accept(w.tree.orchestrator, run)
        asked = await w.see(run, trio.current_time())

    assert asked.response.embeddings == (Embedding.of((1.0, 2.0)),)
    assert asked.response.provider == "b"
