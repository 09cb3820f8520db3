"""A daemon that is told to read its configuration again: by a signal, a command and a request."""

from __future__ import annotations

import json
import signal
import socket
from contextlib import aclosing
from pathlib import Path

import pytest
import trio

from llm_actors.testing import MovingClock
from llm_actors.transport import HttpRequest, Transport, parse_url
from llm_runtime.cli import reload
from llm_runtime.cli.setup import Daemon
from support import commands
from support.peer import Peer, pause, reply
from support.upstream import JSON, whole

ADMIN, APP, NEW = "k-admin-0123456789", "k-app-0123456789", "k-new-0123456789"
ENVIRON = {"ADMIN": ADMIN, "APP": APP, "NEW": NEW, "ONE": "vendor-one", "TWO": "vendor-two"}


@pytest.fixture
def jumping_clock() -> MovingClock:
    """Virtual time that jumps when nothing happens for 5 ms: sockets on loopback need a moment to deliver."""
    return MovingClock(autojump_threshold=0.005)


KEYS = '[keys.boss]\nsecret = "env:ADMIN"\nadmin = true\n[keys.app]\nsecret = "env:APP"\n'


def write(file: Path, peer: Peer, key: str = "ONE", keys: str = KEYS, server: str = "") -> None:
    file.write_text(
        f"[server]\nport = 0\ndrain_s = 2\n{server}{keys}"
        f'[providers.p]\nkind = "openai_compatible"\nbase_url = "{peer.url}/v1"\n'
        f'api_key = "env:{key}"\nmodels = ["m"]\n'
    )


async def ask(url: str, key: str, method: str = "POST", path: str = "/v1/chat/completions") -> tuple[int, bytes]:
    body = json.dumps({"model": "p/m", "messages": [{"role": "user", "content": "hi"}]}).encode()
    headers = {"authorization": f"Bearer {key}", "content-type": "application/json"}
    request = HttpRequest(method, parse_url(url)[0], path, headers, body if method == "POST" else b"")
    async with aclosing(Transport()) as transport, transport.send(request) as response:
        return response.status, await response.read()


async def test_a_daemon_may_take_its_time_to_reload(jumping_clock: MovingClock) -> None:
    """Its workers do, one after the other."""
    body = b'{"added":["p"]}'
    async with Peer([pause(120), reply(body, headers=JSON)]) as peer:
        assert await reload._ask(Daemon(f"{peer.url}/v1", None)) == body


async def test_a_request_a_command_and_a_signal(tmp_path: Path) -> None:
    file = tmp_path / "c.toml"
    async with Peer(reply(whole(), headers=JSON)) as peer:
        write(file, peer)
        async with commands.running("serve", "--config", str(file), environ=ENVIRON) as process:
            url = (await commands.line(process.stdout)).removeprefix("ready ")
            assert (await ask(url, APP))[0] == 200

            write(file, peer, "TWO", KEYS.replace("env:APP", "env:NEW"), server="websocket = false\n")
            status, body = await ask(url, APP, path="/v1/runtime/reload")
            assert (status, json.loads(body)["error"]["code"]) == (403, "not_allowed")
            status, body = await ask(url, ADMIN, path="/v1/runtime/reload")
            assert (status, json.loads(body)) == (
                200,
                {
                    "added": [],
                    "changed": ["p"],
                    "removed": [],
                    "sections": ["keys.app.secret"],
                    "after_restart": ["server.websocket"],
                },
            )
            assert (await ask(url, APP))[0] == 401, "its key has been replaced"
            assert (await ask(url, NEW))[0] == 200

            file.write_text("[server]\nprot = 1\n[providers.p]\nkind = 'x'\n")
            done = await commands.run("reload", "--url", url, LLM_RUNTIME_KEY=ADMIN)
            assert done.code == 1
            assert done.err.count("\nllm-runtime: ") == 1, "a line for each"
            assert "server.prot: unknown key" in done.err
            assert 'providers.p.kind: there is no kind "x"' in done.err
            assert (await ask(url, NEW))[0] == 200, "the old one holds"

            write(file, peer, "ONE")
            done = await commands.run("reload", "--url", url, LLM_RUNTIME_KEY=ADMIN)
            assert (done.code, done.out) == (0, "reloaded: changed providers.p, keys.app.secret\n")
            assert (await ask(url, APP))[0] == 200

            write(file, peer, "TWO")
            process.send_signal(signal.SIGHUP)
            with trio.fail_after(10):
                while (await ask(url, APP))[0] == 200 and last_key(peer) != "vendor-two":
                    pass
            process.terminate()
            assert await process.wait() == 0
            err = await commands.rest(process.stderr)
    assert [each.headers["authorization"] for each in peer.requests[:3]] == [
        "Bearer vendor-one",
        "Bearer vendor-two",
        "Bearer vendor-two",
    ]
    assert "reloaded: changed providers.p, keys.app.secret; only after a restart: server.websocket" in err
    assert err.count("not reloaded; the old configuration stays in effect: ") == 2
    assert "0123456789" not in err


def last_key(peer: Peer) -> str:
    return peer.requests[-1].headers["authorization"].removeprefix("Bearer ")


async def test_nobody_answers(tmp_path: Path) -> None:
    done = await commands.run("reload", "--url", "http://127.0.0.1:9")
    assert (done.code, done.out) == (1, "")
    assert done.err == "llm-runtime: http://127.0.0.1:9: Connection refused\n"


@pytest.mark.parametrize("arguments", [(), ("--json",)])
async def test_systemd_hears_of_it(tmp_path: Path, arguments: tuple[str, ...]) -> None:
    path = str(tmp_path / "notify")
    file = tmp_path / "c.toml"
    with trio.socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as told:
        await told.bind(path)
        async with Peer() as peer:
            write(file, peer, keys="")
            environ = {**ENVIRON, "NOTIFY_SOCKET": path}
            async with commands.running("serve", "--config", str(file), environ=environ) as process:
                url = (await commands.line(process.stdout)).removeprefix("ready ")
                assert await told.recv(100) == b"READY=1"
                done = await commands.run("reload", *arguments, LLM_RUNTIME_URL=url)
                assert done.code == 0
                assert (await told.recv(100)).startswith(b"RELOADING=1\n")
                assert await told.recv(100) == b"READY=1"
                process.terminate()
                assert await process.wait() == 0
