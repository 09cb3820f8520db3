"""Vectors, read one by one from an answer and written one by one."""

from __future__ import annotations

import json
import struct
from base64 import b64encode

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm_protocol.codec.json import TooLarge, WireError
from llm_protocol.codec.media import base64_text, unbase64
from llm_protocol.codec.vectors import (
    MAX_DIMENSIONS,
    VECTOR_LIMITS,
    Vector,
    cut_vectors,
    encode_list,
    packed,
    vector_of,
)
from llm_protocol.dialect import ServerDialect, WireResponse
from llm_protocol.events import Embedded, Failed
from llm_protocol.failures import FailureKind
from llm_protocol.requests import EmbeddingRequest, LLMProvider
from llm_protocol.response import LLMResponse
from llm_protocol.wires import client_dialect, server_dialect

NUMBERS = st.floats(-1, 1, width=32) | st.integers(-5, 5)


@given(st.lists(st.lists(NUMBERS, max_size=60), max_size=6), st.text(max_size=20))
def test_cutting_and_putting_together_again_changes_nothing(vectors: list[list[float]], text: str) -> None:
    decoy = json.dumps(["[" + "1," * 200 + "1]", text])
    body = json.dumps({"a": decoy, "data": [{"embedding": vector, "x": text} for vector in vectors]}).encode()
    cut, found = cut_vectors(body)
    value = json.loads(cut)

    assert value["a"] == decoy
    assert [list(vector_of(_read(item["embedding"]), found)) for item in value["data"]] == vectors
    assert [item["x"] for item in value["data"]] == [text] * len(vectors)


def _read(value: list[float] | str) -> Vector | str:
    return value if isinstance(value, str) else tuple(value)


def test_a_long_vector_is_cut_out_and_a_short_one_stays() -> None:
    cut, found = cut_vectors(b'{"v": [' + b"0.5," * 100 + b'1], "w": [1]}')
    assert json.loads(cut) == {"v": "#0", "w": [1]}
    assert found == [(0.5,) * 100 + (1.0,)]


def test_what_is_no_list_of_numbers_is_not_understood() -> None:
    with pytest.raises(WireError, match="not a list of numbers"):
        cut_vectors(b'{"v": [' + b"0.5,," * 100 + b"1]}")
    for value in ("#1", "#", "#-1", "#1.0", "#" + "9" * 30, "!!!", b64encode(b"abc").decode()):
        with pytest.raises(WireError):
            vector_of(value, [(1.0,)])


def test_dimensions_and_one_more() -> None:
    assert len(cut_vectors(b"[" + b"1," * (MAX_DIMENSIONS - 1) + b"1]")[1][0]) == MAX_DIMENSIONS
    with pytest.raises(WireError, match="more than 100000 numbers"):
        cut_vectors(b"[" + b"1," * MAX_DIMENSIONS + b"1]")
    assert len(vector_of(b64encode(bytes(4 * MAX_DIMENSIONS)).decode(), [])) == MAX_DIMENSIONS
    with pytest.raises(WireError, match="more than 100000 numbers"):
        vector_of(b64encode(bytes(4 * MAX_DIMENSIONS + 8)).decode(), [])


def test_an_answer_may_have_ten_million_numbers_and_no_more() -> None:
    one = b"[" + b"1," * (MAX_DIMENSIONS - 1) + b"1]"
    body = b"[" + b",".join([one] * 99)
    left = VECTOR_LIMITS.values - (body.count(b",") + body.count(b"[") + 1)

    assert len(cut_vectors(body + b",1" * left + b"]")[1]) == 99
    with pytest.raises(TooLarge, match="10000000 values"):
        cut_vectors(body + b",1" * (left + 1) + b"]")


def test_a_text_without_an_end_is_looked_through_once() -> None:
    cut_vectors(b"[" + b"1," * 99 + b'1,"' + b'\\"' * 200_000)


@given(st.lists(st.floats(allow_nan=False, width=32), max_size=5).map(tuple))
def test_packing_is_little_endian_float32(vector: Vector) -> None:
    assert vector_of(b64encode(packed(vector)).decode(), []) == vector


def test_a_number_too_large_for_float32_is_infinite() -> None:
    assert struct.unpack("<3f", packed((1e300, -1e300, 1.0))) == (float("inf"), float("-inf"), 1.0)


def test_a_list_is_encoded_as_always() -> None:
    assert msgspec.json.encode({"a": encode_list([{"b": (1.5, 2.0)}, "x"])}) == b'{"a":[{"b":[1.5,2.0]},"x"]}'
    assert msgspec.json.encode(encode_list([])) == b"[]"


@pytest.mark.parametrize("size", [0, 1, 3 * 4 * 64 * 1024 - 1, 3 * 4 * 64 * 1024, 3 * 4 * 64 * 1024 + 1, 2_000_001])
def test_base64_in_slices_is_base64(size: int) -> None:
    data = bytes(range(256)) * (size // 256 + 1)
    data = data[:size]
    assert base64_text(data) == b64encode(data).decode()
    assert unbase64(b64encode(data).decode()) == data
    assert unbase64(b64encode(data).decode().rstrip("=")) == data
    if size > 2:
        with pytest.raises(WireError):
            unbase64(b64encode(data).decode()[:-3] + "!")


@pytest.mark.parametrize("kind", [LLMProvider.OPENAI, LLMProvider.GEMINI, LLMProvider.COHERE])
def test_many_long_vectors_survive_every_wire(kind: LLMProvider) -> None:
    client = client_dialect(kind)
    server: ServerDialect = server_dialect(kind)
    vectors = tuple(tuple(float(at * number % 7) / 8 for at in range(300)) for number in range(40))
    request = EmbeddingRequest(model="m", inputs=("x",) * 40)
    wire = client.encode_request(request, stream=False)
    inbound = server.decode_request(wire.path, wire.body)
    answer = LLMResponse(request_id="r", provider="p", model="m", embeddings=vectors)
    events = client.decode_response(request, WireResponse(200, (), server.encode_response(inbound, answer)))

    assert [event.vectors for event in events if isinstance(event, Embedded)] == [vectors]


@pytest.mark.parametrize("kind", [LLMProvider.OPENAI, LLMProvider.GEMINI, LLMProvider.COHERE])
def test_too_many_numbers_are_an_answer_that_is_too_large(kind: LLMProvider) -> None:
    body = b"[" + b"1," * VECTOR_LIMITS.values + b"1]"
    events = client_dialect(kind).decode_response(
        EmbeddingRequest(model="m", inputs=("x",)), WireResponse(200, (), body)
    )
    assert isinstance(events[-1], Failed)
    assert events[-1].failure.kind is FailureKind.ANSWER_TOO_LARGE
