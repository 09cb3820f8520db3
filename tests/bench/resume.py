"""Clients that are cut off at random bytes and resume: does each receive the exact stream?

    bin/bench resume [CUTS [SEED]]

There are 1,000 cuts by default, over HTTP and WebSocket, of background and other responses, which end complete,
truncated, failed or cancelled, with five followers each. The test suite has a short form
(tests/server/test_resuming.py), and a long storm ends with this.
"""

from __future__ import annotations

import sys

import trio

from support.resuming import resume_run

CUTS = 1_000
SEED = 19


def resume(cuts: int, seed: int) -> bool:
    """Print what came of it; whether all was exact."""
    tally = trio.run(resume_run, seed, cuts)
    print(f"resume: {tally.responses} responses ({dict(tally.ends)}; {dict(tally.modes)}), {tally.cuts} cuts")
    for problem in tally.problems[:20]:
        print(problem[:1_000])
    print(f"resume: {len(tally.problems)} readers did not have the stream exactly")
    return not tally.problems


def main() -> int:
    """1 where something is missing, doubled, changed or out of order."""
    given = [int(each) for each in sys.argv[1:3]]
    cuts, seed = given[0] if given else CUTS, given[1] if len(given) > 1 else SEED
    return 0 if resume(cuts, seed) else 1
