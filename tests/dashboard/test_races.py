"""What the dashboard shows if responses come late, in another order, or after a pause."""

from __future__ import annotations

import json

from llm_runtime.fake import FakeProvider, ScriptRule
from support.browser import open_tab
from support.dashboard import NOW, SHOWN, looking, rows, tell
from support.playground import ENDED, playing, send, texts
from support.server import open_server
from support.statistics import told

KEY = "sk-alice-0123456789"

HELD = """(() => {
  const real = ask
  window.ask = async path => {
    const answer = await real(path)
    window.ask = real
    await new Promise(resolve => { window.release = resolve; document.body.dataset.held = true })
    return answer
  }
})()"""
"""The next response is held until ``release()`` is called."""


async def test_a_pause_between_two_looks_is_no_rate_without_a_value(chromium: str) -> None:
    async with open_server() as server, looking(chromium, server, told()) as tab:
        await tell(server, tab, told(uptime_s=160.0), "!document.querySelector('#recent').disabled")
        assert "NaN" not in await tab.text("#now")


async def test_a_refusal_that_comes_late_does_not_take_the_key_away_that_was_given_since(chromium: str) -> None:
    async with open_server(keys={"alice": KEY}) as server, open_tab(chromium) as tab:
        server.engine.told = told()
        await tab.go(f"{server.address.url}/#models")
        await tab.until("!$('login').hidden")
        await tab.see(HELD)
        await tab.see(NOW)
        await tab.until("document.body.dataset.held")
        await tab.see(f"$('key').value = '{KEY}'; $('login').requestSubmit(); release()")
        await tab.until(f"{SHOWN} && $('listed').tBodies[0].rows.length")
        assert await tab.text("#refusal") == ""


async def test_the_view_of_a_tab_that_was_opened_in_the_background_is_filled_once_it_is_seen(chromium: str) -> None:
    async with open_server() as server, open_tab(chromium) as tab:
        server.engine.told = told()
        hidden = "Object.defineProperty(document, 'hidden', {value: true, configurable: true})"
        await tab.call("Page.addScriptToEvaluateOnNewDocument", source=hidden)
        await tab.go(f"{server.address.url}/#models")
        await tab.until("typeof $ === 'function'")
        await tab.see("delete document.hidden")
        await tab.see(NOW)
        await tab.until(f"{SHOWN} && $('listed').tBodies[0].rows.length")


async def test_an_older_answer_does_not_replace_a_newer_one(chromium: str) -> None:
    async with open_server() as server, looking(chromium, server, told()) as tab:
        await tab.see("location.hash = 'models'")
        await tab.until("$('listed').tBodies[0].rows.length")
        answers = """window.read = path => new Promise(resolve => {
          const lines = [`1. ${path.split("=")[1]}`]
          if (path.endsWith("slow")) window.release = () => resolve({lines})
          else resolve({lines})
        })"""
        await tab.see(f"({answers}, 0)")
        await tab.see("window.slow = explain('slow'); explain('quick')")
        await tab.until("$('explained').textContent === 'quick'")
        await tab.see("(release(), slow)")
        assert await tab.text("#explained") == "quick"


async def test_a_view_that_there_is_not_is_the_overview(chromium: str) -> None:
    async with open_server() as server, looking(chromium, server, told()) as tab:
        await tab.see("location.hash = 'constructor'")
        await tab.until("document.querySelector('nav [aria-current]')")
        assert await tab.see("!$('overview').hidden")
        assert len(await rows(tab, "providers")) == 1


async def test_a_conversation_goes_on_over_another_connection(chromium: str) -> None:
    async with FakeProvider(ScriptRule(text="Hello.")) as fake, playing(chromium, fake) as tab:
        await send(tab, "p/one", "Hello?")
        await tab.until(ENDED)
        await tab.see("socket.close()")
        await tab.until("socket === null")
        await send(tab, "p/one", "Are you there?")
        await tab.until(ENDED)
        assert await texts(tab, "#dialogue .facts.bad") == []
        assert await texts(tab, "#dialogue > .answer") == ["Hello.", "Hello."]
        chats = [json.loads(seen.body) for seen in fake.journal.requests if seen.path.endswith("/chat/completions")]
        assert [len(each["messages"]) for each in chats] == [1, 3]
