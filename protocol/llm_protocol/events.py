"""How an answer is told while it is made: a stream of events, each about one item of the output.

The order is always ``Started`` (once), then per item ``ItemStarted``, its deltas, ``ItemDone``, then at most one
``UsageReported`` that counts (the last), then exactly one of ``Finished`` and ``Failed``. Items may interleave.
``ItemDone`` holds the whole part, so a reader that only wants whole things can ignore the deltas.
"""

from __future__ import annotations

from typing import Literal, TypeAlias

import msgspec

from llm_protocol.content import JsonObject, Part
from llm_protocol.embedding import Embedding
from llm_protocol.failures import Failure
from llm_protocol.response import FinishReason, LLMResponse, Usage

ItemKind: TypeAlias = Literal["text", "reasoning", "tool_call", "refusal", "image", "opaque"]


class Started(msgspec.Struct, frozen=True, kw_only=True, tag="started"):
    """The vendor began to answer. ``model`` and ``upstream_id`` are the vendor's words; ``provider`` is the
    provider.
    """

    model: str = ""
    upstream_id: str | None = None
    provider: str = ""


class ItemStarted(msgspec.Struct, frozen=True, kw_only=True, tag="item_started"):
    """Item ``index`` (from 0, in order of appearance) begins. ``id`` is a tool call's, or the vendor's of reasoning;
    ``name`` and ``extra`` are a tool call's. Of ``extra`` there may be more when it is whole.
    """

    index: int
    kind: ItemKind
    id: str | None = None
    name: str | None = None
    extra: dict[str, JsonObject] | None = None


class TextDelta(msgspec.Struct, frozen=True, gc=False, tag="text_delta"):
    """More text of item ``index``.

    ``lengths`` is set where a delta stands for several, as run logs keep those of long ago: one byte for the length of
    each. The text is the same. This holds for every kind of delta.
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
    """Item ``index`` is whole."""

    index: int
    part: Part


class Embedded(msgspec.Struct, frozen=True, tag="embedded"):
    """The vectors of an embedding request, in the order of its inputs."""

    vectors: tuple[Embedding, ...]


class UsageReported(msgspec.Struct, frozen=True, tag="usage"):
    """What the vendor counted; the last report counts. ``final``: it covers the whole answer. One that is not was made
    while the answer was, such as the counts with which Anthropic begins a stream.
    """

    usage: Usage
    final: bool = True


class FieldsAdded(msgspec.Struct, frozen=True, tag="fields"):
    """Fields of the answer that only clients of ``dialect`` understand, by where they stood in it, or pieces of such:
    see `llm_protocol.extra_fields`.
    """

    dialect: str
    fields: dict[str, JsonObject]


class Restarted(msgspec.Struct, frozen=True, tag="restarted"):
    """Everything said so far is void: the answer begins anew. Only in runs whose followers asked for it."""


class MemberStarted(msgspec.Struct, frozen=True, kw_only=True, tag="member_started"):
    """One of several models that are asked together was asked, in its own words' stream beside the answer. These
    events come only in runs whose followers asked for them, before the answer, and are no part of it. ``round`` counts
    from 0; what a member says in a later round replaces what it said before.
    """

    member: str
    request_id: str
    round: int = 0


class MemberDelta(msgspec.Struct, frozen=True, gc=False, tag="member_delta"):
    """More of a member's text."""

    member: str
    text: str
    lengths: bytes = b""


class MemberDone(msgspec.Struct, frozen=True, kw_only=True, tag="member_done"):
    """A member's answer is whole. ``cost`` is in US dollars, ``None`` where the price is unknown."""

    member: str
    finish_reason: FinishReason | None = None
    usage: Usage | None = None
    cost: float | None = None


class MemberFailed(msgspec.Struct, frozen=True, kw_only=True, tag="member_failed"):
    """A member gave no answer, or was stopped because enough others had."""

    member: str
    failure: Failure


class Finished(msgspec.Struct, frozen=True, kw_only=True, tag="finished"):
    """The vendor's own end marker was seen. In a run log ``response`` holds the folded answer."""

    reason: FinishReason
    raw_reason: str | None = None
    response: LLMResponse | None = None


class Failed(msgspec.Struct, frozen=True, kw_only=True, tag="failed"):
    """The answer will not be completed. In a run log ``response`` holds what there was of it."""

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
    | Finished
    | Failed
)
TERMINAL = (Finished, Failed)
DELTAS = (TextDelta, ReasoningDelta, ToolCallDelta, RefusalDelta)
CONTENT = (*DELTAS, ItemDone, Embedded)
"""What an answer is made of. Most vendors announce an item before they have anything to say in it: that is none."""
