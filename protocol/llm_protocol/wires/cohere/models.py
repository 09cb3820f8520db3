"""Decode and encode the model list."""

from __future__ import annotations

from collections.abc import Sequence
from urllib.parse import quote

from llm_protocol.codec.json import encode_json
from llm_protocol.codec.model_list import ModelEntry, read_models
from llm_protocol.content import JsonObject
from llm_protocol.dialect import ModelInfo, ModelPage, WireRequest
from llm_protocol.requests import RequestType
from llm_protocol.wires.cohere.shapes import NAME

PAGE_SIZE = 1_000
"""The number of models per page: the vendor's maximum."""

_REQUEST_TYPES = {
    "chat": frozenset((RequestType.CHAT, RequestType.COMPLETION, RequestType.CODE_GENERATION)),
    "embed": frozenset((RequestType.EMBEDDING,)),
}
"""The request types that a model supports, derived from its endpoints."""


def models_request(page: str | None) -> WireRequest:
    """The request for a page of the list; ``None`` requests the first page."""
    token = f"&page_token={quote(page, safe='')}" if page is not None else ""
    return WireRequest("GET", f"/v1/models?page_size={PAGE_SIZE}{token}")


def decode_models(body: bytes) -> ModelPage:
    """Decode a page of the list. Raises `ProtocolError` if it is malformed."""
    return read_models(body, "models", _info, lambda page: page.text("next_page_token"))


def _info(entry: ModelEntry) -> ModelInfo:
    return ModelInfo(
        id=entry.text("name"),
        owned_by=NAME,
        context_window=entry.count("context_length"),
        lifecycle="deprecated" if entry.flag("is_deprecated") else "active",
        request_types=entry.request_types("endpoints", _REQUEST_TYPES),
    )


def encode_models(models: Sequence[ModelInfo]) -> bytes:
    """The list as one page."""
    return encode_json({"models": [_entry(model) for model in models]})


def _entry(model: ModelInfo) -> JsonObject:
    known = model.request_types
    return {
        "name": model.id,
        "endpoints": [name for name, types in _REQUEST_TYPES.items() if known is None or types & known],
        "context_length": model.context_window,
        "is_deprecated": model.lifecycle != "active",
    }
