"""Anthropic's Messages API, both sides."""

from llm_protocol.wires.anthropic.client import Anthropic
from llm_protocol.wires.anthropic.server import AnthropicServer

__all__ = ["Anthropic", "AnthropicServer"]
