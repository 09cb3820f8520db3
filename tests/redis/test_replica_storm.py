"""Any replica answers for any response: the short form of ``bin/bench replicas``."""

from __future__ import annotations

from contextlib import AsyncExitStack

import pytest

from llm_actors.shared_responses import SharedResponses
from support.redis import redis
from support.replicating import ReplicaStorm, repeating
from support.server import open_server
from support.sharing import PATIENT


@pytest.mark.parametrize("seed", [1, 2])
async def test_every_answer_is_right_whichever_replica_is_asked(seed: int) -> None:
    with redis() as server:
        async with AsyncExitStack() as stack:
            replicas = [
                await stack.enter_async_context(
                    open_server(repeating, shared=SharedResponses(server.server(timeout_s=PATIENT), ttl_s=1000.0))
                )
                for _ in range(3)
            ]
            tally = await ReplicaStorm(replicas, 400, seed).run()
    assert tally.problems == []
    assert min(tally.asked[each] for each in ("retrieve", "resume", "cancel", "continue", "delete")) > 3, tally.asked
