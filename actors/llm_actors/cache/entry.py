"""Which responses are cached, which of their fields, and for how long.

The content is stored as bytes. Their length is what the limits of the tiers count, and nobody can change a response
that other callers will receive. Fields that concern only the first caller (ids, metadata, decision record) are not
stored, except the names of the models that contributed, if there were several. A response may be reused for the
shortest lifetime that is configured for the providers of these models.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import msgspec

from llm_actors.cache.key import CacheKey
from llm_protocol.requests import LLMRequest, new_response_id
from llm_protocol.response import FinishReason, LLMResponse

_COMPLETE = frozenset((FinishReason.STOP, FinishReason.TOOL_CALLS))

LARGEST_SHARE = 8
"""One entry may take at most 1/`LARGEST_SHARE` of a tier's size limit, so that no response displaces all others."""

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
    """The result of a lookup that may produce a missing response. ``is_ours``: the entry is missing, and no other
    process produces it.
    """

    found: Found | None
    is_ours: bool


def storable(response: LLMResponse) -> bool:
    """Whether ``response`` may be cached: it is complete, not empty, and will still be valid later.

    A response that was truncated (``length``), failed, or was stopped by a content filter is not cached: the first
    two are incomplete, and a filter may decide differently the next time. A response with images behind URLs is not
    cached either, because such URLs expire.
    """
    whole = all(each.finish_reason in _COMPLETE for each in (response, *response.choices))
    if not whole or not (response.output or response.embeddings):
        return False
    responses = (response, *response.choices, *response.members)
    return all(image.data is not None for each in responses for image in each.images)


def pack(response: LLMResponse) -> bytes | None:
    """Return the bytes to store; ``None`` for a response that cannot be packed: it has a lone surrogate, or a number
    beyond 64 bits.
    """
    contributed = {"members": response.decision["members"]} if "members" in response.decision else {}
    bare = msgspec.structs.replace(response, request_id="", response_id="", metadata={}, decision=contributed)
    try:
        return _ENCODER.encode(bare)
    except (TypeError, ValueError, OverflowError, RecursionError):
        return None


def unpack(value: bytes) -> LLMResponse | None:
    """Return the response, a new object each time; ``None`` if the bytes are not a valid response."""
    try:
        return _DECODER.decode(value)
    except (msgspec.DecodeError, ValueError, RecursionError):
        return None


def replay(
    found: LLMResponse, request: LLMRequest, *, response_id: str | None = None, processing_time_ms: float = 0.0
) -> LLMResponse:
    """Return the cached response as the response to ``request``.

    Its cost is 0, since no provider was called. Its usage and the results of ensemble members are the original ones.
    """
    return msgspec.structs.replace(
        found,
        request_id=request.request_id,
        response_id=response_id or new_response_id(),
        processing_time_ms=processing_time_ms,
        cost=0.0,
    )


class Lifetimes(NamedTuple):
    """Lifetimes in seconds: in ``ttls`` for some providers, and one for all others."""

    ttl_s: float
    ttls: Mapping[str, float] = {}

    def of(self, response: LLMResponse) -> float:
        """Return the shortest lifetime among the contributors: the model that made the response, and the members
        whose answers it combines.
        """
        if not self.ttls:
            return self.ttl_s
        return min(self.ttls.get(each.provider, self.ttl_s) for each in (response, *response.members))

    @property
    def longest(self) -> float:
        """The longest lifetime of any response."""
        return max((self.ttl_s, *self.ttls.values()))
