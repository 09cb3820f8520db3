"""Which wire a client speaks: by the path, and where several wires share one, by what its SDK says in headers."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from functools import cache
from typing import NamedTuple

from llm_protocol.dialect import ServerDialect
from llm_runtime.server.http_error import Shape, anthropic_shape, cohere_shape, gemini_shape, openai_shape


@cache
def openai() -> ServerDialect:
    """OpenAI's chat completions, with completions, embeddings and images."""
    from llm_protocol.wires.openai_chat import OpenAIChatServer

    return OpenAIChatServer()


@cache
def anthropic() -> ServerDialect:
    """Anthropic's messages."""
    from llm_protocol.wires.anthropic import AnthropicServer

    return AnthropicServer()


@cache
def gemini() -> ServerDialect:
    """Gemini's generateContent and its relatives."""
    from llm_protocol.wires.gemini import GeminiServer

    return GeminiServer()


@cache
def cohere() -> ServerDialect:
    """Cohere's chat and embed."""
    from llm_protocol.wires.cohere import CohereServer

    return CohereServer()


class ClientWire(NamedTuple):
    """``shape`` is that of the server's own refusals; ``dialect`` is loaded on its first use."""

    dialect: Callable[[], ServerDialect]
    shape: Shape


OPENAI = ClientWire(openai, openai_shape)
ANTHROPIC = ClientWire(anthropic, anthropic_shape)
GEMINI = ClientWire(gemini, gemini_shape)
COHERE = ClientWire(cohere, cohere_shape)

_PREFIXES = {
    "/v1beta": GEMINI,
    "/v2/": COHERE,
    "/v1/messages": ANTHROPIC,
    "/v1/embed": COHERE,
    "/v1/chat/": OPENAI,
    "/v1/embeddings": OPENAI,
    "/v1/responses": OPENAI,
}
"""The longest that fits counts."""

_GEMINI_METHOD = re.compile(r":(?:generate|streamGenerate|embed|batchEmbed|count)[A-Z][A-Za-z]*$")
"""What Google's clients call; a colon alone may be part of a model's name."""

_SORTED = sorted(_PREFIXES, key=len, reverse=True)


def wire_of(path: str, headers: Mapping[str, str]) -> ClientWire:
    """The wire in which a request is answered, also one that is refused."""
    for prefix in _SORTED:
        if path.startswith(prefix):
            return _PREFIXES[prefix]
    if path.startswith("/v1/models/") and _GEMINI_METHOD.search(path):
        return GEMINI
    if "anthropic-version" in headers:
        return ANTHROPIC
    if "x-goog-api-key" in headers or "x-goog-api-client" in headers:
        return GEMINI
    agents = headers.get("user-agent", ""), headers.get("x-fern-sdk-name", ""), headers.get("x-client-name", "")
    if any(each.lower().startswith("cohere") for each in agents):
        return COHERE
    return OPENAI
