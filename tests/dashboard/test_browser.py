"""The dashboard in a real browser: what an operator sees."""

from __future__ import annotations

import re

from llm_actors.kernel import ChildStatus
from llm_actors.limiter import LimitStatistics
from llm_actors.selector import CircuitState
from llm_protocol.requests import LLMProvider
from llm_runtime.config import Config, Provider, Server
from llm_runtime.runtime import Runtime
from llm_runtime.server import ListenAddress, server_child
from llm_runtime.statistics import CallerStatistics, LatencyDistribution, ModelUse
from support.browser import Tab, open_tab
from support.dashboard import NOW, SHOWN, looking, rows, tell
from support.peer import Peer, reply
from support.server import open_server
from support.statistics import node, provider, told
from support.upstream import JSON, whole


async def test_it_shows_what_the_daemon_tells(chromium: str) -> None:
    providers = {
        "primary": provider(),
        "odd": provider(kind=LLMProvider.COHERE, breaker=CircuitState.HALF_OPEN, unpriced=2, models={}),
        "gone": provider(breaker=CircuitState.OPEN, attempts={}, attempt_seconds=None),
    }
    parts = [node("gone", status=ChildStatus.PARKED), node("primary"), node("odd")]
    tree = node("llm-runtime", node("core", node("providers", *parts)))
    async with open_server() as server, looking(chromium, server, told(providers=providers, tree=tree)) as tab:
        shown = {first.split("\n")[0]: rest for first, *rest in await rows(tab, "providers")}
        assert shown["primary"] == [
            "✓ closed", "1,234", "6 (0.48 %)", "500 ms · 950 ms", "–", "5,000 · 20", "$1.50", "–", "–",
        ]  # fmt: skip
        assert shown["odd"][0] == "◐ half-open"
        assert shown["odd"][6] == "unknown"
        assert shown["gone"][:4] == ["■ parked", "0", "0", "–"]
        assert ["timeout idle", "primary, odd", "", "4", "12", "earlier"] in await rows(tab, "failures")
        assert ["queue full", "", "server 1", "1", "0", "earlier"] in await rows(tab, "failures")
        assert await rows(tab, "callers") == [["me", "1,238", "5,020", "$1.50", "1", "2", "3 · ∞"]]
        assert [cells[0] for cells in await rows(tab, "tree")] == [
            "llm-runtime", "   core", "      providers", "         gone", "         primary", "         odd",
        ]  # fmt: skip
        assert await tab.see("document.title") == "3 running · llm-runtime"
        assert "up 1 min · 2 connections · limits not shared" in await tab.text("header")
        assert tab.complaints == []


async def tiles(tab: Tab) -> dict[str, list[str]]:
    """The number of each tile, and the words below it."""
    found = "Object.fromEntries(Object.entries(tiles).map(([name, { children: [, b, small] }]) => [name, [b, small]]))"
    shown: dict[str, list[str]] = await tab.see(found.replace("[b, small]]", "[b.textContent, small.textContent]]"))
    return shown


async def test_the_first_look_claims_nothing_about_time(chromium: str) -> None:
    async with open_server() as server, looking(chromium, server, told()) as tab:
        shown = await tab.see("document.body.innerText")
        assert not re.search(r" 0 s\b", shown)
        assert await tab.see("document.querySelector('#recent').disabled")
        assert await tiles(tab) == {
            "Running": ["3", ""],
            "Requests / s": ["–", ""],
            "Failed": ["–", ""],
            "Response, median": ["–", ""],
            "Tokens / s": ["–", ""],
            "Cost": ["–", "$1.50 in total"],
        }
        await tell(server, tab, told(uptime_s=105.0), "!document.querySelector('#recent').disabled")
        assert await tiles(tab) == {
            "Running": ["3", "at most 3 in 5 s"],
            "Requests / s": ["0", "0 ended in 5 s"],
            "Failed": ["0", ""],
            "Response, median": ["–", ""],
            "Tokens / s": ["0", "0 in 5 s"],
            "Cost": ["$0", "in 5 s; $1.50 in total"],
        }


async def test_what_clients_did_wrong_is_not_a_failure_of_the_runtime(chromium: str) -> None:
    attempts = {"ok": 90, "timeout_idle": 6, "bad_request": 4}
    before = told(providers={"primary": provider(), "other": provider(attempts={"ok": 1})})
    after = told(
        uptime_s=105.0,
        requests={"chat": {"ok": 1242, "timeout_idle": 5, "context_length": 2, "rate_limited": 3}},
        refused={"queue_full": 1, "model_not_found": 4},
        limited={"queue_full": {"server": 1}, "rate_limited": {"caller": 2, "provider": 1}},
        providers={"primary": provider(attempts=attempts), "other": provider(attempts={"ok": 1, "bad_request": 1})},
    )
    async with open_server() as server, looking(chromium, server, before) as tab:
        await tell(server, tab, after, "!document.querySelector('#recent').disabled")
        # 8 ok; 1 timeout and 1 limit of the provider failed; 2 too long, 4 unknown models, 2 limits of callers did not
        assert (await tiles(tab))["Failed"] == ["2", "11 % in 5 s; 8 client errors"]
        primary, other = await rows(tab, "providers")
        assert primary[3] == "6 (6 %) + 4 client"
        assert other[3] == "1 client"
        reds = "[...$('providers').tBodies[0].rows].map(row => row.cells[3].className)"
        assert await tab.see(reds) == ["bad", ""]
        assert ["model not found\nclient error", "", "", "4", "0", "0 s ago"] in await rows(tab, "failures")
        assert ["timeout idle", "primary", "", "5", "6", "0 s ago"] in await rows(tab, "failures")


async def test_it_shows_a_whole_runtime(chromium: str) -> None:
    addresses: list[ListenAddress] = []
    settings = Server(host="127.0.0.1", port=0, drain_s=1)
    async with Peer(reply(whole(), headers=JSON)) as peer:
        known = Provider(kind=LLMProvider.OPENAI_COMPATIBLE, base_url=f"{peer.url}/v1", models=("m",))
        runtime = Runtime(
            Config(providers={"fake": known}), servers=lambda rt: server_child(settings, rt, addresses.append)
        )
        async with runtime.running():
            await runtime.chat("Say hello.")
            async with open_tab(chromium) as tab:
                await tab.go(f"{addresses[0].url}/")
                await tab.until(SHOWN)
                [[name, breaker, ok, failed, *_]] = await rows(tab, "providers")
                tree = [cells[0].strip() for cells in await rows(tab, "tree")]
                assert tab.complaints == []
    assert (name, breaker, ok, failed) == ("fake\nopenai_compatible", "✓ closed", "1", "0")
    assert {"limiter", "cache", "fake", "provider", "orchestrator", "sessions", "server"} <= set(tree)


async def test_it_follows_the_daemon_by_itself_and_tells_what_is_recent(chromium: str) -> None:
    async with open_server() as server, looking(chromium, server, told()) as tab:
        later = told(uptime_s=105.0, running=8, requests={"chat": {"ok": 1254, "timeout_idle": 9}})
        server.engine.told = later
        await tab.until("document.title.startsWith('8 running')")  # without a reload, and unasked
        now = await tab.text("#now")
        assert re.search(r"Requests / s\s+5.0\s+25 ended in 5 s", now)
        assert re.search(r"Failed\s+5\s+20 % in 5 s", now)
        assert ["timeout idle", "primary", "", "9", "6", "0 s ago"] in await rows(tab, "failures")
        await tab.see("document.querySelector('#recent').click()")
        assert await rows(tab, "failures") == [["timeout idle", "", "", "5", "0", "0 s ago"]]
        assert await rows(tab, "callers") == [["No requests."]]


async def test_another_process_begins_anew(chromium: str) -> None:
    async with open_server() as server, looking(chromium, server, told()) as tab:
        fresh = told(
            uptime_s=1.0,
            running=0,
            requests={},
            refused={},
            limited={},
            callers={},
            providers={"primary": provider(attempts={})},
        )
        await tell(server, tab, fresh, "document.title.startsWith('0 running')")
        assert await tab.see("samples.length") == 1
        assert await rows(tab, "failures") == [["None."]]


async def test_names_and_texts_are_never_markup(chromium: str) -> None:
    """What a vendor says of an error, and what a configuration calls its parts, is shown as it is."""
    evil = "<img src=x onerror=\"document.title='owned'\"><script>document.title='owned'</script>"
    statistics = told(
        providers={evil: provider(models={evil: ModelUse(input_tokens=1, output_tokens=1, cost=None)})},
        callers={evil: CallerStatistics(requests=1, tokens=1, cost=0.0)},
        refused={evil: 1},
        tree=node(evil, node("core", last_crash=f"ValueError: {evil}")),
    )
    async with open_server() as server, looking(chromium, server, statistics) as tab:
        assert (await rows(tab, "tree"))[1][5] == f"ValueError: {evil}"
        assert (await rows(tab, "providers"))[0][0] == f"{evil}\nopenai"
        assert (await rows(tab, "used"))[0][0] == f"{evil}/{evil}"
        assert (await rows(tab, "callers"))[0][0] == evil
        assert await tab.see("document.querySelectorAll('main img, main script').length") == 0
        assert await tab.see("document.title") == "3 running · llm-runtime"
        assert tab.complaints == []


async def test_its_policy_forbids_what_it_does_not_do(chromium: str) -> None:
    async with open_server() as server, looking(chromium, server, told()) as tab:
        tried = (
            "(() => { try { document.body.innerHTML = '<b>x</b>'; return '' } catch (error) { return error.name } })()"
        )
        assert await tab.see(tried) == "TypeError"
        assert await tab.see("fetch('http://127.0.0.1:9/').catch(error => error.name)") == "TypeError"
        assert any("Content Security Policy" in each for each in tab.complaints)


async def test_a_daemon_that_does_not_answer_is_told_since_when_and_missed_until_it_does(chromium: str) -> None:
    async with open_tab(chromium) as tab:
        async with open_server() as server:
            server.engine.told = told()
            port = server.address.port
            await tab.go(f"{server.address.url}/")
            await tab.until(SHOWN)
        await tab.until("document.body.className === 'down'")
        said = await tab.text("#state")
        assert re.fullmatch(
            r"Not responding since \d+:\d+:\d+.*: it cannot be reached. The page shows the last known numbers.", said
        )
        assert await tab.see("document.title") == "■ not responding · llm-runtime"
        await tab.see(NOW)
        assert await tab.text("#state") == said  # since when stays
        async with open_server(port=port) as server:
            server.engine.told = told(running=1)
            await tab.until("document.title === '1 running · llm-runtime'")
            assert await tab.text("#state") == "Up"


class Unspeakable:
    """Nothing that can be encoded."""


async def test_an_answer_that_is_none_is_told(chromium: str) -> None:
    async with open_server() as server, looking(chromium, server, told()) as tab:
        server.engine.told = {"an": "older daemon"}
        await tab.see(NOW)
        await tab.until("document.body.className === 'down'")
        assert "this page cannot read its response" in await tab.text("#state")
        server.engine.told = Unspeakable()
        await tab.see(NOW)
        await tab.until("$('state').textContent.includes('it responded with HTTP 500')")
        await tell(server, tab, told(uptime_s=101.0), "document.body.className === 'up'")


async def test_nobody_is_asked_while_nobody_looks(chromium: str) -> None:
    async with open_server() as server, looking(chromium, server, told()) as tab:
        await tab.see("Object.defineProperty(document, 'hidden', {value: true, configurable: true})")
        # Requests that begin from now on: one that began before may still be on its way.
        await tab.see("asked = 0; const fetchNow = fetch; fetch = (...how) => { asked += 1; return fetchNow(...how) }")
        await tab.see(NOW)
        assert await tab.see("new Promise(done => setTimeout(() => done(asked), EVERY_MS + 500))") == 0
        await tab.see("Object.defineProperty(document, 'hidden', {value: false})")
        await tell(server, tab, told(running=9), "document.title.startsWith('9 running')")


async def test_it_fits_a_phone_whatever_the_names(chromium: str) -> None:
    long = "x" * 200
    statistics = told(
        providers={long: provider(models={long: ModelUse(input_tokens=1, output_tokens=1, cost=None)})},
        tree=node("llm-runtime", node(long, last_crash=long)),
    )
    async with open_server() as server, looking(chromium, server, statistics) as tab:
        for width in (360, 820, 1280):
            await tab.picture(width, 800, dark=width == 820)
            page = "document.documentElement"
            assert await tab.see(f"{page}.clientWidth") <= width  # less with a scroll bar, where the page is long
            assert await tab.see(f"{page}.scrollWidth - {page}.clientWidth") == 0


async def test_no_column_is_cut_off_where_names_are_long(chromium: str) -> None:
    names = ("primary", "our-own-inference-cluster-in-frankfurt-gpu1", "openrouter-with-models-that-are-down")
    down = {"meta-llama/llama-3.3-70b-instruct": CircuitState.OPEN, "qwen/qwen3-235b": CircuitState.OPEN}
    times = LatencyDistribution(bounds=(1.0, 2.0), counts=(10, 0, 0), total=5.0)
    limits = LimitStatistics(in_flight=1234, waiting=123, requests_left=9999, tokens_left=999_999, held_s=0.0)
    use = {
        "meta-llama/llama-3.3-70b-instruct-with-a-long-tail": ModelUse(input_tokens=9999, output_tokens=9999, cost=99.5)
    }
    attempts = {"ok": 9999, "timeout_idle": 1234, "bad_request": 12}
    providers = {
        name: provider(
            limits=limits, first_token_seconds=times, models=use, unpriced=1, circuits=down, attempts=attempts
        )
        for name in names
    }
    callers = {
        "a-caller-with-quite-a-long-name": CallerStatistics(requests=9999, tokens=99999, cost=1234.5, limits=limits)
    }
    tree = node("llm-runtime", node("core", *(node(name) for name in names)))
    statistics = told(providers=providers, callers=callers, tree=tree)
    overflowing = """[...document.querySelectorAll('section')].filter(each => each.scrollWidth > each.clientWidth)
        .map(each => [each.innerText.slice(0, 9), each.scrollWidth, each.clientWidth])"""
    async with open_server() as server, looking(chromium, server, statistics) as tab:
        for width in (390, 768, 1024, 1280):
            await tab.picture(width, 800)
            assert (width, await tab.see(overflowing)) == (width, [])


async def test_the_tabs_stand_in_one_line(chromium: str) -> None:
    async with open_server() as server, looking(chromium, server, told()) as tab:
        for width in (360, 390, 1280):
            await tab.picture(width, 800)
            assert (
                await tab.see("new Set([...document.querySelectorAll('nav a')].map(each => each.offsetTop)).size") == 1
            )
