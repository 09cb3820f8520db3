"""Recognise a client's wire from the path. If several wires share the path, the headers of the client's SDK decide."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
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

_PREFIXES = {
    "/v1beta": GEMINI,
    "/v2/": COHERE,
    "/v1/messages": ANTHROPIC,
    "/v1/embed": COHERE,
    "/v1/chat/": OPENAI,
    "/v1/completions": OPENAI,
    "/v1/embeddings": OPENAI,
    "/v1/images/": OPENAI,
    "/v1/code/": OPENAI,
    "/v1/responses": OPENAI,
}
"""The wires of paths, by the beginning of the path. The longest matching beginning decides."""

_GEMINI_METHOD = re.compile(r":(?:generate|streamGenerate|embed|batchEmbed|count)[A-Z][A-Za-z]*$")
"""The end of a path of Google's clients. Only known methods match, because a colon alone may be part of a model name.
"""

_CEREBRAS_AGENT = re.compile(r"(?:Async)?Cerebras/")
"""The beginning of the User-Agent of Cerebras' SDK."""

_SORTED = sorted(_PREFIXES, key=len, reverse=True)


def wire_of(path: str, headers: Mapping[str, str]) -> ClientWire:
    """The wire of the response to a request, including an error response."""
    for prefix in _SORTED:
        if path.startswith(prefix):
            found = _PREFIXES[prefix]
            return CEREBRAS if found is OPENAI and _CEREBRAS_AGENT.match(headers.get("user-agent", "")) else found
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
