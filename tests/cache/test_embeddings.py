"""Embeddings are cached per input, and vectors of two models never meet in one answer."""

from __future__ import annotations

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from llm_actors.cache.embeddings import embedded, embedding_keys, merge_embedding, split_embedding
from llm_actors.cache.entry import storable
from llm_actors.cache.key import CacheKey, Target
from llm_protocol.embedding import Embedding
from llm_protocol.policy import Policy
from llm_protocol.requests import EmbeddingRequest
from llm_protocol.response import LLMResponse, Usage
from support.caching import answer

TARGETS = (Target("openai", "e", "openai_chat", 1),)
POLICY = Policy()


def ask(*inputs: str) -> EmbeddingRequest:
    return EmbeddingRequest(inputs=inputs, model="openai/e")


def vector(text: str) -> Embedding:
    return Embedding.of((len(text), sum(text.encode())))


def reply(request: EmbeddingRequest, model: str = "e") -> LLMResponse:
    vectors = tuple(vector(str(each)) for each in request.inputs)
    return msgspec.structs.replace(answer(""), model=model, embeddings=vectors, usage=Usage(input_tokens=len(vectors)))


def keep(request: EmbeddingRequest, model: str = "e") -> dict[CacheKey, LLMResponse]:
    return dict(embedded(request, reply(request, model), TARGETS, POLICY))


def find(request: EmbeddingRequest, kept: dict[CacheKey, LLMResponse]) -> list[LLMResponse | None]:
    keys = embedding_keys(request, TARGETS, POLICY)
    assert keys is not None
    return [kept.get(key) for key in keys]


texts = st.lists(st.sampled_from(["a", "bb", "ccc", "dd", "e", "ff"]), min_size=1, max_size=8)


@given(texts, texts)
def test_the_whole_is_what_the_vendor_would_have_said(first: list[str], then: list[str]) -> None:
    """Whatever was asked before, each input has its vector in its place; what is known or repeated is not asked for."""
    request = ask(*then)
    split = split_embedding(request, find(request, keep(ask(*first))))
    asked = split.missing.inputs if split.missing else ()
    assert sorted(asked) == sorted(set(then) - set(first))
    whole = merge_embedding(request, split, reply(split.missing) if split.missing else None)
    assert whole is not None
    assert whole.embeddings == tuple(vector(text) for text in then)
    assert whole.usage is not None
    assert whole.usage.input_tokens == len(asked)
    assert (whole.cost == 0.0) is (not asked)


def test_what_is_stored_per_input_is_complete() -> None:
    kept = keep(ask("a", "bb"))
    assert len(kept) == 2
    assert all(storable(each) and each.usage is None for each in kept.values())


def test_another_model_answers_the_rest_and_nothing_is_mixed() -> None:
    request = ask("a", "bb")
    split = split_embedding(request, find(request, keep(ask("a"))))
    assert split.missing is not None
    assert merge_embedding(request, split, reply(split.missing, model="other")) is None


def test_what_is_known_from_two_models_is_known_from_the_first_alone() -> None:
    request = ask("a", "bb", "ccc")
    kept = keep(ask("a", "ccc")) | keep(ask("bb"), model="other")
    split = split_embedding(request, find(request, kept))
    assert split.missing is not None
    assert split.missing.inputs == ("bb",)


def test_an_answer_with_too_few_vectors_is_neither_merged_nor_stored() -> None:
    request = ask("a", "bb")
    short = msgspec.structs.replace(reply(request), embeddings=(vector("a"),))
    assert merge_embedding(request, split_embedding(request, [None, None]), short) is None
    assert list(embedded(request, short, TARGETS, POLICY)) == []


def test_of_no_inputs_nothing_is_known() -> None:
    """What is wrong with such a request is the vendor's to say."""
    request = ask()
    assert split_embedding(request, []).missing == request


def test_dimensions_are_part_of_each_key() -> None:
    one, other = ask("a"), msgspec.structs.replace(ask("a"), dimensions=8)
    assert embedding_keys(one, TARGETS, POLICY) != embedding_keys(other, TARGETS, POLICY)
    assert embedding_keys(msgspec.structs.replace(one, context={"odd": 2**70}), TARGETS, POLICY) is None
