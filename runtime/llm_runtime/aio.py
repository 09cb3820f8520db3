"""The runtime for asyncio programs: the same methods, types and errors as on Trio.

    import asyncio
    from llm_runtime import aio

    async def main() -> None:
        async with aio.open_runtime() as rt:
            response = await rt.chat("Say hello.")
            print(response.content)

    asyncio.run(main())

The runtime itself runs on Trio, in a separate thread. Requests and events pass between the threads in batches.
Cancelling a task cancels the operation in the other thread for which the task waits, including the vendor's connection.
Programs that use anyio on asyncio can use this module, too.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from typing import TYPE_CHECKING, Any, TypedDict, TypeVar, cast, final

import llm_runtime.opening as trio_host
from llm_actors.cache import CacheStore
from llm_actors.kernel import TreeNode
from llm_actors.orchestrator import StrategyFunction
from llm_actors.selector import OrderingFunction
from llm_protocol.dialect import ModelInfo
from llm_protocol.policy import Policy
from llm_protocol.secret import Secret
from llm_protocol.vendor import Vendor
from llm_runtime.config import Config
from llm_runtime.hooks import Middleware, Observer
from llm_runtime.hosts.asyncio_functions import middleware_here, observer_here, strategy_here
from llm_runtime.hosts.asyncio_loop import HostLoop, block
from llm_runtime.hosts.on_asyncio import AsyncioRequests, AsyncioStream
from llm_runtime.hosts.portal import Portal
from llm_runtime.opening import ConfigSource
from llm_runtime.providers import Reloaded
from llm_runtime.runtime import Runtime as TrioRuntime

if TYPE_CHECKING:
    from llm_runtime.remote.runtime import RemoteRuntime

__all__ = ["AsyncioRemoteRuntime", "AsyncioRuntime", "AsyncioStream", "connect", "open_runtime"]

T = TypeVar("T")


class _Hooks(TypedDict):
    observers: list[Observer]
    middleware: list[Middleware]


@final
class AsyncioRuntime(AsyncioRequests):
    """The runtime of an asyncio program. `open_runtime` creates it. Its methods must be called in the event loop in
    which it was opened.

    Methods that do not wait (`tree`, `model_list`, `is_ready`, …) block the event loop until the runtime's thread has
    answered, usually for one turn of its scheduler.
    """

    def __init__(self, portal: Portal[TrioRuntime], loop: HostLoop, config: Config) -> None:
        super().__init__(portal, loop)
        self._runtime = portal
        self.config = config

    @property
    def routes(self) -> Mapping[str, Policy]:
        """The configured routes, by name."""
        return self.config.routes

    def forget(self, conversation: str | None = None, *, caller: str = "") -> int:
        """See `llm_runtime.Runtime.forget`."""
        return self._runtime.call_now(lambda rt: rt.forget(conversation, caller=caller))

    def model_list(self, caller: str = "") -> list[ModelInfo]:
        """See `llm_runtime.Runtime.model_list`."""
        return self._runtime.call_now(lambda rt: rt.model_list(caller))

    def is_ready(self) -> bool:
        """See `llm_runtime.Runtime.is_ready`."""
        return self._runtime.call_now(lambda rt: rt.is_ready())

    def parked_services(self) -> Sequence[str]:
        """See `llm_runtime.Runtime.parked_services`."""
        return self._runtime.call_now(lambda rt: rt.parked_services())

    def tree(self) -> TreeNode:
        """See `llm_runtime.Runtime.tree`."""
        return self._runtime.call_now(lambda rt: rt.tree())

    async def reload(self, config: Config) -> Reloaded:
        """See `llm_runtime.Runtime.reload`."""
        done = await self._ask(lambda rt: rt.reload(config))
        self.config = self._runtime.call_now(lambda rt: rt.config)
        return done


@final
class AsyncioRemoteRuntime(AsyncioRequests):
    """The runtime of a daemon, for an asyncio program; see `llm_runtime.RemoteRuntime`. `connect` creates it."""

    def __init__(self, portal: Portal[Any], loop: HostLoop, routes: Mapping[str, Policy]) -> None:
        super().__init__(portal, loop)
        self._routes = routes

    @property
    def config(self) -> Any:
        """Always raises `UnsupportedError`: the daemon does not show its configuration."""
        return self._portal.call_now(lambda rt: rt.config)

    @property
    def routes(self) -> Mapping[str, Policy]:
        """See `llm_runtime.RemoteRuntime.routes`."""
        return self._routes

    async def forget(self, conversation: str | None = None, *, caller: str = "") -> int:
        """See `llm_runtime.RemoteRuntime.forget`."""
        return await self._there(lambda rt: rt.forget(conversation, caller=caller))

    async def model_list(self, caller: str = "") -> list[ModelInfo]:
        """See `llm_runtime.RemoteRuntime.model_list`."""
        return await self._there(lambda rt: rt.model_list(caller))

    async def is_ready(self) -> bool:
        """See `llm_runtime.RemoteRuntime.is_ready`."""
        return await self._there(lambda rt: rt.is_ready())

    async def parked_services(self) -> Sequence[str]:
        """See `llm_runtime.RemoteRuntime.parked_services`."""
        return await self._there(lambda rt: rt.parked_services())

    async def tree(self) -> TreeNode:
        """See `llm_runtime.RemoteRuntime.tree`."""
        return await self._there(lambda rt: rt.tree())

    async def reload(self, config: Config) -> Reloaded:
        """Always raises `UnsupportedError`; see `llm_runtime.RemoteRuntime.reload`."""
        return await self._there(lambda rt: rt.reload(config))

    async def _there(self, fn: Callable[[RemoteRuntime], Awaitable[T]]) -> T:
        found: T = await self._ask(cast("Any", fn))
        return found


def open_runtime(
    config: ConfigSource = None,
    *,
    vendors: Sequence[Vendor] = (),
    observers: Sequence[Observer] = (),
    middleware: Sequence[Middleware] = (),
    strategies: Mapping[str, StrategyFunction] | None = None,
    orderings: Mapping[str, OrderingFunction] | None = None,
    cache_store: CacheStore | None = None,
) -> AbstractAsyncContextManager[AsyncioRuntime]:
    """Run a runtime while a block of an asyncio program runs; see `llm_runtime.open_runtime`. Strategies are called in
    the program's event loop, orderings in the runtime's thread.

    If the runtime gives up, it cancels the task in the block, and raises its error when the block has ended.
    """
    return block(
        lambda portal, loop: trio_host.open_runtime(
            config,
            vendors=vendors,
            strategies={name: strategy_here(each, portal, loop) for name, each in (strategies or {}).items()},
            orderings=orderings,
            cache_store=cache_store,
            **_hooks(observers, middleware, portal, loop),
        ),
        lambda portal, loop, runtime: AsyncioRuntime(portal, loop, runtime.config),
    )


def connect(
    url: str,
    *,
    key: str | Secret | None = None,
    ca_file: str | None = None,
    observers: Sequence[Observer] = (),
    middleware: Sequence[Middleware] = (),
) -> AbstractAsyncContextManager[AsyncioRemoteRuntime]:
    """Use the runtime of a daemon around a block of an asyncio program; see `llm_runtime.connect`."""
    from llm_runtime.remote.runtime import connect as trio_connect

    return block(
        lambda portal, loop: trio_connect(url, key=key, ca_file=ca_file, **_hooks(observers, middleware, portal, loop)),
        lambda portal, loop, runtime: AsyncioRemoteRuntime(portal, loop, runtime.routes),
    )


def _hooks(
    observers: Sequence[Observer], middleware: Sequence[Middleware], portal: Portal[Any], loop: HostLoop
) -> _Hooks:
    """Wrap the observers and the middleware so that they are called in ``loop``, the program's event loop."""
    return {
        "observers": [observer_here(each, portal, loop) for each in observers],
        "middleware": [middleware_here(each, portal, loop) for each in middleware],
    }
