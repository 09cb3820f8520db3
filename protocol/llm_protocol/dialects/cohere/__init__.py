"""Cohere's v2 API (chat and embed), in both directions."""

from llm_protocol.dialects.cohere.client import BASE_URL, Cohere
from llm_protocol.dialects.cohere.server import CohereServer

__all__ = ["BASE_URL", "Cohere", "CohereServer"]
