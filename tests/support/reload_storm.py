"""A daemon of two workers under load, while its configuration, keys, providers and certificate change.

Its clients stream and ask without a pause. Each says in its request how far it knows the provider's key to be rotated,
and the provider checks that the key it got is of then or later. In the middle a worker is killed. What must not happen:
a request that is refused or lost, but for those of that worker; an old key for a new request; a bad configuration that
changes anything.
"""

from __future__ import annotations

import os
import signal
import ssl
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from random import Random

import trio
import trustme

from support import commands
from support.peer import Peer
from support.reload_clients import ReloadClients, ReloadTally, TlsClient, connected
from support.server import Reply

ADMIN = "k-admin-0123456789"
CONFIG = """
[server]
port = 0
workers = 2
drain_s = 10
[server.tls]
certificate = "cert.pem"
key = "key.pem"
[keys.boss]
secret = "env:ADMIN"
admin = true
{keys}
[providers.main]
kind = "openai_compatible"
base_url = "{url}/v1"
api_key = "file:vendor.key"
models = ["m"]
{extra}
[attempts]
max = {attempts}
"""

EXTRA = """
[providers.extra]
kind = "openai_compatible"
base_url = "{url}/v1"
api_key = "file:vendor.key"
models = ["m"]
"""

BAD = (
    "[server\n",
    "[providers.main]\nkind = 'openai_compatible'\nprot = 1\n",
    "[providers.main]\nkind = 'openai_compatible'\nbase_url = 'http://127.0.0.1:1/v1'\napi_key = 'env:NOT_THERE'\n",
    "[keys.a]\nsecret = 'file:missing.key'\n",
)


class ReloadStorm:
    """``streams`` at a time and ``rate`` requests a second for as long as ``reloads`` take, ``pause`` seconds apart."""

    def __init__(self, folder: Path, *, streams: int, rate: int, reloads: int, pause: float, seed: int) -> None:
        self._folder = folder
        self._streams = streams
        self._rate = rate
        self._reloads = reloads
        self._pause = pause
        self._random = Random(seed)
        self._ca = trustme.CA()
        self._keys = ["k-app-0-0123456789"]
        self._has_extra = False
        self._attempts = 3
        self._is_over = False
        context = ssl.create_default_context()
        self._ca.configure_trust(context)
        self.tally = ReloadTally()
        self._clients = ReloadClients(self._random, context, self.tally, key=self._keys[0])

    async def run(self) -> ReloadTally:
        """All of it. What was wrong is in the tally."""
        async with Peer(self._clients.provider) as peer:
            self._url = peer.url
            self._write_certificate()
            self._write_vendor_key()
            self._write()
            arguments = ("serve", "--config", str(self._folder / "c.toml"))
            async with commands.running(*arguments, environ={"ADMIN": ADMIN}, seconds=900) as process:
                self._process = process
                self._clients.port = int((await commands.line(process.stdout)).rpartition(":")[2])
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(self._keep_log)
                    await self._load()
                    nursery.cancel_scope.cancel("the log is of no use any more")
        return self.tally

    async def _load(self) -> None:
        async with trio.open_nursery() as nursery:
            self._clients.start(nursery, self._streams, self._rate)
            nursery.start_soon(self._weigh)
            await trio.sleep(2)
            await self._change_all()
            self._clients.is_stopping = self._is_over = True

    def _connected(self) -> AbstractAsyncContextManager[TlsClient]:
        return connected(self._clients.port, self._clients.context)

    # -- what changes --------------------------------------------------------------------------------------------------

    async def _change_all(self) -> None:
        changes = (
            self._rotate_vendor_key, self._reload_nothing_new, self._reload_badly, self._add_caller_key,
            self._add_extra, self._reload_badly, self._change_attempts, self._renew_certificate,
            self._remove_caller_key, self._remove_extra, self._reload_by_signal, self._reload_by_command,
        )  # fmt: skip
        for number in range(self._reloads):
            change = changes[number % len(changes)]
            self.tally.done[change.__name__.strip("_")] += 1
            with trio.move_on_after(60) as late:
                await change()
            if late.cancelled_caught:
                self._clients.complain(f"{change.__name__} took more than 60 s")
            await trio.sleep(self._pause)
            if number == self._reloads // 2:
                await self._kill_a_worker()

    def _write(self) -> None:
        names = [f'[keys.app{key.split("-")[2]}]\nsecret = "file:{key}.key"\n' for key in self._keys]
        for key in self._keys:
            (file := self._folder / f"{key}.key").write_text(key)
            file.chmod(0o600)
        extra = EXTRA.format(url=self._url) if self._has_extra else ""
        text = CONFIG.format(url=self._url, keys="".join(names), extra=extra, attempts=self._attempts)
        (self._folder / "c.toml").write_text(text)

    def _write_vendor_key(self) -> None:
        file = self._folder / "vendor.key"
        (new := file.with_suffix(".new")).write_text(f"vendor-{self._clients.written}")
        new.chmod(0o600)
        new.replace(file)

    def _write_certificate(self) -> None:
        issued = self._ca.issue_cert("localhost")
        issued.private_key_pem.write_to_path(str(self._folder / "key.pem"))
        (self._folder / "cert.pem").write_bytes(b"".join(each.bytes() for each in issued.cert_chain_pems))

    async def _asked_to_reload(self) -> Reply:
        async with self._connected() as client:
            return await client.request("POST", "/v1/runtime/reload", authorization=f"Bearer {ADMIN}")

    async def _reload(self) -> None:
        """Have what is written taken over."""
        self._write()
        reply = await self._asked_to_reload()
        if reply.status != 200 or reply.json["after_restart"]:
            self._clients.complain(f"a good configuration was not taken over: {reply.status} {reply.body[:300]!r}")

    async def _reload_nothing_new(self) -> None:
        await self._reload()

    async def _change_attempts(self) -> None:
        self._attempts = self._attempts % 5 + 1
        await self._reload()

    async def _reload_badly(self) -> None:
        (self._folder / "c.toml").write_text(self._random.choice(BAD))
        reply = await self._asked_to_reload()
        if reply.status == 200 or b"c.toml:" not in reply.body:
            self._clients.complain(f"a bad configuration was answered: {reply.status} {reply.body[:300]!r}")
        self._write()

    async def _rotate_vendor_key(self) -> None:
        self._clients.written += 1
        self._write_vendor_key()
        await self._reload()
        self._clients.acknowledged = self._clients.written

    async def _add_caller_key(self) -> None:
        number = int(self._keys[-1].split("-")[2]) + 1
        self._keys.insert(0, f"k-app-{number}-0123456789")  # nobody uses it yet
        await self._reload()
        self._keys.append(self._keys.pop(0))
        self._clients.key = self._keys[-1]

    async def _remove_caller_key(self) -> None:
        if len(self._keys) < 2:
            return
        old = self._keys[0]
        await self._clients.are_answered(old)  # nobody begins with it any more; streams that began go on
        del self._keys[0]
        await self._reload()
        async with self._connected() as client:
            reply = await client.request("GET", "/v1/models", authorization=f"Bearer {old}")
        if reply.status != 401:
            self._clients.complain(f"a removed key was answered: {reply.status}")

    async def _add_extra(self) -> None:
        self._has_extra = True
        await self._reload()
        self._clients.uses_extra = True

    async def _remove_extra(self) -> None:
        """Streams that have begun at it end as they would."""
        self._clients.uses_extra = False
        await self._clients.are_answered("extra/m")
        self._has_extra = False
        await self._reload()
        async with self._connected() as client:
            body = {"model": "extra/m", "messages": [{"role": "user", "content": "g0"}]}
            reply = await client.request("POST", "/v1/chat/completions", body, **self._clients.headers)
        if reply.status != 404:
            self._clients.complain(f"a removed provider was answered: {reply.status} {reply.body[:300]!r}")

    async def _renew_certificate(self) -> None:
        """It is noticed by itself."""
        async with self._connected() as client:
            before = client.serial()
        self._write_certificate()
        for _ in range(200):
            async with self._connected() as client:
                if client.serial() != before:
                    return
            await trio.sleep(0.1)
        self._clients.complain("a renewed certificate was not noticed within 20 s")

    async def _reload_by_signal(self) -> None:
        self._process.send_signal(signal.SIGHUP)

    async def _reload_by_command(self) -> None:
        url = f"https://localhost:{self._clients.port}"
        ca = self._folder / "ca.pem"
        self._ca.cert_pem.write_to_path(str(ca))
        done = await commands.run("reload", "--url", url, LLM_RUNTIME_KEY=ADMIN, SSL_CERT_FILE=str(ca))
        if done.code:
            self._clients.complain(f"llm-runtime reload: {done.code} {done.err}")

    async def _kill_a_worker(self) -> None:
        workers = self._workers()
        self._clients.killed_at = trio.current_time()
        os.kill(workers[0], signal.SIGKILL)
        with trio.fail_after(30):
            while workers[0] in self._workers():  # noqa: ASYNC110
                await trio.sleep(0.01)

    def _workers(self) -> list[int]:
        """Their process ids; each was started by some thread of the parent."""
        threads = Path(f"/proc/{self._process.pid}/task").glob("*/children")
        return [int(each) for thread in threads for each in thread.read_text().split()]

    # -- looking -------------------------------------------------------------------------------------------------------

    async def _weigh(self) -> None:
        while not self._is_over:
            self.tally.memory.append(sum(map(_memory_of, (self._process.pid, *self._workers()))))
            await trio.sleep(1)

    async def _keep_log(self) -> None:
        assert self._process.stderr is not None
        with (self._folder / "log").open("wb") as log:
            async for data in self._process.stderr:
                log.write(data)
                log.flush()


def _memory_of(pid: int) -> int:
    """The bytes of a process, shared ones in parts; 0 for one that was killed."""
    try:
        text = Path(f"/proc/{pid}/smaps_rollup").read_text()
    except OSError:
        return 0
    return sum(int(line.split()[1]) * 1024 for line in text.splitlines() if line.startswith("Pss:"))
