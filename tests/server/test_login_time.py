"""How long a key is looked at tells nothing about it."""

from __future__ import annotations

import gc
import hashlib
import hmac
import random
from collections.abc import Callable
from statistics import median
from time import perf_counter_ns

import pytest

from llm_protocol.secret import Secret
from llm_runtime.config import Key, Server
from llm_runtime.server.access import Access

ROUNDS = 10_000
DIFFERENCE = 0.1
"""Of medians, relative: what a machine does that has other work, too. A leak is several times that."""

CALLERS = {f"caller {number}": f"sk-{number}-0123456789abcdef" for number in range(8)}
FIRST, LAST = CALLERS["caller 0"], CALLERS["caller 7"]
PRESENTED = {
    "missing": "",
    "wrong": "sk-9-0123456789abcdef",
    "prefix": FIRST[:-1],
    "longer": FIRST + "0",
    "other case": FIRST.upper(),
    "the first": FIRST,
    "the last": LAST,
}
Owner = Callable[[str], "str | None"]


def access() -> Access:
    return Access(Server(), {name: Key(secret=Secret(key)) for name, key in CALLERS.items()})


def times(owner: Owner) -> dict[str, float]:
    """The median time for each key, the kinds interleaved in an order that changes with each round."""
    kinds, order = list(PRESENTED.items()), random.Random(7)
    taken: dict[str, list[int]] = {kind: [] for kind in PRESENTED}
    gc.disable()
    try:
        for _ in range(ROUNDS):
            order.shuffle(kinds)
            for kind, key in kinds:
                began = perf_counter_ns()
                owner(key)
                taken[kind].append(perf_counter_ns() - began)
    finally:
        gc.enable()
    return {kind: median(each) for kind, each in taken.items()}


def spread(found: dict[str, float]) -> float:
    """How far apart the slowest and the fastest are, relative to the fastest."""
    return max(found.values()) / min(found.values()) - 1


def test_every_key_costs_one_digest_and_all_comparisons(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever the clock says: the work is the same, and what is compared has the same length."""
    looked_at, work = access(), list[object]()
    digest, compare = hashlib.sha256, hmac.compare_digest

    def counted_digest(data: bytes) -> object:
        work.append("digest")
        return digest(data)

    def counted_compare(one: bytes, other: bytes) -> bool:
        work.append((len(one), len(other)))
        return compare(one, other)

    monkeypatch.setattr(hashlib, "sha256", counted_digest)
    monkeypatch.setattr(hmac, "compare_digest", counted_compare)
    for key in PRESENTED.values():
        work.clear()
        looked_at.owner(key)
        assert work == ["digest", *[(32, 32)] * len(CALLERS)]


@pytest.mark.alone
def test_no_key_takes_longer_than_another() -> None:
    """10^4 of each."""
    assert spread(times(access().owner)) < DIFFERENCE


@pytest.mark.alone
@pytest.mark.parametrize("leak", ["stops at the right one", "passes over none", "looks at the length first"])
def test_the_measure_sees_what_it_is_for(leak: str) -> None:
    digests = {name: hashlib.sha256(key.encode()).digest() for name, key in CALLERS.items()}

    def leaking(presented: str) -> str | None:
        if leak == "passes over none" and not presented:
            return None
        if leak == "looks at the length first" and len(presented) != len(FIRST):
            return None
        digest, found = hashlib.sha256(presented.encode("utf-8", "surrogatepass")).digest(), None
        for name, known in digests.items():
            if hmac.compare_digest(digest, known):
                found = name
                if leak == "stops at the right one":
                    break
        return found

    assert spread(times(leaking)) > 2 * DIFFERENCE
