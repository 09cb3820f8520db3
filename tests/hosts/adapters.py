"""One scenario for all hosts: a coroutine over a runtime, run by Trio, by asyncio, or by nobody as all of it blocks.

The runtime is in this process, or in a daemon with the same configuration.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from contextvars import copy_context
from inspect import isawaitable
from typing import Any, TypeAlias

import trio

import llm_runtime
from llm_runtime import aio, sync

Scenario: TypeAlias = Callable[[Any], Coroutine[Any, Any, None]]


def on_trio(scenario: Scenario, config: llm_runtime.Config, **options: Any) -> None:
    async def main() -> None:
        async with llm_runtime.open_runtime(config, **options) as rt:
            await scenario(rt)

    trio.run(main)


def on_asyncio(scenario: Scenario, config: llm_runtime.Config, **options: Any) -> None:
    async def main() -> None:
        async with aio.open_runtime(config, **options) as rt:
            await scenario(rt)

    asyncio.run(main())


def in_a_thread(scenario: Scenario, config: llm_runtime.Config, **options: Any) -> None:
    with sync.open_runtime(config, **options) as rt:
        finish(scenario(Awaited(rt)))


KEY = "sk-hosts-0123456789abcdef"
"""The daemon's."""

DAEMONS: dict[str | None, str] = {}
"""The address of the daemon for a configuration, by its provider's."""


def _daemon(config: llm_runtime.Config) -> str:
    return DAEMONS[config.providers["fake"].base_url]


def remote(scenario: Scenario, config: llm_runtime.Config, **options: Any) -> None:
    async def main() -> None:
        async with llm_runtime.connect(_daemon(config), key=KEY, **options) as rt:
            await scenario(rt)

    trio.run(main)


def remote_on_asyncio(scenario: Scenario, config: llm_runtime.Config, **options: Any) -> None:
    async def main() -> None:
        async with aio.connect(_daemon(config), key=KEY, **options) as rt:
            await scenario(rt)

    asyncio.run(main())


def remote_in_a_thread(scenario: Scenario, config: llm_runtime.Config, **options: Any) -> None:
    with sync.connect(_daemon(config), key=KEY, **options) as rt:
        finish(scenario(Awaited(rt)))


REMOTE = {"remote": remote, "remote-asyncio": remote_on_asyncio, "remote-sync": remote_in_a_thread}
HOSTS = {"trio": on_trio, "asyncio": on_asyncio, "sync": in_a_thread, **REMOTE}


def finish(scenario: Coroutine[Any, Any, None]) -> None:
    """Run a coroutine that never waits, in a context of its own, as an event loop does."""
    try:
        copy_context().run(scenario.send, None)
    except StopIteration:
        return
    raise AssertionError("it waited for an event loop")


async def called(value: Awaitable[Any] | Any) -> Any:
    """The value of what is awaitable on some hosts."""
    return await value if isawaitable(value) else value


class Result:
    """An awaitable that has a result."""

    def __init__(self, result: Any) -> None:
        self._result = result

    def __await__(self) -> Any:
        return self._result
        yield


class Awaited:
    """A blocking object whose methods can be awaited."""

    def __init__(self, inner: Any) -> None:
        self._inner = inner

    def __getattr__(self, name: str) -> Any:
        value = getattr(self._inner, name)
        if not callable(value):
            return value
        if name in ("stream", "stream_request", "text", "partials"):
            return lambda *args, **kwargs: Awaited(value(*args, **kwargs))

        def call(*args: Any, **kwargs: Any) -> Any:
            return Result(value(*args, **kwargs))

        return call

    async def __aenter__(self) -> Awaited:
        self._inner.__enter__()
        return self

    async def __aexit__(self, *how: Any) -> None:
        self._inner.__exit__(*how)

    def __aiter__(self) -> Awaited:
        return self

    async def __anext__(self) -> Any:
        try:
            return next(self._inner)
        except StopIteration:
            raise StopAsyncIteration from None
