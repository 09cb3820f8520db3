"""Reloads under load: does anything get lost while keys, providers, certificates and workers come and go?

    bin/bench reloads [RELOADS [SEED]]

Two workers with TLS, 50 streams at a time and 50 requests a second. Meanwhile 100 reloads by default, good and bad, by
request, signal and command: keys of callers and of the provider rotated, a provider added and removed, the certificate
renewed, and a worker killed. The suite has a short form of it (tests/workers/test_reload_storm.py).
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import trio

from support.reload_storm import ReloadStorm

RELOADS = 100
SEED = 14
PAUSE_SECONDS = 0.4
STREAMS = 50
RATE = 50


def main() -> int:
    """1 where something went wrong."""
    given = [int(each) for each in sys.argv[1:3]]
    reloads, seed = given[0] if given else RELOADS, given[1] if len(given) > 1 else SEED
    with tempfile.TemporaryDirectory() as folder:
        storm = ReloadStorm(Path(folder), streams=STREAMS, rate=RATE, reloads=reloads, pause=PAUSE_SECONDS, seed=seed)
        tally = trio.run(storm.run)
    print(f"reloads: {dict(tally.done)}")
    print(f"reloads: {dict(tally.asked)}; {tally.broken} broke off with the worker that was killed")
    mib = [each / 2**20 for each in tally.memory]
    third = max(1, len(mib) // 3)
    parts = [sum(part) / len(part) for at in range(3) if (part := mib[at * third : (at + 1) * third])]
    print(f"reloads: MiB of all processes, in thirds: {', '.join(f'{each:.0f}' for each in parts)}")
    for problem in tally.problems[:20]:
        print(problem)
    print(f"reloads: {len(tally.problems)} things went wrong")
    return 1 if tally.problems else 0
