"""What a request needs of the model that answers it, and which of it a model does not have. Pure.

Selection chooses by it, and the provider refuses by it before anything is sent: then the next candidate is asked, and
where there is none, the client is told which part of its request was at fault.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import msgspec

from llm_protocol.codec.fields import unsupported
from llm_protocol.content import Image, Message, Part, Reasoning, Tool, ToolResult
from llm_protocol.model_facts import ModelRule
from llm_protocol.requests import AnyRequest, ChatRequest


class Needs(NamedTuple):
    """``tools``: function tools; ``forced``: one must be called; ``reasoning``: an effort or a budget is asked for;
    ``vision``: there are images.
    """

    tools: bool = False
    forced: bool = False
    reasoning: bool = False
    vision: bool = False


NOTHING = Needs()


def needs_of(request: AnyRequest) -> Needs:
    """What ``request`` needs."""
    if not isinstance(request, ChatRequest):
        return NOTHING
    asked, choice = request.parameters, request.tool_choice
    return Needs(
        tools=any(isinstance(tool, Tool) for tool in request.tools),
        forced=choice is not None and choice.mode in ("required", "named"),
        reasoning=asked.reasoning_effort not in (None, "none") or bool(asked.reasoning_budget),
        vision=any(isinstance(part, Image) for part in _parts(request)),
    )


def _parts(request: ChatRequest) -> Iterator[Part]:
    for message in request.messages:
        for part in message.content:
            yield part
            if isinstance(part, ToolResult):
                yield from part.content


def refuse_unseen(rule: ModelRule, request: AnyRequest) -> None:
    """Raise `UnsupportedError` at the first image in ``request`` if the model is known to take none.

    An image in a tool's result is left to the vendor: nobody asked about it, and a refusal of ours would end a
    conversation that the vendor may go on with.
    """
    if rule.vision is not False or not isinstance(request, ChatRequest):
        return
    for at, message in enumerate(request.messages):
        for part_at, part in enumerate(message.content):
            if isinstance(part, Image):
                where = f"messages[{at}].content[{part_at}]"
                raise unsupported(where, f"{where}: {request.model} takes no pictures")


def without_thinking(request: AnyRequest) -> AnyRequest:
    """The request without what a model thought in earlier turns: some refuse the thoughts of any other model."""
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
    """Whether a model with this rule has it all, as far as is known. ``responses``: it can be asked over the Responses
    API, too.
    """
    if (needs.forced and not rule.forced_tools) or (needs.vision and rule.vision is False):
        return False
    if not needs.tools or rule.reasons_with_tools or responses:
        return True
    return not needs.reasoning and rule.can_stop_thinking and rule.wire == "responses_if_tools_and_reasoning"
