"""The dashboard and keys: how it asks for one, what each may see."""

from __future__ import annotations

from llm_runtime.statistics import CallerStatistics, only_of
from support.browser import Tab, open_tab
from support.dashboard import SHOWN, rows
from support.server import OpenServer, open_server
from support.statistics import told

KEY = "sk-alice-0123456789"


def typing(key: str) -> str:
    return f"$('key').value = '{key}'; $('login').requestSubmit()"


async def opened(tab: Tab, server: OpenServer, key: str, until: str) -> None:
    """The page, after ``key`` was typed."""
    await tab.go(f"{server.address.url}/")
    await tab.until("!$('login').hidden")
    await tab.see(typing(key))
    await tab.until(until)


def use(requests: int, tokens: int) -> CallerStatistics:
    return CallerStatistics(requests=requests, tokens=tokens, cost=2.0)


async def test_it_asks_for_the_key_and_keeps_it_for_its_tab_alone(chromium: str) -> None:
    async with open_server(keys={"alice": KEY}) as server, open_tab(chromium) as tab:
        server.engine.told = told()
        await tab.go(f"{server.address.url}/")
        await tab.until("!$('login').hidden")
        assert await tab.text("#refusal") == ""
        await tab.see(typing("wrong"))
        await tab.until("$('refusal').textContent === 'This key is not accepted.'")
        assert await tab.see("$('main').hidden")
        for _ in range(10):
            await server.request("GET", "/v1/models", authorization="Bearer wrong")
        await tab.see(typing("wrong"))
        await tab.until("/^Too many wrong keys: wait \\d+ s.$/.test($('refusal').textContent)")
        await tab.see(typing(KEY))
        await tab.until(SHOWN)
        assert await tab.see("$('login').hidden && $('key').value") == ""
        stored = "JSON.stringify({...localStorage})"
        places = await tab.see(f"[location.href, document.cookie, document.documentElement.outerHTML, {stored}]")
        assert KEY not in "".join(places)
        await tab.call("Page.reload")
        await tab.until(f"typeof $ === 'function' && {SHOWN}")  # a reload asks for it no more
        async with open_tab(chromium) as other:
            await other.go(f"{server.address.url}/")
            await other.until("!$('login').hidden")
            assert await other.see("$('main').hidden")


async def test_a_key_for_metrics_only_is_refused_in_the_daemons_words_and_not_kept(chromium: str) -> None:
    async with open_server(keys={"alice": KEY}, roles={"alice": "metrics_only"}) as server, open_tab(chromium) as tab:
        await opened(tab, server, KEY, "$('refusal').textContent === 'This key is for /metrics only.'")
        assert await tab.see("$('main').hidden && !$('login').hidden")
        assert await tab.see("getComputedStyle(document.body).maxWidth") == "1240px", "it has the look of the page"
        await tab.call("Page.reload")
        await tab.until("typeof $ === 'function' && !$('login').hidden")
        assert await tab.text("#refusal") == ""


async def test_every_key_can_be_given_up_and_nothing_of_it_stays(chromium: str) -> None:
    async with open_server(keys={"alice": KEY}) as server, open_tab(chromium) as tab:
        server.engine.told = told()
        await tab.go(f"{server.address.url}/")
        await tab.until("!$('login').hidden")
        assert await tab.see("$('leave').hidden")
        await tab.see(typing(KEY))
        await tab.until(f"{SHOWN} && !$('leave').hidden")
        await tab.see("$('leave').click()")
        await tab.until("typeof $ === 'function' && !$('login').hidden")
        assert await tab.see("$('leave').hidden && $('main').hidden && !sessionStorage.length")
        assert await rows(tab, "providers") == []


async def test_without_keys_there_is_none_to_give_up(chromium: str) -> None:
    async with open_server() as server, open_tab(chromium) as tab:
        server.engine.told = told()
        await tab.go(f"{server.address.url}/")
        await tab.until(SHOWN)
        assert await tab.see("$('leave').hidden && $('own').hidden")


async def test_what_a_key_may_not_see_is_not_shown_as_zero(chromium: str) -> None:
    known = only_of("me", told())
    async with open_server(keys={"me": KEY}) as server, open_tab(chromium) as tab:
        server.engine.told = known
        await opened(tab, server, KEY, SHOWN)
        assert await tab.text("#own") == "This key sees only its own usage."
        [provider] = await rows(tab, "providers")
        assert provider[1:] == ["✓ closed", "–", "–", "500 ms · 950 ms", "–", "–", "–", "–", "–"]
        tiles = await tab.see("[...document.querySelectorAll('#now div')].map(tile => tile.children[1].textContent)")
        assert tiles == ["–", "–", "–", "–", "–", "–"]
        assert await rows(tab, "callers") == [["me", "1,238", "5,020", "$1.50", "1", "2", "3 · ∞"]]
        for table in ("failures", "used", "cache"):
            assert await tab.see(f"$('{table}').offsetParent === null")
        server.engine.told = only_of("me", told(uptime_s=105.0, callers={"me": use(requests=1248, tokens=5520)}))
        await tab.until("document.querySelector('#now').innerText.includes('10 ended')")
        assert await tab.see("document.title") == "llm-runtime"
        tiles = await tab.see("[...document.querySelectorAll('#now div')].map(tile => tile.children[1].textContent)")
        assert tiles == ["–", "2.0", "–", "–", "100", "$0.50"]
