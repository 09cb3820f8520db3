"""From what a request says to what is to be done: its policy and its candidates. Pure.

A request's own policy comes before its route's, and that before the defaults. A route's name is used as a model's; it
comes before everything else a name could mean.

A caller with a list of models has no others, whoever names or chooses them. The list allows a route by its name, and
with it, in requests to it, the models that the route names.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple, final

from llm_actors.catalog import Allowed, Candidate, Catalog
from llm_protocol.dialect import ModelInfo
from llm_protocol.errors import LLMClientError
from llm_protocol.policy import OnBrokenStream, Policy
from llm_protocol.requests import AnyRequest

_NOTHING_SAID = Policy()

DEFAULT_DEADLINE_SECONDS = 600.0
"""A request's whole time budget where nothing says another."""


class Routed(NamedTuple):
    """What a request comes down to. ``allowed``: the models it may use; ``None``: all."""

    policy: Policy
    candidates: list[Candidate]
    allowed: Allowed | None = None

    def rescue(self, request: AnyRequest, *, stream: bool) -> OnBrokenStream:
        """What happens when the stream breaks. A restart must be told, so followers of a stream must have asked for it
        themselves; for others it is an error. A whole answer has no followers to be told.
        """
        wanted = self.policy.on_broken_stream or "error"
        asked = request.policy is not None and request.policy.on_broken_stream == "restart"
        return "error" if wanted == "restart" and stream and not asked else wanted

    @property
    def deadline_s(self) -> float:
        """Seconds for the whole request."""
        said = self.policy.deadline_s  # 0 where a caller has no time left
        return DEFAULT_DEADLINE_SECONDS if said is None else said


@final
class Router:
    """The configured routes, over a catalog of models. ``allowed`` has the callers who may not use everything."""

    def __init__(
        self,
        catalog: Catalog,
        routes: Mapping[str, Policy],
        default: Policy = _NOTHING_SAID,
        *,
        allowed: Mapping[str, Allowed] | None = None,
    ) -> None:
        self._catalog = catalog
        self._routes = routes
        self._default = default
        self._allowed = allowed or {}

    def infos(self, caller: str) -> list[ModelInfo]:
        """The models that ``caller`` may use."""
        return self._catalog.infos(self._allowed.get(caller))

    def route(self, request: AnyRequest) -> Routed:
        """Raises `ModelNotFoundError` or `UnsupportedError` when nobody can answer."""
        route, allowed = self._routes.get(request.model), self._allowed.get(request.caller)
        if route is not None and allowed is not None:
            if allowed.permits_route(request.model):
                allowed = allowed.within_route([model for _, model in route.models()])
            else:
                route = None
        policy = (route or _NOTHING_SAID).over(self._default)
        if request.policy is not None:
            policy = request.policy.over(policy)
        if request.deadline_s is not None:
            policy = Policy(deadline_s=request.deadline_s).over(policy)
        return Routed(policy, self._candidates(request, policy, allowed, is_route=route is not None), allowed)

    def _candidates(
        self, request: AnyRequest, policy: Policy, allowed: Allowed | None, *, is_route: bool
    ) -> list[Candidate]:
        names = policy.candidates or (policy.members if isinstance(policy.members, tuple) else ())
        if not names:
            return self._catalog.resolve(request.to("auto") if is_route else request, allowed)
        found: dict[Candidate, None] = {}
        problem: LLMClientError | None = None
        for name in names:
            try:
                found.update(dict.fromkeys(self._catalog.resolve(request.to(name), allowed)))
            except LLMClientError as exc:
                problem = problem or exc
        if not found:
            assert problem is not None, "a name that is not found is an error"
            raise problem
        return list(found)
