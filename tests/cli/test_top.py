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
from llm_runtime.statistics import BudgetUse, CallerStatistics, ModelUse, only_of
from support import commands
from support.peer import Peer, reply
from support.statistics import node, provider, told

SHOWN = """\
up 1 min, 2 connections, limits not shared
3 running, 5.0 requests/s, 0 tokens/s, 5 failed, $1.50

                         IN                                     RESPONSE  FIRST TOKEN   TOKENS
PROVIDER  CIRCUIT  PROGRESS  WAITING    OK  FAILED     COST      p50 p95      p50 p95   in out
primary    closed         -        -  1234       6    $1.50  500ms 950ms            -  5000 20
gone         open         -        -     0       0  unknown            -            -      0 0

FAILURE       REQUESTS  ATTEMPTS
timeout_idle         4         6
queue_full           1         0

                                       IN           LEFT THIS MINUTE
CALLER  REQUESTS  TOKENS   COST  PROGRESS  WAITING   requests tokens
me          1238    5020  $1.50         1        2               3 -

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


def test_columns_are_left_out_for_a_narrow_terminal_and_named() -> None:
    names = ("primary", "our-own-inference-cluster-in-frankfurt-gpu1")
    now = told(uptime_s=110.0, providers={name: provider() for name in names})

    def table(columns: int) -> list[str]:
        lines = screen(now, now, columns)
        return lines[lines.index("") + 1 : lines.index("", lines.index("") + 1)]

    assert table(80) == [
        "                                   IN                                   RESPONSE",
        "PROVIDER            CIRCUIT  PROGRESS  WAITING    OK  FAILED   COST      p50 p95",
        "primary              closed         -        -  1234       6  $1.50  500ms 950ms",
        "our-own-inference…   closed         -        -  1234       6  $1.50  500ms 950ms",
        "(80 columns are too narrow for FIRST TOKEN, TOKENS)",
    ]
    assert table(45)[1].split() == ["PROVIDER", "CIRCUIT", "PROGRESS", "FAILED"]
    assert table(60)[-1] == "(60 columns are too narrow for COST, RESPONSE, FIRST TOKEN,…"
    assert table(200)[-1].startswith("our-own-inference-cluster-in-frankfurt-gpu1")


def test_the_end_of_an_actors_path_is_what_tells_it_from_others() -> None:
    parked = node("our-own-inference-cluster", status=ChildStatus.PARKED, last_crash="OSError: " + "x" * 90)
    tree = node("llm-runtime", node("core", node("providers", parked)))
    *_, last = screen(told(tree=tree), told(tree=tree), 80)
    assert last.startswith("…s/our-own-inference-cluster  parked")
    assert last.endswith("xx…")
    assert len(last) == 80


def test_what_a_key_may_not_see_is_no_zero() -> None:
    before, now = (only_of("me", told(uptime_s=at, callers={"me": use(at)})) for at in (100.0, 110.0))
    lines = screen(now, before, 200)
    assert lines[0] == "up 1 min, 2 connections, limits not shared. This key sees only its own usage."
    assert lines[1] == "110 requests, 1.0 requests/s, 10 tokens/s, $1.10"
    [primary] = [line.split() for line in lines if line.startswith("primary")]
    assert primary == ["primary", "closed", "-", "-", "-", "-", "-", "500ms", "950ms", "-", "-"]


def use(number: float) -> CallerStatistics:
    return CallerStatistics(requests=int(number), tokens=int(number) * 10, cost=number / 100)


def test_a_worker_that_began_anew_or_a_provider_that_was_removed_makes_no_rate_negative() -> None:
    """The sums over the workers are smaller then, although the daemon has been up for longer."""
    now = told(uptime_s=110.0, requests={"chat": {"ok": 1}}, providers={})
    assert "0.0 requests/s, 0 tokens/s" in screen(now, told(), 200)[1]


def test_what_clients_did_wrong_is_not_a_failure() -> None:
    now = told(
        requests={"chat": {"ok": 90, "timeout_idle": 2, "context_length": 1, "rate_limited": 3, "cancelled": 9}},
        refused={"model_not_found": 4},
        limited={"rate_limited": {"caller": 2, "provider": 1}},
        providers={"primary": provider(attempts={"ok": 90, "timeout_idle": 2, "bad_request": 4})},
    )
    lines = screen(now, now, 200)
    assert lines[1] == "3 running, 3 failed, 7 client errors, $1.50"
    [primary] = [line.split() for line in lines if line.startswith("primary")]
    assert primary[5] == "2"
    shown = {line.split("  ")[0]: line.split()[-2:] for line in lines}
    assert shown["model_not_found (client)"] == ["4", "0"]
    assert shown["timeout_idle"] == ["2", "2"]


def test_budgets_are_shown_with_what_is_left_of_them() -> None:
    reds = BudgetUse(
        callers=("me", "you"), routes=("smart",), per="day", soft=0.8, usd=10.0, usd_limit=20.0, tokens=1500,
        tokens_limit=None, resets_at=10_000.0,
    )  # fmt: skip
    every = msgspec.structs.replace(reds, callers=None, routes=(), usd_limit=None, tokens_limit=1000)
    now = told(budgets={"reds": reds, "all": every})
    lines = screen(now, now, 200, wall=2800.0)
    at = next(n for n, line in enumerate(lines) if line.startswith("BUDGET"))
    assert lines[at : at + 3] == [
        "BUDGET   USED           DOLLARS        TOKENS  RESETS IN  PAYS FOR",
        "reds     50 %  $10.00 of $20.00          1500  2 h 0 min  me, you, route smart",
        "all     150 %            $10.00  1500 of 1000  2 h 0 min  all keys",
    ]


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
    assert "its version may differ" in another.err
    assert "not an llm-runtime daemon" in page.err
    assert "127.0.0.1:9" in gone.err


async def test_on_a_terminal_it_is_drawn_until_ctrl_c_which_gives_the_screen_back() -> None:
    ours, theirs = pty.openpty()
    body = msgspec.json.encode(told())
    words = b'{"error": {"message": "Not \\u001b[31m\\nnow"}}'
    busy = reply(words, status=503, headers=JSON)  # of a proxy, or of a daemon that ends
    async with Peer(reply(body, headers=JSON), busy, *[reply(body, headers=JSON)] * 50) as peer:
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
    assert b"NOT RESPONDING: Not [31m now" in seen
