"""The catalog's actor while a reload gives it other providers."""

from __future__ import annotations

from typing import Never, final

import trio
from trio.testing import MockClock

from llm_actors.catalog import Catalog, CatalogActor, CatalogMessage, follow
from llm_actors.catalog.actor import REFRESH_SECONDS
from llm_actors.kernel import ChildSpec, Delivery, Inbox, Supervisor, running, serve
from llm_actors.provider import ProviderMessage
from llm_actors.provider.messages import ListModels
from llm_protocol.dialect import ModelInfo
from llm_protocol.requests import LLMProvider, RequestType
from llm_protocol.vendors import VENDORS


@final
class Listing:
    """A provider that has one model."""

    async def run(self, inbox: Inbox[ProviderMessage], *, task_status: trio.TaskStatus[None]) -> None:
        task_status.started()
        await serve(inbox, self._handle)

    async def _handle(self, delivery: Delivery[ProviderMessage]) -> None:
        assert isinstance(delivery.message, ListModels)
        delivery.reply(delivery.message, (ModelInfo(id="m"),))


def catalog_of(name: str) -> Catalog:
    catalog = Catalog()
    catalog.add(name, VENDORS[LLMProvider.OPENAI], frozenset(RequestType))
    return catalog


async def test_providers_may_change_in_the_moment_in_which_lists_are_requested(autojump_clock: MockClock) -> None:
    """Trio runs the tasks of one pass in any order, so it is tried many times."""
    provider: ChildSpec[ProviderMessage] = ChildSpec("p", lambda _: Listing())
    root_of: list[Supervisor] = []
    lister: ChildSpec[CatalogMessage] = ChildSpec(
        "catalog", lambda _: CatalogActor(catalog_of("a"), {"a": root_of[0].ref(provider)})
    )
    specs: list[ChildSpec[Never]] = [provider, lister]
    root = Supervisor(specs)
    root_of.append(root)
    async with running(root):
        ref, listed = root.ref(provider), root.ref(lister)
        await trio.testing.wait_all_tasks_blocked()
        for name in "ba" * 20:
            await trio.sleep(REFRESH_SECONDS)
            catalog = catalog_of(name)
            await follow(listed, catalog, {name: ref})
            await trio.testing.wait_all_tasks_blocked()
            assert catalog.models() == {name: ["m"]}
        assert root.statistics().restarts == 0
