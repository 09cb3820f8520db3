"""The facts about what a vendor's models accept, and what a request needs of its model. Pure.

There is one table of facts per vendor, which all other code reads. It has three layers, and the first that has a fact
wins: the configuration (``[providers.NAME.capabilities."pattern"]``), the vendor's own model list, and the rows of
`llm_protocol.model_table`. A model that is in no layer counts as accepting everything: its vendor itself reports what
it refuses. Request translation, selection, refusals, failover and the continuation of broken streams use
`ModelRules.of`. No other code tests the name of a model.

The selector compares the needs of a request with the facts to choose a candidate. The provider refuses a request whose
model lacks something, before anything is sent. Then the next candidate is tried; if there is none, the client learns
which part of its request was at fault. The provider also sends a request over OpenAI's Responses API in place of the
chat API if the request needs it; `llm_actors.provider.spec` knows which servers have that API.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from fnmatch import translate
from functools import lru_cache
from typing import Any, Final, Literal, NamedTuple, TypeAlias, final

import msgspec

from llm_protocol.codec.fields import unsupported
from llm_protocol.content import Audio, Document, HostedTool, Image, Message, Part, Reasoning, Text, Tool, ToolResult
from llm_protocol.failures import Failure, FailureKind
from llm_protocol.model_facts import Capabilities, ModelRule
from llm_protocol.model_table import ROWS
from llm_protocol.parameters import RequestTarget
from llm_protocol.requests import AnyRequest, ChatRequest

MAX_REMEMBERED: Final = 4096
"""The most models of one provider whose rule is cached."""

_FIELDS: Final = tuple(field.name for field in msgspec.structs.fields(Capabilities))


def short_name(model: str) -> str:
    """Return the short form of a model's name: in lower case, without folders, a cloud's prefixes, or the account of a
    tuned model.
    """
    name = model.lower().rpartition("/")[2]
    if name.startswith("ft:"):
        name = name.split(":")[1]
    at = name.find("claude")
    return name if at < 0 else name[at:].replace(".", "-")


@final
class ModelRules:
    """The rules for the models of one provider. The facts about its models are in the table under ``vendor``.

    ``configured`` maps glob patterns for the whole name of a model to facts; the first match wins. Only the catalog
    calls `learn`; any code may call `of`, synchronously.
    """

    __slots__ = ("_configured", "_listed", "_remembered", "_rows", "has_responses", "vendor")

    def __init__(self, vendor: str, configured: Mapping[str, Capabilities] | None = None) -> None:
        self.vendor = vendor
        self.has_responses = False
        """Whether the provider can be called over the Responses API, too."""
        self._configured = [(re.compile(translate(glob)), facts) for glob, facts in (configured or {}).items()]
        self._listed: dict[str, Capabilities] = {}
        self._rows: tuple[tuple[re.Pattern[str], ModelRule], ...] | None = None
        self._remembered: dict[str, ModelRule] = {}

    def of(self, model: str) -> ModelRule:
        """Return the facts about ``model``, which is the vendor's name of a model."""
        try:
            return self._remembered[model]
        except KeyError:
            if len(self._remembered) >= MAX_REMEMBERED:
                self._remembered.clear()
            found = self._remembered[model] = self._look_up(model)
            return found

    def learn(self, listed: Mapping[str, Capabilities]) -> None:
        """Replace the facts of the vendor's list by ``listed``, by name of the model."""
        self._listed = dict(listed)
        self._remembered.clear()

    def _look_up(self, model: str) -> ModelRule:
        if self._rows is None:
            # Compiled when the rule of a model of the vendor is first needed.
            self._rows = tuple((re.compile(pattern), rule) for pattern, rule in ROWS.get(self.vendor, _OTHERS))
        name = short_name(model)
        rule = next((rule for pattern, rule in self._rows if pattern.match(name)), _FREE)
        stated: dict[str, Any] = {}
        for facts in self._layers(model):
            for field in _FIELDS:
                if (value := getattr(facts, field)) is not None:
                    stated.setdefault(field, value)
        return msgspec.structs.replace(rule, **stated) if stated else rule

    def _layers(self, model: str) -> list[Capabilities]:
        found = [facts for pattern, facts in self._configured if pattern.fullmatch(model)]
        return [*found, listed] if (listed := self._listed.get(model)) is not None else found


_FREE: Final = ModelRule()
_OTHERS: Final = ROWS["openai_compatible"]
"""The rows for vendors that have no rows of their own."""


@lru_cache(maxsize=64)
def rules_of(vendor: str) -> ModelRules:
    """The rules of the table alone, for code without a provider. They cannot learn."""
    return ModelRules(vendor)


def rule_of(vendor: str, model: str) -> ModelRule:
    """The rule for ``model`` in the table. The configuration is not considered."""
    return rules_of(vendor).of(model)


# ---------------------------------------------------------------- the needs of a request


class Needs(NamedTuple):
    """The needed features. ``tools``: function tools. ``forced``: a tool must be called. ``reasoning``: an effort or
    a budget is set. ``vision``: there are images. ``documents``: there are documents that are not text. ``audio``:
    there is audio.
    """

    tools: bool = False
    forced: bool = False
    reasoning: bool = False
    vision: bool = False
    documents: bool = False
    audio: bool = False


NOTHING = Needs()


def needs_of(request: AnyRequest) -> Needs:
    """Return the features that ``request`` needs of its model."""
    if not isinstance(request, ChatRequest):
        return NOTHING
    parameters, choice = request.parameters, request.tool_choice
    senses = {sense for part in _parts(request) if (sense := _sense(part)) is not None}
    return Needs(
        tools=any(isinstance(tool, Tool) for tool in request.tools),
        forced=choice is not None and choice.mode in ("required", "named"),
        reasoning=parameters.reasoning_effort not in (None, "none") or bool(parameters.reasoning_budget),
        vision="vision" in senses,
        documents="documents" in senses,
        audio="audio" in senses,
    )


_SENSES: Final = {"vision": "pictures", "documents": "PDF documents", "audio": "audio"}
"""The columns of `ModelRule` for parts other than text, and their names."""


def _sense(part: Part) -> str | None:
    """Return the column that says whether a model accepts ``part``; ``None`` for text, and if there is no such
    column.
    """
    match part:
        case Image():
            return "vision"
        case Document():
            return None if part.is_text else "documents"
        case Audio():
            return "audio"
        case _:
            return None


def _parts(request: ChatRequest) -> Iterator[Part]:
    """All parts, including those of tool results."""
    for message in request.messages:
        for part in message.content:
            yield part
            if isinstance(part, ToolResult):
                yield from part.content


def refuse_incapable(rule: ModelRule, request: AnyRequest) -> None:
    """Raise `UnsupportedError` if ``request`` contains an image, document or recording and the model is known not to
    accept it. The same applies to function tools if the model is known not to call any.

    Media in a tool's result are left to the vendor: the user did not send them, and a refusal here would end a
    conversation that the vendor might continue. `needs_of` counts them, so selection prefers a model that accepts them.
    """
    if not isinstance(request, ChatRequest):
        return
    if rule.tools is False and any(isinstance(tool, Tool) for tool in request.tools):
        raise unsupported("tools", f"tools: {request.model} does not support tools")
    if not any(getattr(rule, sense) is False for sense in _SENSES):
        return  # without a look at the parts of a long conversation
    for at, message in enumerate(request.messages):
        for part_at, part in enumerate(message.content):
            sense = None if type(part) is Text else _sense(part)
            if sense is not None and getattr(rule, sense) is False:
                where = f"messages[{at}].content[{part_at}]"
                raise unsupported(where, f"{where}: {request.model} does not accept {_SENSES[sense]}")


def without_thinking(request: AnyRequest) -> AnyRequest:
    """Return the request without a model's reasoning in earlier turns, because some models refuse the reasoning of
    other models.
    """
    if not isinstance(request, ChatRequest):
        return request
    messages = tuple(_spoken(message) for message in request.messages)
    return msgspec.structs.replace(request, messages=tuple(message for message in messages if message is not None))


def _spoken(message: Message) -> Message | None:
    content = tuple(part for part in message.content if not isinstance(part, Reasoning))
    if len(content) == len(message.content):
        return message
    return msgspec.structs.replace(message, content=content) if content else None


def has(rule: ModelRule, needs: Needs, *, responses: bool = False) -> bool:
    """Whether a model with this rule has all needed features, as far as is known. ``responses``: whether the provider
    also has the Responses API.
    """
    if (needs.forced and not rule.forced_tools) or (needs.tools and rule.tools is False):
        return False
    if any(getattr(needs, sense) and getattr(rule, sense) is False for sense in _SENSES):
        return False
    if needs.reasoning and rule.thinking == ():
        return False
    if not needs.tools or rule.reasons_with_tools or responses:
        return True
    return not needs.reasoning and rule.can_stop_thinking and rule.wire == "responses_if_tools_and_reasoning"


# ---------------------------------------------------------------- Responses or Chat Completions

WireSetting: TypeAlias = Literal["auto", "responses", "chat"]
"""The values of a provider's ``wire``."""

NO_SUCH_PATH: Final = frozenset((404, 405, 501))
"""Statuses of servers that have no such API. 404 may also mean an unknown model, so the chat API is tried as well."""

CHAT_COMPLETION: Final = "it is a chat completion, not a response"
"""The message of the failure if a server responds with a chat completion because it does not have the Responses API."""

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
