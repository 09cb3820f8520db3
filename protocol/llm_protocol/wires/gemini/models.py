"""Decode and encode the model list."""

from __future__ import annotations

from collections.abc import Sequence
from urllib.parse import quote

from llm_protocol.codec.json import encode_json
from llm_protocol.codec.model_list import ModelEntry, read_models
from llm_protocol.content import JsonObject
from llm_protocol.dialect import Lifecycle, ModelInfo, ModelPage, WireRequest
from llm_protocol.requests import RequestType
from llm_protocol.wires.gemini.shapes import METHODS, VERSION

PAGE_SIZE = 1_000
"""The number of models per page: the vendor's maximum."""


_REQUEST_TYPES = {
    "generateContent": frozenset(
        (RequestType.CHAT, RequestType.COMPLETION, RequestType.CODE_GENERATION, RequestType.IMAGE_GENERATION)
    ),
    "embedContent": frozenset((RequestType.EMBEDDING,)),
}
"""The request types that a model supports, derived from its methods."""

_METHODS = {
    "generateContent": ["generateContent", "streamGenerateContent"],
    "embedContent": ["embedContent", "batchEmbedContents"],
}

# The last two are documented as unusable.
_LIFECYCLES: dict[str, Lifecycle] = {"LEGACY": "deprecated", "DEPRECATED": "retired", "RETIRED": "retired"}
_STAGES: dict[Lifecycle, str] = {"deprecated": "LEGACY", "retired": "RETIRED"}


def _info(entry: ModelEntry) -> ModelInfo:
    status = entry.object("modelStatus")
    return ModelInfo(
        id=entry.text("name").removeprefix("models/"),
        owned_by="google",
        context_window=entry.count("inputTokenLimit"),
        max_output_tokens=entry.count("outputTokenLimit"),
        lifecycle=_LIFECYCLES.get(status.text("modelStage").upper(), "active"),
        shutdown_date=status.day("retirementTime"),
        request_types=entry.request_types("supportedGenerationMethods", _REQUEST_TYPES),
    )


def models_request(page: str | None) -> WireRequest:
    """The request for a page of the list; ``None`` requests the first page."""
    token = f"&pageToken={quote(page, safe='')}" if page else ""
    return WireRequest("GET", f"/{VERSION}/models?pageSize={PAGE_SIZE}{token}")


def decode_models(body: bytes) -> ModelPage:
    """Decode a page of the list. Raises `ProtocolError` if it is malformed."""
    return read_models(body, "models", _info, lambda page: page.text("nextPageToken"), may_be_missing=True)


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
