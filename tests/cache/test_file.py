"""The cache file: age, damage, size, two processes. Real SQLite, turned clocks."""

from __future__ import annotations

import errno
import os
import shutil
import sqlite3
import stat
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from llm_actors.cache.entry import Entry
from llm_actors.cache.file_tier import RETRY_SECONDS, FileTier
from llm_actors.file_problem import ASIDE
from llm_actors.sqlite_file import JOURNAL_BYTES
from support.caching import DAY, Clock, file_tier, key

TTL = 100.0


def value(number: int, size: int = 500) -> bytes:
    return (f"value {number} " * size)[:size].encode()


def fill(tier: FileTier, numbers: range, size: int = 500) -> None:
    for number in numbers:
        tier.write([Entry(key(number), value(number, size))])


def found(tier: FileTier, numbers: range, size: int = 500) -> int:
    """How many of ``numbers`` are there, each with its own value."""
    there = tier.read([key(number) for number in numbers])
    for number in numbers:
        if key(number) in there:
            assert there[key(number)].value == value(number, size)
    return len(there)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "deep" / "cache.db"


def test_what_is_stored_is_there_in_the_next_process(path: Path) -> None:
    with file_tier(path) as tier:
        fill(tier, range(3))
        assert found(tier, range(4)) == 3
        said = tier.statistics()
        assert (said.hits, said.misses, said.stored, said.errors) == (3, 1, 3, 0)
        assert said.bytes > 3 * 500
    with file_tier(path) as tier:
        assert found(tier, range(4)) == 3


def test_only_its_owner_can_read_it(path: Path) -> None:
    """Answers are as confidential as prompts."""
    with file_tier(path) as tier:
        fill(tier, range(3))
        files = list(path.parent.iterdir())
        assert len(files) == 3, "the database, its journal, its shared memory"
        assert {stat.S_IMODE(file.stat().st_mode) for file in files} == {0o600}
        assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700


# ---------------------------------------------------------------- age


def test_an_entry_lives_for_its_time_and_not_longer(path: Path) -> None:
    clock = Clock()
    with file_tier(path, clock=clock) as tier:
        fill(tier, range(1))
        clock.time += TTL - 1
        assert tier.read([key(0)])[key(0)].age_s == pytest.approx(TTL - 1)
        clock.time += 1
        assert found(tier, range(1)) == 0
        assert tier.statistics().expired == 1


@pytest.mark.parametrize("jump", [DAY, -DAY, -3600.0, 20 * 365 * DAY])
@pytest.mark.parametrize("reopen", [False, True])
def test_a_wall_clock_that_jumps_changes_no_age(path: Path, jump: float, reopen: bool) -> None:
    """Also after 2038: nothing is lost early and nothing lives on, in this process or the next one."""
    clock = Clock()
    with file_tier(path, clock=clock) as tier:
        fill(tier, range(3))
        clock.error += jump
        if reopen:
            tier.close()
        clock.time += TTL - 1
        assert found(tier, range(3)) == 3
        fill(tier, range(3, 4))
        clock.error -= jump
        if reopen:
            tier.close()
        clock.time += 1
        assert found(tier, range(4)) == 1
        clock.time += TTL
        assert found(tier, range(4)) == 0


@pytest.mark.parametrize(("off", "left"), [(TTL - 10, 3), (TTL + 10, 0)])
def test_over_a_reboot_the_wall_clock_counts(path: Path, off: float, left: int) -> None:
    clock = Clock()
    with file_tier(path, clock=clock) as tier:
        fill(tier, range(3))
    clock.reboot(seconds=off)
    with file_tier(path, clock=clock) as tier:
        assert found(tier, range(3)) == left


@pytest.mark.parametrize(("jump", "left"), [(DAY, 0), (-DAY, 3)])
def test_a_clock_that_is_wrong_at_boot_makes_nothing_eternal(path: Path, jump: float, left: int) -> None:
    """A machine that boots into tomorrow believes that a day has passed. One that boots into yesterday has entries
    live one more time to live; and what is stored from then on has its own time, whatever becomes of the clock."""
    clock = Clock()
    with file_tier(path, clock=clock) as tier:
        fill(tier, range(3))
    clock.reboot(seconds=10)
    clock.error = jump
    with file_tier(path, clock=clock) as tier:
        assert found(tier, range(3)) == left
        fill(tier, range(3, 6))
        clock.error = 0.0
        clock.time += TTL - 1
        assert found(tier, range(3, 6)) == 3
        clock.time += 1
        assert found(tier, range(6)) == 0


def test_where_the_system_names_no_boot_each_start_is_taken_for_one(path: Path) -> None:
    clock = Clock()
    clock.boot = ""
    with file_tier(path, clock=clock) as tier:
        fill(tier, range(3))
    clock.error = -DAY
    clock.time += TTL / 2
    with file_tier(path, clock=clock) as tier:
        assert found(tier, range(3)) == 3
        clock.time += TTL
        assert found(tier, range(3)) == 0


def test_an_entry_from_the_future_is_not_found(path: Path) -> None:
    """However the file's clock came to be behind: what seems younger than new might live for ever."""
    with file_tier(path) as tier:
        fill(tier, range(3))
    with closing(sqlite3.connect(path, isolation_level=None)) as db:
        db.execute("UPDATE llm_cache_clock SET shift = shift - 1")
    with file_tier(path) as tier:
        assert found(tier, range(3)) == 0
        fill(tier, range(3))
        assert found(tier, range(3)) == 3


def test_expired_entries_are_removed_as_others_are_stored(path: Path) -> None:
    """What nobody asks for again does not lie on the disk until the file is full."""
    clock = Clock()
    with file_tier(path, clock=clock) as tier:
        fill(tier, range(50))
        clock.time += TTL
        fill(tier, range(50, 51))
    with closing(sqlite3.connect(path)) as db:
        assert db.execute("SELECT count(*) FROM llm_cache").fetchone() == (1,)


# ---------------------------------------------------------------- size


@pytest.mark.parametrize(("size", "count"), [(100, 6_000), (3_000, 900), (60_000, 60)])
def test_the_file_stays_within_its_bound(path: Path, size: int, count: int) -> None:
    """The oldest go first, the newest are there, and the file never grows past its bound."""
    cap = 1_000_000
    with file_tier(path, max_bytes=cap) as tier:
        for start in range(0, count, 20):
            tier.write([Entry(key(number), value(number, size)) for number in range(start, start + 20)])
            assert path.stat().st_size <= cap
            assert path.with_name("cache.db-wal").stat().st_size <= 2 * JOURNAL_BYTES
        assert found(tier, range(count - 10, count), size) == 10
        assert found(tier, range(10), size) == 0
        said = tier.statistics()
        assert said.stored == count
        assert cap / 2 < said.bytes <= cap
        assert said.evicted > 0
    assert path.stat().st_size <= cap


def test_a_bound_that_was_lowered_is_reached_step_by_step(path: Path) -> None:
    with file_tier(path, max_bytes=8_000_000) as tier:
        for start in range(0, 6_000, 500):
            tier.write([Entry(key(number), value(number, 1_000)) for number in range(start, start + 500)])
        assert tier.statistics().bytes > 6_000_000
    with file_tier(path, max_bytes=1_000_000) as tier:
        fill(tier, range(7_000, 7_020))
        assert tier.statistics().bytes <= 1_000_000
        assert found(tier, range(7_019, 7_020)) == 1
    assert path.stat().st_size <= 1_000_000


def test_one_answer_never_drives_out_all_others(path: Path) -> None:
    with file_tier(path, max_bytes=1_000_000) as tier:
        fill(tier, range(5))
        tier.write([Entry(key("huge"), b"x" * 125_001)])
        assert found(tier, range(5)) == 5
        assert tier.statistics().dropped == 1


# ---------------------------------------------------------------- damage


def zeros(path: Path) -> None:
    path.write_bytes(bytes(path.stat().st_size))


def cut(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


def cut_short(path: Path) -> None:
    os.truncate(path, 10)


def other_bytes(path: Path) -> None:
    path.write_bytes(b"this is not a database, it only has its name " * 1_000)


def other_version(path: Path) -> None:
    with closing(sqlite3.connect(path)) as db:
        db.execute("PRAGMA user_version = 99")


def no_clock(path: Path) -> None:
    with closing(sqlite3.connect(path, isolation_level=None)) as db:
        db.execute("DROP TABLE llm_cache_clock")
        db.execute("CREATE TABLE llm_cache_clock (nonsense)")


def nonsense_in_the_clock(path: Path) -> None:
    with closing(sqlite3.connect(path, isolation_level=None)) as db:
        db.execute("UPDATE llm_cache_clock SET shift = 'x', time = 'x', boot = x'ff'")


HARMS = [zeros, cut, cut_short, other_bytes, other_version, no_clock, nonsense_in_the_clock]


@pytest.mark.parametrize("harm", HARMS)
def test_a_damaged_file_is_set_aside_and_begun_anew(
    path: Path, harm: Callable[[Path], None], caplog: pytest.LogCaptureFixture
) -> None:
    """One line in the log, the bad file kept for whoever wants to look at it, and the cache works at once."""
    with file_tier(path) as tier:
        fill(tier, range(300))
    harm(path)
    clock = Clock()
    with file_tier(path, clock=clock) as tier:
        assert found(tier, range(300)) == 0
        fill(tier, range(300))
        assert found(tier, range(300)) == 300
    assert path.with_name(path.name + ASIDE).exists()
    assert [record.levelname for record in caplog.records if "damaged" in record.message] == ["ERROR"]


def test_a_damaged_file_that_cannot_be_renamed_is_not_said_to_be(
    path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(source: str, target: str) -> None:
        raise PermissionError(errno.EACCES, "the folder is read-only")

    with file_tier(path) as tier:
        fill(tier, range(300))
    zeros(path)
    monkeypatch.setattr("llm_actors.file_problem.os.replace", refuse)
    with file_tier(path, clock=Clock()) as tier:
        assert found(tier, range(3)) == 0
    [error] = [record.getMessage() for record in caplog.records if record.levelname == "ERROR"]
    assert error.endswith("is damaged or of another version: requests continue without it")


def test_a_file_damaged_in_use_is_set_aside(path: Path) -> None:
    with file_tier(path) as tier:
        fill(tier, range(300))
        zeros(path)
        zeros(path.with_name("cache.db-wal"))
        for _ in range(3):
            found(tier, range(300))
            fill(tier, range(300, 400))
        assert found(tier, range(300, 400)) == 100


def test_a_flipped_bit_in_an_answer_makes_a_miss(path: Path) -> None:
    with file_tier(path) as tier:
        fill(tier, range(3))
    data = path.read_bytes()
    assert data.count(b"value 1 value 1") > 0
    path.write_bytes(data.replace(b"value 1 value 1", b"value 1 valuf 1", 1))
    with file_tier(path) as tier:
        assert found(tier, range(3)) == 2
        assert tier.statistics().errors == 1
        fill(tier, range(1, 2))
        assert found(tier, range(3)) == 3, "the next answer takes its place"


@pytest.mark.parametrize(
    "change",
    [
        "UPDATE llm_cache SET key = x'00' || substr(key, 2) WHERE id = 2",
        "UPDATE llm_cache SET value = (SELECT value FROM llm_cache WHERE id = 1) WHERE id = 2",
        "UPDATE llm_cache SET born = born + 1 WHERE id = 2",
        "UPDATE llm_cache SET born = 'x' WHERE id = 2",
        "UPDATE llm_cache SET value = 'text' WHERE id = 2",
        "UPDATE llm_cache SET digest = x'' WHERE id = 2",
    ],
)
def test_an_entry_that_is_not_what_was_stored_makes_a_miss(path: Path, change: str) -> None:
    """Wherever in a row the damage is, that row is not found, and the others are."""
    with file_tier(path) as tier:
        fill(tier, range(3))
    with closing(sqlite3.connect(path, isolation_level=None)) as db:
        db.execute(change)
    with file_tier(path) as tier:
        assert found(tier, range(3)) == 2


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a database and its journal, as a process leaves them that is killed."""
    folder = tmp_path_factory.mktemp("sound")
    with file_tier(folder / "live.db") as tier:
        fill(tier, range(100))
        tier.close()
        fill(tier, range(100, 150))
        shutil.copy(folder / "live.db", folder / "cache.db")
        shutil.copy(folder / "live.db-wal", folder / "cache.db-wal")
    return folder


def test_a_killed_process_leaves_a_sound_file(sound: Path, tmp_path: Path) -> None:
    for name in ("cache.db", "cache.db-wal"):
        shutil.copy(sound / name, tmp_path)
    with file_tier(tmp_path / "cache.db") as tier:
        assert found(tier, range(150)) == 150


@settings(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_no_damage_anywhere_makes_a_wrong_answer(
    sound: Path, tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    """Bits flipped, pages zeroed, tails cut, in the file or its journal: right answers or none, and after
    at most one pause the cache takes new ones."""
    folder = tmp_path_factory.mktemp("harmed")
    for name in ("cache.db", "cache.db-wal"):
        content = bytearray((sound / name).read_bytes())
        for _ in range(data.draw(st.integers(0, 8), label=f"harms to {name}")):
            at = data.draw(st.integers(0, max(0, len(content) - 1)))
            match data.draw(st.sampled_from(["flip", "zero", "cut"])):
                case "flip" if content:
                    content[at] ^= 1 << data.draw(st.integers(0, 7))
                case "zero":
                    content[at : at + 4096] = bytes(len(content[at : at + 4096]))
                case _:
                    del content[at:]
        (folder / name).write_bytes(content)
    clock = Clock()
    with file_tier(folder / "cache.db", clock=clock) as tier:
        found(tier, range(150))
        fill(tier, range(150, 160))
        found(tier, range(160))
        clock.time += RETRY_SECONDS
        fill(tier, range(200, 210))
        clock.time += RETRY_SECONDS
        fill(tier, range(210, 215))
        assert found(tier, range(210, 215)) == 5
    shutil.rmtree(folder)


# ---------------------------------------------------------------- two processes

OTHER = """
import sys
from support.caching import key
from llm_actors.cache.entry import Entry
from llm_actors.cache.file_tier import FileTier

tier = FileTier(sys.argv[1], max_bytes=20_000_000, ttl_s=1000.0)
for number in range(200):
    tier.write([Entry(key((sys.argv[2], number)), f"{sys.argv[2]} {number}".encode() * 50)])
    tier.read([key((other, number)) for other in "ab"])
said = tier.statistics()
tier.close()
print(said.stored, said.errors)
"""


def test_two_processes_share_one_file(path: Path) -> None:
    """Both write and read at once, from the very first moment; each finds what the other stored."""
    here = str(Path(__file__).parents[1])
    command = [sys.executable, "-c", OTHER, str(path)]
    both = [
        subprocess.Popen([*command, name], stdout=subprocess.PIPE, text=True, env={**os.environ, "PYTHONPATH": here})
        for name in "ab"
    ]
    done = [process.communicate(timeout=60)[0].split() for process in both]
    stored = sum(int(number) for number, _ in done)
    with closing(sqlite3.connect(path)) as db:
        assert db.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        assert db.execute("SELECT count(*) FROM llm_cache").fetchone() == (stored,)
    assert stored >= 300, f"nearly all writes find the file free: {done}"
    tier = FileTier(str(path), max_bytes=20_000_000, ttl_s=1000.0)
    there = [(name, number) for name in "ab" for number in range(200) if tier.read([key((name, number))])]
    tier.close()
    assert len(there) == stored


def test_a_file_that_another_process_has_set_aside_is_not_set_aside_again(path: Path) -> None:
    with file_tier(path) as one, file_tier(path) as other:
        fill(one, range(3))
        other.close()
        other.open()
        zeros(path)
        zeros(path.with_name("cache.db-wal"))
        fill(one, range(3, 6))
        fill(one, range(6, 9))
        fresh = path.stat().st_ino
        for _ in range(3):
            found(other, range(9))
            fill(other, range(9, 12))
        assert path.stat().st_ino == fresh
        assert found(one, range(9, 12)) == 3


def test_the_database_of_another_program_is_left_alone(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path.parent.mkdir()
    with closing(sqlite3.connect(path, isolation_level=None)) as db:
        db.execute("CREATE TABLE bookmarks (url)")
    with file_tier(path) as tier:
        fill(tier, range(3))
        assert found(tier, range(3)) == 0
    with closing(sqlite3.connect(path)) as db:
        assert db.execute("SELECT name FROM sqlite_schema").fetchall() == [("bookmarks",)]
    assert not path.with_name(path.name + ASIDE).exists()
    assert len(caplog.records) == 1
    assert "another program" in caplog.text
