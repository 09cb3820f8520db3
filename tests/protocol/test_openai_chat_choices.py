"""Several choices of one chat response are what each would be alone."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm_protocol.content import Message, Text
from llm_protocol.dialect import WireResponse
from llm_protocol.errors import UnsupportedError
from llm_protocol.events import Event, Failed, Finished
from llm_protocol.failures import FailureKind
from llm_protocol.fold import Fold, unfold
from llm_protocol.requests import ChatRequest
from llm_protocol.response import FinishReason, LLMResponse, Usage
from llm_protocol.vendor_profile import COMPATIBLE
from llm_protocol.wires.anthropic import Anthropic
from llm_protocol.wires.openai_chat import OpenAIChat

ASK = ChatRequest(model="m", messages=(Message.of("user", "hi"),), n=2)
USAGE = {"prompt_tokens": 3, "completion_tokens": 4, "total_tokens": 7}

DELTAS = st.one_of(
    st.fixed_dictionaries({"content": st.text("abé ", min_size=1, max_size=4)}),
    st.fixed_dictionaries({"reasoning_content": st.text("xy", min_size=1, max_size=3)}),
    st.fixed_dictionaries({"refusal": st.just("no")}),
)
ENDS = st.sampled_from(["stop", "length", "content_filter"])
CHOICE = st.tuples(st.lists(DELTAS, max_size=5), ENDS)


def chunk(index: int, delta: Any = None, finish: str | None = None) -> bytes:
    choice = {"index": index, "delta": delta or {}, "finish_reason": finish}
    return b"data: " + json.dumps({"id": "c", "model": "m", "choices": [choice]}).encode() + b"\n\n"


def pieces(index: int, said: tuple[list[Any], str]) -> list[bytes]:
    return [*(chunk(index, delta) for delta in said[0]), chunk(index, finish=said[1])]


def decoded(request: ChatRequest, parts: list[bytes]) -> list[Event]:
    decoder = OpenAIChat(COMPATIBLE).stream_decoder(request)
    counts = b'data: {"choices": [], "usage": %b}\n\ndata: [DONE]\n\n' % json.dumps(USAGE).encode()
    return [event for part in [*parts, counts] for event in decoder.feed(part)]


def response(events: list[Event]) -> LLMResponse:
    assert isinstance(events[-1], Finished)
    return Fold().add_all(events).response(request_id="r", response_id="i", provider="p", model="m")


def said_in(answer: LLMResponse) -> Any:
    return answer.output, answer.finish_reason, answer.raw_finish_reason


@given(st.data())
def test_interleaved_choices_are_as_if_alone(data: st.DataObject) -> None:
    said = [data.draw(CHOICE), data.draw(CHOICE)]
    left = [pieces(at, each) for at, each in enumerate(said)]
    order: list[bytes] = []
    while left[0] or left[1]:
        at = data.draw(st.sampled_from([at for at in (0, 1) if left[at]]))
        order.append(left[at].pop(0))
    together = response(decoded(ASK, order))
    one = msgspec.structs.replace(ASK, n=1)
    alone = [response(decoded(one, pieces(0, each))) for each in said]
    assert [said_in(each) for each in (together, *together.choices)] == [said_in(each) for each in alone]
    assert together.usage == Usage(input_tokens=3, output_tokens=4)


@given(st.lists(CHOICE, min_size=2, max_size=4))
def test_a_response_with_choices_unfolds_into_itself(said: list[tuple[list[Any], str]]) -> None:
    request = msgspec.structs.replace(ASK, n=len(said))
    before = response(decoded(request, [part for at, each in enumerate(said) for part in pieces(at, each)]))
    after = response(list(unfold(before)))
    assert [said_in(each) for each in (after, *after.choices)] == [said_in(each) for each in (before, *before.choices)]


def test_a_whole_response_whose_choices_are_out_of_order() -> None:
    texts = {1: "two", 0: "one"}
    choices = [
        {"index": at, "message": {"role": "assistant", "content": text}, "finish_reason": "stop"}
        for at, text in texts.items()
    ]
    body = json.dumps({"id": "c", "model": "m", "choices": choices, "usage": USAGE}).encode()
    found = response(OpenAIChat().decode_response(ASK, WireResponse(200, (), body)))
    assert (found.content, found.choices[0].content) == ("one", "two")
    assert found.choices[0].output == (Text("two"),)
    assert found.choices[0].finish_reason is FinishReason.STOP


@pytest.mark.parametrize(
    "body", [b"", chunk(0, finish="stop"), chunk(0, {"content": "a"}) + chunk(1, {"content": "b"})]
)
def test_a_stream_that_ends_before_all_choices_is_truncated(body: bytes) -> None:
    decoder = OpenAIChat(COMPATIBLE).stream_decoder(ASK)
    end = [*decoder.feed(body), *decoder.end()][-1]
    assert isinstance(end, Failed)
    assert (end.failure.kind, end.failure.partial) == (FailureKind.TRUNCATED, b"content" in body)


def test_a_stream_that_is_complete_without_a_choice_is_malformed() -> None:
    end = decoded(ASK, [chunk(0, finish="stop")])[-1]
    assert isinstance(end, Failed)
    assert end.failure.kind is FailureKind.PROTOCOL
    assert "1 of the 2 requested choices" in end.failure.message


def test_a_vendor_that_has_no_choices_is_not_told_of_any() -> None:
    for client in (OpenAIChat(COMPATIBLE), Anthropic()):
        with pytest.raises(UnsupportedError) as refused:
            client.adapt(ASK)
        assert refused.value.failure.param == "n"
