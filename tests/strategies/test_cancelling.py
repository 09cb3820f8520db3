"""Every strategy, cancelled at each of its steps: nothing is left, and every book is at zero."""

from __future__ import annotations

from typing import Any

import pytest
import trio

from llm_actors.orchestrator import accept
from llm_actors.run import Run
from llm_actors.testing import cancel_at_every_checkpoint
from llm_protocol.content import Message
from llm_protocol.errors import LLMClientError
from llm_protocol.policy import Policy
from llm_protocol.requests import ChatRequest
from support.attempts import world
from support.panels import saying

STRATEGIES: list[dict[str, Any]] = [
    {"strategy": "race"},
    {"strategy": "panel", "quorum": 1, "grace_s": 0.1, "max_tokens": 100_000, "stream_members": True},
    {"strategy": "council"},
    {"strategy": "best_of", "samples": 2, "judge": "a/m-a"},
    {"strategy": "vote"},
]


@pytest.mark.parametrize("how", STRATEGIES, ids=lambda how: how["strategy"])
def test_cancelled_at_every_checkpoint_nothing_is_left(how: dict[str, Any]) -> None:
    """The client is cancelled beside a tree that lives on; what it asked ends everywhere."""
    ended: list[bool] = []

    async def scenario(scope: trio.CancelScope) -> None:
        async with world(a=[saying("A")], b=[saying("b", late=0.2)]) as w:
            policy = Policy(members=w.candidates, **how)
            run = Run(ChatRequest(messages=(Message.of("user", "hi"),), policy=policy), stream=True)
            with scope:
                try:
                    await accept(w.tree.orchestrator, run)
                    with run.follow() as follower:
                        while await follower.next():
                            pass
                except LLMClientError:
                    pass
            await w.settled()
            ended.append(run.log.end is not None or not run.log.events)

    steps = cancel_at_every_checkpoint(scenario)

    assert steps > 50
    assert all(ended)
