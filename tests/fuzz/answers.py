"""Answers as servers bend them, read by us and by the reference reader.

    bin/fuzz [--seed N] [--count N] [wire]

What must hold: a success says what the reference reads there, or what the answer said before it was bent; an answer
bent only where nobody looks is read as before; any split of the bytes gives the same; nothing is ever ``internal``.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

from fuzz.reference import STREAMS, WHOLE, Reading, UnreadableError
from fuzz.transcripts import REQUEST, WIRES, Answer, Mutant, mutant, valid_of, written
from llm_protocol.dialect import WireResponse
from llm_protocol.events import Event, Failed, Finished
from llm_protocol.failures import FailureKind
from llm_protocol.fold import Fold
from llm_protocol.response import FinishReason
from support.streams import check_order

COUNT = 10_000
MOST_SHOWN = 20
MUTANTS_OF_ONE = 16
"""Mutants that are made of one valid answer: to make that takes as long as to bend and read it."""


class MisreadError(AssertionError):
    """An answer was read wrongly."""


def reference(answer: Answer) -> Reading | None:
    """What the reference reader reads; ``None`` where it cannot."""
    try:
        if answer.is_whole:
            return WHOLE[answer.wire](answer.entries[0].data) if isinstance(answer.entries[0].data, dict) else None
        return STREAMS[answer.wire](answer.entries)
    except UnreadableError:
        return None


def ours(wire: str, pieces: Sequence[bytes], *, is_whole: bool = False) -> list[Event]:
    """What our decoder tells of a body."""
    client = WIRES[wire].client
    if is_whole:
        return client.decode_response(REQUEST, WireResponse(200, (), b"".join(pieces)))
    decoder = client.stream_decoder(REQUEST)
    return [event for piece in pieces for event in decoder.feed(piece)] + decoder.end()


def reading_of(events: list[Event]) -> Reading | None:
    """What a success says; ``None`` for a failure."""
    end = events[-1]
    if not isinstance(end, Finished) or end.reason is FinishReason.ERROR:
        return None
    answer = Fold().add_all(events).response(request_id="r", response_id="i", provider="p", model="m")
    calls = tuple((call.name, json.dumps(json.loads(call.arguments), sort_keys=True)) for call in answer.tool_calls)
    return Reading(answer.content, answer.reasoning, calls)


def check(before: Answer, found: Mutant, chance: random.Random) -> None:
    """Raises `MisreadError`."""
    body = written(found)
    events = ours(before.wire, [body], is_whole=before.is_whole)
    check_order(events)
    at = chance.randrange(len(body) + 1)
    if not before.is_whole and ours(before.wire, [body[:at], body[at:]]) != events:
        raise MisreadError(f"split at {at} it reads otherwise")
    end = events[-1]
    if isinstance(end, Failed) and end.failure.kind is FailureKind.INTERNAL:
        raise MisreadError("internal")
    said, was = reading_of(events), reference(before)
    assert was is not None, "a valid answer can be read"
    if found.is_harmless:
        if said != was:
            raise MisreadError(f"a good answer is not read: {end} {said} instead of {was}")
        return
    if said is None:
        return
    allowed: list[Reading | None] = [was] if found.keeps_words else []
    for repeats in (True, False):
        allowed.append(reference(found.answer if repeats else _without_repeats(found.answer)))
        if any(one is not None and _words(said) == _words(one) for one in allowed):
            return
    raise MisreadError(f"{said} is none of {allowed}")


def _words(one: Reading) -> Reading:
    """Calls may come in any order where their pieces did."""
    return one._replace(calls=tuple(sorted(one.calls)), thoughts="")


def _without_repeats(answer: Answer) -> Answer:
    entries = tuple(one._replace(data=_once(one.data)) for one in answer.entries)
    return answer._replace(entries=tuple(one for at, one in enumerate(entries) if at == 0 or one != entries[at - 1]))


def _once(value: Any) -> Any:
    """``value`` without members of lists that stand there twice in a row."""
    if isinstance(value, dict):
        return {name: _once(inner) for name, inner in value.items()}
    if isinstance(value, list):
        return [_once(one) for at, one in enumerate(value) if at == 0 or one != value[at - 1]]
    return value


@lru_cache(maxsize=8)
def _base(wire: str, number: int) -> Answer:
    return valid_of(wire, random.Random(number))


def try_one(wire: str, seed: int) -> tuple[Mutant, str] | None:
    """One mutant, by its number; it and what is wrong, if anything is."""
    chance = random.Random(seed)
    before = _base(wire, seed // MUTANTS_OF_ONE)
    found = mutant(before, chance)
    try:
        check(before, found, chance)
    except Exception as exc:
        return found, f"{type(exc).__name__}: {exc}"
    return None


def main(arguments: Sequence[str] | None = None) -> int:
    """Try many; 1 if any was read wrongly."""
    parser = argparse.ArgumentParser(prog="fuzz", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--seed", type=int, default=0, help="number of the first mutant (0)")
    parser.add_argument("--count", type=int, default=COUNT, help=f"mutants for each wire ({COUNT})")
    parser.add_argument("wire", nargs="?", choices=sorted(WIRES), help="only this one")
    options = parser.parse_args(arguments)
    wrong = 0
    for wire in [options.wire] if options.wire else sorted(WIRES):
        shown = 0
        for seed in range(options.seed, options.seed + options.count):
            if (fault := try_one(wire, seed)) is None:
                continue
            wrong, shown = wrong + 1, shown + 1
            if shown <= MOST_SHOWN:
                form = "whole" if fault[0].answer.is_whole else "stream"
                print(f"{wire} {form} --seed {seed} --count 1: {fault[0].what}: {fault[1]}", flush=True)
        print(f"{wire}: {options.count} mutants, {shown} read wrongly", flush=True)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
