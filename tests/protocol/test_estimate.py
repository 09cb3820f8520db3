"""Guessing tokens before a request is sent, and learning from what was reported."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llm_protocol import estimate as module
from llm_protocol.content import (
    Image,
    Message,
    Opaque,
    Part,
    Reasoning,
    ResponseFormat,
    Text,
    Tool,
    ToolCall,
    ToolResult,
)
from llm_protocol.estimate import Estimate, TokenEstimator, parts_length, request_length, text_length
from llm_protocol.requests import (
    AnyRequest,
    ChatRequest,
    CodeFile,
    CodeRequest,
    CompletionRequest,
    EmbeddingRequest,
    ImageRequest,
    Parameters,
)
from llm_protocol.response import Usage
from support.conversations import conversations


def chat(text: str, **fields: int) -> ChatRequest:
    return ChatRequest(messages=(Message.of("user", text),), parameters=Parameters(**fields))  # type: ignore[arg-type]


def test_english_is_four_characters_a_token_and_chinese_one() -> None:
    assert text_length("word" * 100) == 100
    assert text_length("字" * 100) == 100
    assert text_length("word字") == 2
    assert text_length("") == 0
    assert text_length("\ud800") > 0


def test_everything_in_a_conversation_counts() -> None:
    parts: list[tuple[Part, float]] = [
        (Text("x" * 40), 10),
        (Image(data=b"x"), module.IMAGE_TOKENS),
        (Image(url="u", detail="low"), module.LOW_DETAIL_TOKENS),
        (ToolCall(id="i", name="f" * 4, arguments="x" * 8), module.TOOL_TOKENS + 3),
        (ToolResult(call_id="i", content=(Text("x" * 4),)), module.TOOL_TOKENS + 1),
        (Reasoning(text="x" * 4, encrypted="y" * 4), 2),
        (Opaque(dialect="d", value={}), module.TOOL_TOKENS + 0.5),
    ]
    for part, tokens in parts:
        assert parts_length([part]) == tokens
    plain = chat("hi")
    tools = ChatRequest(messages=plain.messages, tools=(Tool(name="f", description="x" * 400),))
    schema = ChatRequest(messages=plain.messages, response_format=ResponseFormat(type="json"))
    assert request_length(tools) > request_length(plain) + 100
    assert request_length(schema) > request_length(plain)


@pytest.mark.parametrize(
    "request_",
    [
        CompletionRequest(prompt="x" * 400, suffix="y" * 400),
        EmbeddingRequest(inputs=("x" * 400, "y" * 400)),
        ImageRequest(prompt="x" * 800),
        CodeRequest(instruction="x" * 200, prefix="y" * 200, files=(CodeFile("p" * 200, "c" * 200),)),
    ],
    ids=lambda request: request.request_type,
)
def test_every_type_of_request_has_a_length(request_: AnyRequest) -> None:
    assert request_length(request_) == 200 + module.MESSAGE_TOKENS


def test_output_is_bounded_by_what_the_request_allows() -> None:
    estimator = TokenEstimator()
    assert estimator.estimate("m", chat("hi")).output_tokens == module.DEFAULT_OUTPUT_TOKENS
    assert estimator.estimate("m", chat("hi", max_output_tokens=7)).output_tokens == 7
    assert estimator.estimate("m", EmbeddingRequest(inputs=("a",))).output_tokens == 0
    assert estimator.estimate("m", ImageRequest(prompt="a", n=2)).output_tokens == 2 * module.PICTURE_OUTPUT_TOKENS


@given(ratio=st.floats(0.3, 3.5), lengths=st.lists(st.integers(100, 20_000), min_size=40, max_size=60))
@settings(max_examples=30)
def test_a_model_that_counts_otherwise_is_learnt(ratio: float, lengths: list[int]) -> None:
    """After some answers the guess is within a few per cent, for this model only."""
    estimator = TokenEstimator()
    request = chat("word" * 5_000)
    for length in lengths:
        estimator.learn("m", Estimate(0, 0, length), Usage(input_tokens=round(length * ratio), output_tokens=80))
    guess = estimator.estimate("m", request)
    assert guess.input_tokens == pytest.approx(guess.length * ratio, rel=0.1)
    assert guess.output_tokens == 80
    assert estimator.estimate("other", request).input_tokens == guess.length


def test_one_small_answer_does_not_swing_the_guess() -> None:
    estimator = TokenEstimator()
    estimator.learn("m", Estimate(5, 0, 5), Usage(input_tokens=50))
    assert estimator.statistics()["m"] < 1.2


def test_experience_moves_a_guess_only_so_far() -> None:
    estimator = TokenEstimator()
    for _ in range(100):
        estimator.learn("much", Estimate(0, 0, 1), Usage(input_tokens=10**9))
        estimator.learn("little", Estimate(0, 0, 10**9), Usage(input_tokens=1))
    assert estimator.statistics() == {"much": module.MAX_RATIO, "little": module.MIN_RATIO}


@pytest.mark.parametrize("usage", [Usage(input_tokens=10**6, estimated=True), Usage(output_tokens=5)])
def test_a_guess_and_a_missing_count_teach_nothing(usage: Usage) -> None:
    estimator = TokenEstimator()
    estimator.learn("m", Estimate(10, 0, 10), usage)
    assert estimator.statistics() == {}


def test_what_written_text_takes_is_learnt_by_model() -> None:
    estimator = TokenEstimator()
    estimator.learn("m", Estimate(100, 0, 100), Usage(input_tokens=100))
    for _ in range(30):
        estimator.learn_output("m", 100.0, 150)
    assert estimator.output_ratio("m") == pytest.approx(1.5, rel=0.02)
    assert estimator.output_ratio("other") == 1.0


def test_models_are_bounded_and_the_least_used_goes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_MODELS", 2)
    estimator = TokenEstimator()
    for model in ("a", "b", "a", "c"):
        estimator.learn(model, Estimate(10, 0, 10), Usage(input_tokens=10))
    assert set(estimator.statistics()) == {"a", "c"}


@given(messages=conversations())
@settings(max_examples=30)
def test_a_longer_conversation_is_never_guessed_shorter(messages: tuple[Message, ...]) -> None:
    lengths = [request_length(ChatRequest(messages=messages[:at])) for at in range(1, len(messages) + 1)]
    assert lengths == sorted(lengths)
    assert lengths[0] >= 1


def test_what_is_billed_of_a_prompt_is_learnt_beside_what_is_counted() -> None:
    estimator = TokenEstimator()
    request = chat("x" * 400)
    estimate = estimator.estimate("m", request)
    assert estimator.billed_input("m", estimate) is None

    for _ in range(50):  # the vendor counts its own template, and does not bill it
        estimator.learn("m", estimate, Usage(input_tokens=estimate.length + 200, billed_input_tokens=estimate.length))
        estimator.learn("other", estimate, Usage(input_tokens=estimate.length * 2))

    now = estimator.estimate("m", request)
    assert now.input_tokens == pytest.approx(estimate.length + 200, rel=0.05)
    assert estimator.billed_input("m", now) == pytest.approx(estimate.length, rel=0.05)
    assert estimator.billed_input("other", estimate) is None
