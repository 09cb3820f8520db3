"""``POST /v2/embed``, both sides."""

from __future__ import annotations

from typing import Any, Literal

import msgspec

from llm_protocol.codec.decoding import misread
from llm_protocol.codec.fields import add_extra, bad_request, leftovers, typed, undecoded, unsupported
from llm_protocol.codec.json import JsonDecoder, WireError
from llm_protocol.codec.kept_fields import KeptFields, beyond, filled, shape_of
from llm_protocol.codec.vectors import VECTOR_LIMITS, embedding_of, encode_with_list
from llm_protocol.codec.whole import embedded
from llm_protocol.content import JsonObject
from llm_protocol.dialect import Inbound
from llm_protocol.events import Event, Started
from llm_protocol.model_facts import ModelRule
from llm_protocol.requests import EmbeddingRequest, Parameters
from llm_protocol.response import LLMResponse, Usage
from llm_protocol.wires.cohere.shapes import NAME, decode_usage

MAX_TEXTS = 96
"""Texts in one call: the vendor's limit."""


DEFAULT_INPUT_TYPE = "search_document"
"""Sent when the caller said nothing, because the vendor demands the field: texts are stored more often than asked."""


def embedding_body(request: EmbeddingRequest, rule: ModelRule) -> JsonObject:
    """The body of ``POST /v2/embed``. Raises `UnsupportedError`."""
    if len(request.inputs) > MAX_TEXTS:
        raise unsupported("inputs", f"Cohere embeds at most {MAX_TEXTS} texts in one call, not {len(request.inputs)}")
    body: JsonObject = {
        "model": request.model,
        "input_type": request.input_type or DEFAULT_INPUT_TYPE,
        "texts": list(request.inputs),
        "embedding_types": ["base64" if rule.base64_vectors else "float"],
    }
    if request.dimensions is not None:
        body["output_dimension"] = request.dimensions
    add_extra(body, request.parameters, NAME)
    return body


class _ByType(msgspec.Struct):
    base64: list[msgspec.Raw] | None = None
    float: list[msgspec.Raw] | None = None


class _Answer(msgspec.Struct):
    embeddings: _ByType | list[msgspec.Raw]
    id: Any = None
    meta: Any = None


_DECODER = JsonDecoder(_Answer, limits=VECTOR_LIMITS)


_META = shape_of(api_version=("version",), billed_units=("input_tokens",))


def decode_embeddings(request: EmbeddingRequest, body: bytes) -> list[Event]:
    """The events of a response: the embeddings, one for each input."""
    try:
        answer = _DECODER.decode(body)
        given = answer.embeddings
        found = given.base64 or given.float or [] if isinstance(given, _ByType) else given
        vectors = tuple([embedding_of(vector) for vector in found])
    except WireError as exc:
        return [misread(exc)]
    started = Started(upstream_id=answer.id if isinstance(answer.id, str) and answer.id else None)
    kept = KeptFields(NAME)
    kept.keep("meta", beyond(answer.meta, _META))
    return [*kept.told(), *embedded(request, vectors, started=started, usage=decode_usage(answer.meta))]


# ---------------------------------------------------------------- the server side


LISTS = "lists"
"""`Inbound.form` of an answer without a place for the type of its numbers."""


class _Input(msgspec.Struct):
    content: list[JsonObject]


class _Body(msgspec.Struct):
    model: str
    input_type: Literal["search_document", "search_query", "classification", "clustering", "image"]
    texts: list[str] | None = None
    inputs: list[_Input] | None = None
    images: list[str] | None = None
    embedding_types: list[str] | None = None
    output_dimension: int | None = None
    llm_runtime: Any = None


_KNOWN = frozenset(field.name for field in msgspec.structs.fields(_Body))


def decode_embed(given: JsonObject) -> Inbound:
    """What the client asks for. Raises `BadRequestError` or `UnsupportedError` naming the field at fault."""
    body = typed(given, _Body)
    own = {name: value for name, value in leftovers(given, _KNOWN).items() if value is not None}
    if body.images or body.input_type == "image":
        raise unsupported("images", "only texts can be embedded here")
    form = (body.embedding_types or ["float"])[0]
    if len(body.embedding_types or ()) > 1 or form not in ("float", "base64"):
        raise unsupported("embedding_types", 'embeddings are given as one of "float" and "base64"')
    texts = (*(body.texts or ()), *(_text(item) for item in body.inputs or ()))
    if not any(texts):
        raise bad_request("texts", "texts is missing or empty: it is the list of the texts to embed")
    request = EmbeddingRequest(
        model=body.model,
        inputs=texts,
        dimensions=body.output_dimension,
        input_type=body.input_type,
        parameters=Parameters(wire=NAME, extra={NAME: own} if own else {}),
    )
    return Inbound(request, policy=undecoded(body.llm_runtime), form=form)


def decode_embed_v1(given: JsonObject) -> Inbound:
    """The same at ``/v1/embed``, where ``input_type`` may be missing, and so may ``embedding_types``: then the answer
    is a list of lists of numbers.
    """
    inbound = decode_embed({"input_type": DEFAULT_INPUT_TYPE} | given)
    return inbound if given.get("embedding_types") else inbound._replace(form=LISTS)


def _text(item: _Input) -> str:
    texts = [block.get("text") for block in item.content if block.get("type") == "text"]
    if len(texts) != len(item.content) or not all(isinstance(text, str) for text in texts):
        raise unsupported("inputs", "only texts can be embedded here")
    return "".join(text for text in texts if isinstance(text, str))


def encode_embeddings(request: EmbeddingRequest, response: LLMResponse, form: str) -> bytes:
    """The body of a response, in the encoding that was asked for."""
    vectors = (vector.float32() if form == "base64" else vector.tolist() for vector in response.embeddings)
    usage = response.usage or Usage()
    billed = usage.input_tokens if usage.billed_input_tokens is None else usage.billed_input_tokens
    meta = {"api_version": {"version": "2"}, "billed_units": {"input_tokens": billed}}
    form = form or "float"
    if form == LISTS:
        meta["api_version"] = {"version": "1"}
    body: JsonObject = {
        "id": response.response_id,
        "embeddings": [] if form == LISTS else {form: []},
        "texts": request.inputs,
        "meta": filled(meta, response.extra.get(NAME, {}).get("meta")),
        "response_type": "embeddings_floats" if form == LISTS else "embeddings_by_type",
    }
    return encode_with_list(body, "embeddings" if form == LISTS else form, vectors)
