"""Embeddings, both sides. ``batchEmbedContents`` serves one text as well as many."""

from __future__ import annotations

import msgspec

from llm_protocol.codec.decoding import misread
from llm_protocol.codec.fields import refuse_transport
from llm_protocol.codec.json import JsonDecoder, WireError, encode_json
from llm_protocol.codec.whole import VECTOR_LIMITS, embedded, embedding_of, encode_with_list
from llm_protocol.content import JsonObject
from llm_protocol.events import Event, Started
from llm_protocol.requests import EmbeddingRequest
from llm_protocol.response import LLMResponse
from llm_protocol.wires.gemini.shapes import NAME, TASK_TYPES, GeminiUsageMetadata


class _Vector(msgspec.Struct, frozen=True):
    values: msgspec.Raw = msgspec.Raw(b"[]")


class _Embeddings(msgspec.Struct, frozen=True, rename="camel"):
    embeddings: list[_Vector] | None = None
    embedding: _Vector | None = None
    usage_metadata: GeminiUsageMetadata | None = None


_EMBEDDINGS = JsonDecoder(_Embeddings, limits=VECTOR_LIMITS)


def embedding_body(request: EmbeddingRequest) -> JsonObject:
    """The body of ``batchEmbedContents``; options that apply to all texts are repeated for each."""
    extra = request.parameters.extra.get(NAME, {})
    refuse_transport(extra)
    common: JsonObject = {**extra, "model": _full_name(request.model)}
    if request.dimensions is not None:
        common["outputDimensionality"] = request.dimensions
    if request.input_type is not None:
        task = _task_type(request.input_type)
        if task is not None:
            common["taskType"] = task
    return {"requests": [{**common, "content": {"parts": [{"text": text}]}} for text in request.inputs]}


def _full_name(model: str) -> str:
    return model if model.startswith(("models/", "tunedModels/")) else f"models/{model}"


def _task_type(input_type: str) -> str | None:
    return TASK_TYPES.get(input_type) or (input_type if input_type in TASK_TYPES.values() else None)


def decode_embeddings(request: EmbeddingRequest, body: bytes) -> list[Event]:
    """The events of a 2xx response."""
    try:
        answer = _EMBEDDINGS.decode(body)
        found = answer.embeddings if answer.embedding is None else [answer.embedding]
        vectors = tuple(embedding_of(vector.values) for vector in found or ())
    except WireError as exc:
        return [misread(exc)]
    usage = answer.usage_metadata.usage() if answer.usage_metadata is not None else None
    return embedded(request, vectors, started=Started(model=request.model), usage=usage)


def encode_embeddings(response: LLMResponse, *, single: bool) -> bytes:
    """The body of a response to a request for one text or a batch."""
    vectors = ({"values": vector.tolist()} for vector in response.embeddings)
    usage: JsonObject = {}
    if response.usage is not None:
        usage["usageMetadata"] = {"promptTokenCount": response.usage.input_tokens}
    if single and response.embeddings:
        return encode_json({"embedding": next(vectors), **usage})
    return encode_with_list({"embeddings": [], **usage}, "embeddings", vectors)
