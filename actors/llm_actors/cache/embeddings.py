"""Embeddings are cached per input: a request is split into cached inputs and the rest. Pure.

    keys = embedding_keys(request, targets, policy)
    split = split_embedding(request, await lookup_all(cache, keys))
    if split.missing is not None:
        answer = …                                      # to the smaller request, `split.missing`
        store_all(cache, embedded(split.missing, answer, targets, policy))
    whole = merge_embedding(request, split, answer)     # None: send the whole request

Embeddings of different models cannot be compared, so a response never combines two models.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import msgspec

from llm_actors.cache.entry import replay
from llm_actors.cache.key import CacheKey, Target, key_of
from llm_protocol.embedding import Embedding
from llm_protocol.policy import Policy
from llm_protocol.requests import EmbeddingInput, EmbeddingRequest
from llm_protocol.response import LLMResponse, Usage


class Split(NamedTuple):
    """The cached part of an embedding request, and a request for the rest (``missing``; ``None`` if everything is
    cached).

    ``known`` are embeddings by input, all made by the model of the response ``example`` (``None``: nothing is
    cached).
    """

    known: dict[EmbeddingInput, Embedding]
    example: LLMResponse | None
    missing: EmbeddingRequest | None


def embedding_keys(request: EmbeddingRequest, targets: Sequence[Target], policy: Policy) -> tuple[CacheKey, ...] | None:
    """Return a key per input, in order; ``None`` if this request is not cached."""
    keys = tuple(
        key
        for text in request.inputs
        if (key := key_of(msgspec.structs.replace(request, inputs=(text,)), targets, policy)) is not None
    )
    return keys if len(keys) == len(request.inputs) else None


def split_embedding(request: EmbeddingRequest, found: Sequence[LLMResponse | None]) -> Split:
    """Split ``request`` into inputs that are cached and inputs that are not. ``found`` has a response or ``None`` for
    each input. Equal inputs are requested once.
    """
    usable = [answer for answer in found if answer is not None and len(answer.embeddings) == 1]
    example = usable[0] if usable else None
    known = {
        text: answer.embeddings[0]
        for text, answer in zip(request.inputs, found, strict=True)
        if answer is not None and example is not None and len(answer.embeddings) == 1 and _same_model(answer, example)
    }
    rest = tuple(dict.fromkeys(text for text in request.inputs if text not in known))
    all_known = request.inputs and not rest  # an empty input is never cached: the vendor refuses it
    return Split(known, example, None if all_known else msgspec.structs.replace(request, inputs=rest))


def merge_embedding(request: EmbeddingRequest, split: Split, answer: LLMResponse | None) -> LLMResponse | None:
    """Return the complete response: the cached embeddings and those of ``answer``, the response to ``split.missing``,
    in the order of the inputs.

    Usage, cost and time are those of ``answer``; without an ``answer`` (everything was cached) they are empty. Returns
    ``None`` if the two do not fit: another model responded, or the number of embeddings is wrong. Then send all of
    ``request``.
    """
    if split.missing is None:
        assert split.example is not None
        whole = replay(msgspec.structs.replace(split.example, usage=Usage()), request)
        return _with_vectors(whole, request, split.known)
    if answer is None or len(answer.embeddings) != len(split.missing.inputs):
        return None
    if split.example is not None and not _same_model(answer, split.example):
        return None
    return _with_vectors(answer, request, split.known | dict(zip(split.missing.inputs, answer.embeddings, strict=True)))


def embedded(
    request: EmbeddingRequest, answer: LLMResponse, targets: Sequence[Target], policy: Policy
) -> Iterator[tuple[CacheKey, LLMResponse]]:
    """Split the response to ``request`` into one response per input, with its key, to be stored. Empty if the number
    of embeddings is not the number of inputs.

    The parts have no usage and no cost, because a vendor counts only the whole.
    """
    keys = embedding_keys(request, targets, policy)
    if keys is None or len(answer.embeddings) != len(keys):
        return
    for key, vector in zip(keys, answer.embeddings, strict=True):
        yield key, msgspec.structs.replace(answer, embeddings=(vector,), usage=None, cost=None)


def _same_model(one: LLMResponse, other: LLMResponse) -> bool:
    return (one.provider, one.model, len(one.embeddings[0])) == (other.provider, other.model, len(other.embeddings[0]))


def _with_vectors(
    answer: LLMResponse, request: EmbeddingRequest, vectors: dict[EmbeddingInput, Embedding]
) -> LLMResponse:
    return msgspec.structs.replace(answer, embeddings=tuple(vectors[text] for text in request.inputs))
