"""Shared work: responses from the cache, and requests that equal one in progress.

Equal requests in progress share one upstream call. This call is a separate run, a *flight*, which the requests
follow: each copies the flight's events into its own log as they arrive. A request that is cancelled, even the first,
only stops following. The flight ends with its last follower.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from math import inf
from typing import NamedTuple, TypeAlias, final

import msgspec
import trio

from llm_actors.cache import (
    CacheKey,
    Target,
    embedded,
    embedding_keys,
    key_of,
    lookup,
    lookup_all,
    lookup_or_wait,
    merge_embedding,
    peek,
    release,
    split_embedding,
    store,
    store_all,
)
from llm_actors.cache import replay as kept
from llm_actors.kernel.errors import exception_site
from llm_actors.orchestrator.decision_record import DecisionRecord
from llm_actors.orchestrator.ending import close, close_early, replay, with_response
from llm_actors.orchestrator.routing import DEFAULT_DEADLINE_SECONDS, ResolvedRoute, Setup
from llm_actors.orchestrator.services import Services
from llm_actors.run import Run
from llm_protocol.content import JsonObject
from llm_protocol.events import TERMINAL, Failed, Finished
from llm_protocol.failures import Failure, FailureKind, Step
from llm_protocol.policy import AttemptsPatch, CacheMode, OnBrokenStream, TimeoutsPatch
from llm_protocol.requests import EmbeddingRequest
from llm_protocol.response import LLMResponse, Usage

Upstream: TypeAlias = Callable[
    [Services, Run, ResolvedRoute, Callable[[], float], DecisionRecord], Awaitable[Finished | Failed]
]
"""The type of the next stage: `upstream` of actor.py."""

log = logging.getLogger(__name__)


@final
class _Flight:
    """A run that several requests follow. Attempts are planned for the longest deadline among them. One of the
    requests is charged for the run: the first, or another if the first has left.
    """

    def __init__(self, run: Run, record: DecisionRecord, payer: Run, setup: Setup) -> None:
        self.run = run
        self.setup = setup
        self.record = record
        self.until = -inf
        self._payer: Run | None = payer

    def leave(self, run: Run) -> None:
        """Remove ``run``, which was stopped. Its record shows the attempts of the flight so far, and their usage
        only if no other request follows the flight.
        """
        if not self.run.log.followers:
            close_early(run, self.record)
            return
        decision = _unpaid(self.record.to_json())
        if self._payer is run:
            self._payer = None
        else:
            decision["cache"] = "coalesced"
        run.close(decision, self.record.tried(), cost=0.0)

    def close(self, run: Run, end: Finished | Failed) -> None:
        """Close ``run``, which has followed the flight, with the flight's ``end``, but with the ids of ``run``."""
        assert end.response is not None, "the end of a run must have a response"
        self._payer = self._payer or run
        pays, decision = self._payer is run, end.response.decision
        if not pays and decision.get("cache") != "hit":  # everything that the flight found in the cache
            decision = _unpaid(decision) | {"cache": "coalesced"}
        response = msgspec.structs.replace(
            end.response,
            request_id=run.request.request_id,
            response_id=run.response_id,
            processing_time_ms=run.elapsed_ms,
            cost=end.response.cost if pays or decision.get("cache") == "hit" else 0.0,
            decision=decision,
        )
        close(run, with_response(end, response))


class _Key(NamedTuple):
    """The properties in which requests must be equal to share one flight. Options of the stream, of caching and of
    retries are included, so that each request is treated as it asked.
    """

    key: CacheKey
    mode: CacheMode
    stream: bool
    rescue: OnBrokenStream
    timeouts: TimeoutsPatch | None
    attempts: AttemptsPatch | None
    hedge: bool
    priority: int | None


def cache_mode(services: Services, run: Run, routed: ResolvedRoute) -> CacheMode:
    """Return how ``run`` is cached. It is not cached if the response depends on something that is not in the key. Nor
    is it cached if one of its candidates is at a provider whose responses are not cached, unless request or route say
    otherwise: it is not known yet which provider will serve it.
    """
    if run.judge is not None or routed.policy.share_knowledge or run.request.one_of > 1:
        return "off"
    if routed.policy.cache is not None or not services.caches:
        return routed.policy.cache or "off"
    return "read" if all(candidate.provider in services.caches for candidate in routed.candidates) else "off"


@final
class SingleFlight:
    """The flights of one orchestrator. ``upstream`` is the next stage; flights run in ``nursery``."""

    def __init__(self, upstream: Upstream, nursery: trio.Nursery) -> None:
        self._upstream = upstream
        self._nursery = nursery
        self._flying: dict[_Key, _Flight] = {}

    async def share(self, run: Run, routed: ResolvedRoute, setup: Setup) -> None:
        """Serve ``run``: from the cache, from a flight in progress, or from upstream."""
        services = setup.services
        mode = cache_mode(services, run, routed)
        key = None if mode == "off" else key_of(run.request, _targets(services, routed), routed.policy)
        if key is None:
            close(run, await self._upstream(services, run, routed, lambda: run.scope.deadline, _record(mode, routed)))
            return
        if mode == "read" and (found := peek(services.cache, key, run.request.request_id)) is not None:
            replay(run, kept(found, run.request, response_id=run.response_id, processing_time_ms=run.elapsed_ms))
            return
        shared = _key(key, mode, run, routed)
        for is_last in (False, True):
            flight, missed, is_own = self._join(run, shared, mode, routed, setup)
            try:
                end = await _follow(run, flight.run)
            except trio.Cancelled:
                flight.leave(run)
                raise
            if is_last or is_own or not _may_ask_again(run, end, missed):
                flight.close(run, end)
                return

    def _join(
        self, run: Run, shared: _Key, mode: CacheMode, routed: ResolvedRoute, setup: Setup
    ) -> tuple[_Flight, int, bool]:
        """Return the flight that ``run`` shares, the number of its attempts that have failed so far, and whether the
        flight is new, because there was none.
        """
        flight = self._flying.get(shared)
        is_new = flight is None or flight.run.scope.cancel_called  # abandoned or too late, it takes no more followers
        if flight is None or is_new:
            shared_run = Run(run.request, stream=run.stream, log_limit_bytes=run.log.limit_bytes)
            flight = self._flying[shared] = _Flight(shared_run, _record(mode, routed), run, setup)
            flight.run.log.on_late = setup.services.metrics.drop_late_event
            # This is only the outer limit. It cannot be changed later, because calls in progress have a copy of it.
            patience = run.scope.deadline - run.started_at
            flight.run.scope.deadline = flight.run.started_at + max(DEFAULT_DEADLINE_SECONDS, patience)
            self._nursery.start_soon(self._fly, shared, flight, mode, routed)
        flight.until = max(flight.until, run.scope.deadline)
        return flight, flight.record.ended, is_new

    async def _fly(self, shared: _Key, flight: _Flight, mode: CacheMode, routed: ResolvedRoute) -> None:
        run = flight.run
        try:
            with flight.setup, run.scope:
                if isinstance(run.request, EmbeddingRequest):
                    await self._embed(flight, run.request, mode, routed)
                else:
                    await self._ask(flight, shared.key, mode, routed)
        except Exception as exc:  # a bug of ours ends this flight, not the others
            log.error("request %s crashed: %s", run.request.request_id, exception_site(exc))  # noqa: TRY400
            run.fail(Failure(kind=FailureKind.INTERNAL, message="the runtime failed while it handled this request"))
        finally:
            if self._flying.get(shared) is flight:
                del self._flying[shared]
            run.close()

    async def _ask(self, flying: _Flight, key: CacheKey, mode: CacheMode, routed: ResolvedRoute) -> None:
        flight, services = flying.run, flying.setup.services
        cache, request = services.cache, flight.request
        if mode != "read":
            await self._make(flying, key, routed)
            return
        if services.flight_wait_s is None:
            found, is_ours = await lookup(cache, key, request.request_id), False
        else:
            # A stream would get its first token with the last one of another process, so it does not wait.
            wait_s = 0.0 if flight.stream else min(services.flight_wait_s, (flying.until - trio.current_time()) / 2)
            found, is_ours = await lookup_or_wait(cache, key, request.request_id, wait_s=wait_s)
        if found is not None:
            replay(flight, kept(found, request, response_id=flight.response_id))
            return
        try:
            await self._make(flying, key, routed)
        finally:
            if is_ours:
                release(cache, key)

    async def _make(self, flying: _Flight, key: CacheKey, routed: ResolvedRoute) -> None:
        flight, services = flying.run, flying.setup.services
        close(flight, await self._upstream(services, flight, routed, lambda: flying.until, flying.record))
        if (whole := _answer(flight)) is not None and _keeps(services, whole, routed):
            store(services.cache, key, whole, fallback=_by_another(whole) or _is_second_best(whole))

    async def _embed(self, flying: _Flight, request: EmbeddingRequest, mode: CacheMode, routed: ResolvedRoute) -> None:
        """Request only the inputs that are not in the cache."""
        flight, services = flying.run, flying.setup.services
        cache, targets, policy = services.cache, _targets(services, routed), routed.policy
        keys = embedding_keys(request, targets, policy)
        found = await lookup_all(cache, keys, request.request_id) if keys and mode == "read" else ()
        split = split_embedding(request, found or (None,) * len(request.inputs))
        if split.missing is None:
            whole = merge_embedding(request, split, None)
            assert whole is not None, "if no text is missing, the response must be complete"
            replay(flight, whole)
            return
        part = Run(split.missing, stream=False, log_limit_bytes=flight.log.limit_bytes)
        with part.scope:
            part.scope.deadline = flight.scope.deadline
            close(part, await self._upstream(services, part, routed, lambda: flying.until, flying.record))
        part.close()
        answer = _answer(part)
        if answer is not None and not _by_another(answer):
            store_all(cache, embedded(split.missing, answer, targets, policy))
        merged = merge_embedding(request, split, answer)
        if merged is not None:
            replay(flight, merged, cache="miss")
        elif split.known and answer is not None:  # from another model: not comparable with the cached ones
            close(flight, await self._upstream(services, flight, routed, lambda: flying.until, flying.record))
        else:
            end = part.log.end
            assert end is not None, "a run that was closed must have an end"
            close(flight, end)


def _targets(services: Services, routed: ResolvedRoute) -> list[Target]:
    return [services.target_of(candidate) for candidate in routed.candidates]


def _keeps(services: Services, whole: LLMResponse, routed: ResolvedRoute) -> bool:
    """Whether the response of every contributor may be cached, including contributors that are no candidates, such as
    a synthesiser.
    """
    parts = {each.provider for each in (whole, *whole.members)}
    return routed.policy.cache is not None or parts <= services.caches


def _record(mode: CacheMode, routed: ResolvedRoute) -> DecisionRecord:
    record = DecisionRecord(routed.policy.strategy or "fallback", routed.passed_over)
    record.cache = "off" if mode == "off" else "miss"
    return record


def _key(key: CacheKey, mode: CacheMode, run: Run, routed: ResolvedRoute) -> _Key:
    policy = routed.policy
    return _Key(
        key,
        mode,
        run.stream,
        routed.rescue(run.request, stream=run.stream),
        policy.timeouts,
        policy.attempts,
        bool(policy.hedge),
        policy.priority,
    )


def _may_ask_again(run: Run, end: Finished | Failed, missed: int) -> bool:
    """Whether ``run`` has attempts or time left that the flight, which began before it, did not have."""
    if isinstance(end, Finished) or len(run.log) or run.is_late:
        return False
    kind = end.failure.kind
    return kind is FailureKind.DEADLINE or (missed > 0 and end.failure.step is not Step.STOP)


async def _follow(run: Run, flight: Run) -> Finished | Failed:
    """Copy the flight's events into the run's log as they arrive. Return the end of the flight, which is not copied."""
    ended = trio.Event()

    def copy() -> None:
        for event in follower.take():
            if isinstance(event, TERMINAL):
                ended.set()
            else:
                run.log.append(event)

    with flight.follow(wake=copy) as follower:
        copy()
        await ended.wait()
    end = flight.log.end
    assert end is not None, "a flight that has ended must have an end"
    return end


def _unpaid(decision: JsonObject) -> JsonObject:
    """Return the decision record of a request for which another request pays."""
    return decision | {"spent": {"usage": msgspec.to_builtins(Usage()), "cost": 0.0}}


def _answer(run: Run) -> LLMResponse | None:
    end = run.log.end
    return end.response if isinstance(end, Finished) else None


def _by_another(response: LLMResponse) -> bool:
    """Whether another candidate than the one that responded was tried before and failed."""
    attempts = [(each["provider"], each["model"], each["outcome"]) for each in response.decision.get("attempts", ())]
    answered = next((each for each in attempts if each[2] == "ok"), None)
    return answered is not None and attempts[0][:2] != answered[:2]


def _is_second_best(response: LLMResponse) -> bool:
    """Whether a part of a strategy failed: a member, a judge or a synthesiser."""
    decision = response.decision
    degraded = any(decision.get(step, {}).get("outcome", "ok") != "ok" for step in ("synthesis", "judge"))
    return degraded or any(each["outcome"] not in ("ok", "cancelled") for each in decision.get("members", ()))
