"""Which responses are cached, and what is stored of them.

The content is stored as bytes: their length is what the tiers' limits count, and nobody can change a response that
others will receive. What belongs to the first caller alone (ids, metadata, decision record) is not stored, except which
models contributed, if there were several.
"""

from __future__ import annotations

from typing import NamedTuple

import msgspec

from llm_actors.cache.key import CacheKey
from llm_protocol.requests import LLMRequest
from llm_protocol.response import FinishReason, LLMResponse, new_response_id

_COMPLETE = frozenset((FinishReason.STOP, FinishReason.TOOL_CALLS))

LARGEST_SHARE = 8
"""The largest share of a tier that one entry may take, so that no response displaces all others."""

_ENCODER = msgspec.msgpack.Encoder()
_DECODER = msgspec.msgpack.Decoder(LLMResponse)


class Entry(NamedTuple):
    """A packed response and its key."""

    key: CacheKey
    value: bytes


class Found(NamedTuple):
    """A packed response and its age in seconds."""

    value: bytes
    age_s: float


class Claimed(NamedTuple):
    """What a lookup by somebody who would make a missing response comes to. ``is_ours``: nothing was found, and no
    other process makes it.
    """

    found: Found | None
    is_ours: bool


def storable(response: LLMResponse) -> bool:
    """Whether ``response`` may be cached: it is complete, not empty, and will still be valid later.

    A response that was truncated (``length``), failed, or was stopped by a content filter is not cached: the first two
    are incomplete, and a filter may decide otherwise the next time. Nor is one with images behind URLs, which expire.
    """
    whole = all(each.finish_reason in _COMPLETE for each in (response, *response.choices))
    if not whole or not (response.output or response.embeddings):
        return False
    responses = (response, *response.choices, *response.members)
    return all(image.data is not None for each in responses for image in each.images)


def pack(response: LLMResponse) -> bytes | None:
    """The bytes to store; ``None`` if it contains something that cannot be packed (a lone surrogate, a number beyond 64
    bits).
    """
    contributed = {"members": response.decision["members"]} if "members" in response.decision else {}
    bare = msgspec.structs.replace(response, request_id="", response_id="", metadata={}, decision=contributed)
    try:
        return _ENCODER.encode(bare)
    except (TypeError, ValueError, OverflowError, RecursionError):
        return None


def unpack(value: bytes) -> LLMResponse | None:
    """The response, a new object each time; ``None`` if these bytes are not one."""
    try:
        return _DECODER.decode(value)
    except (msgspec.DecodeError, ValueError, RecursionError):
        return None


def replay(
    found: LLMResponse, request: LLMRequest, *, response_id: str | None = None, processing_time_ms: float = 0.0
) -> LLMResponse:
    """The cached response, as the response to ``request``.

    It costs 0, since no provider was called; its usage, and its members' results, are the original ones.
    """
    return msgspec.structs.replace(
        found,
        request_id=request.request_id,
        response_id=response_id or new_response_id(),
        processing_time_ms=processing_time_ms,
        cost=0.0,
    )
