"""What the tests of the parameter table send: each row as a client of each wire says it."""

from __future__ import annotations

from typing import Any

from llm_protocol.parameters.requested import CANONICAL, with_value
from llm_protocol.parameters.rows import Parameter
from llm_protocol.parameters.table import ROWS

MODELS = {"anthropic": "claude-sonnet-4-5", "gemini": "gemini-2.5-flash", "cohere": "command-a-reasoning-08-2025"}
"""By target: models that take what their vendor takes. Elsewhere any will do."""

HI = [{"role": "user", "content": "hi"}]
PLACES: dict[str, tuple[str, dict[str, Any]]] = {
    "openai_chat": ("/v1/chat/completions", {"messages": HI}),
    "openai_responses": ("/v1/responses", {"input": "hi"}),
    "anthropic": ("/v1/messages", {"max_tokens": 50_000, "messages": HI}),
    "gemini": ("/v1beta/models/{model}:generateContent", {"contents": [{"parts": [{"text": "hi"}]}]}),
    "cohere": ("/v2/chat", {"messages": HI}),
}
"""By wire: the path of a chat, and a body that asks for nothing."""

ELSEWHERE = {
    *("n", "best_of", "echo"),  # several answers: tests/server/test_choices.py
    "allowedFunctionNames",  # about tools
    "generationConfig.thinkingConfig.thinkingBudget",  # -1 asks for nothing
    "stream_options",  # about streams
    "user",  # stands for safety_identifier where that is not said
}
OWN = [row for row in ROWS if row.field is None and row.name not in ELSEWHERE]
"""Rows of fields that travel under ``extra``."""
COMMON = [row for row in CANONICAL if row.name != "parallel_tool_calls"]
"""Rows of common parameters; the other is about tools."""


def body_with(wire: str, path: str, value: Any) -> dict[str, Any]:
    """The body of a chat in which a client of ``wire`` says ``value`` at ``path``."""
    return with_value(PLACES[wire][1], path, list(value) if isinstance(value, tuple) else value)


def common_body(row: Parameter) -> tuple[str, dict[str, Any]]:
    """The first wire that has a common parameter, and a body with it."""
    if row.name == "reasoning_budget":
        return "anthropic", body_with("anthropic", "thinking", {"type": "enabled", "budget_tokens": 10_000})
    wire = next(iter(row.wires))
    return wire, body_with(wire, row.wires[wire], row.example)
