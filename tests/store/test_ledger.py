"""The ledger and budgets, in a daemon of its own: what is written, when, and what a kill leaves."""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import trio

from support import commands
from support.daemon import vendor
from support.killable import KillableDaemon, ask, killable_daemon
from support.server import Reply, open_server

PRICE = """
[prices."fake/fake-1"]
input = 1000
output = 10000
"""  # a request of 3 tokens in and 2 out: $0.023
COST = 0.003 + 0.02

KEYS = """
[keys.alice]
secret = "env:ALICE"
team = "red"
[keys.bob]
secret = "env:BOB"
team = "red"
[keys.root]
secret = "env:ROOT"
admin = true
"""
SECRETS = {name: f"CANARY-secret-of-{name.lower()}" for name in ("ALICE", "BOB", "ROOT")}


def rows(folder: Path) -> list[dict[str, Any]]:
    with closing(sqlite3.connect(folder / "state" / "store.sqlite3")) as db:
        db.row_factory = sqlite3.Row
        return [dict(row) for row in db.execute("SELECT * FROM ledger ORDER BY id")]


async def until_closed(folder: Path, count: int) -> list[dict[str, Any]]:
    """The rows, when so many are closed: most are written a little later."""
    with trio.fail_after(10):
        while True:
            found = rows(folder)
            if sum(row["closed_at"] is not None for row in found) >= count:
                return found
            await trio.sleep(0.05)


async def say(daemon: KillableDaemon, text: str, whose: str = "ALICE") -> Reply:
    body = {"model": "fake-1", "messages": [{"role": "user", "content": text}], "max_tokens": 2}
    return await daemon.request("POST", "/v1/chat/completions", body, authorization=f"Bearer {SECRETS[whose]}")


async def test_each_call_is_a_row_and_each_caller_sees_its_own(tmp_path: Path) -> None:
    async with (
        open_server(vendor) as upstream,
        killable_daemon(upstream, tmp_path, PRICE + KEYS, **SECRETS) as daemon,
    ):
        assert (await say(daemon, "say CANARY-prompt one")).status == 200
        assert (await say(daemon, "say two", "BOB")).status == 200
        assert (await say(daemon, "fail bad_request", "BOB")).status == 400
        found = await until_closed(tmp_path, 3)
        first = found[0]
        assert (first["caller"], first["team"], first["provider"], first["model"]) == ("alice", "red", "fake", "fake-1")
        assert (first["outcome"], first["input_tokens"], first["output_tokens"]) == ("ok", 3, 2)
        assert abs(first["cost"] - COST) < 1e-9
        assert found[2]["outcome"] == "bad_request"
        assert "CANARY" not in str(found)

        async def spend(whose: str, query: str = "") -> Any:
            target = f"/v1/runtime/spend{query}"
            return (await daemon.request("GET", target, authorization=f"Bearer {SECRETS[whose]}")).json

        assert [row["name"] for row in (await spend("ALICE"))["data"]] == ["alice"]
        assert {row["name"]: row["calls"] for row in (await spend("ROOT"))["data"]} == {"alice": 1, "bob": 2}
        by_model = (await spend("ROOT", "?by=model"))["data"]
        assert [(row["name"], row["calls"], row["failed"]) for row in by_model] == [("fake/fake-1", 3, 1)]
        assert (await spend("ROOT", "?by=team&since=2999-01-01"))["data"] == []
        assert (await spend("ROOT", "?by=nonsense"))["error"]["code"] == "invalid_request"

        config = str(tmp_path / "config.toml")
        done = await commands.run("spend", "--config", config, "--by", "team", "--json")
        assert json.loads(done.out)["data"][0]["name"] == "red"
        done = await commands.run("spend", "--config", config, "--csv")
        assert done.out.splitlines()[0].startswith("key,calls,failed,")
        done = await commands.run("spend", "--config", config, "--by", "day")
        assert done.out.splitlines()[-1].split()[:2] == ["total", "3"]
        wrong = await commands.run("spend", "--config", config, "--since", "yesterday")
        assert (wrong.code, wrong.err.count("\n")) == (2, 1)


async def test_a_request_without_a_call_of_its_own_is_a_row_too(tmp_path: Path) -> None:
    """One that the cache answered, one that shared the call of an equal one, and one that nobody could serve."""
    cached = "[cache]\nenabled = true\n"
    async with (
        open_server(vendor) as upstream,
        killable_daemon(upstream, tmp_path, PRICE + KEYS + cached, **SECRETS) as daemon,
    ):
        await say(daemon, "say one")
        await say(daemon, "say one")
        async with trio.open_nursery() as nursery:
            for _ in range(2):
                nursery.start_soon(say, daemon, "slowly one two three four five six seven")
        body = {"model": "fake-1", "messages": [{"role": "user", "content": "x"}], "llm_runtime": {"max_tokens": 1}}
        refused = await daemon.request("POST", "/v1/chat/completions", body, authorization=f"Bearer {SECRETS['ALICE']}")
        assert refused.status == 402
        found = await until_closed(tmp_path, 5)
    told = sorted((row["provider"], row["outcome"], row["cost"] > 0, row["input_tokens"] > 0) for row in found)
    assert told == [
        ("", "budget", False, False),
        ("", "cached", False, False),
        ("", "cached", False, False),
        ("fake", "ok", True, True),
        ("fake", "ok", True, True),
    ]
    assert {row["caller"] for row in found} == {"alice"}
    assert len({row["run"] for row in found}) == 5


async def test_past_its_budget_a_caller_is_refused_for_good_and_over_restarts(tmp_path: Path) -> None:
    budget = '\n[budgets.reds]\nteams = ["red"]\nusd = 0.2\nper = "day"\nsoft = 0.5\n'
    async with open_server(vendor) as upstream:
        async with killable_daemon(upstream, tmp_path, PRICE + KEYS + budget, **SECRETS) as daemon:
            first = await say(daemon, "say one")
            assert (first.status, first.headers.get("x-llm-runtime-budget")) == (200, None)
            told, reply = set(), first
            for _ in range(20):
                reply = await say(daemon, "say two", "BOB")
                told.add(reply.headers.get("x-llm-runtime-budget"))
                if reply.status != 200:
                    break
            assert (reply.status, reply.json["error"]["code"]) == (402, "budget_exceeded")
            assert reply.headers["x-should-retry"] == "false"
            assert "retry-after" not in reply.headers
            assert 'budget "reds" has $0.0' in reply.json["error"]["message"]
            assert "it resets at" in reply.json["error"]["message"]
            assert (await say(daemon, "say three", "ROOT")).status == 200, "another team's"
            metrics = (await daemon.request("GET", "/metrics", authorization=f"Bearer {SECRETS['ROOT']}")).body.decode()
            assert 'llm_runtime_budget_used_ratio{budget="reds"}' in metrics
            assert "CANARY" not in metrics
            await daemon.kill()
        async with killable_daemon(upstream, tmp_path, PRICE + KEYS + budget, **SECRETS) as daemon:
            assert (await say(daemon, "say four")).status == 402


async def test_a_call_that_a_budget_pays_is_written_down_before_it_is_made(tmp_path: Path) -> None:
    """A kill in the middle of it leaves a row that counts, with an end that is not known."""
    budget = '\n[budgets.all]\nusd = 100\nper = "day"\n'
    async with open_server(vendor) as upstream:
        async with killable_daemon(upstream, tmp_path, PRICE + budget) as daemon, await daemon.connect() as client:
            await client.begin("POST", "/v1/responses", ask("hang on", stream=True))
            await upstream.engine.until(lambda: len(upstream.engine.requests) == 1)
            (row,) = rows(tmp_path)
            assert (row["outcome"], row["closed_at"]) == ("open", None)
            assert row["cost"] > 0
            await daemon.kill()
        async with killable_daemon(upstream, tmp_path, PRICE + budget) as daemon:
            assert (await daemon.request("POST", "/v1/responses", ask("say more"))).status == 200
            first, second = await until_closed(tmp_path, 2)
            assert (first["outcome"], first["cost"]) == ("unknown", row["cost"])
            assert (second["outcome"], second["input_tokens"]) == ("ok", 3)
            state = (await daemon.request("GET", "/metrics")).body.decode()
            used = next(line for line in state.splitlines() if line.startswith("llm_runtime_budget_used_ratio{"))
            assert abs(float(used.split()[-1]) - (row["cost"] + second["cost"]) / 100) < 1e-9


async def test_who_leaves_before_the_call_is_made_pays_nothing(tmp_path: Path) -> None:
    budget = '\n[budgets.all]\nusd = 100\nper = "day"\n[providers.fake.limits]\nmax_concurrency = 1\n'
    async with (
        open_server(vendor) as upstream,
        killable_daemon(upstream, tmp_path, PRICE + budget) as daemon,
    ):
        async with await daemon.connect() as first, await daemon.connect() as second:
            await first.begin("POST", "/v1/responses", ask("hang on", stream=True, store=False))
            await upstream.engine.until(lambda: len(upstream.engine.requests) == 1)
            await second.begin("POST", "/v1/responses", ask("hang on", stream=True, store=False))
            await trio.sleep(0.3)
            assert len(rows(tmp_path)) == 1
        found = await until_closed(tmp_path, 2)
        assert [row["outcome"] for row in found] == ["cancelled", "cancelled"]
        assert sorted((row["provider"], row["cost"] > 0) for row in found) == [("", False), ("fake", True)]


async def test_a_store_that_cannot_be_used_costs_nobody_a_request(tmp_path: Path) -> None:
    (tmp_path / "state" / "store.sqlite3").mkdir(parents=True)
    budget = '\n[budgets.all]\nusd = 100\nper = "day"\n'
    async with (
        open_server(vendor) as upstream,
        killable_daemon(upstream, tmp_path, PRICE + budget) as daemon,
    ):
        for _ in range(3):
            with trio.fail_after(5):
                assert (await daemon.request("POST", "/v1/responses", ask("say more"))).status == 200
