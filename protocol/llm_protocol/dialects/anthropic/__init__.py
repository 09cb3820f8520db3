"""Anthropic's Messages API, in both directions."""

from llm_protocol.dialects.anthropic.client import BASE_URL, Anthropic
from llm_protocol.dialects.anthropic.models import Capabilities, accepts_prefill, capabilities
from llm_protocol.dialects.anthropic.server import AnthropicServer

__all__ = ["BASE_URL", "Anthropic", "AnthropicServer", "Capabilities", "accepts_prefill", "capabilities"]
