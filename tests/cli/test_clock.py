"""The daemon while somebody sets the machine's clock: libfaketime turns it, and leaves the monotonic one alone."""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import AsyncGenerator
from contextlib import aclosing, asynccontextmanager
from pathlib import Path
from typing import NamedTuple

import pytest
import trio

from llm_actors.transport import HttpRequest, Transport, parse_url
from support import commands
from support.peer import Peer, reply, sse
from support.upstream import END, HELLO, JSON, whole, word

LIBRARIES = sorted(Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1"))
JUMPS = ("+1d", "-1h")

pytestmark = pytest.mark.skipif(not LIBRARIES, reason="libfaketime is not installed")


def turned_by(clock: Path) -> dict[str, str]:
    """The environment of a process whose wall clock is off by what the file says at any time."""
    return {
        "LD_PRELOAD": str(LIBRARIES[0]),
        "FAKETIME_DONT_FAKE_MONOTONIC": "1",
        "FAKETIME_NO_CACHE": "1",
        "FAKETIME_TIMESTAMP_FILE": str(clock),
    }


class Daemon(NamedTuple):
    """A daemon, and the file that says how far its clock is off."""

    url: str
    clock: Path

    async def ask(self, **more: object) -> bytes:
        """The body of one answer."""
        body = json.dumps({"model": "p/m", "messages": [{"role": "user", "content": "hi"}], **more}).encode()
        request = HttpRequest("POST", parse_url(self.url)[0], "/v1/chat/completions", JSON, body)
        parts: list[bytes] = []
        async with aclosing(Transport()) as transport, transport.send(request) as response:
            assert response.status == 200
            while part := await response.receive():
                parts.append(part)
        return b"".join(parts)

    async def turn(self, jump: str, *, after: float) -> None:
        await trio.sleep(after)
        self.clock.write_text(jump)


@asynccontextmanager
async def daemon(folder: Path, peer: Peer, more: str = "") -> AsyncGenerator[Daemon]:
    clock, file = folder / "clock", folder / "c.toml"
    clock.write_text("+0")
    file.write_text(
        "[server]\nport = 0\ndrain_s = 0\n"
        f'[providers.p]\nkind = "openai_compatible"\nbase_url = "{peer.url}/v1"\nmodels = ["m"]\n{more}'
    )
    async with commands.running("serve", "--config", str(file), environ=turned_by(clock)) as process:
        yield Daemon((await commands.line(process.stdout)).removeprefix("ready "), clock)


async def test_the_clock_is_turned_and_the_monotonic_one_is_not(tmp_path: Path) -> None:
    """What the tests below stand on."""
    clock = tmp_path / "clock"
    clock.write_text("+1d")
    code = "import time; print(time.time(), time.monotonic())"
    environ = {**os.environ, **turned_by(clock)}
    done = await trio.run_process([sys.executable, "-c", code], capture_stdout=True, env=environ)
    wall, monotonic = map(float, done.stdout.split())
    assert wall - time.time() == pytest.approx(86_400, abs=60)
    assert monotonic == pytest.approx(time.monotonic(), abs=60)


@pytest.mark.parametrize("jump", JUMPS)
async def test_a_wait_is_as_long_as_was_said(tmp_path: Path, jump: str) -> None:
    """A Retry-After is waited out, no less and not much more; the rate of the limiter is kept."""
    busy = reply(b"{}", 429, {"retry-after": "1"})
    limits = "limits = { requests_per_minute = 60 }\n"
    async with Peer(busy, reply(whole(), headers=JSON)) as peer, daemon(tmp_path, peer, limits) as asked:
        async with trio.open_nursery() as nursery:
            begun = trio.current_time()
            nursery.start_soon(lambda: asked.turn(jump, after=0.5))
            assert b"Hello there" in await asked.ask()
        waited = trio.current_time() - begun
        assert len(peer.requests) == 2
        assert 1.0 <= waited < 5.0


@pytest.mark.parametrize("jump", JUMPS)
async def test_a_stream_goes_on(tmp_path: Path, jump: str) -> None:
    """No timeout fires because the clock was set: not the idle one, not the total one."""
    answer = sse(*HELLO, *[word(" again")] * 5, *END, gap=0.1)
    timeouts = "timeouts = { idle = 5, total = 20 }\n"
    async with Peer(answer) as peer, daemon(tmp_path, peer, timeouts) as asked:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(lambda: asked.turn(jump, after=0.3))
            seen = await asked.ask(stream=True)
        assert seen.count(b" again") == 5
        assert b"[DONE]" in seen


async def test_and_cache_05_what_was_kept_lasts_as_long_as_it_should(tmp_path: Path) -> None:
    """Neither lost when the clock is set forth, nor kept for ever when it is set back: its time is counted apart."""
    cache = f'[cache]\nenabled = true\npath = "{tmp_path}/cache.db"\nttl_s = 1\n'
    async with Peer(reply(whole(), headers=JSON)) as peer, daemon(tmp_path, peer, cache) as asked:
        for seed, jump in enumerate(("+1d", "-1d")):
            before, begun = len(peer.requests), trio.current_time()
            first = await asked.ask(seed=seed)
            kept = trio.current_time()
            asked.clock.write_text(jump)
            again = await asked.ask(seed=seed)
            if trio.current_time() - begun < 1:  # else this machine was too busy to look in time
                assert len(peer.requests) == before + 1
                assert json.loads(again)["choices"] == json.loads(first)["choices"]
            await trio.sleep_until(kept + 1.5)
            await asked.ask(seed=seed)
            assert len(peer.requests) > before + 1
