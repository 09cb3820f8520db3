"""A daemon of two workers, as processes."""

from __future__ import annotations

import json
import os
import signal
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import trio

from support import commands
from support.daemon import vendor
from support.killable import ask, events_until, text_in
from support.server import HttpClient, OpenServer, open_server
from support.systemd import activated
from support.ws import ids, text_of

ADMIN = "k-admin-0123456789"
BOSS = {"authorization": f"Bearer {ADMIN}"}
CONFIG = """
[server]
port = 0
workers = 2
drain_s = 5
[keys.boss]
secret = "env:ADMIN"
admin = true
[providers.fake]
kind = "openai_compatible"
base_url = "{url}/v1"
models = {models}
"""


class Daemon:
    """The parent of two workers."""

    def __init__(
        self, process: trio.Process, file: Path, folder: Path, port: int, systemd: trio.socket.SocketType
    ) -> None:
        self.process = process
        self.systemd = systemd
        self.file = file
        self.folder = folder
        self.port = port

    def write(self, upstream: OpenServer, *models: str) -> None:
        self.file.write_text(CONFIG.format(url=upstream.address.url, models=json.dumps(["fake-1", *models])))

    async def connect(self) -> HttpClient:
        sock = trio.socket.socket(socket.AF_INET)
        await sock.connect(("127.0.0.1", self.port))
        return HttpClient(trio.SocketStream(sock))

    async def get(self, target: str, method: str = "GET") -> Any:
        async with await self.connect() as client:
            answer = await client.request(method, target, **BOSS)
            return answer.json if "json" in answer.headers["content-type"] else answer.body.decode()

    async def one_of_each(self, stack: AsyncExitStack) -> dict[str, HttpClient]:
        """A connection to each worker, by the digits with which the ids of its responses begin."""
        found: dict[str, HttpClient] = {}
        for _ in range(200):
            client = await self.connect()
            made = await client.request("POST", "/v1/responses", ask("say hi"), **BOSS)
            if (name := made.json["id"][5:7]) in found:
                client.close()
            else:
                found[name] = await stack.enter_async_context(client)
            if len(found) == 2:
                return found
        raise AssertionError(f"all connections are taken by {found.keys()}")

    async def said(self, words: str) -> str:
        """What it writes to its log, until a line has ``words``."""
        lines = ""
        while words not in lines.rpartition("\n")[2]:
            lines += "\n" + await commands.line(self.process.stderr)
        return lines

    async def pids(self) -> dict[int, int]:
        """Of the workers, by their numbers, as it says when it starts."""
        found: dict[int, int] = {}
        while len(found) < 2:
            line = (await self.said("is process ")).split()
            found[int(line[-4])] = int(line[-1])
        return found


@asynccontextmanager
async def two_workers(upstream: OpenServer, more: str = "") -> AsyncIterator[Daemon]:
    """``more`` is added to their configuration; ``{place}`` in it is their folder."""
    with TemporaryDirectory(prefix="llm-") as place:
        folder, file = Path(place), Path(place) / "c.toml"
        file.write_text((CONFIG + more).format(url=upstream.address.url, models='["fake-1"]', place=place))
        environ = {"ADMIN": ADMIN, "XDG_RUNTIME_DIR": place, "NOTIFY_SOCKET": f"@{place}"}
        with trio.socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd:
            await systemd.bind(f"\0{place}")
            async with commands.running("serve", "--config", str(file), environ=environ, seconds=60) as process:
                url = await commands.line(process.stdout)
                yield Daemon(process, file, folder, int(url.rpartition(":")[2]), systemd)


@contextmanager
def ends(*pids: int) -> Iterator[Callable[[], Awaitable[None]]]:
    """What waits for the ends of processes, whoever started them."""
    files = [os.pidfd_open(pid) for pid in pids]

    async def wait() -> None:
        for file in files:
            await trio.lowlevel.wait_readable(file)

    try:
        yield wait
    finally:
        for file in files:
            os.close(file)


async def test_two_workers_are_one_daemon(tmp_path: Path) -> None:
    async with open_server(vendor) as upstream, two_workers(upstream) as daemon, AsyncExitStack() as stack:
        pids, each = await daemon.pids(), await daemon.one_of_each(stack)
        assert each.keys() == {"01", "02"}

        # What one of them made, the other tells; and all views are of both.
        made = {
            name: (await one.request("POST", "/v1/responses", ask("say so"), **BOSS)).json for name, one in each.items()
        }
        for mine, other in (("01", "02"), ("02", "01")):
            assert (await each[mine].request("GET", f"/v1/responses/{made[other]['id']}", **BOSS)).json == made[other]
        metrics = await daemon.get("/metrics")
        for number in (1, 2):
            assert f'llm_runtime_actor_up{{actor="llm-runtime/server",worker="{number}"}} 1.0' in metrics
        asked = sum(
            float(line.split()[-1]) for line in metrics.splitlines() if line.startswith("llm_runtime_requests_total{")
        )
        told = await daemon.get("/v1/runtime/statistics")
        assert told["requests"]["chat"]["ok"] == asked == len(upstream.engine.requests)
        assert told["connections"] > 2
        assert [node["name"] for node in told["tree"]["children"]] == ["worker-1", "worker-2"]
        assert [node["name"] for node in (await daemon.get("/v1/runtime/tree"))["children"]] == ["worker-1", "worker-2"]
        recent = (await daemon.get("/v1/runtime/requests"))["requests"]
        assert len(recent) == asked

        # A reload reaches both, and a bad one neither.
        daemon.write(upstream, "fake-2")
        assert (await daemon.get("/v1/runtime/reload", "POST"))["changed"] == ["fake"]
        daemon.file.write_text("nonsense")
        assert (await daemon.get("/v1/runtime/reload", "POST"))["error"]["code"] == "invalid_configuration"
        for one in each.values():
            models = (await one.request("GET", "/v1/models", **BOSS)).json
            assert "fake/fake-2" in {model["id"] for model in models["data"]}

        # kill -9 of one: only its own break. The next has what was reloaded, whatever is in the file now.
        for one in each.values():
            await one.begin("POST", "/v1/responses", ask("slowly " + "on " * 30, stream=True), **BOSS)
            await one.head()
        os.kill(pids[2], signal.SIGKILL)
        assert len(text_of(await events_until(each["01"], "never"))) >= 80
        assert b"completed" not in await each["02"].until_closed()
        err = await daemon.said("worker 2 was ended by SIGKILL; it is restarted")
        err += await daemon.said("worker 2 is process")
        pids[2] = int(err.split()[-1])
        new = (await daemon.one_of_each(stack))["02"]
        models = (await new.request("GET", "/v1/models", **BOSS)).json
        assert "fake/fake-2" in {model["id"] for model in models["data"]}

        # At the end there is nothing left.
        with ends(*pids.values()) as wait:
            daemon.process.send_signal(signal.SIGTERM)
            assert await daemon.process.wait() == 0
            await wait()
        assert os.listdir(daemon.folder) == ["c.toml"]
        err += await commands.rest(daemon.process.stderr)
        told = [(await daemon.systemd.recv(100)).partition(b"\n")[0] for _ in range(6)]
        assert told == [b"READY=1", *(b"RELOADING=1", b"READY=1") * 2, b"STOPPING=1"]
        assert "Traceback" not in err
        assert ADMIN not in err


async def test_what_a_killed_worker_has_stored_is_read_at_the_others(tmp_path: Path) -> None:
    store = '[store]\npath = "{place}/store.sqlite3"\n'
    async with open_server(vendor) as upstream, two_workers(upstream, store) as daemon, AsyncExitStack() as stack:
        pids, each = await daemon.pids(), await daemon.one_of_each(stack)
        one, other = each["01"], each["02"]
        whole = (await other.request("POST", "/v1/responses", ask("say so"), **BOSS)).json
        begun = (await other.request("POST", "/v1/responses", ask("hang one two", background=True), **BOSS)).json
        await other.begin("POST", "/v1/responses", ask("hang one two", stream=True), **BOSS)
        await other.head()
        response_id = ids(await events_until(other, "two"))
        with ends(pids[2]) as wait:
            os.kill(pids[2], signal.SIGKILL)
            await wait()

        async def read_all(client: HttpClient) -> None:
            assert (await client.request("GET", f"/v1/responses/{whole['id']}", **BOSS)).json == whole
            for each in (begun["id"], response_id):
                now = (await client.request("GET", f"/v1/responses/{each}", **BOSS)).json
                assert (now["status"], now["llm_runtime"]["incomplete_reason"]) == ("incomplete", "interrupted")
                assert "one two…".startswith(text_in(now))

        await read_all(one)
        await daemon.said("worker 2 is process")
        await read_all((await daemon.one_of_each(stack))["02"])


async def test_workers_whose_parent_was_killed_finish_and_end(tmp_path: Path) -> None:
    async with open_server(vendor) as upstream, two_workers(upstream) as daemon, AsyncExitStack() as stack:
        pids, each = await daemon.pids(), await daemon.one_of_each(stack)
        await each["01"].begin("POST", "/v1/responses", ask("slowly " + "on " * 20, stream=True), **BOSS)
        await each["01"].head()
        with ends(*pids.values()) as wait:
            daemon.process.send_signal(signal.SIGKILL)
            await daemon.process.wait()
            seen = await events_until(each["01"], "never")
            assert (seen[-1]["type"], ids(seen)[5:7]) == ("response.completed", "01")
            await wait()
        assert "Traceback" not in await commands.rest(daemon.process.stderr)
        assert os.listdir(daemon.folder) == ["c.toml"]
        with socket.create_server(("127.0.0.1", daemon.port)):
            pass  # nobody listens there


async def test_systemd_may_have_their_socket(tmp_path: Path) -> None:
    async with open_server(vendor) as upstream:
        with TemporaryDirectory(prefix="llm-") as place, socket.socket(socket.AF_UNIX) as listener:
            listener.bind(f"{place}/sock")
            listener.listen()
            file = tmp_path / "c.toml"
            file.write_text(CONFIG.format(url=upstream.address.url, models='["fake-1"]'))
            async with activated(listener, "--config", str(file), ADMIN=ADMIN) as process:
                async with HttpClient(await trio.open_unix_socket(f"{place}/sock")) as client:
                    assert (await client.request("POST", "/v1/responses", ask("say hi"), **BOSS)).status == 200
                process.terminate()
                assert await process.wait() == 0
            assert os.listdir(place) == ["sock"], "it is not ours to remove"
