"""Requests as the model takes them: nearest effort, no sampling where it is refused, tools without reasoning."""

from __future__ import annotations

import json
from typing import Any

import pytest

from llm_protocol.content import Message, Tool, ToolChoice
from llm_protocol.errors import UnsupportedError
from llm_protocol.model_rules import EFFORTS, RULES, nearest_effort
from llm_protocol.requests import ChatRequest, LLMProvider, Parameters
from llm_protocol.wires import client_dialect

OPENAI, ANTHROPIC, COMPATIBLE = LLMProvider.OPENAI, LLMProvider.ANTHROPIC, LLMProvider.OPENAI_COMPATIBLE
TOOLS = (Tool(name="f", parameters={"type": "object"}),)


def sent(
    kind: LLMProvider, model: str, *, tools: bool = False, choice: ToolChoice | None = None, **parameters: Any
) -> Any:
    request = ChatRequest(
        model=model,
        messages=(Message.of("user", "hi"),),
        tools=TOOLS if tools else (),
        tool_choice=choice,
        parameters=Parameters(**parameters),
    )
    return json.loads(client_dialect(kind).encode_request(request, stream=False).body)


def test_the_nearest_effort_is_the_greatest_below_else_the_least() -> None:
    levels = ("low", "medium", "high")
    assert [nearest_effort(each, levels) for each in EFFORTS] == ["low", "low", "low", "medium", "high", "high", "high"]
    assert nearest_effort("minimal", ("none", "low")) == "none"
    assert nearest_effort("a lot", levels) == "a lot"
    assert nearest_effort("max", ()) == "max"


def test_every_effort_of_every_rule_is_a_word_that_wires_know_in_their_order() -> None:
    for rules in RULES.values():
        for rule in rules:
            assert list(rule.efforts) == sorted(rule.efforts, key=EFFORTS.index)


@pytest.mark.parametrize(
    ("model", "asked", "said"),
    [
        ("gpt-6-astra", "none", "low"),
        ("gpt-6.1-sol", "none", "low"),
        ("gpt-6.1-sol", "max", "xhigh"),
        ("gpt-6-luna", "none", "none"),
        ("gpt-6-luna", "max", "max"),
        ("gpt-5.4", "minimal", "none"),
        ("gpt-5", "minimal", "minimal"),
        ("gpt-5.2", "high", "high"),
    ],
)
def test_openai_is_asked_for_an_effort_that_the_model_has(model: str, asked: str, said: str) -> None:
    assert sent(OPENAI, model, reasoning_effort=asked)["reasoning_effort"] == said
    assert sent(COMPATIBLE, model, reasoning_effort=asked)["reasoning_effort"] == asked, "it may be any model"


@pytest.mark.parametrize(
    ("model", "effort", "goes"),
    [
        ("gpt-6-luna", None, False),
        ("gpt-6-luna", "low", False),
        ("gpt-6-luna", "none", True),
        ("gpt-5.4", None, True),
        ("gpt-5.4", "high", False),
        ("gpt-5.2", None, True),
        ("gpt-5.2", "low", False),
        ("gpt-5-mini", None, False),
        ("o3", None, False),
        ("gpt-4o", None, True),
        ("gpt-5-chat-latest", None, True),
    ],
)
def test_openais_models_take_no_sampling_while_they_reason(model: str, effort: str | None, goes: bool) -> None:
    body = sent(OPENAI, model, reasoning_effort=effort, temperature=0.2, top_p=0.5, seed=1)
    assert ("temperature" in body, "top_p" in body) == (goes, goes)
    assert body["seed"] == 1


@pytest.mark.parametrize(
    ("model", "effort", "said"),
    [
        ("gpt-6-luna", None, "none"),
        ("gpt-5.6-terra", None, "none"),
        ("gpt-5.5", None, "none"),
        ("gpt-6-luna", "high", "high"),
        ("gpt-5.4", None, None),
        ("gpt-6-astra", None, None),
        ("gpt-5.2", None, None),
        ("gpt-5.2", "high", "high"),
    ],
)
def test_tools_on_the_chat_wire_turn_reasoning_off_that_nobody_asked_for(
    model: str, effort: str | None, said: str | None
) -> None:
    """github.com/BerriAI/litellm/pull/34569: refused without an effort, and answered with ``none``."""
    assert sent(OPENAI, model, tools=True, reasoning_effort=effort).get("reasoning_effort") == said


def test_an_effort_among_the_vendors_own_fields_is_not_overruled() -> None:
    own = {"openai_chat": {"reasoning_effort": "low"}}
    assert sent(OPENAI, "gpt-6-luna", tools=True, extra=own)["reasoning_effort"] == "low"


@pytest.mark.parametrize("model", ["claude-opus-5-5", "claude-fable-5-1", "claude-mythos-5-2", "Claude-Opus-5.5"])
@pytest.mark.parametrize("off", [{"reasoning_effort": "none"}, {"reasoning_budget": 0}])
def test_a_claude_that_always_thinks_is_asked_to_think_little(model: str, off: dict[str, Any]) -> None:
    body = sent(ANTHROPIC, model, **off)
    assert (body["thinking"], body["output_config"]) == ({"type": "adaptive"}, {"effort": "low"})


def test_a_claude_that_need_not_think_does_not() -> None:
    for model in ("claude-opus-5", "claude-sonnet-5-5", "claude-sonnet-5"):
        assert sent(ANTHROPIC, model, reasoning_effort="none")["thinking"] == {"type": "disabled"}


@pytest.mark.parametrize("choice", [ToolChoice("required"), ToolChoice("named", "f")])
def test_a_claude_that_cannot_be_made_to_call_a_tool_is_passed_over(choice: ToolChoice) -> None:
    """The next candidate may; for a lenient caller the model chooses."""
    for model in ("claude-opus-5-5", "claude-sonnet-5-5", "claude-fable-5-1"):
        with pytest.raises(UnsupportedError) as caught:
            sent(ANTHROPIC, model, tools=True, choice=choice)
        assert caught.value.failure.param == "tool_choice"
        assert "tool_choice" not in sent(ANTHROPIC, model, tools=True, choice=choice, lenient=True)
        assert sent(ANTHROPIC, model, tools=True, choice=ToolChoice("none"))["tool_choice"] == {"type": "none"}
    assert "tool_choice" in sent(ANTHROPIC, "claude-sonnet-5", tools=True, choice=choice)
