"""The daemon with an actor that keeps crashing, under 50 streams and 50 requests a second over real sockets.

``tests/runtime/test_crashing_actors.py`` has every actor and every way to crash, on a virtual clock. Here are the ways
that differ, with what only a process has: clients' connections, health, exit codes, the last line of the log.
"""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import AsyncGenerator
from contextlib import aclosing, asynccontextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import trio

from llm_actors.testing import ON_START
from llm_actors.transport import HttpRequest, Transport, TransportError, parse_url
from llm_runtime.daemon import GAVE_UP, STOPPED
from support import commands
from support.attempts import ANSWER, answering
from support.peer import Peer

SCRIPT = Path(__file__).parent.parent / "support" / "crashing_daemon.py"
STOP = "stop"
SECONDS = 1.0
WHO = ("plain", "cached", "limited")


class Got(NamedTuple):
    """What a client got: the status, 0 where the connection broke; the code of an error; the text."""

    status: int
    code: str
    text: str


@asynccontextmanager
async def daemon(folder: Path, peer: Peer, where: str, every: int) -> AsyncGenerator[trio.Process]:
    """Provider ``a`` has no limits, ``b`` has. It crashes until `STOP` is in ``folder``."""
    file = folder / "c.toml"
    entry = f'kind = "openai_compatible"\nbase_url = "{peer.url}/v1"\n'
    file.write_text(
        f'[server]\nport = 0\n[providers.a]\n{entry}models = ["m-a"]\n[providers.b]\n{entry}models = ["m-b"]\n'
        "limits = {max_concurrency = 500}\n"
    )
    command = [sys.executable, str(SCRIPT), where, str(every), str(folder / STOP), "serve", "--config", str(file)]
    environ = {"PYTHONPATH": ":".join(sys.path)}
    async with commands.started(command, subprocess.PIPE, environ) as process:
        yield process


async def ask(transport: Transport, url: str, who: str, number: int, *, stream: bool) -> Got:
    origin, _ = parse_url(url)
    body: dict[str, Any] = {
        "model": "b/m-b" if who == "limited" else "a/m-a",
        "stream": stream,
        "messages": [{"role": "user", "content": f"Count {number % 5 if who == 'cached' else number}."}],
        "llm_runtime": {"cache": "read" if who == "cached" else "off", "deadline_s": 8},
    }
    headers = {"content-type": "application/json"}
    request = HttpRequest("POST", origin, "/v1/chat/completions", headers, json.dumps(body).encode())
    try:
        async with transport.send(request) as response:
            told = (await response.read(1_000_000)).decode()
    except TransportError:
        return Got(0, "", "")
    code = re.search(r'"code": ?"(\w+)"', told)
    text = "".join(json.loads(each) for each in re.findall(r'"content": ?("(?:[^"\\]|\\.)*")', told))
    whole = not stream or told.rstrip().endswith("data: [DONE]")
    return Got(response.status, code[1] if code else "", text if whole else "")


async def load(url: str, seconds: float) -> dict[str, Counter[Got]]:
    """50 streams at any moment and 50 requests a second; what each kind of client got."""
    got: dict[str, Counter[Got]] = {who: Counter() for who in WHO}
    end = trio.current_time() + seconds

    async def streams(transport: Transport, who: str, number: int) -> None:
        while trio.current_time() < end:
            got[who][await ask(transport, url, who, number, stream=True)] += 1
            await trio.sleep(0.02)

    async def whole(transport: Transport, who: str, number: int) -> None:
        got[who][await ask(transport, url, who, number, stream=False)] += 1

    async with aclosing(Transport()) as transport, trio.open_nursery() as nursery:
        for number in range(50):
            nursery.start_soon(streams, transport, WHO[number % 3], number)
        while trio.current_time() < end:
            number += 1
            nursery.start_soon(whole, transport, WHO[number % 3], number)
            await trio.sleep(0.02)
    return got


async def get(url: str, path: str) -> tuple[int, Any]:
    origin, _ = parse_url(url)
    async with aclosing(Transport()) as transport, transport.send(HttpRequest("GET", origin, path)) as response:
        return response.status, json.loads(await response.read(1_000_000))


WELL = Got(200, "", ANSWER)
AWAY = {"limited": {Got(503, "provider_unavailable", "")}}


@pytest.mark.parametrize(
    ("where", "needs"),
    [("cache/cache", {}), ("limiter/limiter", AWAY)],
)
async def test_a_service_that_crashes_on_start_is_parked_and_told(
    where: str, needs: dict[str, set[Got]], tmp_path: Path
) -> None:
    name = where.partition("/")[0]
    async with (
        Peer(answering(gap=0.05)) as peer,
        daemon(tmp_path, peer, where, ON_START) as process,
    ):
        url = (await commands.line(process.stdout)).removeprefix("ready ")
        got = await load(url, SECONDS)
        for who, outcomes in got.items():
            assert outcomes.total() > 20
            assert set(outcomes) <= needs.get(who, {WELL}), who
        assert await get(url, "/livez") == (200, {"status": "ok"})
        assert await get(url, "/readyz") == (200, {"status": "ready", "parked": [name]})
        core = (await get(url, "/v1/runtime/tree"))[1]["children"][0]
        statuses = {each["name"]: each["status"] for each in core["children"]}
        assert statuses == {each: "parked" if each == name else "running" for each in statuses}
        process.send_signal(signal.SIGTERM)
        assert await process.wait() == STOPPED
        told = await commands.rest(process.stderr)
    assert f"llm-runtime/core/{name} is parked" in told
    assert "Traceback" not in told


@pytest.mark.parametrize(("where", "every"), [("cache/cache", 1), ("limiter/limiter", 7), ("b/provider", 1)])
async def test_who_does_not_need_it_notices_nothing_and_afterwards_all_is_well(
    where: str, every: int, tmp_path: Path
) -> None:
    async with (
        Peer(answering(gap=0.05)) as peer,
        daemon(tmp_path, peer, where, every) as process,
    ):
        url = (await commands.line(process.stdout)).removeprefix("ready ")
        got = await load(url, SECONDS)
        for who, outcomes in got.items():
            if who != "limited" or where == "cache/cache":
                assert set(outcomes) == {WELL}, who
        codes = {each.code for each in got["limited"]}
        assert codes <= {"", "provider_unavailable", "server_error", "overloaded"}
        assert (await get(url, "/readyz"))[0] == 200
        (tmp_path / STOP).touch()
        with trio.fail_after(15):
            async with aclosing(Transport()) as transport:
                # A provider's circuit may stay open for longer; the virtual clock has the patience for that.
                for who in WHO[:2] if where == "b/provider" else WHO:
                    while await ask(transport, url, who, 0, stream=True) != WELL:
                        pass
        process.send_signal(signal.SIGTERM)
        assert await process.wait() == STOPPED
        assert "Traceback" not in await commands.rest(process.stderr)


async def test_a_connection_that_crashes_is_the_only_one_that_ends(tmp_path: Path) -> None:
    """Every 7th; its client sees the connection break, and everybody else a whole answer."""
    async with (
        Peer(answering(gap=0.05)) as peer,
        daemon(tmp_path, peer, "sessions/*", 7) as process,
    ):
        url = (await commands.line(process.stdout)).removeprefix("ready ")
        got = await load(url, SECONDS)
        broken = sum(outcomes.total() - outcomes[WELL] for outcomes in got.values())
        assert 0 < broken < sum(outcomes.total() for outcomes in got.values()) / 3
        for outcomes in got.values():
            assert all(each == WELL or not each.text for each in outcomes)
        with trio.fail_after(5):
            await peer.until(lambda: peer.open_requests == 0)
        process.send_signal(signal.SIGTERM)
        assert await process.wait() == STOPPED
        assert "gave up" not in await commands.rest(process.stderr)


async def test_a_connection_that_cannot_start_is_the_only_one_that_ends(tmp_path: Path) -> None:
    async with Peer() as peer, daemon(tmp_path, peer, "sessions/*", ON_START) as process:
        url = (await commands.line(process.stdout)).removeprefix("ready ")
        for _ in range(8):  # the listener itself may crash three times
            with pytest.raises(TransportError):
                await get(url, "/livez")
        (tmp_path / STOP).touch()
        with trio.fail_after(10):
            while True:
                with suppress(TransportError):
                    assert await get(url, "/livez") == (200, {"status": "ok"})
                    break
        process.send_signal(signal.SIGTERM)
        assert await process.wait() == STOPPED
        assert "server" not in await commands.rest(process.stderr)


async def test_an_orchestrator_that_keeps_crashing_ends_the_process_with_1_and_the_cause(tmp_path: Path) -> None:
    """The service manager starts it anew. Until then every client is told a crash, and nobody a shutdown."""
    async with (
        Peer(answering(gap=0.05)) as peer,
        daemon(tmp_path, peer, "core/orchestrator", 1) as process,
    ):
        url = (await commands.line(process.stdout)).removeprefix("ready ")
        got: dict[str, Counter[Got]] = {}
        with trio.fail_after(15):
            while process.poll() is None:
                for who, outcomes in (await load(url, 0.5)).items():
                    got.setdefault(who, Counter()).update(outcomes)
        assert process.returncode == GAVE_UP
        told = await commands.rest(process.stderr)
    # "": a connection that was cut before a last word could be written.
    codes = {each.code for outcomes in got.values() for each in outcomes}
    assert "server_error" in codes
    assert codes <= {"", "server_error"}
    assert "Traceback" not in told
    last = told.splitlines()[-1]
    assert "the runtime exits with code 1, because a supervisor gave up" in last
    assert "InjectedCrash" in last


async def test_an_orchestrator_that_does_not_start_ends_the_process_with_1(tmp_path: Path) -> None:
    async with Peer() as peer, daemon(tmp_path, peer, "core/orchestrator", ON_START) as process:
        assert await process.wait() == GAVE_UP
        assert await commands.rest(process.stdout) == ""
        assert "llm-runtime/core/orchestrator: StartFailed" in (await commands.rest(process.stderr)).splitlines()[-1]
