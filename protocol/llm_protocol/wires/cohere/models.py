"""The model list, both sides."""

from __future__ import annotations

from collections.abc import Sequence
from urllib.parse import quote

from llm_protocol.codec.json import WireError, decode_object, encode_json
from llm_protocol.content import JsonObject
from llm_protocol.dialect import ModelInfo, ModelPage, WireRequest
from llm_protocol.errors import ProtocolError
from llm_protocol.requests import RequestType
from llm_protocol.wires.cohere.shapes import NAME

PAGE_SIZE = 1_000
"""Models asked for at once: the vendor's greatest."""

_REQUEST_TYPES = {
    "chat": frozenset((RequestType.CHAT, RequestType.COMPLETION, RequestType.CODE_GENERATION)),
    "embed": frozenset((RequestType.EMBEDDING,)),
}
"""What can be asked of a model, by its endpoints."""


def models_request(page: str | None) -> WireRequest:
    """The request for a page of the list; the first with ``None``."""
    token = f"&page_token={quote(page, safe='')}" if page is not None else ""
    return WireRequest("GET", f"/v1/models?page_size={PAGE_SIZE}{token}")


def decode_models(body: bytes) -> ModelPage:
    """A page of the list. Raises `ProtocolError` when it is not one."""
    try:
        return _page(decode_object(body))
    except WireError as exc:
        raise ProtocolError(f"the vendor's model list is not understood: {exc}") from None


def _page(body: JsonObject) -> ModelPage:
    entries = body.get("models")
    if not isinstance(entries, list):
        raise WireError("models: expected a list")
    found = tuple(_info(entry) for entry in entries if isinstance(entry, dict) and isinstance(entry.get("name"), str))
    token = body.get("next_page_token")
    return ModelPage(found, token if isinstance(token, str) and token else None)


def _info(entry: JsonObject) -> ModelInfo:
    window = entry.get("context_length")
    size = int(window) if isinstance(window, int | float) and window > 0 else None
    endpoints = entry.get("endpoints")
    return ModelInfo(
        id=entry["name"],
        owned_by=NAME,
        context_window=size,
        lifecycle="deprecated" if entry.get("is_deprecated") is True else "active",
        request_types=_request_types(endpoints) if isinstance(endpoints, list) and endpoints else None,
    )


def _request_types(endpoints: list[object]) -> frozenset[RequestType]:
    return frozenset(each for name, types in _REQUEST_TYPES.items() if name in endpoints for each in types)


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
