"""Decode and encode the model list."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, date, datetime
from urllib.parse import quote

import msgspec

from llm_protocol.codec.json import encode_json
from llm_protocol.codec.model_list import ModelEntry, read_models
from llm_protocol.content import JsonObject
from llm_protocol.dialect import Lifecycle, ModelInfo, ModelPage, WireRequest
from llm_protocol.model_facts import EFFORTS, Capabilities
from llm_protocol.wires.anthropic.shapes import NAME, VERSION

PAGE_SIZE = 1_000
"""The number of models per page: the vendor's maximum."""


def models_request(page: str | None, api_version: str | None = None) -> WireRequest:
    """The request for a page of the list; ``None`` requests the first page."""
    after = f"&after_id={quote(page, safe='')}" if page is not None else ""
    return WireRequest("GET", f"/v1/models?limit={PAGE_SIZE}{after}", (("anthropic-version", api_version or VERSION),))


def decode_models(body: bytes) -> ModelPage:
    """Decode a page of the list. Raises `ProtocolError` if it is malformed."""
    return read_models(body, "data", _info, _next_page)


def _next_page(page: ModelEntry) -> str:
    return page.text("last_id") if page.flag("has_more") else ""


def _info(entry: ModelEntry) -> ModelInfo:
    return ModelInfo(
        id=entry.text("id"),
        created=entry.moment("created_at"),
        owned_by=NAME,
        context_window=entry.count("max_input_tokens"),
        max_output_tokens=entry.count("max_tokens"),
        lifecycle=_lifecycle(entry.fields),
        deprecated_on=entry.day("deprecated_at"),
        shutdown_date=entry.day("retires_at"),
        capabilities=_capabilities(entry.fields.get("capabilities")),
    )


def _capabilities(entry: object) -> Capabilities | None:
    """Return the facts about a model in the list, except its sizes; ``None`` if an older server sent the list."""
    if not isinstance(entry, dict):
        return None
    efforts = entry.get("effort")
    thinking = entry.get("thinking")
    types = thinking.get("types") if isinstance(thinking, dict) else None
    ways = {"adaptive": _has(types, "adaptive"), "effort": _has(entry, "effort"), "budget": _has(types, "enabled")}
    levels = tuple(each for each in EFFORTS if _has(efforts, each))
    return msgspec.convert(
        {
            "vision": _has(entry, "image_input"),
            "documents": _has(entry, "pdf_input"),
            "thinking": None if None in ways.values() else [way for way, has in ways.items() if has],
            "efforts": levels or None,
        },
        Capabilities,
    )


def _has(entry: object, name: str) -> bool | None:
    found = entry.get(name) if isinstance(entry, dict) else None
    has = found.get("supported") if isinstance(found, dict) else None
    return has if isinstance(has, bool) else None


def _lifecycle(entry: JsonObject) -> Lifecycle:
    match entry.get("lifecycle"):
        case "deprecated":
            return "deprecated"
        case "retired":
            return "retired"
        case _:  # older servers have no such field, and newer ones may have more values
            return "active" if entry.get("deprecated_at") is None else "deprecated"


def encode_models(models: Sequence[ModelInfo]) -> bytes:
    """The list as one page."""
    data = [_model(model) for model in models]
    first, last = (data[0]["id"], data[-1]["id"]) if data else (None, None)
    return encode_json({"data": data, "has_more": False, "first_id": first, "last_id": last})


def _model(model: ModelInfo) -> JsonObject:
    return {
        "type": "model",
        "id": model.id,
        "display_name": model.id,
        "created_at": datetime.fromtimestamp(model.created, UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        "max_input_tokens": model.context_window,
        "max_tokens": model.max_output_tokens,
        "lifecycle": model.lifecycle,
        "deprecated_at": _midnight(model.deprecated_on),
        "retires_at": _midnight(model.shutdown_date),
    }


def _midnight(moment: date | None) -> str | None:
    return None if moment is None else f"{moment}T00:00:00Z"
