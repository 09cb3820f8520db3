"""Look for bytes that break something.

    python -m venv /tmp/fuzzenv && /tmp/fuzzenv/bin/pip install atheris hypothesis pytest coredis -e .
    cd tests && /tmp/fuzzenv/bin/python -m fuzz.explore TARGET [SECONDS] [FOLDER]

Guided by coverage, with atheris, which is not among the project's dependencies. The targets are in ``all.py``. What
is interesting is kept in FOLDER (fuzz/TARGET in the folder for temporary files) and is where the next run begins;
each different fault that is found is printed with the file of its input there, and the search goes on. Make such an
input small by hand and put it into ``corpus/TARGET``, where a test holds it.
"""

from __future__ import annotations

import random
import sys
import tempfile
from hashlib import sha1
from pathlib import Path

import atheris  # type: ignore[import-untyped,import-not-found,unused-ignore]

with atheris.instrument_imports(include=["llm_protocol", "llm_actors", "llm_runtime", "h11", "tomllib"]):
    from fuzz.all import TARGETS
from fuzz.faults import place
from fuzz.mutation import mutated_json
from fuzz.steps import INSTRUMENTED, MAX_BYTES, STEP_SECONDS, at_most

SECONDS = 300


def main() -> None:
    name = sys.argv[1]
    seconds = int(sys.argv[2]) if len(sys.argv) > 2 else SECONDS
    target = TARGETS[name]
    folder = Path(sys.argv[3]) if len(sys.argv) > 3 else Path(tempfile.gettempdir(), "fuzz", name)
    found, faults = folder / "corpus", folder / "faults"
    for each in found, faults:
        each.mkdir(parents=True, exist_ok=True)
    for seed in [*target.seeds(), *(path.read_bytes() for path in target.corpus())]:
        (found / sha1(seed).hexdigest()).write_bytes(seed)
    known: set[str] = set()

    def check(data: bytes) -> None:
        try:
            with at_most(STEP_SECONDS * INSTRUMENTED):
                target.check(data)
        except Exception as exc:
            where = place(exc)
            if where not in known:
                known.add(where)
                file = faults / sha1(where.encode()).hexdigest()[:12]
                file.write_bytes(data)
                print(f"\nFAULT {where}\n      {file}", flush=True)

    def mutate(data: bytes, most: int, seed: int) -> bytes:
        chance = random.Random(seed)
        if chance.random() < 0.5:
            prefix, body = data[: target.prefix], data[target.prefix :]
            changed = mutated_json(body, chance)
            if changed is not None and len(prefix) + len(changed) <= most:
                return prefix + changed
        return bytes(atheris.Mutate(data, most))

    bounds = [f"-max_total_time={seconds}", f"-max_len={MAX_BYTES}", "-timeout=60", "-rss_limit_mb=2048"]
    arguments = [sys.argv[0], *bounds, "-print_final_stats=1", "-verbosity=0", str(found)]
    atheris.Setup(arguments, check, custom_mutator=mutate)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
