"""The events of a streamed response, each about one item of the output.

The order is always ``Started`` (once), then per item ``ItemStarted``, its deltas, ``ItemDone``, then exactly one of
``Finished`` and ``Failed``. Items may interleave. ``UsageReported`` may occur several times before the end; the last
one is valid. ``ItemDone`` contains the whole part, so a reader that needs only complete items can ignore the deltas.

For a client that is slower than the model, many small deltas wait. `merged` joins them, so that they take one frame
instead of many. The run log uses `join`: it keeps old deltas joined, with the length of each, so that a reader can
still resume between them.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
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


# ---------------------------------------------------------------- joined deltas

AnyDelta: TypeAlias = Delta | MemberDelta

ANY_DELTAS = (*DELTAS, MemberDelta)

MAX_PIECE = 255
"""The most characters of a delta whose length `join` can keep, because one byte stores the length."""


def merged(events: Iterable[Event]) -> list[tuple[Event, int]]:
    """The events in order, each with the number of deltas it stands for. Adjacent deltas of one item become one."""
    found: list[tuple[Event, int]] = []
    pending: AnyDelta | None = None
    texts: list[str] = []
    count = 0
    for event in events:
        if not isinstance(event, ANY_DELTAS):
            if pending is not None:
                found.append((_with_text(pending, texts), count))
                pending = None
            found.append((event, 1))
        elif pending is not None and is_continued_by(pending, event):
            texts.append(event.text)
            count += len(event.lengths) or 1
        else:
            if pending is not None:
                found.append((_with_text(pending, texts), count))
            pending, texts, count = event, [event.text], len(event.lengths) or 1
    if pending is not None:
        found.append((_with_text(pending, texts), count))
    return found


def is_continued_by(first: AnyDelta, second: AnyDelta) -> bool:
    """Whether ``second`` continues the text of ``first``: the same item or the same member."""
    if isinstance(first, MemberDelta):
        return isinstance(second, MemberDelta) and first.member == second.member
    return not isinstance(second, MemberDelta) and type(first) is type(second) and first.index == second.index


def count_pieces(event: Event) -> int:
    """Return the number of events of the run log that ``event`` stands for."""
    return (len(event.lengths) or 1) if isinstance(event, ANY_DELTAS) else 1


def keeps_lengths(delta: AnyDelta) -> bool:
    """Whether `join` can keep the length of this delta, so that the delta may be passed to `join`."""
    return bool(delta.lengths) or len(delta.text) <= MAX_PIECE


def join(deltas: Sequence[AnyDelta]) -> AnyDelta:
    """Join deltas of one text into one delta that keeps the length of each. `keeps_lengths` must be true for each."""
    if len(deltas) == 1:
        return deltas[0]
    lengths = b"".join(delta.lengths or bytes((len(delta.text),)) for delta in deltas)
    return _made(deltas[0], "".join(delta.text for delta in deltas), lengths)


def cut(delta: AnyDelta, pieces: int) -> tuple[AnyDelta, AnyDelta]:
    """Split a joined delta after ``pieces`` of its deltas. Neither half may be empty."""
    at = sum(delta.lengths[:pieces])
    first = _made(delta, delta.text[:at], delta.lengths[:pieces])
    return first, _made(delta, delta.text[at:], delta.lengths[pieces:])


def without_lengths(delta: AnyDelta) -> AnyDelta:
    """Return the delta without the lengths of the deltas that were joined in it."""
    return _made(delta, delta.text, b"") if delta.lengths else delta


def _with_text(first: AnyDelta, texts: list[str]) -> AnyDelta:
    return _made(first, "".join(texts), b"") if len(texts) > 1 or first.lengths else first


def _made(like: AnyDelta, text: str, lengths: bytes) -> AnyDelta:
    if isinstance(like, MemberDelta):
        return MemberDelta(like.member, text, lengths)
    return type(like)(like.index, text, lengths)
