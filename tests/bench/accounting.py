"""10,000 random runs of all strategies, with cancellations, faults and budgets: do the reports match the bills?

    bin/bench accounting [RUNS [SEED]]

The clock is virtual, so this needs only CPU time. The test suite has a short form (tests/attempts/test_accounting.py).
"""

from __future__ import annotations

import sys

import trio
from trio.testing import MockClock

from support.accounting import random_runs

RUNS = 10_000
SEED = 13


def main() -> int:
    """Print what came of it; 1 where something does not balance."""
    given = [int(each) for each in sys.argv[1:3]]
    count, seed = given[0] if given else RUNS, given[1] if len(given) > 1 else SEED
    audit = trio.run(random_runs, seed, count, clock=MockClock(autojump_threshold=0))
    print(f"{audit.runs} runs, {audit.billed} tokens billed: {dict(audit.outcomes.most_common())}")
    print(f"told exactly: {audit.exact}; estimated: {audit.estimated}, off by at most {audit.worst:.1%}")
    for problem in audit.problems[:20]:
        print(problem)
    print(f"{len(audit.problems)} problems")
    return 1 if audit.problems else 0
