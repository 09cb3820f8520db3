"""How the suite is run: in random order, in shards, and with no skip that nobody has allowed.

``--shuffle SEED`` shuffles files and the tests in each, the same way in every process for the same seed.
``--shard I/N`` runs the I-th of N parts; a test's part depends on its id alone. With ``--no-unknown-skips``, or where
`LLM_RUNTIME_TEST_ALL` is set, a skip whose reason is not in `ALLOWED_SKIPS` fails the run: CI installs what its tests
need, so there a skip means that something was not tested.
"""

from __future__ import annotations

import os
import random
import re
from itertools import groupby
from zlib import crc32

import pytest

ALLOWED_SKIPS = (
    # What lies beside the workplace of the authors and not in a clone. tests/wires has transcripts of its own.
    r"no recorded traffic here",
    r"the request was not (kept|recorded)",
    r"token ids are refused",
    r"this answer has no limits",
    # What an ordinary user may not do, and some containers allow nobody.
    r"mounting a small tmpfs needs root",
    r"this machine lets nobody (mount a tmpfs|trace)",
    r"this system gives no network of its own",
    # A fault of the tool that the test runs.
    r"pproxy loses connections on Python 3\.13",
    # What has a command of its own.
    r"only in bin/test clients",
    r"takes \d+ s; in the full form only",
)


def allowed_skips() -> tuple[str, ...]:
    """`ALLOWED_SKIPS`, and what ``.ci/run`` could not install: the names in `LLM_RUNTIME_WITHOUT`, between commas."""
    missing = [name for name in os.environ.get("LLM_RUNTIME_WITHOUT", "").split(",") if name]
    return (*ALLOWED_SKIPS, *(rf".*\b{re.escape(name)}\b" for name in missing))


UNSTABLE = re.compile(r"frozenset\(\{| at 0x[0-9a-f]")
"""What no id of a test may have: the order of a set, an address."""


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("llm-runtime")
    group.addoption("--shuffle", type=int, metavar="SEED", help="run the tests in a random order")
    group.addoption("--shard", type=_shard, metavar="I/N", help="run one of N parts of the tests, 1/N to N/N")
    group.addoption("--no-unknown-skips", action="store_true", help="fail for skips that are not allowed")


def _shard(text: str) -> tuple[int, int]:
    found = re.fullmatch(r"(\d+)/(\d+)", text)
    if found is None or not 1 <= int(found[1]) <= int(found[2]):
        raise ValueError("not I/N with I from 1 to N")
    return int(found[1]), int(found[2])


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if unstable := next((item.nodeid for item in items if UNSTABLE.search(item.nodeid)), None):
        raise pytest.UsageError(f"the id of this test differs between processes: {unstable[:200]}")
    if (shard := config.getoption("--shard")) is not None:
        number, count = shard
        kept = [item for item in items if crc32(item.nodeid.encode()) % count == number - 1]
        config.hook.pytest_deselected(items=[item for item in items if item not in set(kept)])
        items[:] = kept
    if (seed := config.getoption("--shuffle")) is not None:
        chance = random.Random(seed)
        files = [list(tests) for _, tests in groupby(items, key=lambda item: item.path)]
        for tests in files:
            chance.shuffle(tests)  # within a file, so that its fixtures are made once
        chance.shuffle(files)
        items[:] = [item for tests in files for item in tests]


def pytest_configure(config: pytest.Config) -> None:
    wanted = config.getoption("--no-unknown-skips") or os.environ.get("LLM_RUNTIME_TEST_ALL")
    if wanted and not hasattr(config, "workerinput"):
        config.pluginmanager.register(_Skips())


class _Skips:
    """Gathers skips in the process that reports, to which xdist's workers send theirs."""

    def __init__(self) -> None:
        self.unknown: dict[str, str] = {}

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.skipped and not hasattr(report, "wasxfail"):
            reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
            reason = reason.removeprefix("Skipped: ")
            if not any(re.match(pattern, reason) for pattern in allowed_skips()):
                self.unknown[report.nodeid] = reason

    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        if self.unknown and session.exitstatus == pytest.ExitCode.OK:
            session.exitstatus = pytest.ExitCode.TESTS_FAILED

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        if self.unknown:
            terminalreporter.section("skips that are not allowed (support/suite.py)")
            for nodeid, reason in self.unknown.items():
                terminalreporter.line(f"{nodeid}: {reason}")
