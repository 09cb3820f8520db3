"""Four daemons, one Redis, and no stickiness: is each answered right, whichever replica it asks?

    bin/bench replicas [REQUESTS [SEED]]

10,000 by default: stored responses are made, retrieved, resumed, continued, cancelled and deleted at random replicas.
The suite has a short form of it (tests/redis/test_replica_storm.py).
"""

from __future__ import annotations

import sys
import tempfile
import time
from contextlib import AsyncExitStack
from pathlib import Path

import trio

from support.killable import killable_daemon
from support.redis import redis
from support.replicating import ReplicaStorm, StormTally, repeating
from support.server import open_server

REPLICAS = 4
REQUESTS = 10_000
SEED = 24


async def storm(requests: int, seed: int) -> StormTally:
    """The requests to daemons that are processes of their own."""
    with redis() as server, tempfile.TemporaryDirectory() as folder:
        more = f'[redis]\nurl = "redis://127.0.0.1:{server.port}"\ntimeout_s = 2.0\n'
        async with open_server(repeating) as upstream, AsyncExitStack() as stack:
            replicas = []
            for number in range(REPLICAS):
                own = Path(folder) / str(number)
                own.mkdir()
                daemon = killable_daemon(upstream, own, more, store="redis = true")
                replicas.append(await stack.enter_async_context(daemon))
            return await ReplicaStorm(replicas, requests, seed).run()


def main() -> int:
    """1 where something was answered that is not so."""
    given = [int(each) for each in sys.argv[1:3]]
    requests, seed = given[0] if given else REQUESTS, given[1] if len(given) > 1 else SEED
    began = time.monotonic()
    tally = trio.run(storm, requests, seed)
    took = time.monotonic() - began
    print(f"replicas: {sum(tally.asked.values())} requests in {took:.0f} s: {dict(tally.asked)}")
    print(f"replicas: {dict(tally.statuses)}")
    for problem in tally.problems[:20]:
        print(problem)
    print(f"replicas: {len(tally.problems)} were answered wrong")
    return 1 if tally.problems else 0
