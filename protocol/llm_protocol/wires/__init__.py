"""The dialects, by the kind of vendor that speaks them. Each is imported when it is first asked for."""

from __future__ import annotations

from typing import TYPE_CHECKING

from llm_protocol.dialect import ClientDialect, ServerDialect
from llm_protocol.model_rules import ModelRules
from llm_protocol.requests import LLMProvider

if TYPE_CHECKING:
    from llm_protocol.wires.openai_chat import VendorProfile


def client_dialect(kind: LLMProvider, rules: ModelRules | None = None) -> ClientDialect:
    """What a provider of this kind is spoken to with. ``rules``: what is known of its models beside the table."""
    match kind:
        case LLMProvider.ANTHROPIC:
            from llm_protocol.wires.anthropic import Anthropic

            return Anthropic(rules)
        case LLMProvider.GEMINI:
            from llm_protocol.wires.gemini import Gemini

            return Gemini(rules)
        case LLMProvider.COHERE:
            from llm_protocol.wires.cohere import Cohere

            return Cohere(rules)
        case _:
            from llm_protocol.wires.openai_chat import OpenAIChat

            return OpenAIChat(_quirks(kind), rules)


def server_dialect(kind: LLMProvider) -> ServerDialect:
    """How a vendor of this kind answers; the Responses API beside it is a dialect of its own."""
    match kind:
        case LLMProvider.ANTHROPIC:
            from llm_protocol.wires.anthropic import AnthropicServer

            return AnthropicServer()
        case LLMProvider.GEMINI:
            from llm_protocol.wires.gemini import GeminiServer

            return GeminiServer()
        case LLMProvider.COHERE:
            from llm_protocol.wires.cohere import CohereServer

            return CohereServer()
        case _:
            from llm_protocol.wires.openai_chat import OpenAIChatServer

            return OpenAIChatServer(_quirks(kind))


def _quirks(kind: LLMProvider) -> VendorProfile:
    from llm_protocol.wires.openai_chat import CEREBRAS, COMPATIBLE, LOCAL, OPENAI

    own = {LLMProvider.OPENAI: OPENAI, LLMProvider.CEREBRAS: CEREBRAS, LLMProvider.LOCAL: LOCAL}
    return own.get(kind, COMPATIBLE)
