"""The runtime for programs: a tree of actors behind a few async functions."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Collection, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from random import getrandbits
from typing import TYPE_CHECKING, Never, final
from urllib.parse import urlsplit

import msgspec
import trio

from llm_actors.catalog import refresh
from llm_actors.kernel import ChildSpec, KernelError, TreeNode, running
from llm_actors.orchestrator import RecentRequest, accept, gives_choices, pass_through, ranked
from llm_actors.provider import PassthroughRequest, PassthroughResponse, count_tokens
from llm_actors.run import Judge, Run
from llm_actors.selector import Ranking
from llm_actors.store import StoreRef
from llm_protocol.client_headers import TRACEPARENT, TraceContext, trace_context
from llm_protocol.codec.fields import bad_request, typed_policy
from llm_protocol.dialect import ModelInfo
from llm_protocol.errors import (
    NOT_OPEN,
    BadRequestError,
    CrashedError,
    LLMClientError,
    ModelNotFoundError,
    ShuttingDownError,
)
from llm_protocol.policy import Policy
from llm_protocol.requests import AUTO, AnyRequest, ChatRequest, RequestType, answer_type
from llm_protocol.response import TokenCount
from llm_runtime.config import Config
from llm_runtime.config.cross_checks import check_policy
from llm_runtime.config.errors import under
from llm_runtime.costs import Costs
from llm_runtime.extensions import NO_EXTENSIONS, Extensions
from llm_runtime.hooks import Hooks
from llm_runtime.providers import Reloaded, is_same, provider_spec, supervised
from llm_runtime.tree import Tree
from llm_runtime.trio_requests import TrioRequests

if TYPE_CHECKING:
    from llm_runtime.metrics import MetricsSnapshot
    from llm_runtime.statistics import Statistics

COUNT_SECONDS = 10.0
"""Seconds to wait for a vendor's token count. After that, tokens are estimated."""

LONGEST_DEADLINE_SECONDS = 86_400
"""The longest deadline: a day, as in a policy."""

SETTLE_SECONDS = 10.0
"""Seconds that a reload waits for the limiter and the catalog. If one of them is not running, the reload takes effect
there when that actor is restarted.
"""


@final
class Runtime(TrioRequests):
    """A running system. `open_runtime` creates it. Its methods must be called in the call of `trio.run` in which it was
    opened.

    Every request ends with a complete response or with one `LLMClientError`, by its deadline (``deadline_s``, default
    600 s). Cancelling a call, or leaving a stream, cancels everything below it, including the vendor's connection.
    """

    def __init__(
        self,
        config: Config,
        *,
        extensions: Extensions = NO_EXTENSIONS,
        servers: Callable[[Runtime], Sequence[ChildSpec[Never]]] = lambda _: (),
    ) -> None:
        self.config = config
        specs = [provider_spec(name, provider, config.vendors) for name, provider in config.enabled.items()]
        providers = [supervised(spec) for spec in specs]
        self._costs = Costs(config.prices, {spec.name: spec.vendor for spec in specs})
        self._log_limit = config.server.log_limit_bytes
        self._reloading = trio.Lock()
        self._listeners: list[Callable[[Config], None]] = []
        self._own_names = extensions.names
        self._tree = Tree(config, providers, self._costs.cost_of, extensions=extensions, servers=servers(self))
        self._open = False

    @asynccontextmanager
    async def running(self) -> AsyncIterator[Runtime]:
        """Start the actor tree before the block and stop it afterwards. Requests are accepted from the beginning of the
        start, because the server, the last part of the tree, may have clients before the block begins. During the stop,
        new requests are refused, and requests in progress have ``drain_s`` seconds to finish.
        """
        self._open = True
        try:
            async with running(self._tree.root):
                try:
                    yield self
                finally:
                    self._open = False  # before the tree stops
        finally:
            self._open = False  # also if the tree has not started
            await self._tree.close()

    def _require_open(self) -> None:
        if not self._open:
            raise ShuttingDownError(NOT_OPEN)

    # -- requests ----------------------------------------------------------------------------------------------------

    @property
    def routes(self) -> Mapping[str, Policy]:
        """The configured routes, by name."""
        return self.config.routes

    async def submit(
        self,
        request: AnyRequest,
        *,
        stream: bool,
        background: bool = False,
        judge: Judge | None = None,
        since: float | None = None,
        response_id: str | None = None,
    ) -> Run:
        """Submit a request and return its run, as soon as the request is accepted. Raises `LLMClientError` if the
        request is refused.

        The run is cancelled when its last follower leaves, unless it is a ``background`` run. Its deadline counts from
        ``since`` (on Trio's clock; default: now), so it includes the time before acceptance. ``response_id``: the id of
        the response; by default, a new one. The call is a cancellation point, but other tasks run only if the call has
        to wait.
        """
        self._require_open()
        request = self._checked(request)
        trace: TraceContext | None = None
        if self.config.otel is not None:
            trace = trace_context(request.forwarded.get(TRACEPARENT), getrandbits)
            forwarded = request.forwarded | {TRACEPARENT: trace.traceparent}
            request = msgspec.structs.replace(request, forwarded=forwarded)
        started_at = trio.current_time() if since is None else since
        deadline_s = self.deadline_s(request)

        async def attempt() -> Run:
            run = Run(
                request,
                stream=stream,
                background=background,
                response_id=response_id,
                judge=judge,
                log_limit_bytes=self._log_limit_bytes(request),
                started_at=started_at,
                deadline_s=deadline_s,
            )
            run.trace = trace
            await accept(self._tree.orchestrator, run)
            return run

        try:
            return await attempt()
        except CrashedError:  # the orchestrator crashed before it accepted the run
            return await attempt()

    def _checked(self, request: AnyRequest) -> AnyRequest:
        """Return the request, validated as a client's request is. Raises `BadRequestError`."""
        for name in request.parameters.extra:
            if name not in self._tree.dialects:
                raise _no_dialect(name, self._tree.dialects)
        if request.deadline_s is not None and not request.deadline_s <= LONGEST_DEADLINE_SECONDS:
            message = f"deadline_s must be a number of seconds, at most {LONGEST_DEADLINE_SECONDS:,}"
            raise bad_request("deadline_s", message)
        if request.policy is None:
            return request
        policy = typed_policy(msgspec.to_builtins(request.policy), "policy", self._own_names)
        return msgspec.structs.replace(request, policy=policy)

    def _log_limit_bytes(self, request: AnyRequest) -> int:
        """Return the size limit of the run log. Images arrive in one piece, so the largest one that a provider may send
        must fit.
        """
        configured = self._log_limit
        kind = answer_type(request, draws=self._tree.setup.services.catalog.may_draw(request.model))
        if kind is not RequestType.IMAGE_GENERATION:
            return configured
        return max([configured, *(each.max_answer_mb.bytes_for(kind) for each in self.config.enabled.values())])

    def deadline_s(self, request: AnyRequest) -> float:
        """Return the deadline of ``request`` in seconds: its own, its policy's, its route's, or the default."""
        return self._tree.setup.router.deadline_s(request)

    # -- reloading ---------------------------------------------------------------------------------------------------

    async def reload(self, config: Config) -> Reloaded:
        """Apply the providers, keys, limits, routes, prices, timeouts, attempts, selection and ``cross_model`` of
        ``config``. Its ``server``, ``cache``, ``redis``, ``store``, ``budgets``, ``request_log`` and ``otel`` are
        ignored until the next start.

        ``config`` is applied completely or not at all. `ConfigError` is raised for an unknown strategy, ordering or
        kind of provider, and `KernelError` if a provider does not start or too many earlier reloads are unfinished;
        then the present configuration stays in effect. Requests in progress keep the setup that they began with. A
        removed provider is stopped after its last request. A provider that has not changed keeps its connections,
        circuits and the usage of its limits. Waits for a reload that is in progress.
        """
        async with self._reloading:
            self._require_open()
            for name, route in config.routes.items():
                with under("routes", name):
                    check_policy(route, self._own_names)
            former, old = self._tree.supervised, self._tree.setup
            specs = [provider_spec(name, provider, config.vendors) for name, provider in config.enabled.items()]
            kept = {spec.name for spec in specs if spec.name in former and is_same(spec.name, self.config, config)}
            fresh = [supervised(each, name=self._tree.tree_name(each.name)) for each in specs if each.name not in kept]
            await self._tree.start(fresh)
            # From here to `settle` nothing awaits, so other tasks see either all of the old or all of the new
            # configuration.
            new = {each.spec.name: each for each in fresh}
            self._costs.change(config.prices, {spec.name: spec.vendor for spec in specs})
            was = self.config
            self.config = msgspec.structs.replace(
                config,
                server=was.server,
                cache=was.cache,
                redis=was.redis,
                store=was.store,
                budgets=was.budgets,
                request_log=was.request_log,
                otel=was.otel,
            )
            self._tree.switch(self.config, [new.get(spec.name) or former[spec.name] for spec in specs])
            for listener in self._listeners:
                listener(config)
            with trio.CancelScope(shield=True, deadline=trio.current_time() + SETTLE_SECONDS):
                await self._tree.settle(former, old)
            return Reloaded(
                added=tuple(name for name in new if name not in former),
                changed=tuple(name for name in new if name in former),
                removed=tuple(name for name in former if name not in self._costs.vendors),
            )

    def on_reload(self, listener: Callable[[Config], None]) -> None:
        """Call ``listener`` with each configuration when it is applied. ``listener`` must not block."""
        self._listeners.append(listener)

    def forget(self, conversation: str | None = None, *, caller: str = "") -> int:
        """Delete the answers that are stored for a conversation (see the policy's ``share_knowledge``); without
        ``conversation``, those of all conversations of ``caller``. Return the number of conversations whose answers
        were deleted.
        """
        return self._tree.services.knowledge.forget(caller, conversation)

    async def pass_through(
        self, provider: str, message: PassthroughRequest, *, caller: str, request_id: str
    ) -> PassthroughResponse:
        """Send a request to ``provider`` unchanged; see `llm_actors.orchestrator.pass_through`. Raises
        `LLMClientError`.
        """
        self._require_open()
        return await pass_through(self._tree.services, provider, message, caller=caller, request_id=request_id)

    def upstream_base(self, provider: str) -> str | None:
        """Return the path of the base URL of ``provider``; ``None`` if the provider does not exist or is disabled."""
        found = self.config.enabled.get(provider)
        return None if found is None else urlsplit(found.base_url or "").path

    def hook(self, hooks: Hooks | None) -> None:
        """Call ``hooks`` for every request from now on. Used by `open_runtime`."""
        self._hooks = hooks
        if hooks is not None and hooks.observers is not None:
            self._tree.services.listener.tell = hooks.observers.tell

    # -- information ---------------------------------------------------------------------------------------------------

    async def models(self) -> dict[str, list[str]]:
        """Return the models of each provider. For providers whose models are not configured, request the vendor's list
        again.

        If that fails for a provider, the failure is logged and the previous list is kept, which is empty at first. If
        the catalog is parked, all lists are kept.
        """
        self._require_open()
        with suppress(KernelError):
            await refresh(self._tree.services.lister)
        return self._tree.setup.services.catalog.models()

    def model_list(self, caller: str = "") -> list[ModelInfo]:
        """Return the models that are known now, with ids of the form ``provider/model``. With ``caller``, only the
        models that this caller may use. Does not wait.
        """
        return self._tree.setup.router.infos(caller)

    def route_names(self, caller: str = "") -> list[str]:
        """Return the names of the routes; with ``caller``, only those that the caller may use."""
        return self._tree.setup.router.route_names(caller)

    async def count_tokens(self, request: AnyRequest) -> TokenCount:
        """Return the number of tokens of the prompt of ``request``, for the model that would be tried first.

        Waits at most `COUNT_SECONDS` for the vendor's count. If the vendor has no such endpoint, or it fails, the
        tokens are estimated. Raises `LLMClientError` for an unknown model.
        """
        try:
            routed = self._tree.setup.router.route(request)
        except ModelNotFoundError:
            await self.models()
            routed = self._tree.setup.router.route(request)
        services = self._tree.services
        ranking = ranked(services, request, routed.candidates, routed.policy, draw=1.0, asked=False)
        candidate = ranking.candidates[0]
        with trio.move_on_after(COUNT_SECONDS), suppress(LLMClientError, KernelError):
            counted = await count_tokens(services.providers[candidate.provider], request.to(candidate.model))
            if counted is not None:
                return TokenCount(counted, estimated=False)
        return TokenCount(services.estimator.estimate(candidate, request).input_tokens, estimated=True)

    async def gives_choices(self, request: AnyRequest) -> bool:
        """Return whether every candidate can return all choices of ``request`` in one response; see
        `llm_actors.orchestrator.gives_choices`.
        """
        return await gives_choices(self._tree.services, self._tree.setup.router, request)

    async def explain(self, model: str = AUTO, *, caller: str = "") -> Ranking:
        """Return the candidates for a chat with ``model``, in order, with reasons. `Ranking.lines` formats them.

        Like a request, this waits for model lists that are still missing. Raises `LLMClientError` for an unknown model.
        """
        request = ChatRequest(model=model, messages=(), caller=caller)
        try:
            routed = self._tree.setup.router.route(request)
        except ModelNotFoundError:
            await self.models()
            routed = self._tree.setup.router.route(request)
        chance = 1.0  # no exploration
        ranking = ranked(self._tree.services, request, routed.candidates, routed.policy, draw=chance, asked=False)
        endings = [(candidate, self._tree.setup.services.catalog.ending(candidate)) for candidate in ranking.candidates]
        warnings = tuple(f"{candidate} {words}" for candidate, words in endings if words)
        notes = tuple(f"{each} {words}" for each in ranking.candidates if (words := self._tree.wire_of(each)))
        return msgspec.structs.replace(ranking, warnings=warnings, notes=notes)

    def is_ready(self) -> bool:
        """Return whether requests are accepted and at least one provider can be used."""
        return self._open and self._tree.is_serving()

    @property
    def store(self) -> StoreRef | None:
        """The actor of the store, which the server uses too; ``None`` without ``[store]``."""
        return self._tree.store

    def parked_services(self) -> Sequence[str]:
        """Return which of limiter, selector, cache and catalog are parked after repeated crashes."""
        return self._tree.parked_services()

    def tree(self) -> TreeNode:
        """Return the live tree: status, restarts, uptime, last crash and mailbox of each actor."""
        return self._tree.root.tree()

    def refused(self, code: str, *, is_limit: bool = False) -> None:
        """Count a request that the server itself refused, for `metrics`. ``is_limit``: it was refused because of a
        limit of the server.
        """
        self._tree.services.metrics.refuse_in_server(code, is_limit=is_limit)

    async def metrics(self) -> bytes:
        """Return counters and gauges in Prometheus' text format. Waits for no actor. Actors that are not running are
        left out.
        """
        from llm_runtime.metrics import exposition

        await trio.lowlevel.checkpoint()
        return exposition(self._snapshot())

    async def statistics(self, caller: str | None = None) -> Statistics:
        """Return the same data as `metrics`, for programs. With ``caller``, the usage and cost of other callers
        are left out, and so are totals. Waits for no actor.
        """
        from llm_runtime.statistics import only_of, statistics

        await trio.lowlevel.checkpoint()
        found = statistics(self._snapshot(), self.config)
        return found if caller is None else only_of(caller, found)

    def recent_requests(self, caller: str | None = None) -> list[RecentRequest]:
        """Return the most recently ended requests, of all callers or of ``caller``, the latest first."""
        return self._tree.services.recent.latest(caller)

    def _snapshot(self) -> MetricsSnapshot:
        from llm_runtime.metrics import take_snapshot

        redis = self.config.redis is not None
        return take_snapshot(self._tree.services, self.tree(), self._costs.vendors, redis=redis)


def _no_dialect(name: str, dialects: Collection[str]) -> BadRequestError:
    from llm_protocol.codec.wording import suggestion  # imported only to explain an error

    known, where = sorted(dialects), f"parameters.extra.{name[:64]}"
    return bad_request(where, f"{where}: not one of {', '.join(known)}{suggestion(name, known)}")
