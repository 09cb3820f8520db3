"""What is kept of an answer, and which answers are kept.

Kept is what the model said, as bytes: their length is what the bounds of the tiers count, and nobody can change an
answer that others will be given. What belongs to the first asker alone (ids, metadata, decision record) is not kept,
except who contributed, where several models did.
"""

from __future__ import annotations

from typing import NamedTuple

import msgspec

from llm_actors.cache.key import CacheKey
from llm_protocol.requests import LLMRequest
from llm_protocol.response import FinishReason, LLMResponse, new_response_id

_COMPLETE = frozenset((FinishReason.STOP, FinishReason.TOOL_CALLS))

LARGEST_SHARE = 8
"""One entry takes at most this fraction of a tier, so that no answer drives out all the others."""

_ENCODER = msgspec.msgpack.Encoder()
_DECODER = msgspec.msgpack.Decoder(LLMResponse)


class Entry(NamedTuple):
    """A packed answer and its key."""

    key: CacheKey
    value: bytes


class Found(NamedTuple):
    """A packed answer and for how many seconds it has been kept."""

    value: bytes
    age_s: float


def storable(response: LLMResponse) -> bool:
    """Whether ``response`` may be given to others: it is complete, says something, and will mean the same later.

    An answer that was cut short (``length``), broke, or was stopped by a content filter is not kept: the first two are
    not whole, and a filter may decide otherwise the next time. Nor is one with pictures behind URLs, which expire.
    """
    if response.finish_reason not in _COMPLETE or not (response.output or response.embeddings):
        return False
    said = (response, *response.members)
    return all(image.data is not None for each in said for image in each.images)


def pack(response: LLMResponse) -> bytes | None:
    """The bytes that are kept; ``None`` if it holds what has none (a lone surrogate, a number beyond 64 bits)."""
    contributed = {"members": response.decision["members"]} if "members" in response.decision else {}
    bare = msgspec.structs.replace(response, request_id="", response_id="", metadata={}, decision=contributed)
    try:
        return _ENCODER.encode(bare)
    except (TypeError, ValueError, OverflowError, RecursionError):
        return None


def unpack(value: bytes) -> LLMResponse | None:
    """The answer, a new object each time; ``None`` if these bytes are not one."""
    try:
        return _DECODER.decode(value)
    except (msgspec.DecodeError, ValueError, RecursionError):
        return None


def replay(
    found: LLMResponse, request: LLMRequest, *, response_id: str | None = None, processing_time_ms: float = 0.0
) -> LLMResponse:
    """What was kept, as the answer to ``request``.

    It costs 0, for nobody was asked; its usage, and what is told of its members, are what it once took.
    """
    return msgspec.structs.replace(
        found,
        request_id=request.request_id,
        response_id=response_id or new_response_id(),
        processing_time_ms=processing_time_ms,
        cost=0.0,
    )
