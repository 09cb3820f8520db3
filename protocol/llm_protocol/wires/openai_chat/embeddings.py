"""Embeddings, both sides: as numbers, or as base64 of little-endian float32."""

from __future__ import annotations

from typing import Any, TypeGuard

import msgspec

from llm_protocol.codec.body import Body
from llm_protocol.codec.fields import add_extra
from llm_protocol.codec.json import JsonDecoder, WireError
from llm_protocol.codec.whole import VECTOR_LIMITS, embedded, embedding_of, encode_with_list
from llm_protocol.content import JsonObject
from llm_protocol.embedding import Embedding
from llm_protocol.events import Event, Started
from llm_protocol.requests import EmbeddingInput, EmbeddingRequest
from llm_protocol.response import LLMResponse
from llm_protocol.vendor_profile import VendorProfile
from llm_protocol.wires.openai_chat.content import with_extra
from llm_protocol.wires.openai_chat.errors import not_understood
from llm_protocol.wires.openai_chat.shapes import ChatWireUsage, read_usage


class _Vector(msgspec.Struct):
    embedding: msgspec.Raw
    index: int | None = None


class _Answer(msgspec.Struct):
    data: list[_Vector]
    model: str | None = None
    id: str | None = None
    usage: ChatWireUsage | None = None


_DECODER = JsonDecoder(_Answer, limits=VECTOR_LIMITS)


def embedding_body(request: EmbeddingRequest, profile: VendorProfile) -> JsonObject:
    """The body of ``POST /embeddings``."""
    body: JsonObject = {"model": request.model, "input": list(request.inputs)}
    if request.dimensions is not None:
        body["dimensions"] = request.dimensions
    if request.parameters.user is not None:
        body["user"] = request.parameters.user
    if profile.embedding_format is not None:
        body["encoding_format"] = profile.embedding_format
    add_extra(body, request.parameters, profile.name)
    return body


def decode_embeddings(request: EmbeddingRequest, body: bytes) -> list[Event]:
    """Return the events of a complete response. A missing embedding is a failure, never a shorter list."""
    try:
        answer = _DECODER.decode(body)
        found = [embedding_of(item.embedding) for item in answer.data]
        vectors = _in_order([item.index for item in answer.data], found)
    except WireError as exc:
        return [not_understood(body, exc)]
    usage = read_usage(answer.usage) if answer.usage is not None else None
    return embedded(request, vectors, started=Started(model=answer.model or "", upstream_id=answer.id), usage=usage)


def _in_order(places: list[int | None], vectors: list[Embedding]) -> tuple[Embedding, ...]:
    if all(place is None for place in places):
        return tuple(vectors)
    if sorted(place if place is not None else -1 for place in places) != list(range(len(places))):
        raise WireError("the embeddings do not have the indices 0, 1, 2 …")
    return tuple(vector for _, vector in sorted(zip(places, vectors, strict=True), key=lambda pair: pair[0] or 0))


def embedding_request(body: Body, name: str) -> EmbeddingRequest:
    """The request in a client's body. Raises `BadRequestError`, `UnsupportedError`."""
    if wanted_form(body) not in ("", "float", "base64"):
        raise body.wrong("encoding_format", '"float" or "base64"')
    return EmbeddingRequest(
        model=body.model(),
        inputs=_inputs(body),
        dimensions=body.integer("dimensions"),
        parameters=with_extra({"user": body.string("user")}, body, name),
    )


def _inputs(body: Body) -> tuple[EmbeddingInput, ...]:
    raw = body.take("input")
    if isinstance(raw, list) and raw and all(map(_is_tokens, raw)):
        return tuple(map(tuple, raw))
    if _is_tokens(raw):
        return (tuple(raw),)
    if isinstance(raw, list) and any(isinstance(item, int | list) for item in raw):
        raise body.wrong("input", "texts, or lists of token ids, none of them empty")
    texts = body.strings("input")
    if not any(texts):
        raise body.wrong("input", "a text, or a list of texts, and at least one text must not be empty")
    return texts


def _is_tokens(value: Any) -> TypeGuard[list[int]]:
    return isinstance(value, list) and bool(value) and all(type(item) is int and item >= 0 for item in value)


def wanted_form(body: Body) -> str:
    """Return the encoding that the client requested for embeddings: ``"float"``, ``"base64"``, or ``""`` if none."""
    return body.string("encoding_format") or ""


def encode_embeddings(response: LLMResponse, form: str) -> bytes:
    """The body of a complete response, in the requested encoding."""
    usage = response.usage
    tokens = usage.input_tokens if usage else 0
    body: JsonObject = {
        "object": "list",
        "data": [],
        "model": response.model,
        "usage": {"prompt_tokens": tokens, "total_tokens": tokens},
    }
    items = (
        {"object": "embedding", "index": at, "embedding": vector.float32() if form == "base64" else vector.tolist()}
        for at, vector in enumerate(response.embeddings)
    )
    return encode_with_list(body, "data", items)
