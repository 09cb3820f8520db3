"""Cohere's v2 API (chat and embed), in both directions."""

from llm_protocol.dialects.cohere.client import Cohere
from llm_protocol.dialects.cohere.server import CohereServer

__all__ = ["Cohere", "CohereServer"]
