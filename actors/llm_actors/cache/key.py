"""Under which key an answer is kept: a hash of everything that the answer depends on. Pure.

Everything is in the key but what is named in `LEFT_OUT`, so that a field nobody thought of makes a miss and never a
wrong answer. Who asks is in it: no caller is given what another one paid for or said. The order of JSON objects
is kept, for it reaches the model, and structured answers follow it.
"""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import blake2b
from typing import Any, NamedTuple, NewType

import msgspec

from llm_protocol.policy import Policy
from llm_protocol.requests import AnyRequest, LLMRequest

CacheKey = NewType("CacheKey", bytes)
"""`KEY_BYTES` bytes that tell nothing of the request."""

KEY_BYTES = 32

KEY_VERSION = b"llm-runtime 1"
"""Changed when the meaning of a request changes: what was stored before is not found any more."""

LEFT_OUT: dict[type[msgspec.Struct], dict[str, Any]] = {
    LLMRequest: {
        "request_id": "",
        "timestamp": 0.0,
        "deadline_s": None,
        "forwarded": {},
        "one_of": 1,
        "metadata": {},  # the caller's notes; no vendor sees them
        "policy": None,  # `key_of` is given the one in force
    },
    Policy: {  # what matters is who is asked and how one of them is chosen, not how hard it is tried
        "on_broken_stream": None,
        "deadline_s": None,
        "timeouts": None,
        "attempts": None,
        "cache": None,
        "hedge": None,
        "priority": None,
    },
}
"""The fields that no answer depends on, and what stands in their place."""


class Target(NamedTuple):
    """One candidate: a provider, the vendor's name of the model, and how the two are spoken to.

    ``address`` is the provider's base URL where that is configured: another server behind the same name gives other
    answers.
    """

    provider: str
    model: str
    dialect: str
    version: int
    address: str = ""


def key_of(request: AnyRequest, targets: Sequence[Target], policy: Policy) -> CacheKey | None:
    """The key for ``request`` when ``targets`` may answer it under ``policy``, the one in force.

    ``None``: it is not cached. It holds what has no canonical bytes (a lone surrogate, a number beyond 64 bits), or the
    answer depends on what was said in its conversation before.
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
