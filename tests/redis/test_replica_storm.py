"""Any replica answers for any response: the short form of ``bin/bench replicas``."""

from __future__ import annotations

from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from llm_actors.shared_responses import SharedResponses
from support.killable import ask, killable_daemon, text_in
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


async def test_what_a_daemon_told_as_finished_another_reads_after_it_was_killed(tmp_path: Path) -> None:
    """Two processes with nothing in common but Redis."""
    with redis() as server:
        more = f'[redis]\nurl = "redis://127.0.0.1:{server.port}"\ntimeout_s = 2.0\n'
        async with open_server(repeating) as upstream, AsyncExitStack() as stack:
            daemons = []
            for name in "one", "other":
                (folder := tmp_path / name).mkdir()
                daemon = killable_daemon(upstream, folder, more, store="redis = true")
                daemons.append(await stack.enter_async_context(daemon))
            one, other = daemons
            whole = (await one.request("POST", "/v1/responses", ask("say one two three"))).json
            await one.kill()
            assert (await other.request("GET", f"/v1/responses/{whole['id']}")).json == whole
            continued = ask("more", previous_response_id=whole["id"])
            told = (await other.request("POST", "/v1/responses", continued)).json
            assert text_in(told) == "say one two three / say one two three  / more "
