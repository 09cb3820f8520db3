"""Anthropic's Messages API, in both directions."""

from llm_protocol.wires.anthropic.client import Anthropic
from llm_protocol.wires.anthropic.server import AnthropicServer

__all__ = ["Anthropic", "AnthropicServer"]
