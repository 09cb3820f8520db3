"""The dashboard's page as the server gives it out: what it holds, what it forbids itself, who may have it."""

from __future__ import annotations

import base64
import hashlib
import re
import subprocess
import sys

import pytest

from support.server import open_server

KEYS = {"alice": "sk-alice-0123456789"}
STATISTICS = "/v1/runtime/statistics"


def policy(text: str) -> dict[str, list[str]]:
    """Directive -> its sources."""
    return {name: sources for name, *sources in (each.split() for each in text.split("; "))}


def source(text: bytes) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text).digest()).decode()}'"


async def test_the_page_is_one_document_that_may_do_nothing_but_its_own() -> None:
    async with open_server() as server:
        reply = await server.request("GET", "/")
    assert (reply.status, reply.headers["content-type"]) == (200, "text/html; charset=utf-8")
    [style] = re.findall(rb"<style>(.*?)</style>", reply.body, re.DOTALL)
    [script] = re.findall(rb"<script>(.*?)</script>", reply.body, re.DOTALL)
    assert b"refresh()" in script
    assert b"body {" in style
    assert policy(reply.headers["content-security-policy"]) == {
        "default-src": ["'none'"],
        "style-src": [source(style)],
        "script-src": [source(script)],
        "img-src": ["data:"],
        "connect-src": ["'self'"],
        "base-uri": ["'none'"],
        "form-action": ["'none'"],
        "frame-ancestors": ["'none'"],
        "require-trusted-types-for": ["'script'"],
        "trusted-types": ["'none'"],
    }
    assert reply.headers["x-frame-options"] == "DENY"
    assert reply.headers["x-content-type-options"] == "nosniff"
    assert reply.headers["referrer-policy"] == "no-referrer"
    assert reply.headers["cache-control"] == "no-store"


async def test_the_page_needs_nothing_from_elsewhere() -> None:
    async with open_server() as server:
        text = (await server.request("GET", "/")).body.decode()
    assert set(re.findall(r"https?://[\w./]+", text)) == {"http://www.w3.org/2000/svg"}
    assert not re.search(r"innerHTML|outerHTML|insertAdjacent|document\.write|eval\(|localStorage|cookie", text)
    assert len(text) < 56 * 1024


async def test_head_tells_the_same_without_the_page() -> None:
    async with open_server() as server, await server.connect() as client:
        await client.send(b"HEAD / HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n")
        answer = await client.until_closed()
        page = await server.request("GET", "/")
    assert answer.startswith(b"HTTP/1.1 200 ")
    assert answer.endswith(b"\r\n\r\n")
    assert f"content-length: {len(page.body)}\r\n".encode() in answer
    assert b"content-security-policy: " in answer


async def test_the_page_is_given_to_everybody_and_its_numbers_only_for_a_key() -> None:
    """It is the same page for all daemons, so it gives nothing away."""
    async with open_server() as server:
        plain = await server.request("GET", "/")
        assert (await server.request("GET", STATISTICS)).status == 200
    async with open_server(keys=KEYS) as server:
        server.engine.told = {"running": 3}
        page = await server.request("GET", "/")
        assert (page.status, page.body) == (200, plain.body)
        refused = await server.request("GET", STATISTICS)
        assert (refused.status, refused.json["error"]["code"]) == (401, "invalid_api_key")
        reply = await server.request("GET", STATISTICS, authorization=f"Bearer {KEYS['alice']}")
    assert (reply.status, reply.json) == (200, {"running": 3})
    assert reply.headers["content-type"] == "application/json"
    assert reply.headers["cache-control"] == "no-store"


@pytest.mark.parametrize("path", ["/", STATISTICS])
async def test_the_page_keeps_to_the_servers_rules(path: str) -> None:
    """A page under a foreign name could otherwise ask for the key and read it."""
    key = {"authorization": f"Bearer {KEYS['alice']}"}
    async with open_server(keys=KEYS) as server:
        rebound = await server.request("GET", path, host="evil.test", **key)
        foreign = await server.request("GET", path, origin="http://evil.test", **key)
        in_url = await server.request("GET", f"{path}?key={KEYS['alice']}")
        posted = await server.request("POST", path, {}, **key)
    assert (rebound.status, rebound.json["error"]["code"]) == (403, "host_not_allowed")
    assert (foreign.status, foreign.json["error"]["code"]) == (403, "origin_not_allowed")
    assert (in_url.status, in_url.json["error"]["code"]) == (400, "key_in_query")
    assert (posted.status, posted.headers["allow"]) == (405, "GET")


async def test_what_is_next_to_the_page_is_not_open() -> None:
    async with open_server(keys=KEYS) as server:
        for path in ("/favicon.ico", "/page.js", "/.", "/dashboard"):
            assert (await server.request("GET", path)).status == 401


def test_nothing_of_it_is_loaded_before_somebody_looks() -> None:
    code = "import sys, llm_runtime.runtime, llm_runtime.server, llm_runtime.daemon; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-P", "-c", code], capture_output=True, text=True, check=True, timeout=30)
    assert not {"llm_runtime.dashboard", "llm_runtime.statistics", "llm_runtime.metrics"} & set(done.stdout.split())
