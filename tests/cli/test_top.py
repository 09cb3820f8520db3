"""``llm-runtime top``: what it shows, on and off a terminal."""

from __future__ import annotations

import os
import pty
import signal
from pathlib import Path

import msgspec
import pytest
import trio

from llm_actors.kernel import ChildStatus
from llm_actors.selector import CircuitState
from llm_runtime.cli.top_screen import screen
from llm_runtime.statistics import ModelUse
from support import commands
from support.peer import Peer, reply
from support.statistics import node, provider, told

SHOWN = """\
up 1 min, 3 running, 5.0 requests/s, 0 tokens/s, 5 failed, $1.50
2 connections, limits not shared

PROVIDER  CIRCUIT  IN FLIGHT  WAITING    OK  FAILED     COST  ANSWER p50 p95  FIRST TOKEN p50 p95  TOKENS in out
primary    closed          -        -  1234       6    $1.50     500ms 950ms                    -        5000 20
gone         open          -        -     0       0  unknown               -                    -            0 0

FAILURE       REQUESTS  CALLS
timeout_idle         4      6
queue_full           1      0

CALLER  REQUESTS  TOKENS   COST  IN FLIGHT  WAITING
me          1238    5020  $1.50          1        2

ACTOR                   STATUS  RESTARTS  LAST CRASH
llm-runtime/core/cache  parked         0  OSError: disk full"""

JSON = {"content-type": "application/json"}


def test_it_shows_what_an_operator_needs() -> None:
    before = told(uptime_s=100.0)
    providers = {
        "primary": provider(),
        "gone": provider(breaker=CircuitState.OPEN, attempts={}, attempt_seconds=None, unpriced=2, models={}),
    }
    tree = node("llm-runtime", node("core", node("cache", status=ChildStatus.PARKED, last_crash="OSError: disk full")))
    now = told(uptime_s=110.0, requests={"chat": {"ok": 1284, "timeout_idle": 4}}, providers=providers, tree=tree)
    assert "\n".join(screen(now, before, 200)) == SHOWN


@pytest.mark.parametrize("columns", [1, 40, 80])
def test_no_line_is_wider_than_the_terminal_and_nothing_steers_it(columns: int) -> None:
    evil = "x\x1b[2J" * 20
    models = {evil: ModelUse(input_tokens=1, output_tokens=1, cost=None)}
    now = told(providers={evil: provider(models=models)}, tree=node("a", node("b", last_crash=evil)))
    lines = screen(now, now, columns)
    assert max(map(len, lines)) <= columns
    assert not any("\x1b" in line for line in lines)


async def test_it_is_printed_once_where_stdout_is_no_terminal() -> None:
    async with Peer(reply(msgspec.json.encode(told()), headers=JSON)) as peer:
        code, out, err = await commands.run("top", "--url", peer.url, LLM_RUNTIME_KEY="sk-CANARY")
    assert (code, err) == (0, "")
    assert "primary    closed" in out
    assert [each.target for each in peer.requests] == ["/v1/runtime/statistics"]
    assert peer.requests[0].headers["authorization"] == "Bearer sk-CANARY"


async def test_a_running_daemon_is_understood(tmp_path: Path) -> None:
    (tmp_path / "c.toml").write_text(
        '[providers.p]\nkind = "openai_compatible"\nbase_url = "http://127.0.0.1:9/v1"\nmodels = ["m"]\n'
    )
    arguments = ("serve", "--config", str(tmp_path / "c.toml"), "--port", "0")
    async with commands.running(*arguments) as process:
        url = (await commands.line(process.stdout)).removeprefix("ready ").strip()
        code, out, err = await commands.run("top", "--url", url)
    assert (code, err) == (0, "")
    assert "0 running" in out


async def test_what_is_no_daemon_is_one_line() -> None:
    async with Peer(reply(b'{"up": 1}', headers=JSON)) as other, Peer(reply(b"<html>", headers=JSON)) as web:
        another = await commands.run("top", "--url", other.url)
        page = await commands.run("top", "--url", web.url)
    gone = await commands.run("top", "--url", "http://127.0.0.1:9")
    for code, out, err in (another, page, gone):
        assert (code, out, err.count("\n")) == (1, "", 1)
    assert "it may be another version" in another.err
    assert "not an llm-runtime daemon" in page.err
    assert "127.0.0.1:9" in gone.err


async def test_on_a_terminal_it_is_drawn_until_ctrl_c_which_gives_the_screen_back() -> None:
    ours, theirs = pty.openpty()
    body = msgspec.json.encode(told())
    async with Peer(*[reply(body, headers=JSON)] * 50) as peer:
        command = [*commands.COMMAND, "top", "--url", peer.url, "--interval", "0.1"]
        seen = b""
        with trio.fail_after(commands.SECONDS):
            process = await trio.lowlevel.open_process(
                command, stdin=theirs, stdout=theirs, stderr=theirs, env=commands.environment({})
            )
            os.close(theirs)
            async with trio.lowlevel.FdStream(ours) as terminal:
                while seen.count(b"llm-runtime at ") < 3:
                    seen += await terminal.receive_some()
                process.send_signal(signal.SIGINT)
                while not seen.endswith(b"\x1b[?1049l"):
                    seen += await terminal.receive_some()
                code = await process.wait()
    assert code == 0
    assert seen.startswith(b"\x1b[?1049h")
    assert b"primary    closed" in seen
