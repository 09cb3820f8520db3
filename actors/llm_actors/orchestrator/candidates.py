"""The candidates in the selector's order, and the check of which ones support the request. The others are skipped."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import final

import msgspec
import trio

from llm_actors.catalog import Candidate
from llm_actors.orchestrator.plan import AttemptPlan
from llm_actors.orchestrator.routing import Router
from llm_actors.orchestrator.services import AttemptContext, Services
from llm_actors.provider import Prepared, adapted_to
from llm_actors.selector import Ranking
from llm_actors.threads import run_large
from llm_protocol.errors import LLMClientError
from llm_protocol.failures import Failure
from llm_protocol.parameters import refuse_lossy
from llm_protocol.policy import Policy
from llm_protocol.requests import AUTO, AnyRequest, ChatRequest, size_of

CONVERSATION_CHARACTERS = 1_000
"""How many characters of the user's first message identify a conversation without a name."""


NAMES_SHOWN = 8
"""The most models that are named in a refusal."""


def ranked(
    services: Services,
    request: AnyRequest,
    candidates: list[Candidate],
    policy: Policy,
    *,
    draw: float,
    asked: bool = True,
) -> Ranking:
    """Return the candidates in the order to try now: by ``select`` of the policy, if it is set; else as written for the
    strategy ``fallback``, and by score for any other. ``draw``, in [0, 1), makes the random choices.

    Without ``asked`` the ranking is only for information: nothing is explored, and a typical request is assumed.
    """
    order = policy.select or ("order" if policy.strategy == "fallback" else "score")
    if asked and len(candidates) == 1:
        return services.selector.rank_only(candidates[0], now=trio.current_time(), select=order)
    return services.selector.rank(
        candidates,
        request.request_type,
        select=order,
        weights=services.weights,
        sticky_key=_conversation(request) if order == "sticky" else "",
        now=trio.current_time(),
        draw=draw,
        usage=services.estimator.expect(candidates, request) if asked else None,
        explore=asked,
        shares=_shares(candidates, policy.shares) if policy.shares else None,
    )


def _shares(candidates: list[Candidate], shares: Mapping[str, float]) -> dict[Candidate, float]:
    """Return each candidate's share of the traffic, from a policy's ``shares``, where a name may be a model without its
    provider.
    """
    found = {each: shares.get(str(each), shares.get(each.model)) for each in candidates}
    return {each: share for each, share in found.items() if share is not None}


def _conversation(request: AnyRequest) -> str:
    """Return a key for requests of the same conversation: the conversation named in the metadata, else the user's
    first message; empty if there is neither. The system prompt is not part of the key, because it is often the same
    for all requests of a program.
    """
    named = request.metadata.get("conversation_id")
    if isinstance(named, str) and named:
        return f"{request.caller}/{named}"
    messages = request.messages if isinstance(request, ChatRequest) else ()
    first = next((message.text for message in messages if message.role == "user"), "")
    return f"{request.caller}/{first[:CONVERSATION_CHARACTERS]}" if first else ""


@final
class CapableCandidates:
    """Decides which of ``candidates`` support the request. The others are skipped. If the request's policy is
    ``strict``, a candidate for which a part of the request would be lost does not support it. Each candidate is checked
    only when needed, because most requests call only one. Large requests are checked in a thread.
    """

    __slots__ = ("_ask", "_candidates", "_prepared", "_refused", "_services", "_strict")

    def __init__(self, services: Services, ask: AttemptContext, candidates: Sequence[Candidate]) -> None:
        self._services = services
        self._ask = ask
        self._strict = bool(ask.policy.strict) and not ask.request.parameters.lenient
        self._candidates = candidates
        self._prepared: dict[Candidate, Prepared | None] = {}
        self._refused: dict[Candidate, Failure] = {}

    async def from_first(self) -> list[Candidate]:
        """Return the candidates in order, from the first that supports the request; an empty list if none does. Those
        after the first have not been checked.
        """
        for place, each in enumerate(self._candidates):
            if await self.has(each):
                return list(self._candidates[place:])
        return []

    async def has(self, candidate: Candidate) -> bool:
        """Whether ``candidate`` supports the request."""
        if candidate not in self._prepared and candidate not in self._refused:
            found = await run_large(size_of(self._ask.request), self._judge, candidate)
            if isinstance(found, Prepared):
                self._prepared[candidate] = found
            else:
                self._refused[candidate] = found
                self._ask.record.pass_over(candidate, found)
        return candidate not in self._refused

    async def drop_others(self, plan: AttemptPlan[Candidate]) -> None:
        """Check all candidates, and remove from ``plan`` those that do not support the request. At least one must
        support it.
        """
        for each in self._candidates:
            await self.has(each)
        if self._refused:
            plan.drop_unless(lambda each: each not in self._refused)

    def take_prepared(self, candidate: Candidate) -> Prepared | None:
        """Return the request adapted to ``candidate``, and drop it here, because it may be large. ``None`` if it was
        taken before, or if `has` has not found that the candidate supports it.
        """
        found = self._prepared.get(candidate)
        if found is not None:
            self._prepared[candidate] = None
        return found

    def refusal(self) -> Failure:
        """Return the failure if no candidate supports the request. It names the unsupported parameter, and models that
        support it.
        """
        request, failure = self._ask.request, next(iter(self._refused.values()))
        catalog, others = self._services.catalog, list[Candidate]()
        with suppress(LLMClientError):
            others = catalog.resolve(msgspec.structs.replace(request, model=AUTO, provider=None), self._ask.allowed)
        can = [str(each) for each in others if isinstance(self._judge(each), Prepared)]
        tail = (
            f"models that support it: {', '.join(can[:NAMES_SHOWN])}"
            if can
            else "no provider's default model supports it"
        )
        return msgspec.structs.replace(failure, message=f"{failure.message}; {tail}")

    def _judge(self, candidate: Candidate) -> Prepared | Failure:
        try:
            prepared = adapted_to(self._services.wires[candidate.provider], self._ask.request.to(candidate.model))
            if self._strict:
                refuse_lossy(prepared.adapted)
        except LLMClientError as exc:
            return exc.failure.at(provider=candidate.provider, model=candidate.model, partial=False)
        return prepared


async def gives_choices(services: Services, router: Router, request: AnyRequest) -> bool:
    """Return whether every candidate of a chat with ``n`` above 1 can return all choices in one response. Also return
    False for a request that would be refused. Waits for a thread if the request is large.
    """
    with suppress(LLMClientError):
        candidates = router.route(request).candidates
        size, can = size_of(request), False
        for each in candidates:
            refused = await run_large(size, _refused_for, services, request, each)
            if refused == "n":
                return False
            can = can or refused is None
        return can
    return False


def _refused_for(services: Services, request: AnyRequest, candidate: Candidate) -> str | None:
    """Return the parameter that ``candidate`` does not support; ``None`` if it supports all."""
    try:
        adapted_to(services.wires[candidate.provider], request.to(candidate.model))
    except LLMClientError as exc:
        return exc.failure.param or ""
    return None
