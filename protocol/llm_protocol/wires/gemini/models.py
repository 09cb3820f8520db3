"""The model list, both sides."""

from __future__ import annotations

from collections.abc import Sequence
from urllib.parse import quote

import msgspec

from llm_protocol.codec.json import JsonDecoder, WireError, encode_json
from llm_protocol.content import JsonObject
from llm_protocol.dialect import ModelInfo, ModelPage, WireRequest
from llm_protocol.errors import ProtocolError
from llm_protocol.wires.gemini.inbound import METHODS
from llm_protocol.wires.gemini.tables import VERSION

PAGE_SIZE = 1_000
"""Models asked for at once: the vendor's greatest."""


class _ModelEntry(msgspec.Struct, frozen=True, rename="camel"):
    name: str
    input_token_limit: int | None = None
    output_token_limit: int | None = None


class _Models(msgspec.Struct, frozen=True, rename="camel"):
    models: list[_ModelEntry] = []
    next_page_token: str | None = None


_MODELS = JsonDecoder(_Models)


def _info(entry: _ModelEntry) -> ModelInfo:
    return ModelInfo(
        id=entry.name.removeprefix("models/"),
        owned_by="google",
        context_window=entry.input_token_limit,
        max_output_tokens=entry.output_token_limit,
    )


def models_request(page: str | None) -> WireRequest:
    """The request for a page of the list; the first with ``None``."""
    token = f"&pageToken={quote(page, safe='')}" if page else ""
    return WireRequest("GET", f"/{VERSION}/models?pageSize={PAGE_SIZE}{token}")


def decode_models(body: bytes) -> ModelPage:
    """A page of the list. Raises `ProtocolError` when it is not one."""
    try:
        page = _MODELS.decode(body)
    except WireError as exc:
        raise ProtocolError(f"the vendor's model list is not understood: {exc}") from None
    return ModelPage(tuple(_info(entry) for entry in page.models), page.next_page_token or None)


def encode_models(models: Sequence[ModelInfo]) -> bytes:
    """The list as one page."""
    return encode_json({"models": [_model(model) for model in models]})


def _model(model: ModelInfo) -> JsonObject:
    entry: JsonObject = {"name": f"models/{model.id}", "displayName": model.id, "supportedGenerationMethods": METHODS}
    if model.context_window is not None:
        entry["inputTokenLimit"] = model.context_window
    if model.max_output_tokens is not None:
        entry["outputTokenLimit"] = model.max_output_tokens
    return entry
