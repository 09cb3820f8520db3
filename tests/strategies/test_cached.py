"""The cache and the strategies: a panel's answer is kept as any other, unless somebody failed who was to be in it."""

from __future__ import annotations

from typing import Any

import pytest
from trio.testing import MockClock, wait_all_tasks_blocked

from support.attempts import status, world
from support.panels import ask, saying


async def test_a_panels_answer_is_kept_with_its_members(autojump_clock: MockClock) -> None:
    async with world(a=[saying("one"), saying("both")], b=[saying("two")]) as w:
        first = await ask(w, strategy="panel", cache="read")
        await wait_all_tasks_blocked()
        again = await ask(w, strategy="panel", cache="read")

        assert first.response.content == again.response.content == "both"
        assert [each.content for each in again.response.members] == ["one", "two"]
        assert again.decision["cache"] == "hit"
        assert again.response.cost == 0
        assert w.calls == 3


@pytest.mark.parametrize(
    "how",
    [
        {"strategy": "panel", "synthesiser": "c/m-c", "members": ("a/m-a", "b/m-b")},
        {"strategy": "panel", "synthesiser": "first"},
        {"strategy": "best_of", "samples": 2, "judge": "c/m-c", "members": ("a/m-a", "b/m-b")},
    ],
)
async def test_what_somebody_failed_at_is_not_kept(autojump_clock: MockClock, how: dict[str, Any]) -> None:
    async with world(a=[saying("one")], b=[saying("two")], c=[status(401)]) as w:
        await ask(w, cache="read", **how)
        await wait_all_tasks_blocked()
        again = await ask(w, cache="read", **how)

    assert again.decision["cache"] == "miss"


@pytest.mark.parametrize("how", [{"judge": lambda _: 0}, {"share_knowledge": True}])
async def test_what_the_key_does_not_tell_is_not_kept(autojump_clock: MockClock, how: dict[str, Any]) -> None:
    """A function's choice, and what was answered before in the conversation."""
    async with world(a=[saying("one")], b=[saying("two")]) as w:
        for _ in range(2):
            conversation = {"conversation_id": "talk"}
            asked = await ask(w, strategy="best_of", samples=2, cache="read", metadata=conversation, **how)
            await wait_all_tasks_blocked()
            assert asked.decision["cache"] != "hit"
