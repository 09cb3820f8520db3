"""Embeddings: packed numbers, read one by one from an answer and written one by one."""

from __future__ import annotations

import json
import struct
from base64 import b64encode

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm_protocol.codec.json import TooLarge, WireError
from llm_protocol.codec.media import base64_text, unbase64, unbase64_json
from llm_protocol.codec.whole import (
    MAX_DIMENSIONS,
    VECTOR_LIMITS,
    embedded,
    embedding_of,
    encode_with_list,
)
from llm_protocol.dialect import ServerDialect, WireResponse
from llm_protocol.embedding import Embedding
from llm_protocol.events import Embedded, Failed, Finished, Started
from llm_protocol.failures import FailureKind
from llm_protocol.requests import EmbeddingRequest, LLMProvider
from llm_protocol.response import LLMResponse
from llm_protocol.vendors import VENDORS
from support.adapting import encoded

NUMBERS = st.floats(-1, 1, width=32) | st.integers(-5, 5)


def base64_of(data: bytes) -> msgspec.Raw:
    return msgspec.Raw(b'"' + b64encode(data) + b'"')


@given(st.lists(NUMBERS, max_size=60))
def test_a_vector_is_read_as_numbers(vector: list[float]) -> None:
    assert list(embedding_of(msgspec.Raw(json.dumps(vector).encode()))) == vector


@pytest.mark.parametrize(
    "bad", [b"[1,,2]", b'["x"]', b"{}", b"1", b"null", b'"!!!"', b'"YWJj"', b'"\\ud800"', b"[[1]]"]
)
def test_what_is_no_vector_is_not_understood(bad: bytes) -> None:
    with pytest.raises(WireError):
        embedding_of(msgspec.Raw(bad))


def test_dimensions_and_one_more() -> None:
    most = MAX_DIMENSIONS
    assert len(embedding_of(msgspec.Raw(b"[" + b"1," * (most - 1) + b"1]"))) == most
    assert len(embedding_of(base64_of(bytes(4 * most)))) == most
    for raw in (msgspec.Raw(b"[" + b"1," * most + b"1]"), base64_of(bytes(4 * most + 8))):
        with pytest.raises(TooLarge, match="more than 100000 numbers"):
            embedding_of(raw)


@pytest.mark.parametrize("kind", [LLMProvider.OPENAI, LLMProvider.GEMINI, LLMProvider.COHERE])
def test_an_answer_may_have_sixteen_million_numbers_and_no_more(kind: LLMProvider) -> None:
    one = "[" + "1," * (MAX_DIMENSIONS - 1) + "1]"
    shapes = {
        LLMProvider.OPENAI: ('{"data":[', '{"embedding":%s}', "]}"),
        LLMProvider.GEMINI: ('{"embeddings":[', '{"values":%s}', "]}"),
        LLMProvider.COHERE: ('{"embeddings":{"float":[', "%s", "]}}"),
    }
    start, item, end = shapes[kind]
    body = start + ",".join([item % one] * 159) + end
    left = VECTOR_LIMITS.values - (body.count(",") + body.count("[") + body.count("{") + 1)
    request = EmbeddingRequest(model="m", inputs=("x",) * 159)
    for more, expected in ((left - 2, None), (left - 1, FailureKind.ANSWER_TOO_LARGE)):
        text = body[:-1] + ',"x":[1' + ",1" * (more - 0) + "]}"
        [*_, last] = VENDORS[kind].client().decode_response(request, WireResponse(200, (), text.encode()))
        assert (last.failure.kind if isinstance(last, Failed) else None) is expected


@given(st.lists(st.floats(allow_nan=False, width=32), max_size=5))
def test_packing_is_little_endian_float32(vector: list[float]) -> None:
    assert embedding_of(base64_of(Embedding.of(vector).float32())) == vector


def test_a_number_too_large_for_float32_is_infinite() -> None:
    assert struct.unpack("<3f", Embedding.of((1e300, -1e300, 1.0)).float32()) == (float("inf"), float("-inf"), 1.0)


def test_a_list_is_encoded_as_always() -> None:
    tricky: dict[str, object] = {"first": '"a":[]', "in": {"a": []}, "last": 1}
    items = [{"b": (1.5, 2.0)}, "x"]
    assert json.loads(encode_with_list(tricky, "a", items)) == tricky | {"in": {"a": [{"b": [1.5, 2.0]}, "x"]}}
    assert encode_with_list({"a": []}, "a", []) == b'{"a":[]}'


@pytest.mark.parametrize("size", [0, 1, 3 * 4 * 64 * 1024 - 1, 3 * 4 * 64 * 1024, 3 * 4 * 64 * 1024 + 1, 2_000_001])
def test_base64_in_slices_is_base64(size: int) -> None:
    data = bytes(range(256)) * (size // 256 + 1)
    data = data[:size]
    assert base64_text(data) == b64encode(data).decode()
    assert unbase64(b64encode(data).decode()) == data
    assert unbase64(b64encode(data).decode().rstrip("=")) == data
    raw = msgspec.Raw(b'"' + b64encode(data) + b'"')
    assert unbase64_json(raw) == data
    if size > 2:
        with pytest.raises(WireError):
            unbase64(b64encode(data).decode()[:-3] + "!")
        with pytest.raises(WireError):
            unbase64_json(msgspec.Raw(b'"!' + b64encode(data) + b'"'))


def test_base64_in_json_may_be_escaped_null_or_no_text_at_all() -> None:
    data = bytes(range(256)) * 4096
    escaped = b64encode(data).replace(b"/", b"\\/")
    assert unbase64_json(msgspec.Raw(b'"' + escaped + b'"')) == data
    assert unbase64_json(msgspec.Raw(b"null")) is None
    for wrong in (b"1", b"[" + b"1," * 500_000 + b"1]"):
        with pytest.raises(WireError):
            unbase64_json(msgspec.Raw(wrong))


@pytest.mark.parametrize("kind", [LLMProvider.OPENAI, LLMProvider.GEMINI, LLMProvider.COHERE])
def test_many_long_vectors_survive_every_wire(kind: LLMProvider) -> None:
    client = VENDORS[kind].client()
    server: ServerDialect = VENDORS[kind].server()
    vectors = tuple(Embedding.of(at * number % 7 / 8 for at in range(300)) for number in range(40))
    request = EmbeddingRequest(model="m", inputs=("x",) * 40)
    wire = encoded(client, request, stream=False)
    inbound = server.decode_request(wire.path, wire.body)
    answer = LLMResponse(request_id="r", provider="p", model="m", embeddings=vectors)
    events = client.decode_response(request, WireResponse(200, (), server.encode_response(inbound, answer)))

    assert [event.vectors for event in events if isinstance(event, Embedded)] == [vectors]


def test_all_vectors_together_may_have_sixteen_million_numbers_and_no_more() -> None:
    """Base64 hides them from the count of values."""
    full, more = (Embedding.of([1.0] * count) for count in (MAX_DIMENSIONS, MAX_DIMENSIONS + 1))
    request = EmbeddingRequest(model="m", inputs=("x",) * 160)
    ends = [embedded(request, (*(full,) * 159, last), started=Started(), usage=None)[-1] for last in (full, more)]

    assert isinstance(ends[0], Finished)
    assert isinstance(ends[1], Failed)
    assert ends[1].failure.kind is FailureKind.ANSWER_TOO_LARGE
