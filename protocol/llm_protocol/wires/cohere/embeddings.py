"""``POST /v2/embed``, both sides."""

from __future__ import annotations

from typing import Any

import msgspec

from llm_protocol.codec.body import Body
from llm_protocol.codec.decoding import misread
from llm_protocol.codec.fields import add_extra, unsupported
from llm_protocol.codec.json import JsonDecoder, WireError
from llm_protocol.codec.whole import VECTOR_LIMITS, embedded, embedding_of, encode_with_list
from llm_protocol.content import JsonObject
from llm_protocol.dialect import ClientRequest
from llm_protocol.events import Event, Started
from llm_protocol.extra_fields import KeptFields, beyond, filled, shape_of
from llm_protocol.model_facts import ModelRule
from llm_protocol.requests import EmbeddingRequest, Parameters
from llm_protocol.response import LLMResponse, Usage
from llm_protocol.wires.cohere.shapes import NAME, decode_usage

MAX_TEXTS = 96
"""The most texts in one call that the vendor accepts."""


DEFAULT_INPUT_TYPE = "search_document"
"""The value of the field ``input_type`` if the caller gave none, because the vendor requires the field. Embeddings of
stored texts are more common than embeddings of queries.
"""


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
    return [*kept.take_events(), *embedded(request, vectors, started=started, usage=decode_usage(answer.meta))]


# ---------------------------------------------------------------- the server side


LISTS = "lists"
"""`ClientRequest.form` of a response that is a bare list, without the name of its encoding."""


_INPUT_TYPES = ("search_document", "search_query", "classification", "clustering", "image")


def decode_embed(body: Body) -> ClientRequest:
    """The request in a client's body. Raises `BadRequestError` or `UnsupportedError`."""
    return _decode(body, body.required_word("input_type", _INPUT_TYPES), "float")


def decode_embed_v1(body: Body) -> ClientRequest:
    """Decode a request to ``/v1/embed``. There ``input_type`` and ``embedding_types`` are optional. Without
    ``embedding_types`` the response is a list of lists of numbers. Raises `BadRequestError` or `UnsupportedError`.
    """
    return _decode(body, body.word("input_type", _INPUT_TYPES) or DEFAULT_INPUT_TYPE, LISTS)


def _decode(body: Body, input_type: str, default_form: str) -> ClientRequest:
    if body.strings("images") or input_type == "image":
        raise body.cannot("images", "images are not supported: only texts can be embedded")
    forms = body.strings("embedding_types")
    if len(forms) > 1 or not set(forms) <= {"float", "base64"}:
        raise body.cannot("embedding_types", 'embedding_types must contain one type: "float" or "base64"')
    texts = (*body.strings("texts"), *(_text(item) for item in body.objects("inputs")))
    if not any(texts):
        raise body.wrong("texts", "the list of the texts to embed; it is missing or empty")
    model, dimensions = body.required_string("model"), body.integer("output_dimension")
    extra = body.rest()
    request = EmbeddingRequest(
        model=model,
        inputs=texts,
        dimensions=dimensions,
        input_type=input_type,
        parameters=Parameters(wire=NAME, extra={NAME: extra} if extra else {}),
    )
    return ClientRequest(request, policy=body.policy(), form=forms[0] if forms else default_form)


def _text(item: Body) -> str:
    blocks = item.objects("content")
    if any(block.string("type") != "text" for block in blocks):
        raise unsupported("inputs", "inputs: only texts can be embedded")
    return "".join(block.required_string("text") for block in blocks)


def encode_embeddings(request: EmbeddingRequest, response: LLMResponse, form: str) -> bytes:
    """The body of a response, in the requested encoding."""
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
