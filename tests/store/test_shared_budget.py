"""One budget of four daemons, each with a store of its own, through kill -9 of one of them and of Redis."""

from __future__ import annotations

import sqlite3
from contextlib import AsyncExitStack, closing
from pathlib import Path

import h11
import pytest
import trio

from support.daemon import vendor
from support.killable import KillableDaemon, killable_daemon
from support.redis import redis
from support.server import open_server

COST = 0.003 + 0.02
"""What the vendor bills for each request: three tokens in, two out."""

CONFIG = """
[prices."fake/fake-1"]
input = 1000
output = 10000
[budgets.all]
usd = 1.0
per = "day"
[redis]
url = "redis://127.0.0.1:{port}"
timeout_s = 1.0
"""


def ledger(folder: Path) -> list[tuple[str, float]]:
    with closing(sqlite3.connect(folder / "state" / "store.sqlite3")) as db:
        return db.execute("SELECT outcome, cost FROM ledger").fetchall()


@pytest.mark.time_limit(240)
async def test_the_overrun_is_bounded_though_redis_is_killed_and_the_ledger_is_the_bill(tmp_path: Path) -> None:
    answered = 0
    stopping = False

    async def call(daemon: KillableDaemon) -> int:
        body = {"model": "fake-1", "messages": [{"role": "user", "content": "slowly a b c"}], "max_tokens": 2}
        try:
            return (await daemon.request("POST", "/v1/chat/completions", body)).status
        except (trio.BrokenResourceError, OSError, AssertionError, h11.RemoteProtocolError):
            return 0

    async def client(daemons: dict[int, KillableDaemon], number: int) -> None:
        nonlocal answered
        while not stopping:
            status = await call(daemons[number]) if number in daemons else 0
            answered += status == 200
            assert status in (0, 200, 402), status
            if status != 200:
                await trio.sleep(0.3)

    with redis() as server:
        more = CONFIG.format(port=server.port)
        folders = [tmp_path / str(number) for number in range(4)]
        for folder in folders:
            folder.mkdir()
        async with open_server(vendor) as upstream, AsyncExitStack() as stack:
            daemons = {
                number: await stack.enter_async_context(killable_daemon(upstream, folder, more))
                for number, folder in enumerate(folders)
            }
            nursery = await stack.enter_async_context(trio.open_nursery())
            for number in (0, 1, 2, 3):
                nursery.start_soon(client, daemons, number)
            await upstream.engine.until(lambda: len(upstream.engine.requests) >= 8, 30)
            await daemons.pop(0).kill()
            daemons[0] = await stack.enter_async_context(killable_daemon(upstream, folders[0], more))
            await upstream.engine.until(lambda: len(upstream.engine.requests) >= 16, 30)
            server.kill()
            await trio.sleep(2)
            server.start()
            await trio.sleep(10)
            stopping = True
            await trio.sleep(2)
            for daemon in daemons.values():
                daemon.process.terminate()
                await daemon.process.wait()
            nursery.cancel_scope.cancel()
        billed = len(upstream.engine.requests) * COST
    rows = [row for folder in folders for row in ledger(folder)]
    assert billed <= 1.0 + 1e-9, "shares were set aside beforehand, and calls cost less than what was reserved"
    assert billed > 0.7
    assert sum(cost for outcome, cost in rows if outcome == "ok") == pytest.approx(
        sum(outcome == "ok" for outcome, _ in rows) * COST
    )
    assert len(rows) >= answered, "one that was answered in the last quarter of a second before a kill is unknown"
    assert sum(cost for _, cost in rows) >= billed - 1e-9, "never below what was billed"
