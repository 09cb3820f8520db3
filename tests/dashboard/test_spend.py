"""What was spent, as the dashboard shows it: from the ledger, in a real browser."""

from __future__ import annotations

import time
from pathlib import Path

from llm_actors.kernel import Supervisor, running
from llm_actors.store import StoreThread, persist, store_child
from llm_actors.store.ledger import Ledger, LedgerEntry, RecordEntry
from llm_actors.store.tier import StoreTier
from llm_runtime.statistics import BudgetUse
from support.browser import open_tab
from support.server import open_server
from support.statistics import told

ROWS = "[...$('spent').tBodies[0].rows].map(row => [...row.cells].map(cell => cell.textContent))"


def entry(caller: str, team: str, cost: float | None, outcome: str = "ok") -> LedgerEntry:
    return LedgerEntry(
        run="r", caller=caller, team=team, provider="a", model="m", outcome=outcome, opened_at=time.time(),
        input_tokens=5, output_tokens=7, cost=cost,
    )  # fmt: skip


async def test_the_page_shows_what_was_spent_by_whom(chromium: str, tmp_path: Path) -> None:
    ledger = Ledger()
    store = store_child(
        StoreThread(StoreTier(str(tmp_path / "store"), max_bytes=1_000_000, ttl_s=1e6, owner=ledger.owner)), ledger
    )
    root = Supervisor([store])
    async with running(root), open_server() as server, open_tab(chromium) as tab:
        server.engine.told = told()
        await tab.go(f"{server.address.url}/#spend")
        await tab.until("$('unspent').textContent.includes('There is no ledger')")
        server.engine.store = root.ref(store)
        spent = (entry("alice", "red", 0.75), entry("bob", "red", 0.25), entry("bob", "red", None, "timeout"))
        await persist(root.ref(store), tuple(map(RecordEntry, spent)))
        await tab.see("listSpend()")
        await tab.until("$('spent').tBodies[0].rows.length === 2")
        assert await tab.see(ROWS) == [
            ["alice", "1", "0", "5 · 7", "$0.75", "75 %"],
            ["bob", "2", "1", "10 · 14", "$0.25 + unknown", "25 %"],
        ]
        assert (await tab.see("$('unspent').textContent")).startswith("$1.00 since ")
        await tab.see("$('by').value = 'team'; $('by').dispatchEvent(new Event('change', {bubbles: true}))")
        await tab.until("$('spent').tBodies[0].rows.length === 1")
        assert (await tab.see(ROWS))[0][0] == "red"


KEYS = "[...$('keys').tBodies[0].rows].map(row => [...row.cells].map(cell => cell.textContent))"
BUDGETS = "[...$('budgets').tBodies[0].rows].map(row => [...row.cells].map(cell => cell.textContent))"


def budget(usd: float, *, callers: tuple[str, ...] | None = None, routes: tuple[str, ...] = ()) -> BudgetUse:
    return BudgetUse(
        callers=callers, routes=routes, per="day", soft=0.8, usd=usd, usd_limit=20.0, tokens=1500, tokens_limit=None,
        resets_at=time.time() + 7_230,
    )  # fmt: skip


async def test_limits_and_budgets_of_each_key_are_kept_up_to_date(chromium: str) -> None:
    async with open_server() as server, open_tab(chromium) as tab:
        budgets = {"all": budget(2.0), "reds": budget(10.0, callers=("me", "you"), routes=("smart",))}
        server.engine.told = told(budgets=budgets)
        await tab.go(f"{server.address.url}/#spend")
        await tab.until("$('keys').tBodies[0].rows.length === 2")
        assert await tab.see(KEYS) == [
            ["me", "1,238", "$1.50", "1", "2", "3 · ∞", "all 10 %, reds 50 %"],
            ["you", "0", "$0", "–", "–", "–", "all 10 %, reds 50 %"],
        ]
        assert await tab.see(BUDGETS) == [
            ["all", "all keys", "$2.00 of $20.00", "1,500", "10 %", "2 h 0 min"],
            ["reds", "me, you, route smart", "$10.00 of $20.00", "1,500", "50 %", "2 h 0 min"],
        ]
        server.engine.told = told(uptime_s=102.0, budgets=budgets | {"reds": budget(17.0, callers=("you",))})
        await tab.until("$('budgets').textContent.includes('85 %')")
        assert [(row[0], row[-1]) for row in await tab.see(KEYS)] == [
            ("me", "all 10 %"),
            ("you", "all 10 %, reds 85 %"),
        ]
        assert await tab.see("$('keys').tBodies[0].rows[1].lastChild.className") == "warn"


async def test_a_daemon_without_budgets_says_so(chromium: str) -> None:
    async with open_server() as server, open_tab(chromium) as tab:
        server.engine.told = told(callers={})
        await tab.go(f"{server.address.url}/#spend")
        await tab.until("$('budgets').textContent.includes('No budget is configured')")
        assert await tab.see(KEYS) == [["No requests."]]
