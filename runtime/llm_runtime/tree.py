"""The supervision tree.

    llm-runtime   one_for_one, 3 restarts in 60 s
     ├─ core      one_for_one: catalog, providers (one small supervisor per deployment), orchestrator
     ├─ sessions  one child per connection        (the daemon only)
     └─ door      last in, first out              (the daemon only)

Refs are stable across restarts, so that nobody needs a neighbour's restart.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Never, final

from llm_actors.catalog import Catalog, CatalogActor, CatalogMessage, CatalogRef
from llm_actors.kernel import ChildSpec, Intensity, MailboxSpec, Overflow, Supervisor
from llm_actors.orchestrator import CostOf, Orchestrator, OrchestratorMessage, OrchestratorRef
from llm_actors.provider import ProviderRef
from llm_protocol.emulation import offered
from llm_runtime.deployments import Supervised

ROOT_INTENSITY = Intensity(3, 60.0)
"""More restarts of a whole branch than this and the runtime gives up."""

SUBMISSIONS_WAITING = 1_000
"""Runs that wait to be taken on; one more is refused."""


@final
class Tree:
    """The actors of one runtime, wired but not started. ``doors`` are branches of the root that start last."""

    def __init__(
        self,
        deployments: Sequence[Supervised],
        cost_of: CostOf,
        *,
        drain_s: float,
        doors: Sequence[ChildSpec[Never]] = (),
    ) -> None:
        self.catalog = Catalog()
        for each in deployments:
            known = each.deployment
            self.catalog.add(known.name, known.kind, offered(known.dialect.request_types), known.models)
        providers = Supervisor([each.supervisor.as_child() for each in deployments], name="providers")
        lister = self._lister({each.deployment.name: each.ref for each in deployments if not each.deployment.models})
        orchestrator = self._orchestrator({each.deployment.name: each.ref for each in deployments}, cost_of, drain_s)
        core = Supervisor([providers.as_child(), lister, orchestrator], name="core")
        self.lister: CatalogRef = core.ref(lister)
        self.orchestrator: OrchestratorRef = core.ref(orchestrator)
        self.root = Supervisor([core.as_child(), *doors], name="llm-runtime", intensity=ROOT_INTENSITY)

    def _lister(self, asked: Mapping[str, ProviderRef]) -> ChildSpec[CatalogMessage]:
        return ChildSpec("catalog", lambda _: CatalogActor(self.catalog, asked))

    def _orchestrator(
        self, refs: Mapping[str, ProviderRef], cost_of: CostOf, drain_s: float
    ) -> ChildSpec[OrchestratorMessage]:
        return ChildSpec(
            "orchestrator",
            lambda _: Orchestrator(self.catalog, self.lister, refs, cost_of),
            shutdown=drain_s,
            mailbox=MailboxSpec(SUBMISSIONS_WAITING, Overflow.REFUSE),
        )
