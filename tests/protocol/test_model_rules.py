"""Requests as the model takes them: nearest effort, no sampling where it is refused, tools without reasoning."""

from __future__ import annotations

import ast
import json
import re
from typing import Any

import msgspec
import pytest

from llm_protocol import model_rules
from llm_protocol.content import Message, Tool, ToolChoice
from llm_protocol.errors import UnsupportedError
from llm_protocol.model_facts import EFFORTS, Capabilities, ModelRule, nearest_effort
from llm_protocol.model_rules import ModelRules, rule_of, short_name
from llm_protocol.model_table import ROWS
from llm_protocol.requests import ChatRequest, LLMProvider, Parameters
from llm_protocol.vendors import VENDORS
from support.adapting import encoded
from support.generated import ROOT

OPENAI, ANTHROPIC, COMPATIBLE = LLMProvider.OPENAI, LLMProvider.ANTHROPIC, LLMProvider.OPENAI_COMPATIBLE
GEMINI = LLMProvider.GEMINI
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
    return json.loads(encoded(VENDORS[kind].client(), request, stream=False).body)


def test_the_nearest_effort_is_the_greatest_below_else_the_least() -> None:
    levels = ("low", "medium", "high")
    assert [nearest_effort(each, levels) for each in EFFORTS] == ["low", "low", "low", "medium", "high", "high", "high"]
    assert nearest_effort("minimal", ("none", "low")) == "none"
    assert nearest_effort("a lot", levels) == "a lot"
    assert nearest_effort("max", ()) == "max"


def test_every_effort_of_every_rule_is_a_word_that_wires_know_in_their_order() -> None:
    for rows in ROWS.values():
        for _, rule in rows:
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
    for model, off, most in (
        ("claude-opus-5", "disabled", "high"),
        ("claude-sonnet-5-5", "between_tools", "high"),
        ("claude-sonnet-5", "disabled", "max"),
    ):
        assert sent(ANTHROPIC, model, reasoning_effort="none")["thinking"] == {"type": off}
        both = sent(ANTHROPIC, model, reasoning_budget=0, reasoning_effort="max")
        assert (both["thinking"], both["output_config"]["effort"]) == ({"type": off}, most)


@pytest.mark.parametrize("choice", [ToolChoice("required"), ToolChoice("named", "f")])
def test_a_claude_that_cannot_be_made_to_call_a_tool_is_passed_over(choice: ToolChoice) -> None:
    """The next candidate may."""
    for model in ("claude-opus-5-5", "claude-sonnet-5-5", "claude-fable-5-1"):
        with pytest.raises(UnsupportedError) as caught:
            sent(ANTHROPIC, model, tools=True, choice=choice)
        assert caught.value.failure.param == "tool_choice"
        assert sent(ANTHROPIC, model, tools=True, choice=ToolChoice("none"))["tool_choice"] == {"type": "none"}
    assert "tool_choice" in sent(ANTHROPIC, "claude-sonnet-5", tools=True, choice=choice)


# ---------------------------------------------------------------- the layers


def test_the_table_says_the_same_fields_as_its_overlays() -> None:
    def names(struct: type[msgspec.Struct]) -> list[str]:
        return [field.name for field in msgspec.structs.fields(struct)]

    assert names(Capabilities) == names(ModelRule)


def test_the_configuration_wins_over_the_list_and_the_list_over_the_table_field_by_field() -> None:
    rules = ModelRules(
        OPENAI,
        {
            "gpt-6-lu*": Capabilities(forced_tools=False, context_window=1_000),
            "gpt-*": Capabilities(context_window=9, stop=False),
        },
    )
    table = rules.of("gpt-6-sol")
    assert (table.forced_tools, table.stop, table.context_window) == (True, False, 9)
    luna = rules.of("gpt-6-luna")
    assert (luna.forced_tools, luna.stop, luna.context_window, luna.default_effort) == (False, False, 1_000, "medium")
    rules.learn({"gpt-6-luna": Capabilities(context_window=7, max_output_tokens=5, vision=False)})
    luna = rules.of("gpt-6-luna")
    assert (luna.context_window, luna.max_output_tokens, luna.vision) == (1_000, 5, False)
    rules.learn({})
    assert rules.of("gpt-6-luna").max_output_tokens == 128_000


@pytest.mark.parametrize(
    ("model", "short"),
    [
        ("models/gemini-3.8-flash", "gemini-3.8-flash"),
        ("ft:gpt-4.1-mini-2025-04-14:acme::x1", "gpt-4.1-mini-2025-04-14"),
        ("us.anthropic.claude-opus-4-1-v1:0", "claude-opus-4-1-v1:0"),
        ("anthropic/claude-opus-4.6", "claude-opus-4-6"),
        ("GPT-5", "gpt-5"),
        ("", ""),
    ],
)
def test_what_stands_around_a_name_does_not_matter(model: str, short: str) -> None:
    assert short_name(model) == short


def test_what_no_layer_knows_takes_everything() -> None:
    assert ModelRules(COMPATIBLE).of("gpt-6-luna") == ModelRule()
    assert ModelRules(OPENAI).of("davinci-002") == ModelRule()


def test_what_is_remembered_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(model_rules, "MAX_REMEMBERED", 3)
    rules = ModelRules(OPENAI)
    for at in range(10):
        rules.of(f"m{at}")
    assert len(rules._remembered) <= 3


def test_efforts_that_are_not_in_order_are_refused() -> None:
    for wrong in (("high", "low"), ("low", "low")):
        with pytest.raises(ValueError, match="in the order none, minimal"):
            Capabilities(efforts=wrong)


FACTS: list[tuple[LLMProvider, str, dict[str, Any]]] = [
    # developers.openai.com/api/docs/guides/deployment-checklist
    (
        OPENAI,
        "gpt-6-astra",
        {"wire": "responses_if_tools", "sampling": "without_reasoning", "can_stop_thinking": False},
    ),
    (OPENAI, "gpt-6-luna", {"wire": "responses_if_tools_and_reasoning", "can_stop_thinking": True}),
    (OPENAI, "gpt-5-codex", {"wire": "responses"}),
    (OPENAI, "gpt-5.3-codex-2026-02-01", {"wire": "responses"}),
    (OPENAI, "gpt-5.4-pro", {"wire": "responses", "efforts": ("medium", "high", "xhigh")}),
    (OPENAI, "gpt-5-mini", {"wire": "any", "sampling": "never", "stop": False, "context_window": 400_000}),
    (OPENAI, "gpt-5-chat-latest", {"thinking": (), "sampling": "always", "stop": True}),
    (OPENAI, "gpt-4o-mini", {"thinking": (), "vision": True, "max_output_tokens": 16_384}),
    (OPENAI, "gpt-audio-2", {"audio": True, "vision": False}),
    (OPENAI, "o3", {"sampling": "never", "stop": False, "context_window": 200_000}),
    (OPENAI, "gpt-3.5-turbo", {"vision": False, "context_window": 16_385}),
    # platform.claude.com/docs/en/models
    (ANTHROPIC, "claude-opus-5-5", {"can_stop_thinking": False, "forced_tools": False, "default_effort": "medium"}),
    (ANTHROPIC, "claude-fable-5-2", {"can_stop_thinking": False, "forced_tools": False, "replay": "same_model"}),
    (ANTHROPIC, "claude-fable-5", {"can_stop_thinking": False, "forced_tools": True}),
    (ANTHROPIC, "claude-sonnet-5-5", {"thinking_off": "between_tools", "forced_tools": False, "mid_system": True}),
    (ANTHROPIC, "claude-haiku-5-5", {"prefill": False, "sampling": "never", "default_effort": "medium"}),
    (ANTHROPIC, "claude-opus-5", {"thinking_off": "disabled", "thinking_off_up_to": "high"}),
    (ANTHROPIC, "claude-sonnet-5-20260630", {"mid_system": False, "forced_tools": True}),
    (ANTHROPIC, "claude-haiku-4-5-20251001", {"thinking": ("budget",), "max_output_tokens": 64_000, "prefill": True}),
    # ai.google.dev/gemini-api/docs/thinking
    (GEMINI, "gemini-4-hydrogen", {"efforts": ("low", "medium", "high", "xhigh"), "audio": True}),
    (GEMINI, "gemini-3.8-flash", {"efforts": ("low", "medium", "high"), "signed_calls": True}),
    (GEMINI, "gemini-3.5-flash-lite", {"efforts": ("minimal", "low", "medium", "high")}),
    (GEMINI, "models/gemini-2.5-pro", {"thinking": ("budget",), "signed_calls": False}),
    # docs.cohere.com/docs/models, inference-docs.cerebras.ai/models
    (LLMProvider.COHERE, "command-a-reasoning-08-2025", {"thinking": ("budget",), "context_window": 256_000}),
    (LLMProvider.COHERE, "command-a-03-2025", {"thinking": (), "vision": False}),
    (LLMProvider.COHERE, "command-a-vision-07-2025", {"vision": True}),
    (LLMProvider.CEREBRAS, "qwen-3.8-27b", {"efforts": ("none", "low", "medium", "high"), "default_effort": "high"}),
    (LLMProvider.LOCAL, "smollm2", {"prefill": True, "thinking": ()}),
]


@pytest.mark.parametrize(("vendor", "model", "facts"), FACTS, ids=[model for _, model, _ in FACTS])
def test_the_table_says_what_the_vendors_pages_say(vendor: LLMProvider, model: str, facts: dict[str, Any]) -> None:
    rule = rule_of(vendor, model)
    assert {name: getattr(rule, name) for name in facts} == facts


def test_an_effort_for_a_model_that_does_not_think_is_left_out() -> None:
    """It would be refused, and less than nothing cannot be thought."""
    assert "reasoning_effort" not in sent(OPENAI, "gpt-4o", reasoning_effort="high")
    assert "thinking" not in sent(LLMProvider.COHERE, "command-a-03-2025", reasoning_effort="high")
    assert sent(LLMProvider.COHERE, "command-a-reasoning-08-2025", reasoning_effort="low")["thinking"] == {
        "type": "enabled",
        "token_budget": 1_024,
    }
    assert sent(LLMProvider.CEREBRAS, "gpt-oss-120b", reasoning_effort="none")["reasoning_effort"] == "low"


def test_the_rules_of_a_provider_reach_its_dialect() -> None:
    asked = Parameters(reasoning_effort="max")
    request = ChatRequest(model="own", messages=(Message.of("user", "hi"),), parameters=asked)
    for kind in LLMProvider:
        by_budget = kind is LLMProvider.COHERE
        facts = Capabilities(thinking=("effort",), efforts=("low",), budgets={"max": 4_321} if by_budget else {})
        rules = ModelRules(kind, {"own": facts})
        dialect = VENDORS[kind].client(rules)
        assert dialect.rules is rules
        body = encoded(dialect, request, stream=False).body.decode().lower()
        assert ("4321" if by_budget else '"low"') in body


# ---------------------------------------------------------------- no name of a model elsewhere

TABLES = {"model_table.py", "vendors.py", "preferences.py", "lifecycle.py"}
"""Data: what the names of models mean."""

FAMILIES = re.compile(
    r"\b(gpt-|claude-|gemini-[\d.]|gemma-|command-[ar]\b|qwen|grok-|llama-\d|mistral-|sonnet|opus-|haiku|dall-e)|\bo(\d|\\d)\b"
)


def test_no_code_but_the_tables_tests_the_name_of_a_model() -> None:
    """A word for a family of models in a string that is no docstring, or a model compared with a part of its name."""
    found = []
    for path in (ROOT / folder for folder in ("protocol", "actors", "runtime")):
        for file in path.rglob("*.py"):
            if file.name not in TABLES:
                found += [f"{file.relative_to(ROOT)}:{line}" for line in _names_of_models(ast.parse(file.read_text()))]
    assert found == []


def _names_of_models(tree: ast.Module) -> list[int]:
    docstrings = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    found = []
    for node in ast.walk(tree):
        match node:
            case ast.Constant(value=str(text)):
                is_one = id(node) not in docstrings and FAMILIES.search(text) is not None
            case ast.Compare(ops=[ast.In() | ast.NotIn()], left=ast.Constant(), comparators=[ast.Attribute(attr=name)]):
                is_one = name == "model"
            case ast.Call(func=ast.Attribute(attr="startswith" | "endswith", value=ast.Attribute(attr=name))):
                is_one = name == "model"
            case _:
                is_one = False
        if is_one:
            found.append(getattr(node, "lineno", 0))
    return found


def test_the_search_for_names_of_models_finds_them() -> None:
    for bad in (
        'x = m.startswith("gpt-5")',
        'x = "image" in request.model',
        "request.model.startswith(x)",
        'y = r"(o\\d|codex)"',
    ):
        assert _names_of_models(ast.parse(bad)) == [1], bad
    assert _names_of_models(ast.parse('"""like gpt-5"""\nx = y in request.model')) == []
