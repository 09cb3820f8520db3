"""What can be asked of whom: read from the dialects, held by tests/fake/test_table.py, printed in the README."""

from __future__ import annotations

from enum import StrEnum

from llm_protocol.codec.chat_adapter import offered
from llm_protocol.requests import LLMProvider, RequestType
from llm_protocol.vendors import VENDORS

TITLES = {kind: VENDORS[kind].title for kind in LLMProvider if not VENDORS[kind].local}
TYPES = {
    RequestType.CHAT: "chat",
    RequestType.COMPLETION: "completion",
    RequestType.CODE_GENERATION: "code",
    RequestType.EMBEDDING: "embedding",
    RequestType.IMAGE_GENERATION: "image",
}
NEVER_STREAMED = frozenset((RequestType.EMBEDDING, RequestType.IMAGE_GENERATION))


class Offer(StrEnum):
    """How a vendor answers a type of request."""

    NATIVE = "yes"
    OVER_CHAT = "over chat"
    REFUSED = "–"


def offer(kind: LLMProvider, request_type: RequestType) -> Offer:
    """How ``kind`` answers ``request_type``."""
    own = VENDORS[kind].client().request_types
    if request_type in own:
        return Offer.NATIVE
    return Offer.OVER_CHAT if request_type in offered(own) else Offer.REFUSED
