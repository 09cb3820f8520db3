"""The wires that clients speak. `llm_runtime.server.routes` chooses one for each request."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import NamedTuple

from llm_protocol.dialect import ServerDialect
from llm_runtime.server.http_error import Shape, anthropic_shape, cohere_shape, gemini_shape, openai_shape


@cache
def openai() -> ServerDialect:
    """OpenAI's Chat Completions, completions, embeddings and images."""
    from llm_protocol.wires.openai_chat import OpenAIChatServer

    return OpenAIChatServer()


@cache
def cerebras() -> ServerDialect:
    """OpenAI's dialect with the differences that Cerebras' SDK expects: ``reasoning``, tool calls in one piece, a
    fingerprint.
    """
    import msgspec

    from llm_protocol.wires.openai_chat import CEREBRAS as PROFILE
    from llm_protocol.wires.openai_chat import OpenAIChatServer

    return OpenAIChatServer(msgspec.structs.replace(PROFILE, name=openai().name))


@cache
def anthropic() -> ServerDialect:
    """Anthropic's Messages API."""
    from llm_protocol.wires.anthropic import AnthropicServer

    return AnthropicServer()


@cache
def gemini() -> ServerDialect:
    """Gemini's ``generateContent`` and related methods."""
    from llm_protocol.wires.gemini import GeminiServer

    return GeminiServer()


@cache
def cohere() -> ServerDialect:
    """Cohere's chat and embed endpoints."""
    from llm_protocol.wires.cohere import CohereServer

    return CohereServer()


class ClientWire(NamedTuple):
    """A wire. ``shape`` encodes the server's own errors; ``dialect`` is imported on first use."""

    dialect: Callable[[], ServerDialect]
    shape: Shape


OPENAI = ClientWire(openai, openai_shape)
CEREBRAS = ClientWire(cerebras, openai_shape)
ANTHROPIC = ClientWire(anthropic, anthropic_shape)
GEMINI = ClientWire(gemini, gemini_shape)
COHERE = ClientWire(cohere, cohere_shape)
