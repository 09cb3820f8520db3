"""The options of the suite itself: order, shards, and skips."""

from __future__ import annotations

import re
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]

SOURCE = """
import pytest


@pytest.mark.parametrize("number", range(20))
def test_{name}(number):
    pass
"""

SKIPPING = """
import pytest


def test_known():
    pytest.skip("no recorded traffic here")


def test_unknown():
    pytest.skip("not today")
"""


def run(folder: Path, *options: str, **variables: str) -> tuple[int, str]:
    command = [sys.executable, "-P", "-m", "pytest", "-p", "support.suite", "-p", "no:cacheprovider", "-v", *options]
    environ = {"PATH": "/usr/bin:/bin", "PYTHONPATH": str(ROOT / "tests"), **variables}
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, env=environ, check=False)
    return done.returncode, done.stdout + done.stderr


def order(output: str) -> list[str]:
    return re.findall(r"^(\S+::\S+) PASSED", output, re.MULTILINE)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("suite")
    for name in ("a", "b"):
        (made / f"test_{name}.py").write_text(SOURCE.format(name=name))
    return made


def test_a_seed_is_an_order(folder: Path) -> None:
    plain, once, again, other = (order(run(folder, *each)[1]) for each in ((), *[("--shuffle", n) for n in "112"]))
    assert once == again
    assert len({tuple(plain), tuple(once), tuple(other)}) == 3
    assert sorted(plain) == sorted(once) == sorted(other)
    assert len(plain) == 40
    files = [name.partition("::")[0] for name in once]
    assert sum(before != after for before, after in pairwise(files)) == 1, "files stay together"


def test_shards_are_all_of_it_once(folder: Path) -> None:
    shards = [order(run(folder, "--shard", f"{number}/3")[1]) for number in (1, 2, 3)]
    assert all(shards)
    assert sorted(each for shard in shards for each in shard) == sorted(order(run(folder)[1]))
    assert run(folder, "--shard", "4/3")[0] != 0


def test_a_skip_that_nobody_allowed_fails_the_run(tmp_path: Path) -> None:
    (tmp_path / "test_it.py").write_text(SKIPPING)
    assert run(tmp_path)[0] == 0
    code, said = run(tmp_path, "--no-unknown-skips")
    assert code == 1
    assert "test_it.py::test_unknown: not today" in said
    assert "test_known: " not in said
    assert run(tmp_path, "--no-unknown-skips", LLM_RUNTIME_WITHOUT="npm,today,")[0] == 0
    assert run(tmp_path, "--no-unknown-skips", LLM_RUNTIME_WITHOUT="npm,")[0] == 1


def test_a_virtual_clock_is_an_argument_of_its_test() -> None:
    """pytest-trio takes it from there alone: with the marker the test runs, and sleeps for real."""
    marker = re.compile(r"usefixtures\([^)]*(autojump|mock)_clock")
    assert [str(file) for file in (ROOT / "tests").rglob("test_*.py") if marker.search(file.read_text())] == []


def test_a_hanging_process_ends_later_than_any_test() -> None:
    """`faulthandler_timeout` ends the process of a test that no signal reaches, not of one that is slow."""
    own = int(re.findall(r"^faulthandler_timeout = (\d+)", (ROOT / "pyproject.toml").read_text(), re.MULTILINE)[0])
    clients = int(re.findall(r'^CLIENTS_SECONDS = "(\d+)"', (ROOT / "bin" / "test").read_text(), re.MULTILINE)[0])
    for file in (ROOT / "tests").rglob("test_*.py"):
        most = clients if file.parent.name == "clients" else own
        for limit in re.findall(r"mark\.time_limit\((\d+)\)", file.read_text(encoding="utf-8")):
            assert int(limit) < most, file
