"""Request and result of `Runtime.collaborate`: several models for one prompt."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from llm_protocol.policy import Policy
from llm_protocol.requests import ChatRequest
from llm_protocol.response import LLMResponse
from llm_runtime.options import ChatOptions, Messages, as_messages, split

_NOTHING_SAID = Policy()


def collaboration(
    messages: Messages, members: Sequence[str] | int | None, options: ChatOptions, route: Policy | None
) -> ChatRequest:
    """Return the request. If neither the caller nor the route names a strategy, the strategy is a panel, whose members
    see the whole context.
    """
    given: Any = split(options)
    own = given.pop("policy", None) or _NOTHING_SAID
    if members is not None:
        if isinstance(members, str):  # type checkers let it pass as a sequence of texts
            members = (members,)
        own = Policy(members=members if isinstance(members, int) else tuple(members)).over(own)
    policy = own.over(route or _NOTHING_SAID)
    usual = Policy(
        strategy=None if policy.strategy else "panel", share_context=None if policy.share_context is not None else "all"
    )
    return ChatRequest(messages=as_messages(messages), policy=own.over(usual), **given)


def answers(response: LLMResponse) -> list[LLMResponse]:
    """Return the valid responses in the order of the members, followed by the response itself if a synthesiser, or a
    method other than ``none``, made or chose it.
    """
    made = response.decision.get("synthesis", {})
    valid = list(response.members) or [response]
    return [*valid, response] if made.get("outcome") == "ok" and made.get("by") != "none" else valid
