"""The events of a streamed response, each about one item of the output.

The order is always ``Started`` (once), then per item ``ItemStarted``, its deltas, ``ItemDone``, then exactly one of
``Finished`` and ``Failed``. Items may interleave. ``UsageReported`` may occur several times before the end; the last
one is valid. ``ItemDone`` contains the whole part, so a reader that needs only complete items can ignore the deltas.
"""

from __future__ import annotations

from typing import Literal, TypeAlias

import msgspec

from llm_protocol.adjustments import Adjustment
from llm_protocol.content import JsonObject, Part
from llm_protocol.embedding import Embedding
from llm_protocol.failures import Failure
from llm_protocol.response import FinishReason, LLMResponse, Usage

ItemKind: TypeAlias = Literal["text", "reasoning", "tool_call", "refusal", "image", "opaque"]


class Started(msgspec.Struct, frozen=True, kw_only=True, tag="started"):
    """The vendor has begun to respond. ``model`` and ``upstream_id`` are the vendor's name of the model and id of the
    response; ``provider`` is the configured provider. ``adjusted`` lists the adjustments of the request.
    """

    model: str = ""
    upstream_id: str | None = None
    provider: str = ""
    adjusted: tuple[Adjustment, ...] = ()


class ItemStarted(msgspec.Struct, frozen=True, kw_only=True, tag="item_started"):
    """Item ``index`` (from 0, in order of appearance) begins. ``id`` is the id of a tool call, or the vendor's id of
    reasoning. ``name`` and ``extra`` belong to a tool call; the complete call may have more ``extra``. If a request
    asked for several choices, ``choice`` is the one that the item belongs to.
    """

    index: int
    kind: ItemKind
    id: str | None = None
    name: str | None = None
    extra: dict[str, JsonObject] | None = None
    choice: int = 0


class TextDelta(msgspec.Struct, frozen=True, gc=False, tag="text_delta"):
    """More text of item ``index``.

    If ``lengths`` is set, the delta stands for several deltas, as in the older part of a run log: each byte is the
    length of one of them, in characters. ``text`` is the text of all. This holds for every kind of delta.
    """

    index: int
    text: str
    lengths: bytes = b""


class ReasoningDelta(msgspec.Struct, frozen=True, gc=False, tag="reasoning_delta"):
    """More readable reasoning of item ``index``."""

    index: int
    text: str
    lengths: bytes = b""


class ToolCallDelta(msgspec.Struct, frozen=True, gc=False, tag="tool_call_delta"):
    """More of the arguments' JSON text of item ``index``. A piece is not valid JSON by itself."""

    index: int
    text: str
    lengths: bytes = b""


class RefusalDelta(msgspec.Struct, frozen=True, gc=False, tag="refusal_delta"):
    """More of a refusal's text."""

    index: int
    text: str
    lengths: bytes = b""


class ItemDone(msgspec.Struct, frozen=True, kw_only=True, tag="item_done"):
    """Item ``index`` is complete."""

    index: int
    part: Part


class Embedded(msgspec.Struct, frozen=True, tag="embedded"):
    """The embeddings of an embedding request, in the order of its inputs."""

    vectors: tuple[Embedding, ...]


class UsageReported(msgspec.Struct, frozen=True, tag="usage"):
    """The vendor's token counts. The last report is the valid one. A report with ``final`` covers the whole response.
    Others arrive while the response is generated, such as the counts at the start of Anthropic's streams.
    """

    usage: Usage
    final: bool = True


class FieldsAdded(msgspec.Struct, frozen=True, tag="fields"):
    """Fields of the response that only clients of ``dialect`` understand, or pieces of such fields, by their place in
    the response: see `llm_protocol.extra_fields`. If a request asked for several choices, ``choice`` is the one they
    belong to.
    """

    dialect: str
    fields: dict[str, JsonObject]
    choice: int = 0


class Restarted(msgspec.Struct, frozen=True, tag="restarted"):
    """Everything sent until now is void: the response starts again. Occurs only in runs whose followers
    requested it.
    """


class MemberStarted(msgspec.Struct, frozen=True, kw_only=True, tag="member_started"):
    """A member of a strategy was called. Members' events are reported beside the response, before it begins, and only
    in runs whose followers requested them. ``round`` counts from 0; a later round's text replaces the earlier text.
    """

    member: str
    request_id: str
    round: int = 0


class MemberDelta(msgspec.Struct, frozen=True, gc=False, tag="member_delta"):
    """More text of a member."""

    member: str
    text: str
    lengths: bytes = b""


class MemberDone(msgspec.Struct, frozen=True, kw_only=True, tag="member_done"):
    """A member's response is complete. ``cost`` is in US dollars; ``None`` if the price is unknown."""

    member: str
    finish_reason: FinishReason | None = None
    usage: Usage | None = None
    cost: float | None = None


class MemberFailed(msgspec.Struct, frozen=True, kw_only=True, tag="member_failed"):
    """A member failed, or was stopped because enough others had responded."""

    member: str
    failure: Failure


class ChoiceFinished(msgspec.Struct, frozen=True, kw_only=True, tag="choice_finished"):
    """A choice after the first is complete, with its finish reason. The ``Finished`` event that follows has the
    reason of the first choice.
    """

    choice: int
    reason: FinishReason
    raw_reason: str | None = None


class Finished(msgspec.Struct, frozen=True, kw_only=True, tag="finished"):
    """The response is complete: the vendor's own end marker has arrived. In a run log ``response`` holds the folded
    response.
    """

    reason: FinishReason
    raw_reason: str | None = None
    response: LLMResponse | None = None


class Failed(msgspec.Struct, frozen=True, kw_only=True, tag="failed"):
    """The response will not be completed. In a run log ``response`` holds the part that was received."""

    failure: Failure
    response: LLMResponse | None = None


Delta: TypeAlias = TextDelta | ReasoningDelta | ToolCallDelta | RefusalDelta
MemberEvent: TypeAlias = MemberStarted | MemberDelta | MemberDone | MemberFailed
Event: TypeAlias = (
    Started
    | ItemStarted
    | Delta
    | ItemDone
    | Embedded
    | UsageReported
    | FieldsAdded
    | Restarted
    | MemberEvent
    | ChoiceFinished
    | Finished
    | Failed
)
TERMINAL = (Finished, Failed)
DELTAS = (TextDelta, ReasoningDelta, ToolCallDelta, RefusalDelta)
CONTENT = (*DELTAS, ItemDone, Embedded)
"""The events with content. ``ItemStarted`` is not among them, because most vendors announce an item before it has
content.
"""
