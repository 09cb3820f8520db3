"""Look for time that grows faster than the input: every seed with a piece of it repeated up to 64 KiB.

    cd tests && python -m fuzz.pump TARGET [SECONDS]

Each input that makes a step take more than `STEP_SECONDS` of CPU, three times, is written to a file and told, once for
each place. Needs no atheris.
"""

from __future__ import annotations

import random
import sys
import tempfile
import time
import traceback
from pathlib import Path

from fuzz.all import TARGETS
from fuzz.mutation import pumped
from fuzz.steps import MAX_BYTES, STEP_SECONDS, TooSlowError, at_most
from fuzz.target import Target

SECONDS = 60.0


def main() -> None:
    target = TARGETS[sys.argv[1]]
    until = time.monotonic() + (float(sys.argv[2]) if len(sys.argv) > 2 else SECONDS)
    folder = Path(tempfile.gettempdir(), "fuzz", target.name, "slow")
    folder.mkdir(parents=True, exist_ok=True)
    seeds = target.seeds()
    chance, known, tried = random.Random(time.time_ns()), set[str](), 0
    while time.monotonic() < until:
        seed = chance.choice(seeds)
        data = seed[: target.prefix] + pumped(seed[target.prefix :], MAX_BYTES - target.prefix, chance)
        tried += 1
        where = slow(target, data)
        if where and where not in known and all(slow(target, data) for _ in range(2)):
            known.add(where)
            file = folder / f"{len(known)}"
            file.write_bytes(data)
            print(f"SLOW {where}\n     {file}: {data[:60]!r}", flush=True)
    print(f"{tried} inputs, {len(known)} slow places")


def slow(target: Target, data: bytes) -> str:
    """The step that takes too long, if one does. What else is wrong is not looked for here."""
    try:
        with at_most(STEP_SECONDS):
            target.check(data)
    except TooSlowError as exc:
        frame = traceback.extract_tb(exc.__traceback__)[-2]
        return f"{str(exc).partition(' took')[0]} {Path(frame.filename).name}:{frame.lineno}"
    except Exception:
        return ""
    return ""


if __name__ == "__main__":
    main()
