"""The wires by name. The wire of each vendor is a column of `llm_protocol.vendors`. The code of a wire is imported when
it is first used.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, NamedTuple

from llm_protocol.dialect import ClientDialect, ServerDialect
from llm_protocol.model_rules import ModelRules
from llm_protocol.vendor_profile import VendorProfile


class WireFormat(NamedTuple):
    """An HTTP API format. ``client`` and ``server`` return its two sides, adapted to a vendor's profile if several
    vendors use the wire.
    """

    name: str
    client: Callable[[VendorProfile, ModelRules], ClientDialect]
    server: Callable[[VendorProfile], ServerDialect]
    versioned_paths: bool = False
    """Whether every path begins with a version, so that a base URL must not end in one."""


def _openai_chat_client(profile: VendorProfile, rules: ModelRules) -> ClientDialect:
    from llm_protocol.wires.openai_chat import OpenAIChat

    return OpenAIChat(profile, rules)


def _openai_chat_server(profile: VendorProfile) -> ServerDialect:
    from llm_protocol.wires.openai_chat import OpenAIChatServer

    return OpenAIChatServer(profile)


def _responses_client(profile: VendorProfile, rules: ModelRules) -> ClientDialect:
    from llm_protocol.wires.responses import OpenAIResponses

    return OpenAIResponses(profile, rules)


def _responses_server(_: VendorProfile) -> ServerDialect:
    from llm_protocol.wires.responses import OpenAIResponsesServer

    return OpenAIResponsesServer()


def _anthropic_client(profile: VendorProfile, rules: ModelRules) -> ClientDialect:
    from llm_protocol.wires.anthropic import Anthropic

    return Anthropic(rules, profile.api_version)


def _anthropic_server(_: VendorProfile) -> ServerDialect:
    from llm_protocol.wires.anthropic import AnthropicServer

    return AnthropicServer()


def _gemini_client(_: VendorProfile, rules: ModelRules) -> ClientDialect:
    from llm_protocol.wires.gemini import Gemini

    return Gemini(rules)


def _gemini_server(_: VendorProfile) -> ServerDialect:
    from llm_protocol.wires.gemini import GeminiServer

    return GeminiServer()


def _cohere_client(_: VendorProfile, rules: ModelRules) -> ClientDialect:
    from llm_protocol.wires.cohere import Cohere

    return Cohere(rules)


def _cohere_server(_: VendorProfile) -> ServerDialect:
    from llm_protocol.wires.cohere import CohereServer

    return CohereServer()


DIALECTS: Final = ("openai_chat", "openai_responses", "anthropic", "gemini", "cohere", "cerebras")
"""The names of the dialects that are shipped: the keys of ``Parameters.extra``."""

OPENAI_CHAT: Final = WireFormat("openai_chat", _openai_chat_client, _openai_chat_server)
RESPONSES: Final = WireFormat("responses", _responses_client, _responses_server)
ANTHROPIC: Final = WireFormat("anthropic", _anthropic_client, _anthropic_server, versioned_paths=True)
GEMINI: Final = WireFormat("gemini", _gemini_client, _gemini_server, versioned_paths=True)
COHERE: Final = WireFormat("cohere", _cohere_client, _cohere_server, versioned_paths=True)
