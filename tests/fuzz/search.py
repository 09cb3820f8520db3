"""Search for faults by mutating the seeds, structure first, with nothing but the project's own dependencies.

    PYTHONPATH=tests .venv/bin/python -P -m fuzz.search [SECONDS] [TARGET ...]

It knows nothing of coverage (`fuzz.explore` does), so it needs the seeds to be good. Each different fault is printed
once, with the file its input is kept in.
"""

from __future__ import annotations

import random
import sys
import tempfile
import time
from hashlib import sha1
from pathlib import Path

from fuzz.all import TARGETS
from fuzz.faults import place
from fuzz.mutation import mutated
from fuzz.steps import MAX_BYTES, STEP_SECONDS, at_most
from fuzz.target import Target

SECONDS = 60
PATIENCE = 5
"""How many times longer a step may take, beside other processes."""
MOST_MUTATIONS = 6
"""Of one input, one upon the other."""


def search(target: Target, seconds: float, folder: Path, seed: int) -> tuple[int, dict[str, Path]]:
    """How many inputs were tried within ``seconds``, and the faults that were found, by their place."""
    chance = random.Random(seed)
    seeds = [*target.seeds(), *(path.read_bytes() for path in target.corpus())]
    faults: dict[str, Path] = {}
    tried, end = 0, time.monotonic() + seconds
    while time.monotonic() < end:
        data = chance.choice(seeds)
        prefix, body = data[: target.prefix], data[target.prefix :]
        if target.prefix and chance.random() < 0.2:
            prefix = bytes(chance.randrange(256) for _ in prefix)
        for _ in range(chance.randint(1, MOST_MUTATIONS)):
            body = mutated(body, chance)
        data = (prefix + body)[:MAX_BYTES]
        tried += 1
        try:
            with at_most(STEP_SECONDS * PATIENCE):
                target.check(data)
        except Exception as exc:
            where = place(exc)
            if where not in faults:
                faults[where] = folder / f"{target.name}-{sha1(where.encode()).hexdigest()[:12]}"
                faults[where].write_bytes(data)
                print(f"FAULT {target.name}: {where}\n      {faults[where]}", flush=True)
    return tried, faults


def main() -> None:
    seconds = float(sys.argv[1]) if len(sys.argv) > 1 else SECONDS
    names = sys.argv[2:] or list(TARGETS)
    folder = Path(tempfile.mkdtemp(prefix="fuzz-"))
    seed = random.SystemRandom().randrange(2**32)
    print(f"seed {seed}")
    for name in names:
        tried, faults = search(TARGETS[name], seconds / len(names), folder, seed)
        print(f"{name}: {tried} inputs, {len(faults)} faults", flush=True)


if __name__ == "__main__":
    main()
