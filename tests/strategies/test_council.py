"""``council``: drafts, revisions, a chair."""

from __future__ import annotations

from typing import Any

import pytest
from trio.testing import MockClock

from support.attempts import stall, status, tokens, world
from support.panels import ask, bodies, members, prompts, saying, spent


async def test_members_see_the_others_drafts_without_names_and_the_chair_streams(autojump_clock: MockClock) -> None:
    scripts: dict[str, Any] = {
        "a": [saying("draft of a"), saying("revised a"), saying("the ", "answer")],
        "b": [saying("draft of b"), saying("revised b")],
        "c": [saying("draft of c"), saying("revised c")],
    }
    async with world(**scripts) as w:
        asked = await ask(w, strategy="council", synthesiser="a/m-a")

        assert asked.text == "the answer"
        assert [each.content for each in asked.response.members] == ["revised a", "revised b", "revised c"]
        first, revision = prompts(w, "b")
        assert first == "What is it?"
        assert "<draft>\ndraft of b\n</draft>" in revision
        assert '<answer name="A">\ndraft of a\n</answer>' in revision
        assert '<answer name="B">\ndraft of c\n</answer>' in revision
        chair = prompts(w, "a")[2]
        assert all(f"revised {name}" in chair for name in "abc")
        assert not any(f"{name}/m-{name}" in text for name in "abc" for text in (revision, chair))


async def test_every_call_of_every_round_is_in_the_books(autojump_clock: MockClock) -> None:
    async with world(a=[saying("x")], b=[saying("y")]) as w:
        asked = await ask(w, strategy="council", rounds=2)

        assert [(each["request_id"], each["round"]) for each in asked.decision["members"]] == [
            ("req_1_a", 0),
            ("req_1_b", 0),
            ("req_1_a_2", 1),
            ("req_1_b_2", 1),
            ("req_1_a_3", 2),
            ("req_1_b_3", 2),
        ]
        assert [each["contributed"] for each in asked.decision["members"]] == [False] * 4 + [True] * 2
        assert w.calls == 7
        assert asked.response.usage is not None
        usage = asked.response.usage
        assert (usage.input_tokens, usage.output_tokens) == spent([tokens("a")] * 4 + [tokens("b")] * 3)


async def test_rounds_are_bounded_and_none_is_a_panel(autojump_clock: MockClock) -> None:
    async with world(a=[saying("x")], b=[saying("y")]) as w:
        await ask(w, strategy="council", rounds=0)

        assert w.calls == 3


async def test_who_fails_to_revise_is_in_with_the_draft(autojump_clock: MockClock) -> None:
    async with world(a=[saying("x"), saying("x2"), saying("made")], b=[saying("y"), status(401)]) as w:
        asked = await ask(w, strategy="council")

    assert asked.response.content == "made"
    assert [each.content for each in asked.response.members] == ["x2", "y"]


async def test_a_member_that_hangs_in_a_round_does_not_hold_the_council_up(autojump_clock: MockClock) -> None:
    async with world(a=[saying("x"), saying("x2"), saying("made")], b=[saying("y"), stall()]) as w:
        asked = await ask(w, strategy="council", deadline_s=10)

        assert asked.response.content == "made"
        assert asked.took < 10
        assert w["b"].aborted == 1


async def test_one_draft_is_the_answer(autojump_clock: MockClock) -> None:
    async with world(a=[status(401)], b=[saying("y")]) as w:
        asked = await ask(w, strategy="council")

        assert asked.response.content == "y"
        assert w["b"].calls == 1


async def test_a_council_of_one_is_a_single_request(autojump_clock: MockClock) -> None:
    async with world(a=[saying("x")]) as w:
        asked = await ask(w, strategy="council")

        assert asked.response.content == "x"
        assert len(bodies(w, "a")) == 1


async def test_nobody_drafting_is_a_failure(autojump_clock: MockClock) -> None:
    async with world(a=[status(401)], b=[status(401)]) as w:
        asked = await ask(w, strategy="council")

    assert asked.failure is not None
    assert "none of 2 members answered" in asked.failure.message
    assert members(asked)["a/m-a"]["outcome"] == "auth"


@pytest.mark.parametrize("quorum", [1, 2])
async def test_the_quorum_holds_in_every_round(autojump_clock: MockClock, quorum: int) -> None:
    late = [saying("late", late=5)]
    async with world(a=[saying("x")], b=[saying("y")], c=late) as w:
        asked = await ask(w, strategy="council", quorum=quorum, synthesiser="longest")

    assert asked.took == pytest.approx(0, abs=0.1)
    assert "late" not in [each.content for each in asked.response.members]
