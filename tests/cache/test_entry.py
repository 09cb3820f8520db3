"""Which answers are kept, and what of them."""

from __future__ import annotations

import msgspec
import pytest

from llm_actors.cache.entry import pack, replay, storable, unpack
from llm_protocol.content import Image, Opaque, Reasoning, Refusal, Text, ToolCall
from llm_protocol.embedding import Embedding
from llm_protocol.requests import CompletionRequest
from llm_protocol.response import FinishReason, LLMResponse
from support.caching import answer


@pytest.mark.parametrize("reason", [*FinishReason, None])
def test_only_complete_answers_are_kept(reason: FinishReason | None) -> None:
    """``stop`` and ``tool_calls`` are; ``length``, ``error``, ``content_filter`` and what broke (no reason) are not."""
    assert storable(answer(reason=reason)) is (reason in (FinishReason.STOP, FinishReason.TOOL_CALLS))


def test_an_empty_answer_is_not_kept() -> None:
    assert not storable(answer(""))
    assert storable(msgspec.structs.replace(answer(""), embeddings=(Embedding.of((0.5,)),)))


def test_a_picture_behind_a_url_is_not_kept() -> None:
    """Vendors' URLs expire; a hit would be a dead link."""
    assert storable(msgspec.structs.replace(answer(), output=(Image(data=b"x", media_type="image/png"),)))
    assert not storable(msgspec.structs.replace(answer(), output=(Image(url="https://x.test/1"),)))


def test_what_the_model_said_comes_back_whole() -> None:
    said = msgspec.structs.replace(
        answer(),
        output=(
            Reasoning(text="hm", signature="s", encrypted="e"),
            Text("42 ✓", extra={"gemini": {"n": [1, 2.5, None]}}),
            ToolCall(id="c", name="f", arguments='{"x": 1}'),
            Image(data=b"\0\xff", media_type="image/png"),
            Refusal("no"),
            Opaque(dialect="anthropic", value={"a": {"b": []}}),
        ),
        embeddings=(Embedding.of((0.1, 1e-30)),),
        raw_finish_reason="stop_sequence",
        upstream_id="msg_1",
    )
    value = pack(said)
    assert value is not None
    kept = unpack(value)
    assert kept == msgspec.structs.replace(said, request_id="", response_id="")


def test_what_belongs_to_the_first_asker_is_not_kept() -> None:
    """Ids, metadata and decision record of one request are never shown with another."""
    said = msgspec.structs.replace(answer(), metadata={"case": "mine"}, decision={"attempts": []})
    value = pack(said)
    assert value is not None
    assert b"mine" not in value
    assert said.request_id.encode() not in value
    kept = unpack(value)
    assert kept is not None
    request = CompletionRequest(prompt="x")
    given = replay(kept, request, processing_time_ms=0.5)
    assert (given.request_id, given.metadata, given.decision) == (request.request_id, {}, {})
    assert given.response_id not in ("", said.response_id)
    assert (given.cost, given.usage, given.processing_time_ms) == (0.0, said.usage, 0.5)


def test_who_contributed_to_an_answer_of_several_models_is_kept() -> None:
    member = msgspec.structs.replace(answer("part"), request_id="req_first.1")
    told = [{"request_id": "req_first.1", "outcome": "ok"}]
    said = msgspec.structs.replace(answer(), members=(member,), decision={"members": told, "attempts": []})
    value = pack(said)
    assert value is not None
    kept = unpack(value)
    assert kept is not None
    assert (kept.members, kept.decision) == ((member,), {"members": told})
    pictured = msgspec.structs.replace(member, output=(Image(url="https://x.test/1"),))
    assert not storable(msgspec.structs.replace(said, members=(pictured,)))


@pytest.mark.parametrize("value", [b"", b"\xc1", b"\x80", pack(answer())[:-3], b"\x91" * 100_000])  # type: ignore[index]
def test_other_bytes_are_not_an_answer(value: bytes) -> None:
    assert unpack(value) is None


@pytest.mark.parametrize("odd", ["\ud83d", 2**70, object()])
def test_an_answer_without_canonical_bytes_is_not_packed(odd: object) -> None:
    response: LLMResponse = msgspec.structs.replace(answer(), output=(Opaque(dialect="x", value={"odd": odd}),))
    assert pack(response) is None
