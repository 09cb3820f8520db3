"""Providers like Azure, like OpenRouter, and behind a proxy: the same everywhere that a provider is spoken of."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

import trio

from llm_runtime import open_runtime
from llm_runtime.config import parse
from llm_runtime.runtime import Runtime
from llm_runtime.server import ListenAddress, server_child
from support import commands
from support.peer import Call, Peer, Seen, reply, sse
from support.proxying import FakeProxy
from support.server import HttpClient
from support.upstream import END, HELLO, JSON, whole

KEY = "k-0123456789abcdef"
NAMES = ("azure", "router", "far")
ENVIRON = {"K": KEY, "PROXY_AUTH": "u:p"}
PATHS = {"azure": "/openai/v1", "router": "/api/v1", "far": "/v1"}


async def answer(call: Call) -> None:
    """One model, which says hello."""
    assert call.request is not None
    if call.request.method == "GET":
        listed = {"object": "list", "data": [{"id": "m", "object": "model", "supported_parameters": ["tools"]}]}
        await reply(json.dumps(listed).encode(), headers=JSON)(call)
    elif json.loads(call.request.body).get("stream"):
        await sse(*HELLO, *END)(call)
    else:
        await reply(whole(), headers=JSON)(call)


class Place:
    """The three providers' configuration, and the vendor that all of them reach."""

    def __init__(self, vendor: Peer, proxy: FakeProxy, proxy_port: int, folder: Path) -> None:
        self.vendor = vendor
        self.proxy = proxy
        self.folder = folder
        self.text = f"""
            [server]
            port = 0
            drain_s = 1
            [providers.azure]
            kind = "azure"
            base_url = "{vendor.url}"
            api_key = "env:K"
            query = {{ api-version = "preview" }}
            [providers.router]
            kind = "openrouter"
            base_url = "{vendor.url}/api/v1"
            api_key = "env:K"
            headers = {{ http-referer = "https://my-app.example", x-title = "My app" }}
            [providers.far]
            kind = "openai_compatible"
            base_url = "{vendor.url}/v1"
            api_key = "env:K"
            proxy = "http://127.0.0.1:{proxy_port}"
            proxy_auth = "env:PROXY_AUTH"
        """

    @property
    def file(self) -> str:
        file = self.folder / "c.toml"
        file.write_text(self.text)
        return str(file)

    def seen_by(self, name: str) -> list[Seen]:
        """What the vendor saw of one provider since it was asked last: all of it in that provider's way."""
        mine = [each for each in self.vendor.requests if self._is_of(each, name)]
        for each in mine:
            if name == "azure":
                assert (each.headers["api-key"], "authorization" in each.headers) == (KEY, False)
                assert each.target.endswith("?api-version=preview")
            else:
                assert each.headers["authorization"] == f"Bearer {KEY}"
            if name == "router":
                assert (each.headers["http-referer"], each.headers["x-title"]) == ("https://my-app.example", "My app")
        self.vendor.requests[:] = [each for each in self.vendor.requests if each not in mine]
        if name == "far":
            assert self.proxy.asked, "it went through the proxy"
            self.proxy.asked.clear()
        return mine

    def _is_of(self, seen: Seen, name: str) -> bool:
        path = seen.target.partition(self.vendor.url)[2] or seen.target  # through a proxy the target is absolute
        return path.startswith(PATHS[name] + "/")


@asynccontextmanager
async def place(folder: Path) -> AsyncIterator[Place]:
    async with Peer(answer) as vendor, FakeProxy(vendor, known="u:p") as proxy, trio.open_nursery() as nursery:
        listeners = await nursery.start(partial(trio.serve_tcp, proxy._serve, 0, host="127.0.0.1"))
        yield Place(vendor, proxy, listeners[0].socket.getsockname()[1], folder)
        nursery.cancel_scope.cancel()


async def test_embedded(tmp_path: Path) -> None:
    async with place(tmp_path) as at:
        async with open_runtime(parse(at.text.encode(), ENVIRON)) as runtime:
            assert await runtime.models() == {name: ["m"] for name in NAMES}
            for name in NAMES:
                assert (await runtime.chat("Hi.", model=f"{name}/m")).content == "Hello there"
                async with runtime.stream("Hi.", model=f"{name}/m") as stream:
                    assert "".join([part async for part in stream.text()]) == "Hello there"
                assert [each.method for each in at.seen_by(name) if each.method != "GET"] == ["POST"] * 2
        assert at.vendor.requests == []


async def test_the_daemon(tmp_path: Path) -> None:
    addresses: list[ListenAddress] = []
    async with place(tmp_path) as at:
        config = parse(at.text.encode(), ENVIRON)
        runtime = Runtime(config, servers=lambda rt: server_child(config.server, rt, addresses.append))
        async with runtime.running():
            async with HttpClient(await trio.open_tcp_stream(addresses[0].host, addresses[0].port)) as client:
                for name in NAMES:
                    for stream in (False, True):
                        body = {"model": f"{name}/m", "messages": [{"role": "user", "content": "Hi."}]}
                        got = await client.request("POST", "/v1/chat/completions", body | {"stream": stream})
                        assert (got.status, b"there" in got.body) == (200, True)
                    assert [each.method for each in at.seen_by(name)] == ["GET", "POST", "POST"]
                listed = (await client.request("GET", "/v1/models")).json["data"]
                assert {f"{name}/m" for name in NAMES} <= {each["id"] for each in listed}
                for name in NAMES:
                    why = await client.request("GET", f"/v1/runtime/explain?model={name}%2Fm")
                    assert (why.status, f"{name}/m" in why.body.decode()) == (200, True)
                metrics = (await client.request("GET", "/metrics")).body.decode()
                for name in NAMES:
                    attempts = [line for line in metrics.splitlines() if f'provider="{name}"' in line]
                    assert any(line.startswith("llm_runtime_attempts_total") for line in attempts), attempts
                assert KEY not in metrics


async def test_the_commands(tmp_path: Path) -> None:
    """Each in a process of its own, as an operator runs it."""
    async with place(tmp_path) as at:
        code, out, err = await commands.run("check", "--config", at.file, K=KEY, PROXY_AUTH="u:p")
        assert (code, err) == (0, ""), out
        for name in NAMES:
            assert any("ok" in line and name in line and "1 model" in line for line in out.splitlines()), out
            assert [each.method for each in at.seen_by(name)] == ["GET"]
        code, out, _ = await commands.run("explain", "--config", at.file, K=KEY, PROXY_AUTH="u:p")
        assert code == 0
        assert {f"{name}/m" for name in NAMES} <= set(out.split())
        assert KEY not in out
