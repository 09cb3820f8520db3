"""Who is asked: the candidates in the selector's order, and those of them that can be told what the request asks.

The others are passed over before anybody is called.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import NamedTuple

import msgspec
import trio

from llm_actors.catalog import Allowed, Candidate
from llm_actors.orchestrator.services import Services
from llm_actors.provider import Prepared, size_of
from llm_actors.selector import Ranking
from llm_actors.threads import run_large
from llm_protocol.errors import LLMClientError
from llm_protocol.failures import Failure
from llm_protocol.parameters import refuse_lossy
from llm_protocol.policy import Policy
from llm_protocol.requests import AUTO, AnyRequest, ChatRequest

CONVERSATION_CHARACTERS = 1_000
"""How much of what a conversation's user said first tells it from others, where it has no name."""


NAMES_SHOWN = 8
"""Models named in a refusal."""


def ranked(
    services: Services,
    request: AnyRequest,
    candidates: list[Candidate],
    policy: Policy,
    *,
    draw: float,
    asked: bool = True,
) -> Ranking:
    """The candidates in the order to try now. ``draw`` in [0, 1) decides what the policy leaves to chance.

    Without ``asked`` somebody only wants to know: nothing is explored, and a typical request stands for this one.
    """
    if asked and len(candidates) == 1:
        return services.selector.sole(candidates[0], now=trio.current_time(), select=policy.order)
    return services.selector.rank(
        candidates,
        request.request_type,
        select=policy.order,
        weights=services.weights,
        sticky_key=_conversation(request) if policy.order == "sticky" else "",
        now=trio.current_time(),
        draw=draw,
        usage=services.estimator.expect(map(str, candidates), request) if asked else None,
        explore=asked,
        shares=_shares(candidates, policy.shares) if policy.shares else None,
    )


def _shares(candidates: list[Candidate], said: Mapping[str, float]) -> dict[Candidate, float]:
    """Each candidate's share, which may be said for its model alone as a candidate may be."""
    found = {each: said.get(str(each), said.get(each.model)) for each in candidates}
    return {each: share for each, share in found.items() if share is not None}


def _conversation(request: AnyRequest) -> str:
    """What makes requests belong together: the conversation named in the metadata, else what its user said first.

    Empty where nothing does. What stands before the user's words is often the same for all of a program's requests.
    """
    named = request.metadata.get("conversation_id")
    if isinstance(named, str) and named:
        return f"{request.caller}/{named}"
    messages = request.messages if isinstance(request, ChatRequest) else ()
    first = next((message.text for message in messages if message.role == "user"), "")
    return f"{request.caller}/{first[:CONVERSATION_CHARACTERS]}" if first else ""


class Able(NamedTuple):
    """``prepared``: the request as each can be told it. ``refused``: why each of the others cannot."""

    prepared: dict[Candidate, Prepared]
    refused: dict[Candidate, Failure]


async def find_able(services: Services, request: AnyRequest, candidates: Sequence[Candidate], *, strict: bool) -> Able:
    """Those of ``candidates``, in their order, that can keep ``request``; with ``strict`` without any loss.

    Works in a thread where the request is large.
    """
    return await run_large(size_of(request), _judge_all, services, request, candidates, strict)


def _judge_all(services: Services, request: AnyRequest, candidates: Sequence[Candidate], strict: bool) -> Able:
    able = Able({}, {})
    for each in candidates:
        try:
            prepared = services.adapt(each, request.to(each.model))
            if strict:
                refuse_lossy(prepared.adapted)
            able.prepared[each] = prepared
        except LLMClientError as exc:
            able.refused[each] = exc.failure.at(provider=each.provider, model=each.model, partial=False)
    return able


def unable(services: Services, request: AnyRequest, able: Able, allowed: Allowed | None, *, strict: bool) -> Failure:
    """Why nobody is asked, by the parameter's name, with models that can."""
    failure = next(iter(able.refused.values()))
    others: list[Candidate] = []
    with suppress(LLMClientError):
        others = services.catalog.resolve(msgspec.structs.replace(request, model=AUTO, provider=None), allowed)
    can = [str(each) for each in _judge_all(services, request, others, strict).prepared]
    tail = f"models that can: {', '.join(can[:NAMES_SHOWN])}" if can else "no configured provider's usual model can"
    return msgspec.structs.replace(failure, message=f"{failure.message}; {tail}")
