"""A store of the program for cached responses."""

from __future__ import annotations

from math import inf, nan

import pytest

from llm_actors.cache.entry import Entry
from llm_actors.cache.own_tier import RETRY_SECONDS, OwnTier
from support.caching import Clock, key


class Shelf:
    """A store in a dict, which fails when told to."""

    def __init__(self) -> None:
        self.kept: dict[bytes, bytes] = {}
        self.lifetimes: list[float] = []
        self.error: Exception | None = None
        self.calls = 0

    def get(self, key: bytes, /) -> bytes | None:
        self._called()
        return self.kept.get(key)

    def put(self, key: bytes, value: bytes, ttl_s: float, /) -> None:
        self._called()
        self.kept[key] = value
        self.lifetimes.append(ttl_s)

    def _called(self) -> None:
        self.calls += 1
        if self.error is not None:
            raise self.error


def tier(shelf: Shelf, clock: Clock) -> OwnTier:
    return OwnTier(shelf, ttl_s=100.0, clock=clock.machine())


def test_what_is_stored_is_found_with_its_age_by_every_process_until_it_is_too_old() -> None:
    shelf, clock = Shelf(), Clock()
    tier(shelf, clock).write([Entry(key(1), b"one")])
    assert shelf.lifetimes == [100.0]
    clock.reboot(seconds=40)
    other = tier(shelf, clock)
    found = other.read([key(1), key(2)])
    assert {name: entry.value for name, entry in found.items()} == {key(1): b"one"}
    assert found[key(1)].age_s == pytest.approx(40)
    clock.time += 60
    assert other.read([key(1)]) == {}
    assert (other.count.hits, other.count.misses, other.count.expired) == (1, 2, 1)


def test_an_entry_of_a_machine_whose_clock_is_ahead_is_new() -> None:
    shelf, clock = Shelf(), Clock()
    clock.error = 60
    tier(shelf, clock).write([Entry(key(1), b"one")])
    clock.error = 0
    assert tier(shelf, clock).read([key(1)])[key(1)].age_s == 0


@pytest.mark.parametrize("ahead", [100.0, 3600.0, inf, nan])
def test_an_entry_whose_time_cannot_be_right_has_expired(ahead: float) -> None:
    shelf, clock = Shelf(), Clock()
    clock.error = ahead
    tier(shelf, clock).write([Entry(key(1), b"one")])
    clock.error = 0
    made = tier(shelf, clock)
    assert made.read([key(1)]) == {}
    assert made.count.expired == 1


@pytest.mark.parametrize("value", [b"", b"short", 3, "text of eight or more"])
def test_what_somebody_else_has_stored_is_a_miss(value: object) -> None:
    shelf = Shelf()
    shelf.kept[key(1)] = value  # type: ignore[assignment]
    made = tier(shelf, Clock())
    assert made.read([key(1)]) == {}
    assert made.count.errors == 1


def test_a_store_that_fails_rests_is_told_once_and_comes_back(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    shelf, clock = Shelf(), Clock()
    made = tier(shelf, clock)
    shelf.error = OSError("secret")
    assert made.read([key(1), key(2)]) == {}
    made.write([Entry(key(1), b"one")])
    assert shelf.calls == 1
    assert not made.ready()
    assert (made.count.errors, made.count.dropped) == (1, 1)
    clock.time += RETRY_SECONDS
    assert made.read([key(1)]) == {}
    clock.time += RETRY_SECONDS
    shelf.error = None
    made.write([Entry(key(1), b"one")])
    assert set(made.read([key(1)])) == {key(1)}
    assert [record.levelname for record in caplog.records] == ["ERROR", "INFO"]
    assert "secret" not in caplog.text
