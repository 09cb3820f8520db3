"""When OpenAI's Responses API is used in place of its chat API. Pure. `llm_actors.provider.wires` knows which servers
have it.
"""

from __future__ import annotations

from typing import Final, Literal, TypeAlias

from llm_protocol.content import HostedTool, Tool
from llm_protocol.failures import Failure, FailureKind
from llm_protocol.model_facts import ModelRule
from llm_protocol.parameters import RequestTarget
from llm_protocol.requests import ChatRequest
from llm_protocol.wires.responses.stream import CHAT_COMPLETION

WireSetting: TypeAlias = Literal["auto", "responses", "chat"]
"""The values of a provider's ``wire``."""

NO_SUCH_PATH: Final = frozenset((404, 405, 501))
"""Statuses of servers that have no such API. 404 may also mean an unknown model, so the chat API is tried as well."""

RESPONSES: Final = "openai_responses"
CHAT: Final = "openai_chat"


def needs_responses(request: ChatRequest, rule: ModelRule, target: RequestTarget) -> bool:
    """Whether only the Responses API can serve the request: because of the model, or of tools that run at the vendor.
    ``target`` is the provider's Responses API.
    """
    match rule.wire:
        case "chat":
            return False
        case "responses":
            return True
        case "responses_if_tools" if request.tools:
            return True
        case "responses_if_tools_and_reasoning" if _has_functions(request) and _reasons(request, rule):
            return True
        case _:
            return target.has_hosted_tools and any(_is_hosted(tool) for tool in request.tools)


def prefers_responses(request: ChatRequest, rule: ModelRule) -> bool:
    """Whether the request came over the Responses API, so that nothing of it is lost if it is sent over that API."""
    if rule.wire == "chat":
        return False
    given = request.parameters
    if given.wire is not None:
        return given.wire == RESPONSES
    return RESPONSES in given.extra and CHAT not in given.extra


def wants_responses(failure: Failure) -> bool:
    """Return whether an error of the chat API says that the model exists only in the Responses API."""
    return failure.kind is FailureKind.UNSUPPORTED and "v1/responses" in failure.message


def lacks_responses(failure: Failure) -> bool:
    """Return whether an error of the Responses API says that the server does not have it."""
    in_chat_form = failure.kind is FailureKind.PROTOCOL and CHAT_COMPLETION in failure.message
    return in_chat_form or failure.upstream_status in NO_SUCH_PATH


def _has_functions(request: ChatRequest) -> bool:
    return any(isinstance(tool, Tool) for tool in request.tools)


def _reasons(request: ChatRequest, rule: ModelRule) -> bool:
    given = request.parameters
    if given.reasoning_budget is not None and given.reasoning_effort is None:
        return given.reasoning_budget > 0
    effort = given.reasoning_effort or given.extra.get(CHAT, {}).get("reasoning_effort")
    return rule.reasons(effort if isinstance(effort, str) else None)


def _is_hosted(tool: Tool | HostedTool) -> bool:
    """Whether the tool runs at the vendor, and no chat API has it."""
    return isinstance(tool, HostedTool) and tool.dialect != CHAT and tool.value.get("type") != "custom"
