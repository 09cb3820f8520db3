"""The features that a request needs of its model, and which of them a model lacks. Pure.

The selector uses these functions to choose a candidate. The provider uses them to refuse a request before anything is
sent. Then the next candidate is tried; if there is none, the client learns which part of its request was at fault.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final, NamedTuple

import msgspec

from llm_protocol.codec.fields import unsupported
from llm_protocol.content import Audio, Document, Image, Message, Part, Reasoning, Text, Tool, ToolResult
from llm_protocol.model_facts import ModelRule
from llm_protocol.requests import AnyRequest, ChatRequest


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
