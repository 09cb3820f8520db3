"""The parent, with workers that do little."""

from __future__ import annotations

import errno
import os
import re
import signal
import socket
import sys
from collections.abc import Callable
from itertools import count
from pathlib import Path

import pytest
import trio

from llm_actors.kernel.window import Backoff, Intensity
from llm_runtime.config import Config, Server
from llm_runtime.systemd import Notifier
from llm_runtime.workers import parent as parents
from llm_runtime.workers.parent import WorkersParent
from llm_runtime.workers.reloads import Copies

READY = """
import json, os, socket, time
end = socket.socket(fileno=json.loads(os.environ["LLM_RUNTIME_WORKER"])["link"])
end.send(b'{"type":"ready"}\\n')
"""


async def run(
    monkeypatch: pytest.MonkeyPatch,
    folder: Path,
    script: str,
    *,
    drain_s: float = 0.0,
    stop: tuple[float, ...] = (),
    on_ready: Callable[[], None] = lambda: None,
) -> tuple[int, int]:
    """The exit code of a parent whose workers run ``script``, and how often it was ready. When it is ready,
    ``on_ready`` is called, and it is sent SIGTERM after each of the pauses ``stop``.
    """
    monkeypatch.setattr(sys, "orig_argv", ["python", "-c", script])
    monkeypatch.setattr(parents, "BACKOFF", Backoff.none())
    monkeypatch.setattr(parents, "WATCH_SECONDS", 0.05)
    ready = trio.Event()
    times = 0

    def note() -> None:
        nonlocal times
        times += 1
        on_ready()
        ready.set()

    async def interrupt() -> None:
        await ready.wait()
        for pause in stop:
            await trio.sleep(pause)
            signal.raise_signal(signal.SIGTERM)

    config = Config(server=Server(workers=2, drain_s=drain_s))
    copies = Copies(None, str(folder), lambda _: config)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        parent = WorkersParent(config, [listener], str(folder), copies, os.environ, Notifier({}), note)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(interrupt)
            code = await parent.run()
            nursery.cancel_scope.cancel()
    return code, times


async def test_a_worker_that_does_not_start_ends_the_daemon_with_its_code(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    assert await run(monkeypatch, tmp_path, "import sys; sys.exit(2)") == (2, 0)
    assert "ended with code 2 at the start" in caplog.text


async def test_workers_that_keep_ending_are_given_up(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    # The first of each waits for the other, since a worker that ends before all are ready has not started.
    script = (
        READY
        + f"""
import sys
mine = os.path.join({str(tmp_path)!r}, str(json.loads(os.environ["LLM_RUNTIME_WORKER"])["number"]))
open(mine, "a").close()
while len(os.listdir({str(tmp_path)!r})) < 2:
    time.sleep(0.01)
time.sleep(0.2)
sys.exit(1)
"""
    )
    assert await run(monkeypatch, tmp_path, script) == (1, 1)
    assert "gave up, because more than 5 workers ended within 30 s: the daemon stops" in caplog.text


@pytest.mark.parametrize("stops", [1, 2])
async def test_a_worker_that_does_not_stop_is_killed(
    stops: int, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(parents, "END_SECONDS", 0.1 if stops == 1 else 100)
    monkeypatch.setattr(parents, "AT_ONCE_SECONDS", 0.1)
    code, _ = await run(monkeypatch, tmp_path, READY + "time.sleep(100)", stop=(0.0, 0.2)[:stops])
    assert code == (0 if stops == 1 else 130)


async def test_a_worker_that_hangs_is_killed_like_one_that_ended(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    def hang_soon() -> None:
        """Not before: one that ends while the other starts ends the daemon."""
        monkeypatch.setattr(parents, "SILENT_SECONDS", 0.1)

    monkeypatch.setattr(parents, "INTENSITY", Intensity(restarts=1))
    assert await run(monkeypatch, tmp_path, READY + "time.sleep(100)", on_ready=hang_soon) == (1, 1)
    assert "has not responded for 0.1 s; it is killed" in caplog.text
    assert "was ended by SIGKILL; it is restarted" in caplog.text


async def test_a_worker_that_hangs_before_it_is_ready_is_killed(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(parents, "START_SECONDS", 0.1)
    assert await run(monkeypatch, tmp_path, "import time; time.sleep(100)") == (1, 0)
    assert "has not started within 0.1 s; it is killed" in caplog.text
    assert "was ended by SIGKILL at the start" in caplog.text


async def test_workers_that_cannot_be_started_end_the_daemon_with_a_line(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(sys, "executable", str(tmp_path / "nothing"))
    assert await run(monkeypatch, tmp_path, "") == (71, 0)
    assert "could not be started (No such file or directory) at the start" in caplog.text


async def test_a_worker_that_cannot_be_started_again_is_tried_again(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Without file descriptors, for one, which may come back."""
    starts = count(1)

    def pair() -> tuple[socket.socket, socket.socket]:
        match next(starts):
            case 3:
                raise OSError(errno.EMFILE, "Too many open files")
            case 4:
                signal.raise_signal(signal.SIGTERM)
        return socket.socketpair()

    def kill_one() -> None:
        os.kill(int(re.findall(r"worker 1 is process (\d+)", caplog.text)[0]), signal.SIGKILL)

    caplog.set_level("INFO")
    monkeypatch.setattr("llm_runtime.workers.process.socketpair", pair)
    assert await run(monkeypatch, tmp_path, READY + "end.recv(1)", on_ready=kill_one) == (0, 1)
    assert "worker 1 could not be started (Too many open files); its start is tried again" in caplog.text


async def test_a_worker_that_ends_well_is_replaced_and_not_counted(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Somebody has sent it SIGTERM."""
    script = (
        READY
        + f"""
import sys
sys.stdout = open(os.path.join({str(tmp_path)!r}, "ended"), "a")
print(os.getpid(), flush=True)
while len(open(sys.stdout.name).readlines()) < 2:
    time.sleep(0.01)
time.sleep(0.2)
sys.exit(0)
"""
    )
    starts = count(1)

    def pair() -> tuple[socket.socket, socket.socket]:
        if next(starts) == 10:
            signal.raise_signal(signal.SIGTERM)
        return socket.socketpair()

    monkeypatch.setattr("llm_runtime.workers.process.socketpair", pair)
    assert await run(monkeypatch, tmp_path, script) == (0, 1)
    assert "gave up" not in caplog.text
    assert len(set((tmp_path / "ended").read_text().split())) > 7
