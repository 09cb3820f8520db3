"""A full disk, a read-only file, lost permissions, I/O errors: on without the file, one line, and back."""

from __future__ import annotations

import os
import resource
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from llm_actors.cache.entry import Entry
from llm_actors.cache.file_tier import RETRY_SECONDS, FileTier
from llm_actors.file_problem import FileProblem, file_problem_of
from support.caching import Clock, file_tier, key


def store(tier: FileTier, number: int, size: int = 1_000) -> bool:
    """Whether it was stored."""
    before = tier.count.stored
    tier.write([Entry(key(number), os.urandom(size))])
    return tier.count.stored > before


def has(tier: FileTier, number: int) -> bool:
    return bool(tier.read([key(number)]))


def lines(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.levelname for record in caplog.records if record.name.startswith("llm_actors.cache")]


@contextmanager
def small_disk(where: Path, size: str = "1m") -> Iterator[None]:
    """A file system of that size, where we may mount one."""
    where.mkdir()
    mount = shutil.which("mount")
    if mount is None or os.geteuid() != 0:
        pytest.skip("mounting a small tmpfs needs root")
    if subprocess.run(
        [mount, "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(where)], capture_output=True
    ).returncode:
        pytest.skip("this machine lets nobody mount a tmpfs")
    try:
        yield
    finally:
        subprocess.run(["umount", str(where)], check=True)


def test_a_full_disk_stops_the_writing_and_heals(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """What is stored is still found, one line is logged however often it fails, and it heals by itself."""
    caplog.set_level("INFO")
    clock = Clock()
    with small_disk(tmp_path / "disk"), file_tier(tmp_path / "disk" / "cache.db", clock=clock, ttl_s=1e6) as tier:
        assert store(tier, 0)
        ballast = tmp_path / "disk" / "ballast"
        with suppress_full(), ballast.open("wb", buffering=0) as file:
            while True:
                file.write(bytes(4096))
        failed = [number for number in range(1, 400) if not store(tier, number, 10_000)]
        assert failed
        assert has(tier, 0)
        for _ in range(3):
            clock.time += RETRY_SECONDS
            assert not store(tier, 1000, 100_000)
        assert lines(caplog) == ["ERROR"]
        ballast.unlink()
        assert not store(tier, 1001), "it is left alone for a while"
        clock.time += RETRY_SECONDS
        assert store(tier, 1001)
        assert has(tier, 1001)
        assert lines(caplog) == ["ERROR", "INFO"]


@contextmanager
def suppress_full() -> Iterator[None]:
    with pytest.raises(OSError, match="No space"):
        yield


def test_a_file_that_may_not_grow_is_gone_without(tmp_path: Path) -> None:
    """The kernel refuses to let the file grow (RLIMIT_FSIZE)."""
    clock = Clock()
    with file_tier(tmp_path / "cache.db", clock=clock) as tier:
        assert store(tier, 0)
        old = resource.getrlimit(resource.RLIMIT_FSIZE)
        ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, old[1]))
        try:
            assert not store(tier, 1, 200_000)
            clock.time += RETRY_SECONDS
            assert has(tier, 0)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, old)
            signal.signal(signal.SIGXFSZ, ignored)
        clock.time += RETRY_SECONDS
        assert store(tier, 1, 200_000)
        assert has(tier, 1)


def remove_folder(path: Path) -> None:
    """Somebody tidies up: the file is gone, and in the way of its folder is a file."""
    shutil.rmtree(path.parent)
    path.parent.write_text("")


def put_folder_in_the_way(path: Path) -> None:
    for file in path.parent.iterdir():
        file.unlink()
    path.mkdir()


def undo(path: Path) -> None:
    if path.parent.is_file():
        path.parent.unlink()
    elif path.is_dir():
        path.rmdir()


@pytest.mark.parametrize("harm", [remove_folder, put_folder_in_the_way])
def test_a_path_that_cannot_be_opened_is_gone_without(
    tmp_path: Path, harm: Callable[[Path], None], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    path, clock = tmp_path / "folder" / "cache.db", Clock()
    with file_tier(path, clock=clock) as tier:
        assert store(tier, 0)
        tier.close()
        harm(path)
        for _ in range(4):
            assert not has(tier, 0)
            assert not store(tier, 1)
            clock.time += RETRY_SECONDS
        assert lines(caplog) == ["ERROR"]
        undo(path)
        assert store(tier, 1)
        assert has(tier, 1)
        assert lines(caplog) == ["ERROR", "INFO"]


def test_a_file_that_is_deleted_in_use_is_made_anew(tmp_path: Path) -> None:
    path, clock = tmp_path / "cache.db", Clock()
    with file_tier(path, clock=clock) as tier:
        assert store(tier, 0)
        for file in tmp_path.iterdir():
            file.unlink()
        for number in range(3):
            store(tier, number)
            clock.time += RETRY_SECONDS
        assert store(tier, 5)
        assert path.exists()
        assert has(tier, 5)


UNPRIVILEGED = """
import os, sys
from pathlib import Path
sys.path[:0] = sys.argv[2].split(os.pathsep)
from support.caching import Clock, file_tier, key
from llm_actors.cache.entry import Entry
from llm_actors.cache.file_tier import RETRY_SECONDS

path, clock = Path(sys.argv[1]) / "cache.db", Clock()
if os.geteuid() == 0:
    os.chown(path.parent, 65534, 65534)
    os.setgroups([])
    os.setgid(65534)
    os.setuid(65534)

def store(tier):
    before = tier.count.stored
    tier.write([Entry(key(tier.count.stored), b"x")])
    return tier.count.stored > before

with file_tier(path, clock=clock) as tier:
    assert store(tier)
    for mode, owner in ((0o400, 0o500), (0o000, 0o700), (0o600, 0o000)):
        tier.close()
        for file in path.parent.iterdir():
            file.chmod(mode)
        path.parent.chmod(owner)
        for _ in range(3):
            assert not store(tier), oct(mode)
            assert not tier.read([key(0)])
            clock.time += RETRY_SECONDS
        path.parent.chmod(0o700)
        for file in path.parent.iterdir():
            file.chmod(0o600)
        assert store(tier), oct(mode)
        assert tier.read([key(0)])
"""


def test_lost_permissions(tmp_path: Path) -> None:
    """File read-only, file unreadable, folder closed; each heals. As nobody, for root may do everything."""
    # Not tmp_path: the user nobody may not enter the folders above it.
    folder = Path(tempfile.mkdtemp(prefix="llm-runtime-test-")).resolve()
    try:
        paths = os.pathsep.join(sys.path)
        code = [sys.executable, "-c", UNPRIVILEGED, str(folder), paths]
        done = subprocess.run(code, capture_output=True, text=True, timeout=60)
        assert done.returncode == 0, done.stderr
        said = done.stderr.splitlines()
        assert len(said) == 3, "one line per state"
    finally:
        folder.chmod(0o700)
        shutil.rmtree(folder)


def test_an_io_error_on_fsync(tmp_path: Path) -> None:
    """The disk reports EIO when it is asked to make sure."""
    strace = shutil.which("strace")
    if strace is None:
        pytest.skip("injecting faults into system calls needs strace")
    code = (
        "import sys; sys.path[:0] = sys.argv[2].split(':')\n"
        "from support.caching import file_tier, key\n"
        "from llm_actors.cache.entry import Entry\n"
        "import os\n"
        "with file_tier(sys.argv[1], max_bytes=50_000_000) as tier:\n"
        "    for number in range(120):\n"
        "        tier.write([Entry(key(number), os.urandom(100_000))])\n"
        "        tier.read([key(number)])\n"
        "    said = tier.statistics()\n"
        "print(said.errors, said.stored)\n"
    )
    inject = ["-f", "-qq", "-o", "/dev/null", "-e", "trace=fsync,fdatasync", "-e", "inject=fsync,fdatasync:error=EIO"]
    command = [strace, *inject, sys.executable, "-c", code, str(tmp_path / "cache.db"), ":".join(sys.path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    if "ptrace" in done.stderr:
        pytest.skip("this machine lets nobody trace")
    assert done.returncode == 0, done.stderr
    errors, _ = map(int, done.stdout.split())
    assert errors > 0, "the fault was met"
    assert len(done.stderr.splitlines()) == 1, "one line"


def test_a_writer_that_holds_the_lock_costs_one_write_and_no_read(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "cache.db"
    with file_tier(path) as tier, closing(sqlite3.connect(path, isolation_level=None)) as other:
        assert store(tier, 0)
        other.execute("BEGIN IMMEDIATE")
        assert not store(tier, 1)
        assert has(tier, 0)
        other.execute("ROLLBACK")
        assert store(tier, 1)
        assert lines(caplog) == []


def test_a_mistake_of_ours_is_not_taken_for_trouble() -> None:
    with pytest.raises(sqlite3.ProgrammingError):
        file_problem_of(sqlite3.ProgrammingError("closed"))
    assert file_problem_of(sqlite3.DatabaseError("from Python, without a code")) is FileProblem.DAMAGED
    assert file_problem_of(OSError(28, "No space left on device")) is FileProblem.FULL
