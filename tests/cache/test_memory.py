"""The memory tier: bounded in bytes, least recently used first, each entry for a while."""

from __future__ import annotations

from collections import OrderedDict
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from llm_actors.cache.key import CacheKey
from llm_actors.cache.memory import OVERHEAD_BYTES, Memory
from support.caching import key

SIZE = 100
COST = OVERHEAD_BYTES + SIZE
ROOM = 16

steps = st.lists(
    st.one_of(
        st.tuples(st.just("put"), st.integers(0, 30), st.integers(1, 20)),
        st.tuples(st.just("get"), st.integers(0, 30), st.just(0)),
        st.tuples(st.just("wait"), st.integers(0, 5), st.just(0)),
    ),
    max_size=200,
)


@given(steps)
def test_it_is_a_bounded_lru_with_a_time_to_live(script: list[tuple[str, int, int]]) -> None:
    """Against a model that is slow and obvious."""
    memory = Memory(ROOM * COST)
    model: OrderedDict[int, tuple[bytes, int]] = OrderedDict()
    now = 0
    for what, number, lives in script:
        if what == "wait":
            now += number
        elif what == "put":
            value = bytes([number]) * SIZE
            memory.put(key(number), value, expires=now + lives)
            model.pop(number, None)
            model[number] = value, now + lives
            if len(model) > ROOM:
                model.popitem(last=False)
        else:
            found = model.get(number)
            if found is not None and found[1] <= now:
                del model[number]
                found = None
            assert memory.get(key(number), now) == (found[0] if found else None)
            if found:
                model.move_to_end(number)
        said = memory.statistics()
        assert (said.entries, said.bytes) == (len(model), len(model) * COST)


def test_one_answer_never_drives_out_all_others() -> None:
    memory = Memory(8 * COST)
    memory.put(key("small"), b"x" * SIZE, expires=9)
    memory.put(key("huge"), b"x" * (SIZE + 1), expires=9)
    assert memory.get(key("huge"), 0) is None
    assert memory.get(key("small"), 0) is not None
    assert memory.statistics().dropped == 1


def test_a_smaller_answer_in_place_of_a_larger_one_gives_room_back() -> None:
    memory = Memory(80 * COST)
    memory.put(key(1), b"x" * 1_000, expires=9)
    memory.put(key(1), b"x", expires=9)
    assert memory.statistics().bytes == OVERHEAD_BYTES + 1
    memory.put(key(1), b"x" * 8_000, expires=9)
    assert memory.statistics().bytes == 0, "an answer too large to keep also takes the old one with it"


def test_after_a_crash_what_has_expired_is_dropped_and_the_rest_is_weighed_anew() -> None:
    memory = Memory(ROOM * COST)
    for number in range(3):
        memory.put(key(number), b"x" * SIZE, expires=number)
    memory._bytes = 12_345  # a crash between the entry and the sum
    memory.recount(now=1)
    assert memory.statistics().bytes == COST
    assert memory.get(key(2), 1) is not None
    for number in range(10, 10 + ROOM):
        memory.put(key(number), b"x" * SIZE, expires=9)
    assert memory.statistics().entries == ROOM, "the bound is where it was"


def resident() -> int:
    """Bytes of this process in memory."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096


def test_a_million_keys_stay_within_the_bound() -> None:
    """The size never passes the cap, each store evicts at most what it replaces, memory use stays flat, and
    the cap is honest: what it counts is what the process takes."""
    cap = 8_000_000
    memory = Memory(cap)
    before, full = resident(), 0
    for number in range(1_000_000):
        memory.put(CacheKey(number.to_bytes(32, "big")), b"x" * (number % 97), expires=1.0)
        if number % 10_000 == 0:
            assert memory.statistics().bytes <= cap
        if number == 100_000:
            full = resident()
    said = memory.statistics()
    assert said.entries is not None
    assert said.evicted == said.stored - said.entries
    assert said.entries > cap // (OVERHEAD_BYTES + 97) * 0.99
    assert full - before < 1.25 * cap
    assert resident() - full < cap // 4
