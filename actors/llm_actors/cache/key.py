"""The cache key: a hash of everything that the response depends on. Pure.

All fields are in the key except those in `LEFT_OUT`, so an overlooked field causes a miss and never a wrong response.
The caller is part of the key: no caller receives a response that another caller paid for or prompted. The order of
JSON objects is kept, because the model sees it, and structured responses follow it.
"""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import blake2b
from typing import Any, NamedTuple, NewType

import msgspec

from llm_protocol.policy import Policy
from llm_protocol.requests import AnyRequest, LLMRequest

CacheKey = NewType("CacheKey", bytes)
"""`KEY_BYTES` bytes that reveal nothing about the request."""

KEY_BYTES = 32

KEY_VERSION = b"llm-runtime 1"
"""The version of the key. It changes when the meaning of a request changes; then earlier entries are no longer found.
"""

LEFT_OUT: dict[type[msgspec.Struct], dict[str, Any]] = {
    LLMRequest: {
        "request_id": "",
        "timestamp": 0.0,
        "deadline_s": None,
        "forwarded": {},
        "one_of": 1,
        "metadata": {},  # the caller's notes; vendors do not receive them
        "policy": None,  # `key_of` is given the effective one
    },
    Policy: {  # only the candidates and the choice among them matter, not retries and timeouts
        "on_broken_stream": None,
        "deadline_s": None,
        "timeouts": None,
        "attempts": None,
        "cache": None,
        "hedge": None,
        "priority": None,
    },
}
"""The fields that no response depends on, and the values that replace them."""


class Target(NamedTuple):
    """One candidate: a provider, the vendor's name of the model, and its wire.

    ``address`` is the provider's base URL if that is configured: another server under the same provider name returns
    other responses.
    """

    provider: str
    model: str
    dialect: str
    version: int
    address: str = ""


def key_of(request: AnyRequest, targets: Sequence[Target], policy: Policy) -> CacheKey | None:
    """Return the key for ``request`` if one of ``targets`` may serve it under ``policy``, the effective one.

    Returns ``None`` if the request is not cached: it contains a value without canonical bytes (a lone surrogate, a
    number beyond 64 bits), or the response depends on the history of its conversation.
    """
    if policy.share_knowledge:
        return None
    bare = msgspec.structs.replace(request, **LEFT_OUT[LLMRequest])
    way = msgspec.structs.replace(policy, **LEFT_OUT[Policy])
    try:
        data = msgspec.msgpack.encode((bare, tuple(targets), way))
    except (TypeError, ValueError, OverflowError, RecursionError):
        return None
    return CacheKey(blake2b(data, digest_size=KEY_BYTES, person=KEY_VERSION).digest())
