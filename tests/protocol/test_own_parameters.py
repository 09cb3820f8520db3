"""What ``extra`` says under a wire's own name is the parameter: nothing is said twice, or against an API version."""

from __future__ import annotations

import json
from typing import Any

import pytest

from llm_protocol.content import Message
from llm_protocol.dialect import ClientDialect
from llm_protocol.errors import BadRequestError
from llm_protocol.parameters.requested import NAMES, with_own_parameters
from llm_protocol.requests import ChatRequest, EmbeddingRequest, Parameters
from llm_protocol.wires import DIALECTS
from llm_protocol.wires.anthropic import Anthropic
from llm_protocol.wires.cohere import Cohere
from llm_protocol.wires.gemini import Gemini
from llm_protocol.wires.openai_chat import CEREBRAS, OPENAI, OpenAIChat
from llm_protocol.wires.responses import OpenAIResponses

CLIENTS: dict[str, ClientDialect] = {
    "openai_chat": OpenAIChat(OPENAI),
    "cerebras": OpenAIChat(CEREBRAS),
    "openai_responses": OpenAIResponses(),
    "anthropic": Anthropic(),
    "gemini": Gemini(),
    "cohere": Cohere(),
}


def sent(dialect: str, extra: dict[str, Any], **parameters: Any) -> tuple[Any, dict[str, str]]:
    asked = Parameters(extra={dialect: extra}, **parameters)
    request = ChatRequest(model="m", messages=(Message.of("user", "hi"),), parameters=asked)
    wire = CLIENTS[dialect].encode_request(with_own_parameters(request, dialect), stream=False)
    return json.loads(wire.body), dict(wire.headers)


def test_every_dialect_is_a_key_that_extra_may_have() -> None:
    assert set(DIALECTS) == {client.name for client in CLIENTS.values()}
    assert NAMES.keys() < set(DIALECTS)


@pytest.mark.parametrize("dialect", ["openai_chat", "cerebras"])
def test_there_is_one_cap_for_the_answer(dialect: str) -> None:
    body, _ = sent(dialect, {"max_tokens": 9, "logit_bias": {"1": 2}}, max_output_tokens=5)
    assert (body["max_completion_tokens"], body["logit_bias"]) == (5, {"1": 2})
    assert "max_tokens" not in body
    body, _ = sent(dialect, {"max_tokens": 9})
    assert body["max_completion_tokens"] == 9


def test_sampling_in_extra_goes_out_under_the_version_that_takes_it() -> None:
    body, headers = sent("anthropic", {"top_p": 0.5, "max_tokens": 7, "stop_sequences": ["x"], "container": "c"})
    assert (body["top_p"], body["max_tokens"], body["stop_sequences"], body["container"]) == (0.5, 7, ["x"], "c")
    assert headers["anthropic-version"] == "2023-06-01"


def test_of_a_level_and_a_budget_for_thinking_only_the_parameter_is_said() -> None:
    extra = {"generationConfig": {"thinkingConfig": {"thinkingLevel": "LOW", "includeThoughts": True}, "topK": 5}}
    config = sent("gemini", extra, reasoning_budget=100, top_k=3)[0]["generationConfig"]
    assert config == {"thinkingConfig": {"thinkingBudget": 100, "includeThoughts": True}, "topK": 3}
    config = sent("gemini", extra)[0]["generationConfig"]
    assert config == {"thinkingConfig": {"thinkingLevel": "LOW", "includeThoughts": True}, "topK": 5}


def test_other_names_of_a_parameter_are_the_parameter() -> None:
    assert sent("cohere", {"p": 0.1, "k": 2}, top_p=0.9)[0] | {"messages": 0} == {
        "model": "m",
        "messages": 0,
        "stream": False,
        "p": 0.9,
        "k": 2,
    }
    assert sent("openai_chat", {"stop": "x"})[0]["stop"] == ["x"]
    assert sent("openai_responses", {"temperature": 0.5}, temperature=1.0)[0]["temperature"] == 1.0


def test_a_value_that_the_parameter_cannot_have_is_refused_by_name() -> None:
    with pytest.raises(BadRequestError, match=r"parameters\.extra\.anthropic\.top_p") as caught:
        sent("anthropic", {"top_p": "much"})
    assert caught.value.failure.param == "parameters.extra.anthropic.top_p"


def test_what_is_none_of_it_stays_as_it_is() -> None:
    vectors = EmbeddingRequest(model="m", inputs=("x",), parameters=Parameters(extra={"cohere": {"k": 1}}))
    assert with_own_parameters(vectors, "cohere") is vectors
    chat = ChatRequest(
        model="m", messages=(Message.of("user", "hi"),), parameters=Parameters(extra={"openai_chat": {"new": 1}})
    )
    assert with_own_parameters(chat, "openai_chat") is chat
    assert with_own_parameters(chat, "anthropic") is chat
