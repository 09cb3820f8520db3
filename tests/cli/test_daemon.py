"""The daemon's life seen from inside its process."""

import logging
import os
import signal
import sys
from collections.abc import Callable, Sequence

import pytest
import trio
import trio.testing

from llm_actors.kernel import ActorMessage, ChildSpec, task_child
from llm_actors.kernel.spec import Restart
from llm_protocol.requests import LLMProvider
from llm_runtime import Config, daemon, local_model
from llm_runtime.config import Provider, Server
from llm_runtime.server import ListenAddress

LOCAL = Config(server=Server(port=0), providers={"local": Provider(kind=LLMProvider.LOCAL, models=("m",))})


async def test_a_signal_during_the_start_ends_it_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    begun = trio.Event()

    async def never_ready(task_status: trio.TaskStatus[None]) -> None:
        begun.set()
        await trio.sleep_forever()

    monkeypatch.setattr(
        local_model, "engine_spec", lambda _: task_child("engine", never_ready, restart=Restart.PERMANENT)
    )
    ready: list[str] = []
    codes: list[int] = []

    async def serve() -> None:
        codes.append(await daemon.run(LOCAL, ready.append))

    with trio.fail_after(2):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(serve)
            await begun.wait()
            os.kill(os.getpid(), signal.SIGTERM)
    assert (codes, ready) == ([daemon.STOPPED], [])


async def test_a_tree_that_gives_up_ends_the_process_with_the_cause(
    monkeypatch: pytest.MonkeyPatch, autojump_clock: trio.testing.MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    """Exit code other than 0; the last line names the actor and the exception, and nothing else of it."""

    async def crash(task_status: trio.TaskStatus[None]) -> None:
        task_status.started()
        await trio.sleep(1)
        raise ValueError("CANARY")

    def servers(
        config: object, engine: object, found: Callable[[ListenAddress], None], **_: object
    ) -> Sequence[ChildSpec[ActorMessage]]:
        found(ListenAddress("127.0.0.1", 1))
        return [task_child("server", crash, restart=Restart.PERMANENT)]

    monkeypatch.setattr(daemon, "server_child", servers)
    with caplog.at_level(logging.INFO):
        code = await daemon.run(Config())
    assert code == daemon.GAVE_UP
    last = caplog.records[-1].getMessage()
    assert "llm-runtime" in last
    assert "ValueError" in last
    assert "CANARY" not in caplog.text


async def test_signals_and_watchdog_are_given_back(monkeypatch: pytest.MonkeyPatch) -> None:
    before = [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT, *daemon.IGNORED)]

    def stop(url: str) -> None:
        os.kill(os.getpid(), signal.SIGTERM)

    with trio.fail_after(5):
        assert await daemon.run(Config(server=Server(port=0)), stop) == daemon.STOPPED
    assert [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT, *daemon.IGNORED)] == before


STUCK = """
import signal, time, trio
from llm_runtime import daemon
from llm_runtime.config import Config, Server
daemon.WATCHDOG_SECONDS, daemon.END_SECONDS = 0.2, 0
daemon.log.info = lambda *_: time.sleep(60)  # the event loop stands still once it was told to stop
trio.run(daemon.run, Config(server=Server(port=0, drain_s=0)), lambda _: signal.raise_signal(signal.SIGTERM))
"""


async def test_a_process_that_does_not_end_is_ended() -> None:
    """The last resort: where every thread stands is written down, and the process is gone."""
    with trio.fail_after(10):
        done = await trio.run_process([sys.executable, "-P", "-c", STUCK], check=False, capture_stderr=True)
    assert done.returncode == 1
    assert b"Timeout" in done.stderr
    assert b"daemon.py" in done.stderr
