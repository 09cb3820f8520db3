"""A daemon with a store, as a process of its own that is going to be killed."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import trio

from support.commands import running
from support.server import HttpClient, OpenServer, Reply

CONFIG = """
[server]
port = 0
[store]
path = "{folder}/state/store.sqlite3"
{store}
[providers.fake]
kind = "openai_compatible"
base_url = "{url}/v1"
models = ["fake-1"]
"""


class KillableDaemon:
    """A running daemon."""

    def __init__(self, process: trio.Process, port: int) -> None:
        self.process = process
        self._port = port

    async def connect(self) -> HttpClient:
        sock = trio.socket.socket(socket.AF_INET)
        await sock.connect(("127.0.0.1", self._port))
        return HttpClient(trio.SocketStream(sock))

    async def request(self, method: str, target: str, body: Any = None, **headers: str) -> Reply:
        async with await self.connect() as client:
            return await client.request(method, target, body, **headers)

    async def kill(self) -> None:
        self.process.send_signal(signal.SIGKILL)
        await self.process.wait()


@asynccontextmanager
async def killable_daemon(
    upstream: OpenServer, folder: Path, more: str = "", *, store: str = "", **environ: str
) -> AsyncIterator[KillableDaemon]:
    """A daemon with the upstream as its one provider. ``more`` is added to its configuration, ``store`` to its
    ``[store]``.
    """
    config = folder / "config.toml"
    config.write_text(CONFIG.format(folder=folder, url=upstream.address.url, store=store) + more)
    arguments = ("serve", "--config", str(config))
    async with running(*arguments, stdout=subprocess.PIPE, environ=environ, seconds=1_000) as process:
        line = b""
        while not line.endswith(b"\n"):
            assert process.stdout is not None
            got = await process.stdout.receive_some()
            assert got, "it did not start"
            line += got
        yield KillableDaemon(process, int(line.decode().rsplit(":", 1)[1]))


def ask(text: str, **more: Any) -> dict[str, Any]:
    return {"model": "fake-1", "input": text, **more}


def text_in(body: Any) -> str:
    return "".join(part["text"] for item in body["output"] for part in item.get("content", ()))


async def events_until(client: HttpClient, enough: str) -> list[dict[str, Any]]:
    """The events of a stream until ``enough`` of its text has come, or its end."""
    seen, unread = list[dict[str, Any]](), b""
    while True:
        while b"\n\n" in unread:
            event, _, unread = unread.partition(b"\n\n")
            for line in event.splitlines():
                if line.startswith(b"data: {"):
                    seen.append(json.loads(line[6:]))
        text = "".join(each["delta"] for each in seen if each["type"] == "response.output_text.delta")
        if enough in text or (seen and seen[-1]["type"] in ("response.completed", "response.incomplete")):
            return seen
        piece = await client.piece()
        assert piece is not None
        unread += piece
