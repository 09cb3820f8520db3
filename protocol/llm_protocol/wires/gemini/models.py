"""The model list, both sides."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any
from urllib.parse import quote

import msgspec

from llm_protocol.codec.json import JsonDecoder, WireError, encode_json
from llm_protocol.codec.times import day
from llm_protocol.content import JsonObject
from llm_protocol.dialect import Lifecycle, ModelInfo, ModelPage, WireRequest
from llm_protocol.errors import ProtocolError
from llm_protocol.requests import RequestType
from llm_protocol.wires.gemini.shapes import METHODS, VERSION

PAGE_SIZE = 1_000
"""Models asked for at once: the vendor's greatest."""


_REQUEST_TYPES = {
    "generateContent": frozenset(
        (RequestType.CHAT, RequestType.COMPLETION, RequestType.CODE_GENERATION, RequestType.IMAGE_GENERATION)
    ),
    "embedContent": frozenset((RequestType.EMBEDDING,)),
}
"""What can be asked of a model, by its methods."""

_METHODS = {
    "generateContent": ["generateContent", "streamGenerateContent"],
    "embedContent": ["embedContent", "batchEmbedContents"],
}

# Of the last two the vendor says that they cannot be used.
_LIFECYCLES: dict[str, Lifecycle] = {"LEGACY": "deprecated", "DEPRECATED": "retired", "RETIRED": "retired"}
_STAGES: dict[Lifecycle, str] = {"deprecated": "LEGACY", "retired": "RETIRED"}


class _ModelEntry(msgspec.Struct, frozen=True, rename="camel"):
    name: str
    input_token_limit: int | None = None
    output_token_limit: int | None = None
    supported_generation_methods: Any = None
    model_status: Any = None


class _Models(msgspec.Struct, frozen=True, rename="camel"):
    models: list[_ModelEntry] = []
    next_page_token: str | None = None


_MODELS = JsonDecoder(_Models)


def _info(entry: _ModelEntry) -> ModelInfo:
    methods = entry.supported_generation_methods
    status = entry.model_status if isinstance(entry.model_status, dict) else {}
    return ModelInfo(
        id=entry.name.removeprefix("models/"),
        owned_by="google",
        context_window=entry.input_token_limit,
        max_output_tokens=entry.output_token_limit,
        lifecycle=_LIFECYCLES.get(str(status.get("modelStage")).upper(), "active"),
        shutdown_date=day(status.get("retirementTime")),
        request_types=_request_types(methods) if isinstance(methods, list) and methods else None,
    )


def _request_types(methods: list[object]) -> frozenset[RequestType]:
    return frozenset(each for name, types in _REQUEST_TYPES.items() if name in methods for each in types)


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
    if model.request_types is not None:
        names = [name for name, types in _REQUEST_TYPES.items() if types & model.request_types]
        entry["supportedGenerationMethods"] = [each for name in names for each in _METHODS[name]]
    if model.lifecycle != "active" or model.shutdown_date is not None:
        entry["modelStatus"] = {"modelStage": _STAGES.get(model.lifecycle, "LEGACY")}
        if model.shutdown_date is not None:
            entry["modelStatus"]["retirementTime"] = f"{model.shutdown_date}T00:00:00Z"
    if model.context_window is not None:
        entry["inputTokenLimit"] = model.context_window
    if model.max_output_tokens is not None:
        entry["outputTokenLimit"] = model.max_output_tokens
    return entry
