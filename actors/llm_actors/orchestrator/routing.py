"""Resolve a request into its policy and candidates, with the router of the current setup.

A request's own policy takes precedence over the policy of its route, which takes precedence over the defaults. A route
is addressed like a model. Its name takes precedence over all other meanings of that name.

A caller with a list of models can use no others, whether the request names them or a policy chooses them. If the list
contains a route, the caller may use the models of the route, but only through the route.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import NamedTuple, Self, final

import msgspec
import trio

from llm_actors.catalog import Allowed, Candidate, Catalog
from llm_actors.orchestrator.services import Services
from llm_protocol.codec.fields import unsupported
from llm_protocol.dialect import ModelInfo
from llm_protocol.errors import LLMClientError, ModelNotFoundError
from llm_protocol.failures import FailureKind
from llm_protocol.policy import OnBrokenStream, Policy
from llm_protocol.requests import AUTO, AnyRequest, ChatRequest

_NOTHING_SAID = Policy()
_A_ROUTE = "{!r} is a route, and only models can be candidates"
_ONE_CHOICE = (
    "n: more than one choice is possible only if neither the request nor its route sets max_cost, max_tokens, "
    "share_context or share_knowledge, and the strategy is single or fallback"
)

DEFAULT_DEADLINE_SECONDS = 600.0
"""The default deadline of a request, in seconds."""


def is_plain(policy: Policy) -> bool:
    """Return whether one model is tried at a time, without a budget of the request's own and without shared context or
    answers.
    """
    alone = policy.strategy in (None, "single", "fallback")
    unbounded = policy.max_cost is None and policy.max_tokens is None
    return alone and unbounded and policy.share_context in (None, "none") and not policy.share_knowledge


class ResolvedRoute(NamedTuple):
    """The resolved request. ``allowed``: the models it may use; ``None``: all. ``passed_over``: candidates that were
    named but cannot be used, with the reasons.
    """

    policy: Policy
    candidates: list[Candidate]
    allowed: Allowed | None = None
    passed_over: Mapping[str, FailureKind] = {}

    def rescue(self, request: AnyRequest, *, stream: bool) -> OnBrokenStream:
        """Return what to do if the stream breaks. A restart sends an event that cancels the content sent before. So a
        streamed request must have asked for restarts itself; otherwise a break is an error.
        """
        wanted = self.policy.on_broken_stream or "error"
        asked = request.policy is not None and request.policy.on_broken_stream == "restart"
        return "error" if wanted == "restart" and stream and not asked else wanted


@final
class Router:
    """The configured routes, over a catalog of models. ``allowed`` says what callers may use; a caller that is not in
    it may use everything. ``strict`` contains the callers whose requests are refused if a parameter would be left out
    or changed.
    """

    def __init__(
        self,
        catalog: Catalog,
        routes: Mapping[str, Policy],
        default: Policy = _NOTHING_SAID,
        *,
        allowed: Mapping[str, Allowed] | None = None,
        strict: frozenset[str] = frozenset(),
    ) -> None:
        self._catalog = catalog
        self._routes = routes
        self._default = default
        self._allowed = allowed or {}
        self._strict = strict

    def infos(self, caller: str) -> list[ModelInfo]:
        """Return the models that ``caller`` may use."""
        return self._catalog.infos(self._allowed.get(caller))

    def route_names(self, caller: str) -> list[str]:
        """Return the routes that ``caller`` may use."""
        allowed = self._allowed.get(caller)
        return [name for name in self._routes if allowed is None or allowed.permits_route(name)]

    def deadline_s(self, request: AnyRequest) -> float:
        """Return the deadline of the whole request, in seconds from its acceptance. Needs no model list, so the
        deadline applies while a list is fetched.
        """
        route = self._route_of(request) or _NOTHING_SAID
        asked = request.policy or _NOTHING_SAID
        for given in (request.deadline_s, asked.deadline_s, route.deadline_s, self._default.deadline_s):
            if given is not None:  # 0 if a caller has no time left
                return given
        return DEFAULT_DEADLINE_SECONDS

    def _route_of(self, request: AnyRequest) -> Policy | None:
        """Return the route that the request names, if its caller may use it."""
        route, allowed = self._routes.get(request.model), self._allowed.get(request.caller)
        return route if route is None or allowed is None or allowed.permits_route(request.model) else None

    def route(self, request: AnyRequest) -> ResolvedRoute:
        """Resolve a request. Raises `ModelNotFoundError` or `UnsupportedError` if no candidate can serve it."""
        route, allowed = self._route_of(request), self._allowed.get(request.caller)
        if route is not None and allowed is not None:
            allowed = allowed.within_route([model for _, model in route.models()])
        policy = self._default if route is None else route.over(self._default)
        if request.policy is not None:
            policy = request.policy.over(policy)
        if request.caller in self._strict:
            policy = Policy(strict=True).over(policy)
        if request.deadline_s is not None:
            policy = Policy(deadline_s=request.deadline_s).over(policy)
        if request.one_of > 1:
            policy = policy.share(request.one_of)
        if isinstance(request, ChatRequest) and request.n > 1 and not is_plain(policy):
            raise unsupported("n", _ONE_CHOICE)
        names = policy.candidates or (policy.members if isinstance(policy.members, tuple) else ())
        if not names:
            asked = request if route is None else request.to(AUTO)
            return ResolvedRoute(policy, self._catalog.resolve(asked, allowed, self._routes), allowed)
        return self._named(request, names, policy, allowed)

    def _named(
        self, request: AnyRequest, names: Sequence[str], policy: Policy, allowed: Allowed | None
    ) -> ResolvedRoute:
        found: dict[Candidate, None] = {}
        problems: dict[str, LLMClientError] = {}
        for name in names:
            try:
                found.update(dict.fromkeys(self._catalog.resolve(request.to(name), allowed)))
            except LLMClientError as exc:
                problems[name] = exc
        if not found:
            name, problem = next(iter(problems.items()))
            if name in self._routes and (allowed is None or allowed.permits_route(name)):
                problem = ModelNotFoundError(msgspec.structs.replace(problem.failure, message=_A_ROUTE.format(name)))
            raise problem
        return ResolvedRoute(policy, list(found), allowed, {name: exc.failure.kind for name, exc in problems.items()})


@final
class Setup:
    """Services and router of one configuration. A reload replaces it as a whole; a run keeps the setup with which it
    began. Used as a context manager, the setup counts as in use until the end of the block.
    """

    __slots__ = ("_idle", "_users", "router", "services")

    def __init__(self, services: Services, router: Router) -> None:
        self.services = services
        self.router = router
        self._users = 0
        self._idle: trio.Event | None = None

    def __enter__(self) -> Self:
        """Count a user until the end of the block."""
        self._users += 1
        return self

    def __exit__(self, kind: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None) -> None:
        self._users -= 1
        if not self._users and self._idle is not None:
            self._idle.set()

    async def unused(self) -> None:
        """Wait until no run uses the setup. Call this only after the setup was replaced, because then it gets no new
        users.
        """
        if self._users:
            self._idle = self._idle or trio.Event()
            await self._idle.wait()
        else:
            await trio.lowlevel.checkpoint()
