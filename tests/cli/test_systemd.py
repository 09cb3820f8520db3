"""What systemd and the daemon say to each other: sockets that are passed on, and how the daemon is."""

from __future__ import annotations

import os
import signal
import socket
import sys
from contextlib import aclosing
from pathlib import Path

import pytest
import trio

from llm_actors.transport import HttpRequest, Transport, parse_url
from llm_runtime.systemd import Notifier, inherited_sockets
from support import commands
from support.peer import Peer
from support.systemd import LAUNCHER, activated


async def status(url: str) -> int:
    request = HttpRequest("GET", parse_url(url)[0], "/livez")
    async with aclosing(Transport()) as transport, transport.send(request) as response:
        return response.status


def config(folder: Path, peer: Peer, more: str = "") -> str:
    file = folder / "c.toml"
    provider = f'[providers.p]\nkind = "openai_compatible"\nbase_url = "{peer.url}/v1"\nmodels = ["m"]\n'
    file.write_text(f"[server]\nport = 1\ndrain_s = 2\n{more}{provider}")
    return str(file)


async def test_a_restart_has_no_gap_where_systemd_keeps_the_socket(tmp_path: Path) -> None:
    """Who connects between two daemons waits for the second, and is refused by nobody."""
    async with Peer() as peer, trio.open_nursery() as nursery:
        with socket.create_server(("127.0.0.1", 0)) as listener:
            url = f"http://127.0.0.1:{listener.getsockname()[1]}"
            file = config(tmp_path, peer)
            statuses = []

            async def ask() -> None:
                statuses.append(await status(url))

            async with activated(listener, "--config", file) as first:
                await ask()
                first.terminate()
                assert await first.wait() == 0
            for _ in range(5):
                nursery.start_soon(ask)
            async with activated(listener, "--config", file) as second:
                with trio.fail_after(10):
                    while len(statuses) < 6:
                        await ask()
                second.terminate()
                assert await second.wait() == 0
    assert set(statuses) == {200}
    assert len(statuses) >= 6


async def test_a_socket_that_does_not_listen_is_refused(tmp_path: Path) -> None:
    """Such as a connection, which systemd passes on with Accept=yes."""
    async with Peer() as peer:
        file = config(tmp_path, peer)
        with socket.socket() as idle, trio.fail_after(commands.SECONDS):
            idle.bind(("127.0.0.1", 0))
            number = idle.fileno()
            done = await trio.run_process(
                [sys.executable, "-c", LAUNCHER, str(number), *commands.COMMAND, "serve", "--config", file],
                capture_stdout=True,
                capture_stderr=True,
                check=False,
                env=commands.environment({}),
                pass_fds=[number],
            )
    assert (done.returncode, done.stdout) == (2, b"")
    said = done.stderr.decode().splitlines()
    assert said == [
        "llm-runtime: LISTEN_FDS: cannot listen on the inherited socket: it accepts no connections: "
        "use ListenStream and Accept=no in the systemd socket unit"
    ]


async def test_systemd_is_told(tmp_path: Path) -> None:
    path = str(tmp_path / "notify")
    with trio.socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as told:
        await told.bind(path)
        async with (
            Peer() as peer,
            commands.running(
                "serve",
                "--config",
                config(tmp_path, peer).replace("port = 1", "port = 0"),
                "--port",
                "0",
                environ={"NOTIFY_SOCKET": path, "WATCHDOG_USEC": "200000"},
            ) as process,
        ):
            words = [await told.recv(100) for _ in range(4)]
            process.send_signal(signal.SIGTERM)
            while words[-1] != b"STOPPING=1":
                words.append(await told.recv(100))
            assert await process.wait() == 0
    assert words[0] == b"READY=1"
    assert words[1:4] == [b"WATCHDOG=1"] * 3


async def test_an_abstract_socket_and_none(tmp_path: Path) -> None:
    with trio.socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as told:
        await told.bind(f"\0llm-runtime-test-{os.getpid()}")
        notifier = Notifier({"NOTIFY_SOCKET": f"@llm-runtime-test-{os.getpid()}"})
        notifier.reloading()
        assert (await told.recv(100)).startswith(b"RELOADING=1\nMONOTONIC_USEC=")
    for environ in ({}, {"NOTIFY_SOCKET": str(tmp_path / "absent")}, {"NOTIFY_SOCKET": "nonsense"}):
        notifier = Notifier(environ)
        notifier.ready()
        assert notifier.watchdog_s is None
        await notifier.watch()


@pytest.mark.parametrize(
    ("usec", "pid", "seconds"),
    [("200000", None, 0.2), ("200000", "1", None), ("0", None, None), ("x", None, None), ("٣", None, None)],
)
def test_the_watchdog_is_for_one_process(usec: str, pid: str | None, seconds: float | None) -> None:
    environ = {"WATCHDOG_USEC": usec} | ({"WATCHDOG_PID": pid} if pid else {})
    assert Notifier(environ).watchdog_s == seconds


@pytest.mark.parametrize("count", ["", "x", "-1", "17", "٣"])
def test_sockets_for_others_or_of_no_number_are_not_taken(count: str) -> None:
    assert inherited_sockets({"LISTEN_PID": str(os.getpid()), "LISTEN_FDS": count}) == []
    assert inherited_sockets({"LISTEN_PID": "1", "LISTEN_FDS": "1"}) == []
    assert inherited_sockets({}) == []
