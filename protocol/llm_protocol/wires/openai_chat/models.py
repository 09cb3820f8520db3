"""The model list, both sides."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from llm_protocol.codec.json import JsonDecoder, WireError, encode_json
from llm_protocol.codec.times import day
from llm_protocol.dialect import ModelInfo, ModelPage
from llm_protocol.errors import ProtocolError


class _Meta(msgspec.Struct):
    n_ctx_train: int | None = None


class _Model(msgspec.Struct):
    id: str
    created: float | None = None
    owned_by: str | None = None
    max_model_len: int | None = None
    context_window: int | None = None
    context_length: int | None = None
    max_completion_tokens: int | None = None
    meta: _Meta | None = None
    shutdown_date: Any = None


class _List(msgspec.Struct):
    data: list[_Model] | None


_YEAR_10_000 = 253_402_300_800
"""Other wires write dates, and there are none of it."""

_DECODER = JsonDecoder(_List)


def decode_models(body: bytes) -> ModelPage:
    """The whole list: this wire has no pages. The context window is read under the names that servers give it. Raises
    `ProtocolError`.
    """
    try:
        answer = _DECODER.decode(body)
    except WireError as exc:
        raise ProtocolError(f"the vendor's model list is not understood: {exc}") from None
    return ModelPage(tuple(_info(model) for model in answer.data or ()))


def _info(model: _Model) -> ModelInfo:
    trained = model.meta.n_ctx_train if model.meta else None
    end = day(model.shutdown_date)
    return ModelInfo(
        id=model.id,
        created=_moment(model.created or 0),
        owned_by=model.owned_by or "",
        context_window=model.max_model_len or model.context_window or model.context_length or trained,
        max_output_tokens=model.max_completion_tokens,
        lifecycle="active" if end is None else "deprecated",
        shutdown_date=end,
    )


def _moment(seconds: float) -> int:
    return int(seconds) if 0 <= seconds < _YEAR_10_000 else 0


def encode_models(models: Sequence[ModelInfo]) -> bytes:
    """The body of the list."""
    data = [
        {"id": model.id, "object": "model", "created": model.created, "owned_by": model.owned_by}
        | ({"context_window": model.context_window} if model.context_window is not None else {})
        | ({"max_completion_tokens": model.max_output_tokens} if model.max_output_tokens is not None else {})
        | ({"shutdown_date": model.shutdown_date.isoformat()} if model.shutdown_date is not None else {})
        for model in models
    ]
    return encode_json({"object": "list", "data": data})
