"""The catalog actor: requests the vendors' model lists at the start, at intervals, and on request.

If a provider's list is not available, its previous list is kept, and the first failure in a row is logged. After the
first round, one log line warns of the models that will be shut down soon.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import TypeAlias, assert_never, final

import trio

from llm_actors.catalog.catalog import Catalog
from llm_actors.kernel import Call, Delivery, Inbox, KernelError, Ref, retry_after_crashes, serve
from llm_actors.provider import ProviderRef, failure_of, list_models
from llm_protocol.errors import LLMClientError

LISTING_SECONDS = 10.0
"""The time limit for the list of one provider, in seconds."""

REFRESH_SECONDS = 600.0
"""Seconds between two rounds of all providers."""

ENDING_SHOWN = 8
"""The most models named in the warning."""

log = logging.getLogger(__name__)


class Refresh(Call[None], frozen=True):
    """Request the lists of the providers whose models are not configured; with ``only_unlisted``, only of those whose
    models are not known yet.
    """

    only_unlisted: bool = False


class Follow(Call[None], frozen=True):
    """Keep another catalog up to date from now on. The reply comes at once; missing lists are requested afterwards."""

    catalog: Catalog
    providers: Mapping[str, ProviderRef]


CatalogMessage: TypeAlias = Refresh | Follow
CatalogRef: TypeAlias = Ref[CatalogMessage]


async def refresh(catalog: CatalogRef, *, only_unlisted: bool = False) -> None:
    """Request new lists and wait for them, at most `LISTING_SECONDS`. Raises only `KernelError`; while the actor is
    parked, it raises `Parked` at once.
    """
    await retry_after_crashes(lambda: catalog.call(Refresh(only_unlisted)))


async def follow(lister: CatalogRef, catalog: Catalog, providers: Mapping[str, ProviderRef]) -> None:
    """Make the actor keep ``catalog`` up to date instead of its present one. Raises `KernelError` while the actor is
    not running; then its factory must give the new catalog to the next incarnation.
    """
    await retry_after_crashes(lambda: lister.call(Follow(catalog, providers)))


@final
class CatalogActor:
    """Keeps ``catalog`` up to date. ``providers`` are the providers whose models come from their vendor's list."""

    def __init__(self, catalog: Catalog, providers: Mapping[str, ProviderRef]) -> None:
        self._catalog = catalog
        self._providers = providers
        self._failing: set[str] = set()
        self._followed = trio.Event()

    async def run(self, inbox: Inbox[CatalogMessage], *, task_status: trio.TaskStatus[None]) -> None:
        """Handle messages until asked to stop. The first round runs in the background, so it delays no request."""
        async with trio.open_nursery() as nursery:
            task_status.started()
            nursery.start_soon(self._keep_fresh)
            await serve(inbox, self._handle)
            nursery.cancel_scope.cancel(reason="the catalog stops")

    async def _keep_fresh(self) -> None:
        await self._list(self._providers)
        self._warn()
        while True:
            if not self._providers:
                await self._followed.wait()
            with trio.move_on_after(REFRESH_SECONDS) as waiting:
                await self._followed.wait()
            if waiting.cancelled_caught:
                await self._list(self._providers)
            else:
                self._followed = trio.Event()
                await self._list([name for name in self._providers if name in self._catalog.unlisted])

    def _warn(self) -> None:
        found = [f"{candidate} {words}" for candidate, words in self._catalog.all_ending()]
        if found:
            more = f"; and {len(found) - ENDING_SHOWN} more" if len(found) > ENDING_SHOWN else ""
            log.warning(
                "models that were or will soon be shut down by their vendors: %s%s",
                "; ".join(found[:ENDING_SHOWN]),
                more,
            )

    async def _handle(self, delivery: Delivery[CatalogMessage]) -> None:
        match delivery.message:
            case Follow() as message:
                self._catalog, self._providers = message.catalog, message.providers
                self._failing &= message.providers.keys()
                self._followed.set()
                delivery.reply(message, None)
            case Refresh() as message:
                unlisted = self._catalog.unlisted
                await self._list([name for name in self._providers if name in unlisted or not message.only_unlisted])
                delivery.reply(message, None)
            case _ as never:
                assert_never(never)

    async def _list(self, names: Mapping[str, ProviderRef] | list[str]) -> None:
        catalog, providers = self._catalog, self._providers  # `Follow` may replace both before a task begins
        async with trio.open_nursery() as nursery:
            for name in names:
                nursery.start_soon(self._list_one, name, providers[name], catalog)

    async def _list_one(self, name: str, provider: ProviderRef, catalog: Catalog) -> None:
        problem = f"{name}: no model list within {LISTING_SECONDS:g} s"
        with trio.move_on_after(LISTING_SECONDS):
            try:
                catalog.update(name, await list_models(provider))
            except LLMClientError as exc:
                problem = exc.failure.message
            except KernelError as exc:
                problem = failure_of(exc, name).message
            else:
                self._failing.discard(name)
                return
        if name not in self._failing:
            self._failing.add(name)
            log.error(
                "cannot list the models of %s, so a model that is not known yet must be named as %s/MODEL: %s",
                name,
                name,
                problem,
            )
