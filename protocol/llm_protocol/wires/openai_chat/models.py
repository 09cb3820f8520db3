"""Decode and encode the model list."""

from __future__ import annotations

from collections.abc import Sequence

from llm_protocol.codec.json import encode_json
from llm_protocol.codec.model_list import ModelEntry, read_models
from llm_protocol.dialect import ModelInfo, ModelPage
from llm_protocol.model_facts import Capabilities


def decode_models(body: bytes) -> ModelPage:
    """Decode the complete list: this wire has no pages. Raises `ProtocolError`."""
    return read_models(body, "data", _info)


_WINDOWS = ("max_model_len", "context_window", "context_length", "max_context_length")
"""The names of the context window at vLLM, Groq, OpenRouter and Mistral; llama.cpp has another field."""


def _info(entry: ModelEntry) -> ModelInfo:
    end = entry.day("shutdown_date")
    trained = entry.object("meta").count("n_ctx_train")
    return ModelInfo(
        id=entry.text("id"),
        created=entry.moment("created"),
        owned_by=entry.text("owned_by"),
        context_window=entry.count(*_WINDOWS) or trained,
        max_output_tokens=entry.count("max_completion_tokens"),
        lifecycle="active" if end is None else "deprecated",
        shutdown_date=end,
        capabilities=_capabilities(entry),
    )


def _capabilities(entry: ModelEntry) -> Capabilities | None:
    """The capabilities that a compatible vendor's list reports for a model; ``None`` if it reports none."""
    if shown := entry.object("architecture").texts("input_modalities"):  # OpenRouter.
        known = entry.texts("supported_parameters")
        return Capabilities(
            vision="image" in shown,
            documents="file" in shown,
            audio="audio" in shown,
            tools="tools" in known if known else None,
        )
    stated = entry.object("capabilities")  # Mistral.
    found = Capabilities(
        vision=stated.flag("vision"), audio=stated.flag("audio"), tools=stated.flag("function_calling")
    )
    return None if found == Capabilities() else found


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
