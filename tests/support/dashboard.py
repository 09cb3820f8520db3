"""The dashboard in a real browser: opening its page, reading its tables."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from llm_runtime.statistics import Statistics
from support.browser import Tab, open_tab
from support.server import OpenServer

SHOWN = "!document.getElementById('main').hidden"
NOW = "document.dispatchEvent(new Event('visibilitychange'))"  # what makes the page look at once


@asynccontextmanager
async def looking(chromium: str, server: OpenServer, statistics: Statistics) -> AsyncIterator[Tab]:
    """The page of a server whose engine tells ``statistics``, once it shows them."""
    server.engine.told = statistics
    async with open_tab(chromium) as tab:
        await tab.go(f"{server.address.url}/")
        await tab.until(SHOWN)
        yield tab


async def rows(tab: Tab, table: str) -> list[list[str]]:
    cells = f"[...$('{table}').tBodies[0].rows].map(row => [...row.cells].map(cell => cell.textContent))"
    found: list[list[str]] = await tab.see(cells)
    return found


async def tell(server: OpenServer, tab: Tab, statistics: Statistics, until: str) -> None:
    server.engine.told = statistics
    await tab.see(NOW)
    await tab.until(until)
