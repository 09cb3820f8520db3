"""Cohere's v2 API (chat and embed), in both directions."""

from llm_protocol.wires.cohere.client import Cohere
from llm_protocol.wires.cohere.server import CohereServer

__all__ = ["Cohere", "CohereServer"]
