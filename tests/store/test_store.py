"""The store's file and its actor: what is told as written is there, and no trouble with the file is fatal."""

from __future__ import annotations

import errno
import logging
import os
import resource
import signal
import sqlite3
import stat
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing
from pathlib import Path

import msgspec
import pytest
import trio
import trio.testing

from llm_actors.file_problem import ASIDE, FileProblem
from llm_actors.kernel import Supervisor, running
from llm_actors.store import (
    AppendEvents,
    BeginResponse,
    DeleteResponse,
    EndResponse,
    StoreAwayError,
    StoredResponseRow,
    StoreRef,
    StoreThread,
    Write,
    load,
    persist,
    store_child,
)
from llm_actors.store.actor import LEDGER_SECONDS
from llm_actors.store.ledger import By, CloseEntry, Ledger, LedgerEntry, OpenEntry, RecordEntry
from llm_actors.store.messages import PERSIST_SECONDS, Loaded
from llm_actors.store.owner import Owner
from llm_actors.store.tier import RETRY_SECONDS, StoreTier
from llm_actors.testing import MovingClock

DAY = 86_400.0


class Bad:
    """A change that crashes the store's actor."""

    @property
    def size(self) -> int:
        raise RuntimeError("a bug")

    def apply(self, db: sqlite3.Connection, owner: str) -> None: ...


@asynccontextmanager
async def store(path: Path, *, max_bytes: int = 10_000_000) -> AsyncIterator[StoreRef]:
    spec = store_child(StoreThread(StoreTier(str(path), max_bytes=max_bytes, ttl_s=DAY)), Ledger())
    root = Supervisor([spec])
    async with running(root):
        yield root.ref(spec)


def begun(name: str = "a", head: bytes = b"head") -> BeginResponse:
    return BeginResponse(name, "me", 1.0, head)


def ended(name: str, at: float, weight: int = 10) -> list[Write]:
    return [begun(name), AppendEvents(name, 0, b"x" * weight), EndResponse(name, at)]


def found(tier: StoreTier, name: str) -> StoredResponseRow | None:
    """The response, in a file that can be read."""
    loaded = tier.find(name, "me")
    assert loaded is not None
    return loaded.row


class Clocks:
    """Wall and monotonic time that stand still until they are moved."""

    def __init__(self) -> None:
        self.wall = 1_000_000.0
        self.monotonic = 0.0

    def tier(self, path: Path, *, max_bytes: int = 10_000_000) -> StoreTier:
        return StoreTier(
            str(path), max_bytes=max_bytes, ttl_s=DAY, wall=lambda: self.wall, clock=lambda: self.monotonic
        )


async def test_what_is_persisted_is_there_in_its_order_and_for_its_caller_alone(tmp_path: Path) -> None:
    async with store(tmp_path / "s") as ref:
        assert await persist(ref, (begun(), AppendEvents("a", 0, b"0"), AppendEvents("a", 9, b"9")))
        assert await persist(ref, (AppendEvents("a", 3, b"3"), EndResponse("a", 5e9)))
        row = await load(ref, "a", "me")
        assert row is not None
        assert (row.head, row.events, row.ended_at, row.interrupted) == (b"head", (b"0", b"3", b"9"), 5e9, False)
        assert await load(ref, "a", "another") is None
        assert await persist(ref, (DeleteResponse("a"), AppendEvents("a", 10, b"late")))
        assert await load(ref, "a", "me") is None
    with closing(sqlite3.connect(tmp_path / "s")) as db:
        assert db.execute("SELECT count(*) FROM response_events").fetchone() == (0,)
        assert db.execute("PRAGMA integrity_check").fetchone() == ("ok",)


async def test_the_file_is_its_owners_alone_and_nothing_is_left_beside_it(tmp_path: Path) -> None:
    async with store(tmp_path / "new" / "s") as ref:
        assert await persist(ref, (begun(),))
        modes = {each.name: stat.S_IMODE(each.stat().st_mode) for each in (tmp_path / "new").iterdir()}
        assert set(modes.values()) == {0o600}
        assert stat.S_IMODE((tmp_path / "new").stat().st_mode) == 0o700
    assert {each.name for each in (tmp_path / "new").iterdir()} == {"s", "s-owners"}


async def test_many_that_persist_at_once_share_transactions(tmp_path: Path) -> None:
    done: list[bool] = []

    async def one(number: int) -> None:
        done.append(await persist(ref, (begun(f"r{number}"),)))

    async with store(tmp_path / "s") as ref, trio.open_nursery() as nursery:
        for number in range(500):
            nursery.start_soon(one, number)
    assert done == [True] * 500


def test_many_rows_of_the_ledger_are_added_in_their_order_with_what_is_between_them(tmp_path: Path) -> None:
    tier = Clocks().tier(tmp_path / "s")
    rows: list[Write] = [RecordEntry(LedgerEntry(run=str(each), opened_at=1e6 + each)) for each in range(120)]
    assert tier.write([*rows[:70], OpenEntry(5, LedgerEntry(run="open", opened_at=1e6)), *rows[70:]])
    tier.close()
    with closing(sqlite3.connect(tmp_path / "s")) as db:
        found = db.execute("SELECT run, opened_at FROM ledger WHERE number = 0 ORDER BY id").fetchall()
        assert found == [(str(each), 1e6 + each) for each in range(120)]
        assert db.execute("SELECT run, outcome FROM ledger WHERE number = 5").fetchall() == [("open", "open")]


def test_a_row_that_sqlite_cannot_hold_as_it_is_costs_no_other_row(tmp_path: Path) -> None:
    """A program may use any text as a model or an id. The row is written with replacements."""
    odd = LedgerEntry(run="a\ud800", model="m\udfff", opened_at=1e6, input_tokens=2**70)
    closed = msgspec.structs.replace(odd, outcome="ok")
    tier = Clocks().tier(tmp_path / "s")
    assert tier.write([RecordEntry(LedgerEntry(run="sound", opened_at=1e6)), RecordEntry(odd), OpenEntry(5, odd)])
    assert tier.write([CloseEntry(5, closed), CloseEntry(6, closed)])
    tier.close()
    with closing(sqlite3.connect(tmp_path / "s")) as db:
        found = db.execute("SELECT run, model, input_tokens, outcome FROM ledger ORDER BY id").fetchall()
    assert ("sound", "", 0, "open") in found
    assert sorted(each[3] for each in found if each[:3] == ("a?", "m?", 2**63 - 1)) == ["ok", "ok", "open"]


async def test_what_is_queued_is_written_when_the_store_stops(tmp_path: Path) -> None:
    async with store(tmp_path / "s") as ref, trio.open_nursery() as nursery:
        nursery.start_soon(persist, ref, (begun(),))
        await trio.testing.wait_all_tasks_blocked()
    async with store(tmp_path / "s") as ref:
        row = await load(ref, "a", "me")
        assert row is not None
        assert row.interrupted, "its process has gone"


def test_the_oldest_make_room_and_the_file_keeps_to_its_bound(tmp_path: Path) -> None:
    clocks = Clocks()
    tier = clocks.tier(tmp_path / "s", max_bytes=1_000_000)
    for number in range(100):
        assert tier.write(ended(f"r{number}", clocks.wall + number, 50_000))
    assert found(tier, "r0") is None
    assert found(tier, "r99") is not None
    tier.close()
    assert os.stat(tmp_path / "s").st_size <= 1_000_000 + 4_096 * 20


def test_responses_are_forgotten_after_their_time_whatever_became_of_them(tmp_path: Path) -> None:
    clocks = Clocks()
    tier = clocks.tier(tmp_path / "s")
    assert tier.write(ended("a", clocks.wall))
    clocks.wall += DAY - 1
    assert found(tier, "a") is not None
    clocks.wall += 2
    assert found(tier, "a") is None
    assert tier.write([begun("b")])
    tier.close()
    with closing(sqlite3.connect(tmp_path / "s")) as db:
        assert db.execute("SELECT id FROM responses").fetchall() == [("b",)]


def test_a_damaged_file_is_set_aside_and_begun_anew_with_one_line(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "s").write_bytes(b"SQLite format 3\0" + os.urandom(8_000))
    tier = Clocks().tier(tmp_path / "s")
    assert not tier.write([begun()])
    assert tier.write([begun()])
    tier.close()
    assert (tmp_path / f"s{ASIDE}").exists()
    errors = [each for each in caplog.records if each.levelno >= logging.ERROR]
    assert [each.getMessage().count("\n") for each in errors] == [0]


def test_a_damaged_file_that_cannot_be_renamed_is_not_said_to_be(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(source: str, target: str) -> None:
        raise PermissionError(errno.EACCES, "the folder is read-only")

    monkeypatch.setattr("llm_actors.file_problem.os.replace", refuse)
    (tmp_path / "s").write_bytes(b"SQLite format 3\0" + os.urandom(8_000))
    clocks = Clocks()
    tier = clocks.tier(tmp_path / "s")
    for _ in range(3):
        assert not tier.write([begun()])
        clocks.monotonic += RETRY_SECONDS + 1
    tier.close()
    [error] = [each.getMessage() for each in caplog.records if each.levelno >= logging.ERROR]
    assert error.endswith("is damaged or of another version: nothing is stored until it works again")


@pytest.mark.parametrize("problem", [FileProblem.FOREIGN, FileProblem.NEWER, FileProblem.UNREACHABLE, FileProblem.BUSY])
def test_a_file_that_cannot_be_used_is_left_alone_and_tried_again(
    tmp_path: Path, problem: FileProblem, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    path, clocks, other = tmp_path / "s", Clocks(), None
    if problem is FileProblem.UNREACHABLE:
        path.mkdir()
    elif problem is FileProblem.BUSY:
        first = clocks.tier(path)
        first.open()
        first.close()
        other = sqlite3.connect(path, isolation_level=None)
        other.execute("BEGIN EXCLUSIVE")
    else:
        with closing(sqlite3.connect(path)) as db:
            db.execute("CREATE TABLE theirs (x)")
            if problem is FileProblem.NEWER:
                db.execute("PRAGMA application_id = 0x6C6C6D73")
                db.execute("PRAGMA user_version = 999")
    tier = clocks.tier(path)
    assert not tier.write([begun()])
    assert not tier.write([begun()])
    assert tier.problem is problem
    assert sum(each.levelno >= logging.ERROR for each in caplog.records) == 1
    if other is not None:
        other.close()
    elif path.is_dir():
        path.rmdir()
    else:
        path.unlink()
    assert not tier.write([begun()]), "it is left alone for a while"
    clocks.monotonic += RETRY_SECONDS
    assert tier.write([begun()])
    assert tier.problem is None
    assert caplog.records[-1].getMessage().endswith("works again")
    tier.close()


def test_a_full_disk_costs_nobody_a_request_and_what_was_stored_is_read(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The kernel refuses to let the file grow (RLIMIT_FSIZE)."""
    clocks = Clocks()
    tier = clocks.tier(tmp_path / "s")
    assert tier.write(ended("before", clocks.wall))
    old = resource.getrlimit(resource.RLIMIT_FSIZE)
    ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, old[1]))
    try:
        for number in range(10):
            assert not tier.write(ended(f"r{number}", clocks.wall, 500_000))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, old)
        signal.signal(signal.SIGXFSZ, ignored)
    assert sum(each.levelno >= logging.ERROR for each in caplog.records) == 1
    clocks.monotonic += RETRY_SECONDS
    assert found(tier, "before") is not None
    assert tier.write(ended("after", clocks.wall, 500_000))
    tier.close()


@pytest.fixture
def patient_clock() -> MovingClock:
    """Virtual time that jumps when nothing happens for 50 ms: threads need a moment."""
    return MovingClock(autojump_threshold=0.05)


async def test_a_store_that_hangs_costs_nobody_more_than_its_bound(
    patient_clock: MovingClock, caplog: pytest.LogCaptureFixture
) -> None:
    """A thread that is stuck in the file (a network file system that has gone) holds up nobody for long."""
    stuck = threading.Event()

    class Hanging:
        def open(self) -> None: ...

        def write(self, writes: list[Write]) -> bool:
            return stuck.wait(20)

        def find(self, response_id: str, caller: str) -> None:
            return None

        def spend(self, by: By, since: float, caller: str | None) -> None:
            return None

        def spent(self, since: float) -> None:
            return None

        def close(self) -> None: ...

    spec = store_child(StoreThread(Hanging()), Ledger())
    root = Supervisor([spec])
    async with running(root):
        ref = root.ref(spec)
        before = trio.current_time()
        assert not await persist(ref, (begun(),))
        assert trio.current_time() - before <= PERSIST_SECONDS + 0.1
        before = trio.current_time()
        for _ in range(100):
            assert not await persist(ref, (begun(),))
            with pytest.raises(StoreAwayError):
                await load(ref, "a", "me")
        assert trio.current_time() - before < 0.1, "the second one does not wait at all"
        assert "nothing is stored until it does" in caplog.text
        stuck.set()
        await trio.sleep(1)
        with caplog.at_level(logging.INFO):
            assert await persist(ref, (begun(),))
    assert [each.message for each in caplog.records if each.name.endswith("store.actor")] == [
        "the store does not respond: nothing is stored until it does",
        "the store responds again",
    ]


async def test_ledger_rows_of_a_write_that_takes_long_are_written_once(patient_clock: MovingClock) -> None:
    done = threading.Event()
    written: list[Write] = []

    class Slow:
        def open(self) -> None: ...

        def write(self, writes: list[Write]) -> bool:
            done.wait(20)
            written.extend(writes)
            return True

        def find(self, response_id: str, caller: str) -> None:
            return None

        def spend(self, by: By, since: float, caller: str | None) -> None:
            return None

        def spent(self, since: float) -> None:
            return None

        def close(self) -> None: ...

    ledger = Ledger()
    spec = store_child(StoreThread(Slow()), ledger)
    async with running(Supervisor([spec])):
        ledger.record(LedgerEntry(run="a", opened_at=1.0))
        await trio.sleep(3 * PERSIST_SECONDS)
        ledger.record(LedgerEntry(run="b", opened_at=2.0))
        done.set()
        await trio.sleep(1)
    assert [each.entry.run for each in written if isinstance(each, RecordEntry)] == ["a", "b"]


async def test_a_store_that_crashes_keeps_the_lock_of_its_process(tmp_path: Path) -> None:
    """Else another process would mark the responses that are still running as interrupted."""
    ledger = Ledger()
    tier = StoreTier(str(tmp_path / "s"), max_bytes=10_000_000, ttl_s=DAY, owner=ledger.owner)
    other = Owner(str(tmp_path / "s"))
    seen: list[bool] = []

    class Crashing:
        open, write, spend, spent = tier.open, tier.write, tier.spend, tier.spent

        def find(self, response_id: str, caller: str) -> Loaded | None:
            if response_id == "bad":
                raise RuntimeError("a bug")
            seen.append(other.is_alive(ledger.owner))
            return tier.find(response_id, caller)

        def close(self) -> None:
            tier.close()
            seen.append(other.is_alive(ledger.owner))

    spec = store_child(StoreThread(Crashing()), ledger)
    root = Supervisor([spec])
    async with running(root):
        ref = root.ref(spec)
        assert await persist(ref, (begun(),))
        with pytest.raises(StoreAwayError):
            await load(ref, "bad", "me")
        assert await load(ref, "a", "me") is not None
    assert seen == [True, False], "alive after the crash; gone at the end"


async def test_ledger_rows_of_a_write_that_a_crash_interrupts_are_written_once(patient_clock: MovingClock) -> None:
    """The thread goes on after the crash, so the rows are not written again, nor the file used by two threads."""
    may_end = threading.Event()
    written: list[Write] = []
    at_work: list[str] = []

    class Slow:
        def open(self) -> None: ...

        def write(self, writes: list[Write]) -> bool:
            assert not at_work, "two threads at once"
            at_work.append("write")
            may_end.wait(20)
            written.extend(writes)
            at_work.clear()
            return True

        def find(self, response_id: str, caller: str) -> None: ...

        def spend(self, by: By, since: float, caller: str | None) -> None: ...

        def spent(self, since: float) -> None: ...

        def close(self) -> None: ...

    ledger = Ledger()

    spec = store_child(StoreThread(Slow()), ledger)
    root = Supervisor([spec])
    async with running(root):
        ledger.record(LedgerEntry(run="a", opened_at=1.0))
        await trio.sleep(2 * LEDGER_SECONDS)
        assert not await persist(root.ref(spec), (Bad(),))
        ledger.record(LedgerEntry(run="b", opened_at=2.0))
        await trio.sleep(10)
        may_end.set()
        await trio.sleep(10)
    assert [each.entry.run for each in written if isinstance(each, RecordEntry)] == ["a", "b"]


async def test_a_store_that_was_parked_works_again(tmp_path: Path, patient_clock: MovingClock) -> None:
    ledger, other = Ledger(), Owner(str(tmp_path / "s"))
    tier = StoreTier(str(tmp_path / "s"), max_bytes=10_000_000, ttl_s=DAY, owner=ledger.owner)
    spec = store_child(StoreThread(tier), ledger)
    async with running(Supervisor([spec], park=True)) as supervisor:
        ref = supervisor.ref(spec)
        assert await persist(ref, (begun("a"),))
        while not supervisor.parked:
            assert not await persist(ref, (Bad(),))
            await trio.sleep(0.1)
        assert other.is_alive(ledger.owner)
        with trio.fail_after(60):
            while not await persist(ref, (begun("b"),)):  # noqa: ASYNC110  (it does not tell when it is unparked)
                await trio.sleep(1)
        assert await load(ref, "a", "me") is not None
    assert not other.is_alive(ledger.owner)
