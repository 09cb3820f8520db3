"""The selector, asked in the words of a policy: by requests, and by who wants to know what a request would meet."""

from __future__ import annotations

from collections.abc import Mapping

import trio

from llm_actors.catalog import Candidate
from llm_actors.orchestrator.services import Services
from llm_actors.selector import Ranking
from llm_protocol.policy import Policy
from llm_protocol.requests import AnyRequest, ChatRequest

CONVERSATION_CHARACTERS = 1_000
"""How much of what a conversation's user said first tells it from others, where it has no name."""


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
