"""Anthropic's Messages API, in both directions."""

from llm_protocol.dialects.anthropic.capabilities import accepts_prefill
from llm_protocol.dialects.anthropic.client import Anthropic
from llm_protocol.dialects.anthropic.server import AnthropicServer

__all__ = ["Anthropic", "AnthropicServer", "accepts_prefill"]
