"""The requests that ended last: what the daemon tells of them, to whom, and what the dashboard shows."""

from __future__ import annotations

from typing import Any

from llm_actors.orchestrator import RecentCall, RecentRequest
from llm_actors.orchestrator.log_line import LogFields
from llm_actors.orchestrator.recent_requests import KEPT
from llm_protocol.policy import Policy
from llm_protocol.requests import LLMProvider
from llm_runtime import Config, open_runtime
from llm_runtime.config import Provider
from llm_runtime.fake import FakeProvider, ScriptRule
from support.browser import open_tab
from support.server import open_server
from support.statistics import told

KEYS = {"alice": "sk-alice-0123456789", "boss": "sk-boss-0123456789"}


def config(fake: FakeProvider) -> Config:
    kind = LLMProvider.OPENAI_COMPATIBLE
    providers = {name: Provider(kind=kind, base_url=fake.base_url(kind), models=("m",)) for name in ("a", "b")}
    routes = {
        "careful": Policy(strategy="fallback", candidates=("a/m", "b/m")),
        "both": Policy(strategy="panel", members=("a/m", "b/m"), synthesiser="longest"),
    }
    return Config(providers=providers, routes=routes)


async def test_each_request_is_there_with_its_calls_and_without_its_words() -> None:
    refusal = ScriptRule(status=404, message="CANARY is no good word.", times=1)
    async with FakeProvider(refusal, ScriptRule(text="Hello.")) as fake, open_runtime(config(fake)) as rt:
        await rt.chat("CANARY", model="careful")
        await rt.chat("CANARY", model="both")
        panel, fallback = rt.recent_requests()
        assert rt.recent_requests("nobody") == []
    assert (fallback.request.model, fallback.request.deployment, fallback.request.attempts) == ("careful", "b/m", 2)
    assert [(each.deployment, each.outcome) for each in fallback.calls] == [("a/m", "model_not_found"), ("b/m", "ok")]
    assert {(each.deployment, each.outcome, each.member) for each in panel.calls} == {
        ("a/m", "ok", True),
        ("b/m", "ok", True),
    }
    assert "CANARY" not in repr((panel, fallback))


async def test_so_many_are_kept() -> None:
    async with FakeProvider(ScriptRule(text="Hello.")) as fake, open_runtime(config(fake)) as rt:
        for n in range(KEPT + 3):
            await rt.chat(f"Say hello {n}.", model="a/m")
        assert len(rt.recent_requests()) == KEPT


def ended(caller: str, number: int, **known: Any) -> RecentRequest:
    fields: dict[str, Any] = {
        "id": f"req_{number}", "caller": caller, "model": "careful", "deployment": "b/m", "status": 200, "ms": 1500.0,
        "attempts": 2, "input_tokens": 5, "output_tokens": 7, "cost": 0.25, "first_token_ms": 900.0,
    }  # fmt: skip
    calls = known.pop("calls", None) or [
        RecentCall(deployment="a/m", outcome="server_error", ms=500.0, waited_ms=100.0),
        RecentCall(deployment="b/m", outcome="ok", ms=900.0, first_token_ms=300.0),
    ]
    return RecentRequest(request=LogFields(**fields | known), ended_at=1_796_000_000.0, calls=calls)


async def test_a_caller_sees_its_own_and_an_admin_all() -> None:
    async with open_server(keys=KEYS, roles={"boss": "admin"}) as server:
        server.engine.recent = [ended("alice", 2), ended("bob", 1)]
        own = await server.request("GET", "/v1/runtime/requests", authorization=f"Bearer {KEYS['alice']}")
        every = await server.request("GET", "/v1/runtime/requests", authorization=f"Bearer {KEYS['boss']}")
        none = await server.request("GET", "/v1/runtime/requests")
    assert [each["request"]["id"] for each in own.json["requests"]] == ["req_2"]
    assert [each["request"]["id"] for each in every.json["requests"]] == ["req_2", "req_1"]
    assert none.status == 401


async def test_the_page_lists_them_and_shows_the_calls_of_one(chromium: str) -> None:
    async with open_server() as server, open_tab(chromium) as tab:
        server.engine.told, server.engine.recent = told(), [ended("alice", 2), ended("bob", 1)]
        await tab.go(f"{server.address.url}/#requests")
        await tab.until("$('ended').tBodies[0].rows.length === 2")
        cells = await tab.see("[...$('ended').tBodies[0].rows[0].cells].slice(1).map(cell => cell.textContent)")
        assert cells == ["ok", "req_2", "alice", "careful\nby b/m", "5 · 7", "$0.25", "900 ms", "1.5 s", "2"]
        await tab.see("document.querySelector('[data-id=req_2]').click()")
        await tab.until("document.querySelectorAll('.call').length === 2")
        shown = "[...document.querySelectorAll('.call')].map(call => call.textContent)"
        assert await tab.see(shown) == [
            "a/mserver error · 500 ms · waited 100 ms",
            "b/mok · 900 ms · first token 300 ms",
        ]
        for width in (360, 1180):
            await tab.picture(width, 700)
            assert await tab.see("document.documentElement.scrollWidth") == width
        await tab.see("document.querySelector('[data-id=req_2]').click()")
        await tab.until("!document.querySelector('.call')")
        assert tab.complaints == []


MODELS = "[...$('ended').tBodies[0].rows].map(row => row.cells[4].textContent)"
OVERFLOWING = "[...document.querySelectorAll('section')].filter(each => each.scrollWidth > each.clientWidth).length"


async def test_who_answered_is_shown_where_it_is_not_what_was_asked_for(chromium: str) -> None:
    whole = "openrouter/meta-llama/llama-3.3-70b-instruct"
    async with open_server() as server, open_tab(chromium) as tab:
        server.engine.told = told()
        server.engine.recent = [
            ended("alice", 4, model=whole, deployment=whole),
            ended("alice", 3, model="gone/m", deployment="gone/m", failure="timeout_idle"),
            ended("alice", 2, model="careful", deployment="b/m", failure="timeout_idle"),
            ended("alice", 1, model="nope", deployment="", failure="queue_full"),
        ]
        await tab.go(f"{server.address.url}/#requests")
        await tab.until("$('ended').tBodies[0].rows.length === 4")
        assert await tab.see(MODELS) == [whole, "gone/m", "careful\nlast b/m", "nope"]


async def test_long_names_are_wrapped_or_shortened_so_that_no_column_is_cut_off(chromium: str) -> None:
    cluster = "our-own-inference-cluster-in-frankfurt-gpu1/mixtral-8x22b"
    endless = "x" * 300
    async with open_server() as server, open_tab(chromium) as tab:
        server.engine.told = told()
        server.engine.recent = [
            ended(
                "a-caller-with-a-long-name", 2, model=cluster, deployment="openrouter/meta-llama/llama-3.3-70b-instruct"
            ),
            ended("bob", 1, model=endless, failure="model_not_found", deployment=""),
        ]
        await tab.go(f"{server.address.url}/#requests")
        await tab.until("$('ended').tBodies[0].rows.length === 2")
        for width in (390, 768, 1024, 1280):
            await tab.picture(width, 700)
            assert await tab.see(OVERFLOWING) == 0, width
        shown = await tab.see(MODELS)
        assert shown[0].startswith(cluster), "wrapped, not shortened"
        assert len(shown[1]) < 100
        assert await tab.see("$('ended').tBodies[0].rows[1].cells[4].title") == endless


async def test_twenty_are_shown_at_first(chromium: str) -> None:
    async with open_server() as server, open_tab(chromium) as tab:
        server.engine.told, server.engine.recent = told(), [ended("alice", number) for number in range(70, 0, -1)]
        await tab.go(f"{server.address.url}/#requests")
        await tab.until("$('ended').tBodies[0].rows.length === 20")
        assert await tab.text("#further") == "Show more (50 left)"
        await tab.see("$('further').click()")
        await tab.until("$('ended').tBodies[0].rows.length === 60")
        await tab.see("$('further').click()")
        await tab.until("$('ended').tBodies[0].rows.length === 70")
        assert await tab.see("$('further').hidden")


async def test_new_requests_take_neither_focus_nor_place_from_a_reader(chromium: str) -> None:
    async with open_server() as server, open_tab(chromium) as tab:
        server.engine.told, server.engine.recent = told(), [ended("alice", 2), ended("alice", 1)]
        await tab.go(f"{server.address.url}/#requests")
        await tab.until("$('ended').tBodies[0].rows.length === 2")
        await tab.see("document.querySelector('[data-id=req_1]').focus(); document.activeElement.click()")
        await tab.until("document.querySelector('.call')")
        server.engine.recent = [ended("alice", 3), *server.engine.recent]
        await tab.until("$('ended').tBodies[0].rows.length === 4")
        assert await tab.see("document.activeElement.dataset.id") == "req_1"
        await tab.see("document.activeElement.click()")
        await tab.until("$('ended').tBodies[0].rows.length === 3")
        assert await tab.see("document.activeElement.dataset.id") == "req_1"


async def test_what_was_not_called_is_no_call(chromium: str) -> None:
    calls = [
        RecentCall(deployment="a/m", outcome="overloaded", ms=0.0, waited_ms=250.0, called=False),
        RecentCall(deployment="b/m", outcome="ok", ms=900.0),
    ]
    async with open_server() as server, open_tab(chromium) as tab:
        server.engine.told, server.engine.recent = told(), [ended("alice", 1, calls=calls, attempts=1)]
        await tab.go(f"{server.address.url}/#requests")
        await tab.until("$('ended').tBodies[0].rows.length === 1")
        assert await tab.see("$('ended').tBodies[0].rows[0].lastChild.textContent") == "1"
        await tab.see("document.querySelector('[data-id=req_1]').click()")
        await tab.until("document.querySelectorAll('.call').length === 2")
        shown = "[...document.querySelectorAll('.call')].map(call => call.textContent)"
        assert await tab.see(shown) == ["a/mnot sent: overloaded · waited 250 ms", "b/mok · 900 ms"]
