"""The playground in a real browser, against a whole runtime and a fake provider."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from llm_protocol.policy import Policy
from llm_protocol.requests import LLMProvider
from llm_protocol.secret import Secret
from llm_runtime.config import Config, Key, Provider, Server
from llm_runtime.fake import FakeProvider
from llm_runtime.runtime import Runtime
from llm_runtime.server import ListenAddress, server_child
from support.browser import Tab, open_tab

KEY = "sk-alice-0123456789"


@asynccontextmanager
async def playing(chromium: str, fake: FakeProvider, *, key: str = KEY) -> AsyncIterator[Tab]:
    """The playground of a daemon that asks for a key, which was given."""
    addresses: list[ListenAddress] = []
    settings = Server(host="127.0.0.1", port=0, drain_s=1)
    provider = Provider(
        kind=LLMProvider.OPENAI_COMPATIBLE,
        base_url=fake.base_url("openai_compatible"),
        models=("one", "two"),
        wire="chat",
    )
    config = Config(
        providers={"p": provider},
        routes={"both": Policy(strategy="panel", members=("p/one", "p/two"))},
        keys={"alice": Key(secret=Secret(key))},
    )
    runtime = Runtime(config, servers=lambda rt: server_child(settings, rt, addresses.append, keys=config.keys))
    async with runtime.running(), open_tab(chromium) as tab:
        await tab.go(f"{addresses[0].url}/#playground")
        await tab.until("!$('login').hidden")
        await tab.see(f"$('key').value = '{key}'; $('login').requestSubmit()")
        await tab.until("!$('main').hidden && !$('playground').hidden && $('names').children.length")
        yield tab


async def send(tab: Tab, model: str, message: str) -> None:
    await tab.see(f"$('chosen').value = '{model}'; $('asked').value = '{message}'; $('asking').requestSubmit()")


async def texts(tab: Tab, selector: str) -> list[str]:
    found: list[str] = await tab.see(f"[...document.querySelectorAll('{selector}')].map(each => each.textContent)")
    return found


ENDED = "turn === null"
