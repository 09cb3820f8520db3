"""The suite's own time limit: a test that hangs fails and says where it hangs, and the tests after it run."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]

SOURCE = """
import threading
import time

import pytest
import trio

import support.time_limit

support.time_limit.CLEANUP_SECONDS = 0.5


async def waits_for_nothing():
    await trio.sleep_forever()


def blocks():
    time.sleep(60)


async def test_async():
    try:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(waits_for_nothing)
    finally:
        print("cleaned up")


async def test_virtual_clock(mock_clock):
    await waits_for_nothing()


async def test_shielded():
    with trio.CancelScope(shield=True):
        await waits_for_nothing()


async def test_busy():
    while True:
        pass


def test_blocking():
    blocks()


def test_thread():
    thread = threading.Thread(target=blocks, daemon=True)
    thread.start()
    thread.join(60)


@pytest.mark.time_limit(60)
async def test_marked():
    await trio.sleep(1)


async def test_installs():
    def install():
        with support.time_limit.not_counted():
            time.sleep(0.7)

    await trio.to_thread.run_sync(install)


def test_last():
    pass
"""


def run_pytest(folder: Path, *options: str) -> subprocess.CompletedProcess[str]:
    """Run `SOURCE` with our settings and half a second for each test."""
    file = folder / "test_file.py"
    file.write_text(SOURCE)
    settings = ["-c", str(ROOT / "pyproject.toml"), "--rootdir", str(folder), "-p", "support.time_limit"]
    return subprocess.run(
        [sys.executable, "-P", "-m", "pytest", *settings, "--time-limit=0.5", *options, str(file)],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT / "tests")},
    )


@pytest.fixture(scope="module")
def reports(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """What pytest reports of the tests that can be stopped, by test."""
    done = run_pytest(tmp_path_factory.mktemp("suite"), "-k", "not shielded")
    parts = re.split(r"^_+ (\w+) _+$", done.stdout, flags=re.MULTILINE)
    return {"all": done.stdout, **dict(zip(parts[1::2], parts[2::2], strict=True))}


@pytest.mark.parametrize(
    ("test", "where"),
    [
        ("test_async", "waits_for_nothing"),
        ("test_virtual_clock", "waits_for_nothing"),
        ("test_busy", "test_busy"),
        ("test_blocking", "blocks"),
        ("test_thread", "blocks"),
    ],
)
def test_a_test_that_hangs_fails_and_shows_where(test: str, where: str, reports: dict[str, str]) -> None:
    assert "The test took longer than 0.5 s." in reports[test]
    assert re.search(rf"line \d+, in {where}\n", reports[test]), reports[test]


def test_a_test_that_is_cancelled_cleans_up(reports: dict[str, str]) -> None:
    assert "cleaned up" in reports["test_async"]


def test_the_others_pass_and_a_marker_or_an_installation_gives_more_time(reports: dict[str, str]) -> None:
    assert "5 failed, 3 passed" in reports["all"], reports["all"]


def test_a_test_that_cannot_be_cancelled_ends_its_process_only(tmp_path: Path) -> None:
    done = run_pytest(tmp_path, "-n", "1", "-k", "shielded or last")
    assert "1 failed, 1 passed" in done.stdout, done.stdout
    assert "crashed while running 'test_file.py::test_shielded'" in done.stdout
    assert "The test took longer than 0.5 s." in done.stderr
    assert "in waits_for_nothing" in done.stderr
