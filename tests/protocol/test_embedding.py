"""One embedding: a sequence of floats that stays packed."""

from __future__ import annotations

import copy
import gc
import pickle
import struct
from collections.abc import Sequence

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm_protocol.embedding import Embedding
from llm_protocol.response import LLMResponse

numbers = st.lists(st.floats(allow_nan=False), max_size=8)


@given(numbers, st.slices(8), st.data())
def test_it_is_a_sequence_like_a_tuple(given_: list[float], part: slice, data: st.DataObject) -> None:
    embedding, plain = Embedding.of(given_), tuple(given_)
    assert isinstance(embedding, Sequence)
    assert (len(embedding), list(embedding), embedding.tolist()) == (len(plain), given_, given_)
    assert embedding[part] == plain[part]
    assert list(reversed(embedding)) == given_[::-1]
    assert bool(embedding) == bool(plain)
    if plain:
        at = data.draw(st.integers(-len(plain), len(plain) - 1))
        assert embedding[at] == plain[at]
        assert plain[at] in embedding
    for outside in (len(plain), -len(plain) - 1):
        with pytest.raises(IndexError):
            embedding[outside]


@given(numbers, numbers)
def test_it_equals_what_has_the_same_numbers(one: list[float], other: list[float]) -> None:
    embedding = Embedding.of(one)
    assert (embedding == Embedding.of(other)) is (one == other)
    assert embedding == tuple(one)
    assert one == embedding
    assert hash(embedding) == hash(tuple(one))
    assert embedding != "text"


def test_narrow_and_wide_ones_of_the_same_numbers_are_equal() -> None:
    wide = Embedding.of((0.5, -2.0))
    narrow = Embedding(struct.pack("<2f", 0.5, -2.0))
    assert (wide, hash(wide)) == (narrow, hash(narrow))
    assert wide.float32() == narrow.float32() == narrow.data


@pytest.mark.parametrize(("data", "size"), [(b"123", 4), (b"1234", 8), (b"12", 2)])
def test_half_a_number_is_refused(data: bytes, size: int) -> None:
    with pytest.raises(ValueError, match="whole number of floats"):
        Embedding(data, size)  # type: ignore[arg-type]
    with pytest.raises(msgspec.ValidationError):
        msgspec.json.decode(msgspec.json.encode({"data": data, "size": size}), type=Embedding)


@given(numbers)
def test_answers_with_it_can_be_encoded_copied_and_pickled(given_: list[float]) -> None:
    answer = LLMResponse(request_id="r", provider="p", model="m", embeddings=(Embedding.of(given_),))
    assert msgspec.json.decode(msgspec.json.encode(answer), type=LLMResponse) == answer
    assert msgspec.msgpack.decode(msgspec.msgpack.encode(answer), type=LLMResponse) == answer
    assert pickle.loads(pickle.dumps(answer)) == answer
    assert copy.deepcopy(answer) == answer


def test_reading_some_of_it_makes_no_list_of_the_rest() -> None:
    """Ten million floats take 80 ms to free."""
    embedding = Embedding(bytes(4_000_000))
    assert not gc.is_tracked(embedding)
    tell = iter(embedding)
    assert (next(tell), embedding[999_999]) == (0.0, 0.0)


def test_it_shows_its_numbers() -> None:
    assert repr(Embedding.of((1, 2.5))) == "Embedding.of([1.0, 2.5])"
    assert eval(repr(Embedding.of((1, 2.5)))) == (1.0, 2.5)
