"""The dialects, by the kind of vendor that speaks them. Each is imported when it is first asked for."""

from __future__ import annotations

from llm_protocol.dialect import ClientDialect
from llm_protocol.requests import LLMProvider


def client_dialect(kind: LLMProvider) -> ClientDialect:
    """What a deployment of this kind is spoken to with."""
    match kind:
        case LLMProvider.ANTHROPIC:
            from llm_protocol.dialects.anthropic import Anthropic

            return Anthropic()
        case LLMProvider.GEMINI:
            from llm_protocol.dialects.gemini import Gemini

            return Gemini()
        case LLMProvider.COHERE:
            from llm_protocol.dialects.cohere import Cohere

            return Cohere()
        case _:
            from llm_protocol.dialects.openai_chat import CEREBRAS, COMPATIBLE, OPENAI, OpenAIChat

            return OpenAIChat({LLMProvider.OPENAI: OPENAI, LLMProvider.CEREBRAS: CEREBRAS}.get(kind, COMPATIBLE))


def accepts_prefill(kind: LLMProvider, model: str) -> bool:
    """Whether ``model`` goes on with a text when the conversation ends in a piece of its answer."""
    match kind:
        case LLMProvider.ANTHROPIC:
            from llm_protocol.dialects.anthropic import accepts_prefill as accepted

            return accepted(model)
        case LLMProvider.LOCAL:
            return True  # llama.cpp's server does
        case _:
            return False
